"""Which AVIs are plain: MPEG-4 without B-frames, chunk after chunk, as their index says."""

import re
import struct
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from mmmedia.video.decoders.bitstreams.colours import are_usual, of_mpeg4
from mmmedia.video.decoders.bitstreams.mpeg4 import layers_admit_fields, read_plane, time_bits
from mmmedia.video.decoders.plain.video import PlainVideo
from mmmedia.video.decoders.shown import Shown

_MOST_CHUNKS = 4096
_CODECS = frozenset([b"FMP4", b"MP4V", b"XVID", b"DIVX", b"DX50"])
_KEY = 0x10
_I, _P = 0, 1
# It packs B-frames, and says so.
_DIVX = re.compile(rb"\x00\x00\x01\xb2DivX")

Chunk = tuple[bytes, int, int]  # its name, a list's kind included, and where its content begins and ends


def plain_avi(data: bytes) -> PlainVideo | None:
    """Return what an AVI holds if it is plain, else None.

    Raises:
        struct.error, ValueError, IndexError, KeyError, CannotSeekError, HeaderEndError: it can't be read.
    """
    kind, begin, stop = next(_chunks(data, 0, len(data)))
    if kind != b"RIFF:AVI " or stop + stop % 2 < len(data):
        return None
    top = [each for each in _chunks(data, begin, stop) if each[0] not in (b"JUNK", b"LIST:INFO")]
    if [name for name, *_ in top] != [b"LIST:hdrl", b"LIST:movi", b"idx1"]:
        return None
    header, movie, index = (each[1:] for each in top)
    streams = [
        {entry: place for entry, *place in _chunks(data, *each)}
        for name, *each in _chunks(data, *header)
        if name == b"LIST:strl"
    ]
    kinds = [data[stream[b"strh"][0] :][:4] for stream in streams]
    number = kinds.index(b"vids")
    if kinds.count(b"vids") + kinds.count(b"auds") != len(kinds) or kinds.count(b"vids") != 1:
        return None
    head, form = (data[slice(*streams[number][name])] for name in (b"strh", b"strf"))
    flags, _, early, scale, rate, start, length = struct.unpack_from("<8x7I", head)
    width, height, codec = struct.unpack_from("<4x2i4x4s", form)
    is_usual = not (flags or early or start or struct.unpack_from("<I", head, 44)[0]) and scale and rate
    if not is_usual or codec.upper() not in _CODECS or min(width, height) < 1 or b"indx" in streams[number]:
        return None
    chunks = list(_chunks(data, *movie))
    own = [data[at:end] for name, at, end in chunks if name == b"%02ddc" % number]
    if len(own) != length or length < 2 or not _is_index_of(data[slice(*index)], movie[0], chunks, number):
        return None
    if not _is_plain_stream(form[40:], own):
        return None
    packets = np.arange(length)
    shown = Shown(length, packets, packets, None, Fraction(length * scale, rate))
    return PlainVideo(length, height, width, "mpeg4", shown, (packets * (1000 * scale / rate)).tolist())


def _chunks(data: bytes, at: int, stop: int) -> Iterator[Chunk]:
    """The chunks of a list, which end where it does."""
    count = 0
    while at < stop:
        name, length = struct.unpack_from("<4sI", data, at)
        begin, end, count = at + 8, at + 8 + length, count + 1
        if end > stop or count > _MOST_CHUNKS:
            raise ValueError("a chunk that does not fit, or too many")
        at = end + length % 2
        if name in (b"RIFF", b"LIST"):
            name, begin = name + b":" + data[begin : begin + 4], begin + 4
        yield name, begin, end


def _is_index_of(index: bytes, movie: int, chunks: list[Chunk], number: int) -> bool:
    """Whether an index names all chunks, which are of streams, in their order, and a key frame first."""
    entries = list(struct.iter_unpack("<4s3I", index))
    first = next(flags for name, flags, *_ in entries if name == b"%02ddc" % number)
    # Counted from the name of the list, or from the file's first byte.
    base = chunks[0][1] - 8 - entries[0][2]
    return (
        bool(first & _KEY)
        and base in (0, movie - 4)
        and all(begin < end and name[2:] in (b"dc", b"wb") for name, begin, end in chunks)
        and [(name, at + base + 8, size) for name, _, at, size in entries]
        == [(name, begin, end - begin) for name, begin, end in chunks]
    )


def _is_plain_stream(configuration: bytes, packets: list[bytes]) -> bool:
    """Whether each packet shows a picture that refers to none behind it, and the first to none."""
    stretches = [configuration, *packets]
    if layers_admit_fields(stretches) or not are_usual(of_mpeg4(stretches)):
        return False
    if any(_DIVX.search(each) for each in stretches[:2]):
        return False
    bits = time_bits(configuration or packets[0])
    kinds = [read_plane(packet, bits) for packet in packets]
    return kinds[0] == _I and {_I, _P}.issuperset(kinds)
