"""The structure of an MPEG-4 part 2 stream (ISO/IEC 14496-2, 6.2)."""

import re
from collections.abc import Iterable

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import BitReader, HeaderEndError
from mmmedia.video.decoders.bitstreams.structure import (
    DAMAGED,
    HIDDEN,
    INTERLACED,
    UNSUPPORTED,
    CannotSeekError,
    Structure,
    ranks_of_b_frames,
)
from mmmedia.video.decoders.packets.index import PacketIndex

# By these FFmpeg takes on an encoder's habits, where the stream does not name it; a clip loses them.
_TELLING_TAGS = frozenset(["XVID", "XVIX", "RMP4", "ZMP4", "SIPP", "DIVX"])
_ENCODER = re.compile(rb"\x00\x00\x01\xb2(Lavc|FFmpeg|ffmpeg|XviD|DivX)")
_VOL_START, _VOP_START = re.compile(rb"\x00\x00\x01[\x20-\x2f]"), b"\x00\x00\x01\xb6"
_LONGEST_LAYER = 48


def read_mpeg4(index: PacketIndex) -> Structure:
    """Return the structure of an MPEG-4 part 2 stream.

    Raises:
        CannotSeekError: its headers don't fit.
        HeaderEndError, IndexError: one ends too early.
    """
    headers = configuration(index)
    if index.codec_tag in _TELLING_TAGS and not _ENCODER.search(headers):
        raise CannotSeekError(UNSUPPORTED)
    bits = time_bits(headers)
    if may_hold_fields(index):
        raise CannotSeekError(INTERLACED)
    kinds = np.array([read_plane(index.payload(position), bits) for position in range(len(index))], np.int64)
    intra, bi = kinds == 0, kinds == 2
    if (kinds == 3).any():
        raise CannotSeekError(UNSUPPORTED)  # sprites
    if (intra & ~bi != index.key).any():
        raise CannotSeekError(DAMAGED)
    return Structure(intra, bi, ranks_of_b_frames(index, bi))


def read_plane(packet: bytes, bits: int) -> int:
    """Return the coding type of a packet's only object plane: 0 (I), 1 (P), 2 (B) or 3 (a sprite's).

    Args:
        packet: its payload.
        bits: as of `time_bits`.

    Raises:
        CannotSeekError: it has none, two, one that is not coded, or one that does not fit.
        HeaderEndError: it ends too early.
    """
    at = packet.find(_VOP_START)
    # Two in a packet are the packed B-frames of old encoders.
    if at < 0 or packet.count(_VOP_START) != 1:
        raise CannotSeekError(HIDDEN)
    reader = BitReader(packet[at + 4 : at + 20])
    kind = reader.u(2)
    while reader.u(1):
        pass
    if not reader.u(1):
        raise CannotSeekError(DAMAGED)
    reader.u(bits)
    if not reader.u(1):
        raise CannotSeekError(DAMAGED)
    if not reader.u(1):
        raise CannotSeekError(HIDDEN)
    return kind


def configuration(index: PacketIndex) -> bytes:
    """Return the headers in front of the pictures: the container's, or else the stream's own."""
    if index.extradata or not len(index):
        return index.extradata
    first = index.payload(0)
    return first[: max(first.find(_VOP_START), 0)]


def may_hold_fields(index: PacketIndex) -> bool:
    """Return whether a video object layer, of the container or within the stream, admits fields."""
    return layers_admit_fields([index.extradata, *map(index.payload, range(len(index)))])


def layers_admit_fields(stretches: Iterable[bytes]) -> bool:
    """Return whether a video object layer in some stretches of a stream admits fields, or there is none."""
    layers: set[bytes] = set()
    for stretch in stretches:
        layers.update(
            stretch[found.end() : found.end() + _LONGEST_LAYER] for found in _VOL_START.finditer(stretch)
        )
    try:
        return not layers or any(_read_layer(layer)[1] for layer in layers)
    except (CannotSeekError, HeaderEndError):
        return True


def time_bits(extradata: bytes) -> int:
    """Return how many bits a time increment has, by the video object layer."""
    found = _VOL_START.search(extradata)
    if found is None:
        raise CannotSeekError(UNSUPPORTED)
    return _read_layer(extradata[found.end() : found.end() + _LONGEST_LAYER])[0]


def _read_layer(layer: bytes) -> tuple[int, bool]:
    """How many bits a time increment has, and whether pictures may be interlaced (6.2.3)."""
    reader = BitReader(layer)
    reader.u(9)
    if reader.u(1):
        reader.u(7)
    if reader.u(4) == 15:
        reader.u(16)
    if reader.u(1):
        reader.u(3)
        if reader.u(1):
            reader.u(79)
    if reader.u(2):
        raise CannotSeekError(UNSUPPORTED)  # shapes
    reader.u(1)
    resolution = reader.u(16)
    if not resolution:
        raise CannotSeekError(DAMAGED)
    bits = max(1, (resolution - 1).bit_length())
    reader.u(1)
    if reader.u(1):
        reader.u(bits)  # a fixed step
    reader.u(29)  # width and height
    return bits, bool(reader.u(1))
