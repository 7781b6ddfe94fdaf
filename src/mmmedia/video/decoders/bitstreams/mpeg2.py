"""The structure of an MPEG-1 or MPEG-2 video stream (ISO/IEC 13818-2, 6.2)."""

import re

import numpy as np

from mmmedia.video.decoders.bitstreams.fields import is_progressive_mpeg2
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    INTERLACED,
    PARAMETERS_CHANGE,
    UNSUPPORTED,
    CannotSeekError,
    Structure,
    ranks_of_b_frames,
)
from mmmedia.video.decoders.packets.index import PacketIndex

_PICTURE = b"\x00\x00\x01\x00"
_SEQUENCE = re.compile(rb"\x00\x00\x01\xb3.*?(?=\x00\x00\x01[\x00\xb2\xb8])", re.DOTALL)
# Matrices that stay in force, and layers.
_UNUSUAL = re.compile(rb"\x00\x00\x01\xb5[\x30-\x3f\x50-\x5f\x90-\xaf]")
_I, _P, _B = 1, 2, 3


def read_mpeg2(index: PacketIndex) -> Structure:
    """Return the structure of an MPEG-1 or MPEG-2 stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    kinds = np.empty(len(index), np.int64)
    has_sequence = np.zeros(len(index), np.bool_)
    sequences: set[bytes] = set()
    for position in range(len(index)):
        packet = index.payload(position)
        at = packet.find(_PICTURE)
        if at < 0 or at + 6 > len(packet):
            raise CannotSeekError(DAMAGED)
        if packet.find(_PICTURE, at + 4) >= 0:
            raise CannotSeekError(INTERLACED)  # two fields
        kinds[position] = packet[at + 5] >> 3 & 7
        if index.codec == "mpeg2video" and not is_progressive_mpeg2(packet):
            raise CannotSeekError(INTERLACED)
        if _UNUSUAL.search(packet):
            raise CannotSeekError(UNSUPPORTED)
        found = _SEQUENCE.search(packet, 0, at + 4)
        if found:
            sequences.add(found.group())
            has_sequence[position] = True
    if not np.isin(kinds, (_I, _P, _B)).all():
        raise CannotSeekError(UNSUPPORTED)
    if len(sequences) > 1:
        raise CannotSeekError(PARAMETERS_CHANGE)
    access = (kinds == _I) & index.key & has_sequence
    return Structure(access, kinds == _B, ranks_of_b_frames(index, kinds == _B))
