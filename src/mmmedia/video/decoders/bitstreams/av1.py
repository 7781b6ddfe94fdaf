"""The structure of an AV1 stream (the bitstream specification, 5.3 to 5.9)."""

from collections.abc import Iterator

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    HIDDEN,
    PARAMETERS_CHANGE,
    UNSUPPORTED,
    CannotSeekError,
    Structure,
    ranks_in_decode_order,
)
from mmmedia.video.decoders.packets.index import PacketIndex

SEQUENCE_HEADER, _TEMPORAL_DELIMITER, _FRAME_HEADER, _FRAME = 1, 2, 3, 6


def read_av1(index: PacketIndex) -> Structure:
    """Return the structure of an AV1 stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    access = np.zeros(len(index), np.bool_)
    sequences: set[bytes] = set()
    for position in range(len(index)):
        start = int(index.offset[position])
        end = start + int(index.size[position])
        shown, is_key, has_sequence = 0, False, False
        for kind, at, stop in obus(index.data, start, end):
            if kind == SEQUENCE_HEADER:
                sequences.add(index.data[at:stop])
                has_sequence = True
            elif kind in (_FRAME, _FRAME_HEADER):
                visible, key = _read_frame(index.data[at : at + 1])
                shown += visible
                is_key = is_key or (key and visible)
        if shown != 1:
            raise CannotSeekError(HIDDEN)
        access[position] = is_key and has_sequence and bool(index.key[position])
    if len(sequences) != 1:
        raise CannotSeekError(PARAMETERS_CHANGE)
    if BitReader(next(iter(sequences))).u(5) & 1:  # reduced still picture header
        raise CannotSeekError(UNSUPPORTED)
    return Structure(access, np.zeros(len(index), np.bool_), ranks_in_decode_order(index))


def obus(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield what the open bitstream units of a temporal unit are, and where their payloads stand (5.3)."""
    while at < end:
        header = data[at]
        if header & 0x81:
            raise CannotSeekError(DAMAGED)
        at += 1
        if header & 4:
            if data[at] & 0x18:
                raise CannotSeekError(UNSUPPORTED)  # spatial layers
            at += 1
        size = end - at
        if header & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte = data[at]
                at += 1
                size |= (byte & 0x7F) << shift
                if not byte & 0x80:
                    break
        if at + size > end:
            raise CannotSeekError(DAMAGED)
        yield header >> 3 & 15, at, at + size
        at += size


def read_colours(sequence: bytes) -> tuple[int, int, int] | None:
    """Return the primaries, transfer and matrix that a sequence header tells, if it does (5.5.1, 5.5.2).

    Raises:
        HeaderEndError: it ends too early.
    """
    reader = BitReader(sequence)
    profile, _, reduced = reader.u(3), reader.u(1), reader.u(1)
    if reduced:
        reader.u(5)
    else:
        _pass_operating_points(reader)
    bits = reader.u(4) + 1, reader.u(4) + 1
    reader.u(sum(bits))
    if not reduced and reader.u(1):
        reader.u(7)  # numbers of frames
    reader.u(3)
    if not reduced:
        reader.u(4)
        ordered = reader.u(1)
        reader.u(2 * ordered)
        chosen = reader.u(1)
        if (chosen or reader.u(1)) and not reader.u(1):
            reader.u(1)
        reader.u(3 * ordered)
    reader.u(3)
    if reader.u(1) and profile == 2:
        reader.u(1)
    if profile != 1:
        reader.u(1)
    return (reader.u(8), reader.u(8), reader.u(8)) if reader.u(1) else None


def _pass_operating_points(reader: BitReader) -> None:
    delay_bits = 0
    if reader.u(1):  # timing
        reader.u(64)
        if reader.u(1):
            reader.ue()
        if reader.u(1):  # a decoder's model
            delay_bits = reader.u(5) + 1
            reader.u(42)
    delayed = reader.u(1)
    for _ in range(reader.u(5) + 1):
        reader.u(12)
        if reader.u(5) > 7:
            reader.u(1)
        if delay_bits and reader.u(1):
            reader.u(2 * delay_bits + 1)
        if delayed and reader.u(1):
            reader.u(4)


def _read_frame(head: bytes) -> tuple[bool, bool]:
    """Whether a frame is shown, and whether it is a key frame (5.9.2)."""
    reader = BitReader(head)
    if reader.u(1):
        return True, False
    kind = reader.u(2)
    return reader.u(1) == 1, kind == 0
