"""MPEG transport streams: how they are recognised, and what their program maps say of each stream."""

import zlib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from mmmedia.containers.mp4_boxes import Buffer
from mmmedia.errors import InvalidMediaError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Packets (ISO/IEC 13818-1, 2.4.3).
_SYNC, PACKET = 0x47, 188
_STRETCH = 1 << 20
_PACKET_SIZES = (188, 192, 204)
_MOST_PACKETS = 64
_PROGRAM_MAP = 2
_FIRST_LOOK = 4_900_000
"""Bytes in which FFmpeg looks for program maps before it looks at streams; it takes 5 000 000."""
_FEW_MAPS = 1000
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MOST_TABLES = 200_000


def is_transport_stream(head: bytes) -> bool:
    """Say whether sync bytes stand at a packet's distance.

    The first packet may be cut, as in a capture from the air.
    """
    for packet in _PACKET_SIZES:
        for offset in range(packet):
            at = range(offset, min(len(head), offset + 8 * packet), packet)
            if len(at) >= (2 if offset in (0, 4) else 8) and all(head[position] == _SYNC for position in at):
                return True
    return False


def stream_types(data: Buffer) -> dict[int, set[int]]:
    """Return what the program maps of a transport stream say that each elementary stream is: types by PID.

    Raises:
        InvalidMediaError: (a `ValueError`) more maps than packets that could hold them.
    """
    types: dict[int, set[int]] = {}
    seen: set[bytes] = set()
    cut = 0
    for number, (at, begin) in enumerate(_program_maps(data)):
        length = 3 + ((data[begin + 1] & 0x0F) << 8 | data[begin + 2])
        cut += begin + length > at + PACKET
        if number > max(_FEW_MAPS, len(data) // PACKET) or cut > _MOST_TABLES:
            raise InvalidMediaError("The transport stream has more program maps than it can; refused.")
        for section in _sections(data, at, begin, length):
            if section not in seen:
                seen.add(section)
                for pid, kind in _streams(section):
                    types.setdefault(pid, set()).add(kind)
    return types


def begin_untold(data: Buffer, pids: Collection[int]) -> set[int]:
    """Return those streams that may begin before FFmpeg knows what they are, which it guesses meanwhile.

    It knows that of a map which it surely reads: in packets that follow each other from the start on, whole
    by its checksum, and named by a table of programs before it.

    Args:
        data: a transport stream.
        pids: of the streams.
    """
    if len(data) <= _FIRST_LOOK:
        return set()
    left = _untold(memoryview(data)[:_FIRST_LOOK], pids)
    return left and _untold(data, left)


def _untold(data: Buffer, pids: Collection[int]) -> set[int]:
    import numpy as np

    whole = np.frombuffer(data, np.uint8)
    starts, size = _in_step(whole)
    is_whole = len(starts) and starts[-1] + 2 * size > len(whole)
    soon = _FIRST_LOOK // size
    starts = starts if is_whole else starts[:soon]
    begins = (whole[starts + 1] & 0x40 != 0) & (whole[starts + 3] & 0x10 != 0)
    at = starts[begins]
    pid = (whole[at + 1].astype(np.int64) & 0x1F) << 8 | whole[at + 2]
    first = {each: int(at[pid == each].min(initial=len(whole))) for each in pids}
    left, maps, seen = set(pids), set[int](), set[bytes]()
    for place, number in zip(at.tolist(), pid.tolist(), strict=True):
        if number and number not in maps:
            continue
        section = _table(data, place, size)
        if section in seen or len(section) < 12 or not section[5] & 1:  # which is not in force yet
            continue
        seen.add(section)
        if len(seen) > _FEW_MAPS:
            break
        if not _is_intact(section):
            continue
        if number == 0 and section[0] == 0:
            entries = (section[entry : entry + 4] for entry in range(8, len(section) - 7, 4))
            maps |= {(entry[2] & 0x1F) << 8 | entry[3] for entry in entries if any(entry[:2])}
        elif number and section[0] == _PROGRAM_MAP:
            told = {each for each, _ in _streams(section[:-4])}
            left -= {each for each in told & left if place < max(soon * size, first[each])}
    return left


def _in_step(whole: "npt.NDArray[np.uint8]") -> "tuple[npt.NDArray[np.int64], int]":
    """Return where packets begin, for as long as each follows the one before, and their size."""
    import numpy as np

    best = np.empty(0, np.int64), PACKET
    for size in _PACKET_SIZES:
        for first in np.flatnonzero(whole[:size] == _SYNC).tolist():
            starts = np.arange(first, len(whole) - PACKET + 1, size)
            lost = np.flatnonzero(whole[starts] != _SYNC)
            starts = starts[: lost[0]] if len(lost) else starts
            if len(starts) * size > len(best[0]) * best[1]:
                best = starts, size
            if not len(lost):  # to the end; those from a later place on are no more
                break
    return best


def _table(data: Buffer, at: int, size: int) -> bytes:
    """Return the table that begins in a packet, as it goes on in packets of this size."""
    begin, end = _payload(data, at)
    begin += 1 + data[begin] if begin < end else 0
    if begin + 3 > end:
        return b""
    return _gathered(data, at, begin, 3 + ((data[begin + 1] & 0x0F) << 8 | data[begin + 2]), size)


def _is_intact(section: bytes) -> bool:
    r"""Return whether the last four bytes of a table are its checksum (ISO/IEC 13818-1, annex A).

    It is that of zlib with the bits of each byte the other way round.

    >>> table = bytes.fromhex("00b00d0001c100000001f0002ab104b2")
    >>> _is_intact(table), _is_intact(b"\1" + table[1:])
    (True, False)
    """
    return zlib.crc32(section.translate(_MIRRORED)) == 0xFFFFFFFF


def _program_maps(data: Buffer) -> Iterator[tuple[int, int]]:
    """Yield the packets in which a program map begins, and where in the file it does.

    Every byte that may begin a packet is looked at: where sync is lost nobody knows which FFmpeg will find.
    """
    import numpy as np

    whole = np.frombuffer(data, np.uint8)
    looked = 0
    for start in range(0, len(whole) - PACKET + 1, _STRETCH):
        stretch = whole[start : min(start + _STRETCH, len(whole) - PACKET + 1)]
        at = start + np.flatnonzero(stretch == _SYNC)
        at = at[(whole[at + 1] & 0x40 != 0) & (whole[at + 3] & 0x10 != 0)]  # begins something, has a payload
        begin = at + 4 + np.where(whole[at + 3] & 0x20, 1 + whole[at + 4].astype(np.int64), 0)
        at, begin = _within(at, begin)
        at, begin = _within(at, begin + 1 + whole[begin])
        while len(at):
            looked += len(at)
            if looked > max(_MOST_TABLES, len(whole) // 32):
                raise InvalidMediaError("The transport stream has more tables than it can; refused.")
            maps = whole[begin] == _PROGRAM_MAP
            yield from zip(at[maps].tolist(), begin[maps].tolist(), strict=True)
            length = (whole[begin + 1].astype(np.int64) & 0x0F) << 8 | whole[begin + 2]
            at, begin = _within(at, begin + 3 + length)


def _within(at: "npt.NDArray[np.int64]", begin: "npt.NDArray[np.int64]") -> tuple[Any, Any]:
    """Return those of the packets in which there is room for a table at that place."""
    fits = begin + 3 <= at + PACKET
    return at[fits], begin[fits]


def _payload(data: Buffer, at: int) -> tuple[int, int]:
    """Return where the payload of the packet at an offset begins and ends."""
    begin = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
    return begin, at + PACKET


def _sections(data: Buffer, at: int, begin: int, length: int) -> Iterator[bytes]:
    """Yield a table that begins in the packet at an offset, as it goes on in packets of each size."""
    if begin + length <= at + PACKET:
        yield bytes(data[begin : begin + length])
        return
    for size in _PACKET_SIZES:
        yield _gathered(data, at, begin, length, size)


def _gathered(data: Buffer, at: int, begin: int, length: int, size: int) -> bytes:
    section = bytes(data[begin : at + PACKET])
    last = min(len(data) - PACKET + 1, at + _MOST_PACKETS * size)
    for following in range(at + size, last, size):
        if len(section) >= length or data[following] != _SYNC:
            break
        if (data[following + 1] & 0x1F, data[following + 2]) == (data[at + 1] & 0x1F, data[at + 2]):
            first, end = _payload(data, following)
            section += bytes(data[first:end])
    return section[:length]


def _streams(section: bytes) -> Iterator[tuple[int, int]]:
    """Yield the PID and type of each stream in a program map, as far as it goes."""
    if len(section) < 12:
        return
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section):
        yield (section[at + 1] & 0x1F) << 8 | section[at + 2], section[at]
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
