"""Which files a decoder may be shown: those that are a container, and claim no more than they can hold.

FFmpeg takes memory for what tables and texts claim, and ends the process over some of what they say.
"""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mmmedia.containers.mp4_boxes import Buffer, boxes
from mmmedia.containers.signatures import by_magic, identify
from mmmedia.containers.transport_stream import PACKET, begin_untold, stream_types
from mmmedia.errors import InvalidMediaError

B = TypeVar("B", bound=Buffer)

# Boxes of an MP4 that hold tables of samples, and where in such a table the number of its entries stands.
_HOLDERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"})
_COUNT_AT = {
    b"stsz": 8,
    b"stz2": 8,
    b"trun": 4,
    **dict.fromkeys((b"stts", b"ctts", b"stsc", b"stco", b"stss"), 4),
}
_FEW_ENTRIES = 1 << 22
_MOST_BOXES = 200_000
# Fewer packets FFmpeg's probe for transport streams does not trust.
_FEW_PACKETS = 12
_NULL_PACKET = b"\x47\x1f\xff\x10".ljust(PACKET, b"\xff")
# The stream types that are H.264 to FFmpeg.
_H264_TYPES = frozenset({0x1B, 0x20, 0xDB})


@dataclass(frozen=True)
class Admitted(Generic[B]):
    """A file that decoders may be shown; where one is asked for, nothing is judged again.

    Attributes:
        data: the file.
        name: FFmpeg's name of its container, as `identify` returns it.
    """

    data: B = field(repr=False)
    name: str


def admit(data: B | Admitted[B]) -> Admitted[B]:
    r"""Return a file and its container's name, once FFmpeg may open the bytes.

    Args:
        data: an encoded file; one that has been admitted is returned as it is.

    Raises:
        InvalidMediaError: (a `ValueError`) as `identify`; also where a table or text claims so much that
            FFmpeg would take gigabytes for a few bytes, or says what makes it end the process.

    >>> admit(b"RIFF\x24\x00\x00\x00WAVEfmt ")
    Admitted(name='wav')
    """
    if isinstance(data, Admitted):
        return data
    name = identify(data)
    if name == "mov":
        entries = _claimed_entries(data)
        if entries > max(len(data), _FEW_ENTRIES):
            raise InvalidMediaError(f"The file claims {entries} samples in {len(data)} bytes; refused.")
    elif name in ("avi", "wav"):
        size = _claimed_texts(data)
        if size > max(len(data), _FEW_ENTRIES):
            raise InvalidMediaError(f"The file claims {size} bytes of texts in {len(data)}; refused.")
    elif by_magic(data) is None:
        # FFmpeg asserts that nobody has opened another decoder for a stream by the time that it is H.264.
        types = stream_types(data)
        are_h264 = {pid for pid, kinds in types.items() if not _H264_TYPES.isdisjoint(kinds)}
        changed = {pid for pid in are_h264 if not _H264_TYPES.issuperset(types[pid])}
        for pid in sorted(changed or begin_untold(data, are_h264)):
            raise InvalidMediaError(f"Stream {pid} becomes H.264, or was before, in mid-file; refused.")
    return Admitted(data, name)


def recognisable(admitted: Admitted[Any]) -> Buffer:
    """Return a file's bytes so that FFmpeg recognises it: a short transport stream with more null packets.

    Of fewer than about a dozen packets it believes nothing.
    """
    data: Buffer = admitted.data
    if (
        admitted.name != "mpegts"
        or len(data) >= _FEW_PACKETS * PACKET
        or data[PACKET : PACKET + 1] != data[:1]
    ):
        return data
    # Behind a last packet that is cut, they begin where the next one would have.
    return bytes(data) + b"\xff" * (-len(data) % PACKET) + _NULL_PACKET * _FEW_PACKETS


def _claimed_entries(data: Buffer) -> int:
    """Return how many entries all tables of samples in an MP4 claim, as far as its boxes can be followed."""
    total = 0
    inside = [boxes(data, 0, len(data))]
    for _ in range(_MOST_BOXES):
        while inside and (found := next(inside[-1], None)) is None:
            inside.pop()
        if not inside or found is None:
            break
        name, (begin, end) = found
        if name in _HOLDERS:
            inside.append(boxes(data, begin, min(end, len(data))))
        elif name in _COUNT_AT:
            begin += _COUNT_AT[name]
            total += int.from_bytes(data[begin : begin + 4], "big")
    return total


def _claimed_texts(data: Buffer) -> int:
    """Return how many bytes the largest list of texts (title, author) in a RIFF file claims."""
    largest, at = 0, 12
    for _ in range(_MOST_BOXES):
        if at + 12 > len(data):
            break
        size, kind = int.from_bytes(data[at + 4 : at + 8], "little"), bytes(data[at + 8 : at + 12])
        if bytes(data[at : at + 4]) not in (b"LIST", b"RIFF"):
            at += 8 + size + size % 2
            continue
        largest = max(largest, size) if kind == b"INFO" else largest
        at += 8 + size + size % 2 if kind == b"movi" else 12
    return largest
