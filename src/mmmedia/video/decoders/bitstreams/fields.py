"""Whether a stream may hold interlaced pictures, which OpenCV 4.14 does not convert, and does not say so."""

import re

import numpy as np

from mmmedia.video.decoders.bitstreams import mpeg4
from mmmedia.video.decoders.bitstreams.bits import HeaderEndError, unescape
from mmmedia.video.decoders.bitstreams.h264_sets import read_avcc, read_sequence
from mmmedia.video.decoders.bitstreams.hevc import read_hvcc
from mmmedia.video.decoders.bitstreams.intra import is_interlaced_prores
from mmmedia.video.decoders.bitstreams.nal_units import walk_units
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.packets.index import PacketIndex

# Codecs that know no fields.
_PROGRESSIVE = frozenset(
    ["vp8", "vp9", "libdav1d", "av1", "theora", "gif", "png", "apng", "webp", "flv1", "h263", "msmpeg4v3"]
)
_START = re.compile(rb"\x00\x00\x01")
# An MPEG-2 picture coding extension: behind its start code, its number (8) in the upper half of a byte.
_PICTURE_EXTENSION = re.compile(rb"\x00\x00\x01\xb5[\x80-\x8f]")
_LONGEST_SEQUENCE = 512
# Where a NAL unit's first byte says its kind: shift, mask, and that of a sequence parameter set.
_SEQUENCE_KINDS = {"h264": (0, 31, 7), "hevc": (1, 63, 33)}
_PROGRESSIVE_SOURCE, _INTERLACED_SOURCE = 0x80, 0x40


def may_hold_fields(index: PacketIndex) -> bool:
    """Return whether a picture of the stream may be interlaced, for all that its headers say."""
    if index.codec in _PROGRESSIVE or not len(index):
        return False
    if index.codec == "h264":
        return not _is_progressive_h264(index)
    if index.codec == "hevc":
        return not _is_progressive_hevc(index)
    if index.codec == "mpeg2video":
        return any(not is_progressive_mpeg2(index.payload(position)) for position in range(len(index)))
    if index.codec == "prores":
        return any(is_interlaced_prores(index, position) for position in range(len(index)))
    if index.codec == "mpeg4":
        return mpeg4.may_hold_fields(index)
    return index.codec != "mpeg1video"


def is_progressive_mpeg2(payload: bytes) -> bool:
    """Return whether all pictures of an MPEG-2 packet are frames (ISO/IEC 13818-2, 6.2.3.1)."""
    found = [match.end() for match in _PICTURE_EXTENSION.finditer(payload)]
    # f_codes, precision, structure and six flags; progressive_frame is the first bit of the fifth byte.
    return bool(found) and all(at + 4 <= len(payload) and payload[at + 3] & 0x80 for at in found)


def _is_progressive_h264(index: PacketIndex) -> bool:
    try:
        found = [read_sequence(unit) for unit in sequences(index)]
    except (CannotSeekError, HeaderEndError, IndexError):
        return False
    return bool(found) and not any(each.says_fields for each in found)


def _is_progressive_hevc(index: PacketIndex) -> bool:
    """Whether every sequence parameter set calls its source progressive (ITU-T H.265, 7.3.3)."""
    try:
        # Behind the unit's head, what numbers it, its profile, and 32 flags of compatible profiles.
        flags = [unescape(unit)[8] for unit in sequences(index)]
    except (CannotSeekError, HeaderEndError, IndexError):
        return False
    if not flags or any(each & _INTERLACED_SOURCE for each in flags):
        return False
    return all(each & _PROGRESSIVE_SOURCE for each in flags) or not _starts_interlaced(index)


def sequences(index: PacketIndex) -> set[bytes]:
    """Return the sequence parameter sets of an H.264 or HEVC stream: the container's, and those within it.

    Raises:
        CannotSeekError, IndexError: they can't be found.
    """
    shift, mask, wanted = _SEQUENCE_KINDS[index.codec]
    if index.extradata[:1] == b"\x01":
        read = read_avcc if index.codec == "h264" else read_hvcc
        length_size, sets = read(index.extradata)
        data = np.frombuffer(index.data, np.uint8)
        units = walk_units(index, data, length_size)
        own = units.of(data[units.start] >> shift & mask == wanted)
        texts = {
            index.data[start : start + min(length, _LONGEST_SEQUENCE)]
            for start, length in zip(own.start.tolist(), own.length.tolist(), strict=True)
        }
        return texts.union(each for each in sets if each[0] >> shift & mask == wanted)
    texts = set()
    for stretch in (index.extradata, *map(index.payload, range(len(index)))):
        for match in _START.finditer(stretch):
            head = stretch[match.end() : match.end() + 1]
            if head and head[0] >> shift & mask == wanted:
                texts.add(stretch[match.end() : match.end() + _LONGEST_SEQUENCE].partition(b"\0\0\1")[0])
    return texts


def _starts_interlaced(index: PacketIndex) -> bool:
    """Whether the first picture that can be decoded is a field or holds two."""
    import av

    decoder = index.decoder()
    for position in range(len(index)):
        try:
            frames = decoder.decode(index.packet(position))
        except av.FFmpegError:
            continue
        if frames:
            return bool(frames[0].interlaced_frame)
    return any(frame.interlaced_frame for frame in decoder.decode(None))
