"""The structure of streams each of whose pictures is coded by itself."""

import numpy as np

from mmmedia.video.decoders.bitstreams.structure import (
    INTERLACED,
    CannotSeekError,
    Structure,
    ranks_in_decode_order,
)
from mmmedia.video.decoders.packets.index import PacketIndex

# Whatever the packet's flags say. Of FFV1 they tell, as it may carry its statistics on.
INTRA = frozenset(["mjpeg", "prores", "huffyuv", "ffvhuff", "dnxhd", "rawvideo", "png", "utvideo", "v210"])


def read_intra(index: PacketIndex) -> Structure:
    """Return the structure of a stream whose pictures need no others, or none before the last key frame.

    Raises:
        CannotSeekError: pictures are interlaced.
    """
    is_interlaced = {"prores": is_interlaced_prores, "mjpeg": _is_interlaced_mjpeg}.get(index.codec)
    if is_interlaced and any(is_interlaced(index, position) for position in range(len(index))):
        raise CannotSeekError(INTERLACED)
    alone = index.codec in INTRA
    access = np.ones(len(index), np.bool_) if alone else index.key
    return Structure(access, np.full(len(index), alone), ranks_in_decode_order(index))


def is_interlaced_prores(index: PacketIndex, position: int) -> bool:
    """Return whether a packet is of fields, by the flags of the frame's header (SMPTE RDD 36, 5.1.1)."""
    at = int(index.offset[position])
    return index.data[at + 4 : at + 8] != b"icpf" or index.data[at + 20] >> 2 & 3 != 0


def _is_interlaced_mjpeg(index: PacketIndex, position: int) -> bool:
    """By what capture cards write into a segment of their own."""
    at = int(index.offset[position])
    found = index.data.find(b"AVI1", at, at + 64)
    return found >= 0 and index.data[found + 4] != 0
