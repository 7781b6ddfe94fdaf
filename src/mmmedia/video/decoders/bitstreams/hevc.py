"""The structure of an HEVC stream (ITU-T H.265, 7.3, 8.3.1)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader, BitTable, Ints, unescape
from mmmedia.video.decoders.bitstreams.hevc_sets import Kept, lack_references, read_kept, read_sequence
from mmmedia.video.decoders.bitstreams.nal_units import (
    first_of_each_packet,
    order_counts,
    parameter_set,
    ranks_by_order,
    read_headers,
    same_parameter_sets,
    walk_units,
)
from mmmedia.video.decoders.bitstreams.structure import UNSUPPORTED, CannotSeekError, Structure

if TYPE_CHECKING:
    from mmmedia.video.decoders.packets.index import PacketIndex

_PARAMETERS = (32, 33, 34)
_BROKEN, _CLEAN = 16, 21  # kinds of pictures with which decoding may begin
_UNITS = frozenset([*range(10), 19, 20, 21, *_PARAMETERS, 35, 38, 39, 40])


def read_hevc(index: "PacketIndex") -> Structure:
    """Return the structure of an HEVC stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    length_size, parameter_sets = read_hvcc(index.extradata)
    sequences = [s for s in parameter_sets if s[0] >> 1 == 33]
    pictures = dict(_read_picture(p) for p in parameter_sets if p[0] >> 1 == 34)
    if len(sequences) != 1 or not pictures or len({p.layout for p in pictures.values()}) != 1:
        raise CannotSeekError(UNSUPPORTED)
    sequence = read_sequence(sequences[0])
    layout = next(iter(pictures.values()))

    data = np.frombuffer(index.data, np.uint8)
    units = walk_units(index, data, length_size)
    head, tail = data[units.start], data[units.start + 1]
    if (head & 0x81).any() or (tail >> 3).any() or not (tail & 7).all():
        raise CannotSeekError(UNSUPPORTED)
    if not np.isin(head >> 1, list(_UNITS)).all():
        raise CannotSeekError(UNSUPPORTED)
    same_parameter_sets(data, units.of(np.isin(head >> 1, _PARAMETERS)), set(parameter_sets))

    slices = units.of(head >> 1 < 32)
    kind: Ints = (data[slices.start] >> 1).astype(np.int64)
    level: Ints = (data[slices.start + 1] & 7).astype(np.int64)
    first = first_of_each_packet(slices, len(index))
    leading = np.zeros(len(kind), np.bool_)
    leading[first] = True
    own_first = first[np.searchsorted(slices.packet[first], slices.packet)]
    is_idr = (kind == 19) | (kind == 20)

    def read(table: BitTable) -> tuple[Ints, Kept | None]:
        random_access = kind >= 16
        table.require(table.flag() == leading)
        table.require((kind == kind[own_first]) & (level == level[own_first]))
        table.require(~table.flag(random_access))  # to drop what has not been shown yet
        table.require(np.isin(table.ue(), list(pictures)))
        if layout.extra_bits:
            table.u(layout.extra_bits, leading)
        slice_kind = table.ue(leading)
        table.require(slice_kind <= 2)
        table.require(slice_kind == 2, leading & random_access)
        if layout.output_flag:
            table.require(table.flag(leading), leading)
        if sequence.separate:
            table.u(2, leading)
        order = table.u(order_bits, leading & ~is_idr)
        return order, None if sequence.sets is None else read_kept(table, leading & ~is_idr, sequence.sets)

    order_bits = sequence.order_bits
    order, kept = read_headers(data, slices.start + 2, slices.length - 2, read)
    order, kind, level, reset = order[first], kind[first], level[first], is_idr[first]
    reset[0] = True
    # Not anchored on: sub-layer non-reference pictures, leading pictures, higher sub-layers.
    unreferenced = (kind < 16) & (kind % 2 == 0)
    anchor = (level == 1) & ~unreferenced & ~((kind >= 6) & (kind <= 9))
    counts = order_counts(order, order_bits, anchor, reset)
    ranks = ranks_by_order(index, counts, reset)
    lacking = None
    if kept is not None:
        # Before the first picture with which decoding may begin, and leading from it, they may lack any.
        may_lack = (kind == 8) | (kind == 9) | (np.maximum.accumulate(kind) < 16)
        lacking = lack_references(counts, reset, kept.of(first), may_lack)
    # What its own sub-layer does not refer to, a higher one still may.
    return Structure(
        (kind >= 16) & index.key,
        unreferenced & (level == level.max()),
        ranks,
        undecodable=(kind == 8) | (kind == 9),
        counts=(counts, 1 << order_bits) if (kind == _CLEAN).any() else None,
        lacking=lacking,
    )


def as_splice(payload: bytes, length_size: int) -> bytes:
    """Return a packet of a clean random access picture as that of a broken link, behind which it may stand.

    A decoder that meets the former in the midst of a stream takes its order count for one that goes on.
    """
    made, at = bytearray(payload), 0
    while at + length_size < len(made):
        if made[at + length_size] >> 1 == _CLEAN:
            made[at + length_size] = made[at + length_size] & 0x81 | _BROKEN << 1
        at += length_size + int.from_bytes(made[at : at + length_size], "big")
    return bytes(made)


def read_hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Return the length of a length prefix, and the parameter sets, of an HEVCDecoderConfigurationRecord."""
    if len(extradata) < 23 or extradata[0] != 1:
        raise CannotSeekError(UNSUPPORTED)
    sets: list[bytes] = []
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            payload, at = parameter_set(extradata, at)
            sets.append(payload)
    return (extradata[21] & 3) + 1, sets


@dataclass(frozen=True)
class _Picture:
    output_flag: int
    extra_bits: int

    @property
    def layout(self) -> tuple[int, int]:
        return self.output_flag, self.extra_bits


def _read_picture(payload: bytes) -> tuple[int, _Picture]:
    reader = BitReader(unescape(payload[2:]))
    number = reader.ue()
    reader.ue()
    reader.u(1)
    return number, _Picture(reader.u(1), reader.u(3))
