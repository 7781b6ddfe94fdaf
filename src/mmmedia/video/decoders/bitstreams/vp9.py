"""The structure of a VP9 stream (the bitstream specification, 6.1, 7.2, annex B)."""

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    HIDDEN,
    CannotSeekError,
    Structure,
    ranks_in_decode_order,
)
from mmmedia.video.decoders.packets.index import PacketIndex


def read_vp9(index: PacketIndex) -> Structure:
    """Return the structure of a VP9 stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    access, shown = np.zeros(len(index), np.bool_), np.zeros(len(index), np.bool_)
    for position in range(len(index)):
        start, size = int(index.offset[position]), int(index.size[position])
        frames = superframe(index.data, start, size)
        kinds = [read_frame(index.data[at : at + min(length, 8)]) for at, length in frames]
        if [visible for visible, _ in kinds].count(True) > 1:
            raise CannotSeekError(HIDDEN)
        is_key = kinds[0][1]
        if is_key != bool(index.key[position]):
            raise CannotSeekError(DAMAGED)
        shown[position] = kinds[-1][0]
        access[position] = is_key and len(kinds) == 1 and shown[position]
    return Structure(
        access, np.zeros(len(index), np.bool_), ranks_in_decode_order(index, shown), hidden=~shown
    )


def superframe(data: bytes, start: int, size: int) -> list[tuple[int, int]]:
    """Return where the frames of a packet stand, and how long they are (annex B)."""
    marker = data[start + size - 1]
    if marker & 0xE0 == 0xC0:
        count, width = (marker & 7) + 1, (marker >> 3 & 3) + 1
        index_size = 2 + count * width
        if size >= index_size and data[start + size - index_size] == marker:
            at = start + size - index_size + 1
            frames = []
            for _ in range(count):
                length = int.from_bytes(data[at : at + width], "little")
                frames.append((start, length))
                start, at = start + length, at + width
            if any(length == 0 for _, length in frames) or start > at - index_size + 1 + count * width:
                raise CannotSeekError(DAMAGED)
            return frames
    return [(start, size)]


def read_frame(head: bytes) -> tuple[bool, bool]:
    """Return whether a frame is shown, and whether it is a key frame (6.2)."""
    reader = BitReader(head)
    if reader.u(2) != 2:
        raise CannotSeekError(DAMAGED)
    profile = reader.u(1) | reader.u(1) << 1
    if profile == 3 and reader.u(1):
        raise CannotSeekError(DAMAGED)
    if reader.u(1):
        return True, False
    is_key, shown = reader.u(1) == 0, reader.u(1) == 1
    reader.u(1)
    if is_key and reader.u(24) != 0x498342:
        raise CannotSeekError(DAMAGED)
    return shown, is_key
