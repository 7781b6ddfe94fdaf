"""NAL units of H.264 and HEVC: walked side by side over all packets, and their display order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mmmedia.video.decoders.bitstreams.bits import BitTable, Bools, Ints
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    ORDER,
    PARAMETERS_CHANGE,
    CannotSeekError,
    places,
    ranks_by_time,
)
from mmmedia.video.decoders.packets.index import PacketIndex

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

_MAX_UNITS = 600  # of one packet
_HEADER_BYTES = (32, 192)  # of a slice header: what nearly all take, and what any takes


@dataclass(frozen=True)
class Units:
    """NAL units: the packet each belongs to, where its bytes begin, and how many they are."""

    packet: Ints
    start: Ints
    length: Ints

    def of(self, which: Bools) -> "Units":
        """Return some of them."""
        return Units(self.packet[which], self.start[which], self.length[which])


# Where a configuration record says how long the lengths of units are.
_LENGTH_SIZE_AT = {"h264": 4, "hevc": 21}


def unit_heads(index: PacketIndex, position: int) -> Iterator[int | None]:
    """Yield the first byte of each NAL unit of a packet, however damaged; None for bytes that are of none."""
    payload, size_at = index.payload(position), _LENGTH_SIZE_AT[index.codec]
    if index.extradata[:1] == b"\x01" and len(index.extradata) > size_at:
        length_size, at = (index.extradata[size_at] & 3) + 1, 0
        while at + length_size < len(payload):
            yield payload[at + length_size]
            at += length_size + int.from_bytes(payload[at : at + length_size], "big")
        if at != len(payload):
            yield None
        return
    at = payload.find(b"\0\0\1")
    if at < 0 or payload[:at].strip(b"\0"):
        yield None
    while 0 <= at < len(payload) - 3:
        yield payload[at + 3]
        at = payload.find(b"\0\0\1", at + 3)


def walk_units(index: PacketIndex, data: Bytes, length_size: int) -> Units:
    """Walk the length-prefixed NAL units of all packets side by side."""
    packet = np.arange(len(index))
    at, end = index.offset.copy(), index.offset + index.size
    found: list[tuple[Ints, Ints, Ints]] = []
    while len(packet):
        if len(found) >= _MAX_UNITS or (at + length_size > end).any():
            raise CannotSeekError(DAMAGED)
        length = np.zeros(len(packet), np.int64)
        for byte in range(length_size):
            length = length << 8 | data[at + byte]
        start = at + length_size
        if (length < 2).any() or (start + length > end).any():
            raise CannotSeekError(DAMAGED)
        found.append((packet, start, length))
        at = start + length
        alive = at < end
        packet, at, end = packet[alive], at[alive], end[alive]
    packets, starts, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(starts, kind="stable")
    order = order[np.argsort(packets[order], kind="stable")]
    return Units(packets[order], starts[order], lengths[order])


def read_headers(data: Bytes, start: Ints, length: Ints, read: Callable[[BitTable], T]) -> T:
    """Read the first bytes of NAL units, behind their own header, as rows of bits; any bad row refuses."""
    for width in _HEADER_BYTES:
        table = BitTable(_first_bytes(data, start, length, width))
        fields = read(table)
        if not table.bad.any():
            return fields
        if not table.past_end.any():
            break
    raise CannotSeekError(DAMAGED)


def _first_bytes(data: Bytes, start: Ints, length: Ints, width: int) -> Bytes:
    """The first bytes of NAL units without emulation prevention, and zeros behind the end of a short one."""
    if len(data) < width:
        data = np.pad(data, (0, width - len(data)))
    begin = np.minimum(start, len(data) - width)
    rows: Bytes = sliding_window_view(data, width)[begin]
    for row in np.flatnonzero(begin < start):  # at the very end of the file
        rows[row] = np.pad(data[start[row] :], (0, width))[:width]
    rows[np.arange(width) >= length[:, None]] = 0
    escapes = (rows[:, :-2] | rows[:, 1:-1] == 0) & (rows[:, 2:] == 3)
    escaped = escapes.any(axis=1)
    kept = np.pad(~escapes[escaped], ((0, 0), (2, 0)), constant_values=True)
    moved = np.zeros_like(rows[escaped])
    moved[np.nonzero(kept)[0], (np.cumsum(kept, axis=1) - 1)[kept]] = rows[escaped][kept]
    rows[escaped] = moved
    return rows


def parameter_set(extradata: bytes, at: int) -> tuple[bytes, int]:
    """A parameter set of a configuration record, behind its length, and where the next begins."""
    stop = at + 2 + int.from_bytes(extradata[at : at + 2], "big")
    payload = extradata[at + 2 : stop]
    if len(payload) != stop - at - 2 or len(payload) < 4:
        raise CannotSeekError(DAMAGED)
    return payload.rstrip(b"\0"), stop


def same_parameter_sets(data: Bytes, units: Units, known: set[bytes]) -> None:
    """Parameter sets within the stream must be those that the container gave."""
    for start, length in zip(units.start.tolist(), units.length.tolist(), strict=True):
        if data[start : start + length].tobytes().rstrip(b"\0") not in known:
            raise CannotSeekError(PARAMETERS_CHANGE)


def first_of_each_packet(units: Units, count: int) -> npt.NDArray[np.intp]:
    """The position of each packet's first unit; every packet must have one."""
    packets, first = np.unique(units.packet, return_index=True)
    if len(packets) != count:
        raise CannotSeekError(DAMAGED)
    return first


def order_counts(lsb: Ints, bits: int, anchor: Bools, reset: Bools) -> Ints:
    """Picture order counts in full, from their least significant bits (H.264 8.2.1.1, HEVC 8.3.1).

    Each is the one nearest to that of the picture which anchors it, the last one before; pictures of the
    mask `reset` start afresh.
    """
    half, whole = 1 << (bits - 1), 1 << bits
    position = np.arange(len(lsb))
    last = np.maximum.accumulate(np.where(anchor | reset, position, 0))
    before = np.concatenate([[0], last[:-1]])
    step = (lsb - lsb[before] + half - 1) % whole - (half - 1)
    step = np.where(reset, 0, step)
    # Sum up the steps from anchor to anchor, since the last reset.
    path = np.cumsum(np.where(anchor & ~reset, step, 0))
    segment = np.maximum.accumulate(np.where(reset, position, 0))
    base = lsb[segment] + path - path[segment]
    counts: Ints = np.where(anchor | reset, base, base + step)
    return counts


def ranks_by_order(index: PacketIndex, order: Ints, reset: Bools) -> Ints:
    """Return the places of pictures by their order counts, from reset to reset.

    Raises:
        CannotSeekError: two have the same, or their times say otherwise.
    """
    ranked = np.lexsort((order, np.cumsum(reset)))
    segment, counts = np.cumsum(reset)[ranked], order[ranked]
    unique = (np.diff(segment) > 0) | (np.diff(counts) > 0)
    ranks, by_time = places(ranked), ranks_by_time(index)
    if not unique.all() or (by_time is not None and (ranks != by_time).any()):
        raise CannotSeekError(ORDER)
    return ranks
