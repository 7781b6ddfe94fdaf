"""Whether a stream may hold interlaced pictures, which OpenCV 4.14 does not convert, and does not say so."""

import re
from typing import TYPE_CHECKING

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import HeaderEndError
from mmmedia.video.decoders.bitstreams.h264_sets import SPS, read_avcc, read_sequence
from mmmedia.video.decoders.bitstreams.nal_units import walk_units
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmmedia.video.decoders.packets.index import PacketIndex

# Codecs that know no fields.
_PROGRESSIVE = frozenset(
    ["vp8", "vp9", "libdav1d", "av1", "theora", "gif", "png", "apng", "webp", "flv1", "h263", "msmpeg4v3"]
)
_START = re.compile(rb"\x00\x00\x01")
# An MPEG-2 picture coding extension: behind its start code, its number (8) in the upper half of a byte.
_PICTURE_EXTENSION = re.compile(rb"\x00\x00\x01\xb5[\x80-\x8f]")
_LONGEST_SEQUENCE = 512


def may_hold_fields(index: "PacketIndex") -> bool:
    """Return whether a picture of the stream may be interlaced, for all that its headers say."""
    if index.codec in _PROGRESSIVE or not len(index):
        return False
    if index.codec == "h264":
        return not _is_progressive_h264(index)
    if index.codec == "mpeg2video":
        return any(not is_progressive_mpeg2(index.payload(position)) for position in range(len(index)))
    return index.codec not in {"hevc", "mpeg1video"} or not _is_progressive_hevc(index)


def is_progressive_mpeg2(payload: bytes) -> bool:
    """Return whether all pictures of an MPEG-2 packet are frames (ISO/IEC 13818-2, 6.2.3.1)."""
    found = [match.end() for match in _PICTURE_EXTENSION.finditer(payload)]
    # f_codes, precision, structure and six flags; progressive_frame is the first bit of the fifth byte.
    return bool(found) and all(at + 4 <= len(payload) and payload[at + 3] & 0x80 for at in found)


def _is_progressive_h264(index: "PacketIndex") -> bool:
    try:
        sequences = [read_sequence(unit) for unit in _sequences(index)]
    except (CannotSeekError, HeaderEndError, IndexError):
        return False
    return bool(sequences) and not any(sequence.says_fields for sequence in sequences)


def _sequences(index: "PacketIndex") -> "Iterator[bytes]":
    """The sequence parameter sets of the container and within the stream."""
    if index.extradata[:1] == b"\x01":
        length_size, sets = read_avcc(index.extradata)
        yield from (each for each in sets if each[0] & 31 == SPS)
        data = np.frombuffer(index.data, np.uint8)
        units = walk_units(index, data, length_size)
        own = units.of(data[units.start] & 31 == SPS)
        texts = {
            index.data[start : start + min(length, _LONGEST_SEQUENCE)]
            for start, length in zip(own.start.tolist(), own.length.tolist(), strict=True)
        }
        yield from texts
        return
    texts = set()
    for stretch in (index.extradata, *map(index.payload, range(len(index)))):
        for match in _START.finditer(stretch):
            if stretch[match.end() : match.end() + 1] and stretch[match.end()] & 31 == SPS:
                texts.add(stretch[match.end() : match.end() + _LONGEST_SEQUENCE].partition(b"\0\0\1")[0])
    yield from texts


def _is_progressive_hevc(index: "PacketIndex") -> bool:
    """Whether no sequence parameter set calls its source interlaced (ITU-T H.265, 7.3.3)."""
    if index.codec != "hevc":
        return True
    found = re.findall(rb"\x42\x01.(.{1})(.{4})(.)", index.extradata, re.DOTALL)
    return all(not flags[0] & 0x40 for _, _, flags in found)
