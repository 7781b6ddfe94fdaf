"""Whether OpenCV can convert all pictures of a stream, for what its own headers tell of colours.

A decoder goes by these, whatever the container says, and takes on others midway, as where recordings are
joined. Of a header that can't be read nothing is known; a decoder passes over it as well.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain

from mmmedia.video.decoders.bitstreams import av1, h264_sets, hevc_sets
from mmmedia.video.decoders.bitstreams.bits import BitReader, HeaderEndError
from mmmedia.video.decoders.bitstreams.fields import sequences
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.colours import ends_the_process, is_converted
from mmmedia.video.decoders.packets.index import PacketIndex

# Primaries, transfer and matrix, by the numbers of ITU-T H.273, which are FFmpeg's as well.
Colours = tuple[int, int, int]

AV1_HEAD = 4
"""Bytes of an AV1 configuration in front of what it repeats of the stream."""

# MPEG-2's sequence display extension (ISO/IEC 13818-2, 6.2.2.4), MPEG-4's visual object (14496-2, 6.2.2).
_DISPLAY = re.compile(rb"\x00\x00\x01\xb5[\x20-\x2f]")
_VISUAL_OBJECT = b"\x00\x00\x01\xb5"


# Codecs that tell colours in headers which are not read here.
_UNREAD = frozenset(["apv"])


def are_converted(index: PacketIndex) -> bool:
    """Return whether libswscale converts all pictures of a stream, as `colours.is_converted` tells."""
    return index.codec not in _UNREAD and are_usual(_told(index))


def end_the_process(index: PacketIndex) -> bool:
    """Return whether OpenCV may crash when it converts pictures of a stream, as `colours` tells."""
    return index.codec in _UNREAD or any(ends_the_process(primaries) for primaries, _, _ in _told(index))


def are_usual(told: Iterable[Colours]) -> bool:
    """Return whether libswscale converts pictures of all these colours."""
    return all(is_converted(*colours) for colours in told)


def _told(index: PacketIndex) -> Iterator[Colours]:
    _, matrix, primaries, transfer = index.colour
    yield primaries, transfer, matrix
    if index.codec in _READERS and len(index):
        yield from _READERS[index.codec](index)


def _of_h264(index: PacketIndex) -> Iterator[Colours]:
    return _of_sequences(index, lambda unit: h264_sets.any_sequence(unit).colours)


def _of_hevc(index: PacketIndex) -> Iterator[Colours]:
    return _of_sequences(index, lambda unit: hevc_sets.read_sequence(unit).colours)


def _of_sequences(index: PacketIndex, read: Callable[[bytes], Colours | None]) -> Iterator[Colours]:
    with suppress(CannotSeekError, IndexError):
        for unit in sequences(index):
            with suppress(CannotSeekError, HeaderEndError, IndexError):
                if colours := read(unit):
                    yield colours


def of_av1(data: bytes, places: Iterable[tuple[int, int]]) -> Iterator[Colours]:
    """Yield what the sequence headers in some stretches of an AV1 stream tell.

    Args:
        data: the bytes.
        places: where each stretch begins, and where it ends.
    """
    headers = set()
    for start, end in places:
        with suppress(CannotSeekError, IndexError):
            for kind, at, stop in av1.obus(data, start, end):
                if kind == av1.SEQUENCE_HEADER:
                    headers.add(data[at:stop])
    for header in headers:
        with suppress(HeaderEndError):
            if colours := av1.read_colours(header):
                yield colours


def _of_av1(index: PacketIndex) -> Iterator[Colours]:
    places = zip(index.offset.tolist(), (index.offset + index.size).tolist(), strict=True)
    own = of_av1(index.extradata, [(AV1_HEAD, len(index.extradata))])
    return chain(own, of_av1(index.data, places))


def _stretches(index: PacketIndex) -> Iterator[bytes]:
    """The configuration, and all packets."""
    return chain([index.extradata], map(index.payload, range(len(index))))


def _of_mpeg2(index: PacketIndex) -> Iterator[Colours]:
    for stretch in _stretches(index):
        for found in _DISPLAY.finditer(stretch):
            reader = BitReader(stretch[found.start() + 4 : found.start() + 8])
            with suppress(HeaderEndError):
                reader.u(4 + 3)
                if reader.u(1):
                    yield reader.u(8), reader.u(8), reader.u(8)


def of_mpeg4(stretches: Iterable[bytes]) -> Iterator[Colours]:
    """Yield what the visual objects in some stretches of an MPEG-4 stream tell."""
    for stretch in stretches:
        at = stretch.find(_VISUAL_OBJECT)
        while at >= 0:
            with suppress(HeaderEndError):
                if colours := _of_visual_object(BitReader(stretch[at + 4 : at + 12])):
                    yield colours
            at = stretch.find(_VISUAL_OBJECT, at + 4)


def _of_visual_object(reader: BitReader) -> Colours | None:
    if reader.u(1):
        reader.u(7)
    if reader.u(4) not in (1, 2) or not reader.u(1):
        return None
    reader.u(4)
    return (reader.u(8), reader.u(8), reader.u(8)) if reader.u(1) else None


def _of_prores(index: PacketIndex) -> Iterator[Colours]:
    """By the header of each frame (SMPTE RDD 36, 5.1.1)."""
    for start in index.offset.tolist():
        head = index.data[start + 22 : start + 25]
        if len(head) == 3:
            yield head[0], head[1], head[2]


def _of_png(index: PacketIndex) -> Iterator[Colours]:
    """By the chunk of code points of each picture (the PNG specification, 11.3.2.6)."""
    for stretch in _stretches(index):
        at = stretch.find(b"cICP")
        while at >= 0:
            if len(told := stretch[at + 4 : at + 7]) == 3:
                yield told[0], told[1], told[2]
            at = stretch.find(b"cICP", at + 4)


_READERS: dict[str, Callable[[PacketIndex], Iterator[Colours]]] = {
    "h264": _of_h264,
    "hevc": _of_hevc,
    "libdav1d": _of_av1,
    "av1": _of_av1,
    "mpeg2video": _of_mpeg2,
    "mpeg4": lambda index: of_mpeg4(_stretches(index)),
    "prores": _of_prores,
    "png": _of_png,
    "apng": _of_png,
}
