"""How many pictures each packet shows, by its first bytes: packets of some codecs show none, or two."""

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader, HeaderEndError, Ints
from mmmedia.video.decoders.bitstreams.mpeg4 import configuration, time_bits
from mmmedia.video.decoders.bitstreams.nal_units import unit_heads
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.bitstreams.vp9 import read_frame, superframe
from mmmedia.video.decoders.packets.index import PacketIndex

_VOP_START = b"\x00\x00\x01\xb6"


def pictures_shown(index: PacketIndex) -> Ints:
    """Return how many pictures each packet of a stream shows."""
    if index.codec in _SLICE_KINDS:
        return _with_slices(index)
    if index.codec not in _COUNTS:
        return np.ones(len(index), np.int64)
    count = _COUNTS[index.codec]
    return np.array([count(index, position) for position in range(len(index))], np.int64)


def shown_of_vp8(data: bytes, start: int) -> int:
    """Return how many pictures a packet shows: one, unless its tag says that it is only referred to.

    RFC 6386, 9.1.
    """
    return data[start] >> 4 & 1


def shown_of_vp9(data: bytes, start: int, size: int) -> int:
    """Return how many pictures a packet shows (the bitstream specification, annex B).

    Raises:
        CannotSeekError, HeaderEndError, IndexError: it is damaged.
    """
    frames = superframe(data, start, size)
    return sum(read_frame(data[at : at + min(length, 8)])[0] for at, length in frames)


# What of a NAL unit's first byte tells its kind, and which are slices (ITU-T H.264 and H.265, table 7-1).
_SLICE_KINDS = {"h264": (0, 31, range(1, 6)), "hevc": (1, 63, range(32))}
_LONGEST_WITHOUT = 256


def _with_slices(index: PacketIndex) -> Ints:
    """One of each packet, but none of those that only end a sequence, or only describe what follows."""
    counts = np.ones(len(index), np.int64)
    for position in np.flatnonzero(index.size <= _LONGEST_WITHOUT).tolist():
        counts[position] = _may_have_slice(index, position)
    return counts


def _may_have_slice(index: PacketIndex, position: int) -> bool:
    """Whether there is a slice, or what can't be told from one."""
    shift, mask, slices = _SLICE_KINDS[index.codec]
    return any(head is None or head >> shift & mask in slices for head in unit_heads(index, position))


def _vp8(index: PacketIndex, position: int) -> int:
    return shown_of_vp8(index.data, int(index.offset[position]))


def _vp9(index: PacketIndex, position: int) -> int:
    try:
        return shown_of_vp9(index.data, int(index.offset[position]), int(index.size[position]))
    except (CannotSeekError, HeaderEndError, IndexError):
        return 1  # damaged: what the decoder makes of it is seen then


def _mpeg4(index: PacketIndex, position: int) -> int:
    """The object planes that are coded (ISO/IEC 14496-2, 6.2.5): old encoders pack two into one."""
    payload = index.payload(position)
    coded, at = 0, payload.find(_VOP_START)
    if at < 0:
        return 1
    bits = _time_bits(index)
    if bits is None:  # the stream begins behind what tells
        return payload.count(_VOP_START)
    while at >= 0:
        coded += _is_coded(payload[at + 4 : at + 24], bits)
        at = payload.find(_VOP_START, at + 4)
    return coded


def _is_coded(head: bytes, bits: int) -> bool:
    reader = BitReader(head)
    try:
        reader.u(2)
        while reader.u(1):
            pass
        reader.u(1 + bits + 1)
        return reader.u(1) == 1
    except HeaderEndError:
        return True


def _time_bits(index: PacketIndex) -> int | None:
    try:
        return time_bits(configuration(index))
    except (CannotSeekError, HeaderEndError):
        return None


_COUNTS = {"vp8": _vp8, "libvpx": _vp8, "vp9": _vp9, "libvpx-vp9": _vp9, "mpeg4": _mpeg4}
