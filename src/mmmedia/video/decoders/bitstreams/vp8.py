"""The structure of a VP8 stream (RFC 6386, 9.1)."""

import numpy as np

from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    CannotSeekError,
    Structure,
    ranks_in_decode_order,
)
from mmmedia.video.decoders.packets.index import PacketIndex

_START = b"\x9d\x01\x2a"


def read_vp8(index: PacketIndex) -> Structure:
    """Return the structure of a VP8 stream; which frames others need is not told in the clear.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    tags = np.frombuffer(index.data, np.uint8)[index.offset]
    keys = tags & 1 == 0
    for position in np.flatnonzero(keys):
        at = int(index.offset[position])
        if index.data[at + 3 : at + 6] != _START:
            raise CannotSeekError(DAMAGED)
    shown = tags & 16 != 0
    access = keys & shown & index.key
    return Structure(
        access, np.zeros(len(index), np.bool_), ranks_in_decode_order(index, shown), hidden=~shown
    )
