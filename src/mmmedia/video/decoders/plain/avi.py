"""Which AVIs are plain: MPEG-4 without B-frames, chunk after chunk, as their index says."""

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from mmmedia.video.decoders.bitstreams.colours import are_usual, of_mpeg4
from mmmedia.video.decoders.bitstreams.mpeg4 import layers_admit_fields, read_plane, time_bits
from mmmedia.video.decoders.plain.video import Outline, PlainVideo, frames_at_most
from mmmedia.video.decoders.shown import Shown

_MOST_CHUNKS, _FEW_CHUNKS = 4096, 32  # of the movie, and of any other list
_CODECS = frozenset([b"FMP4", b"MP4V", b"XVID", b"DIVX", b"DX50"])
_KEY = 0x10
_I, _P = 0, 1
# It packs B-frames, and says so.
_DIVX = re.compile(rb"\x00\x00\x01\xb2DivX")

Chunk = tuple[bytes, int, int]  # its name, a list's kind included, and where its content begins and ends


class _Stream(NamedTuple):
    """What the header says of the only stream of pictures.

    Attributes:
        name: of its chunks.
        length: how many there are.
        step: from one to the next, in seconds.
        height: of its pictures.
        width: likewise.
        configuration: of the codec, where it does not stand in the first chunk.
    """

    name: bytes
    length: int
    step: Fraction
    height: int
    width: int
    configuration: bytes


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
    stream = _only_video(data, *header)
    if not 2 <= stream.length <= frames_at_most(stream.height, stream.width):
        return None
    chunks = list(_chunks(data, *movie, most=_MOST_CHUNKS))
    packets = [data[at:end] for name, at, end in chunks if name == stream.name]
    if len(packets) != stream.length or not _is_index(data[slice(*index)], movie[0], chunks, stream.name):
        return None
    kinds = _kinds(stream.configuration, packets)
    if kinds is None:
        return None
    positions = np.arange(stream.length)
    shown = Shown(stream.length, positions, positions, None, stream.length * stream.step)
    steps = (positions * float(1000 * stream.step)).tolist()
    keys = [position for position, kind in enumerate(kinds) if kind == _I]
    outline = Outline(range(stream.length), keys, [False] * stream.length)
    return PlainVideo(stream.height, stream.width, "mpeg4", shown, stream.step, outline, steps)


def _only_video(data: bytes, begin: int, stop: int) -> _Stream:
    """The only stream of pictures of a header, beside which there may be sound."""
    streams = [
        {entry: data[slice(*place)] for entry, *place in _chunks(data, *each)}
        for name, *each in _chunks(data, begin, stop)
        if name == b"LIST:strl"
    ]
    kinds = [stream[b"strh"][:4] for stream in streams]
    if kinds.count(b"vids") != 1 or not {b"vids", b"auds"}.issuperset(kinds):
        raise ValueError("other streams than one of pictures and those of sound")
    number = kinds.index(b"vids")
    head, form = streams[number][b"strh"], streams[number][b"strf"]
    flags, _, delay, scale, rate, start, length, _, _, sample = struct.unpack_from("<8x10I", head)
    width, height, codec = struct.unpack_from("<4x2i4x4s", form)
    if flags or delay or start or sample or not scale or not rate or b"indx" in streams[number]:
        raise ValueError("an unusual stream")
    if codec.upper() not in _CODECS or min(width, height) < 1:
        raise ValueError("unusual pictures")
    return _Stream(b"%02ddc" % number, length, Fraction(scale, rate), height, width, form[40:])


def _chunks(data: bytes, at: int, stop: int, *, most: int = _FEW_CHUNKS) -> Iterator[Chunk]:
    """The chunks of a list, which end where it does, and are no more than so many."""
    count = 0
    while at < stop:
        name, length = struct.unpack_from("<4sI", data, at)
        begin, end, count = at + 8, at + 8 + length, count + 1
        if end > stop or count > most:
            raise ValueError("a chunk that does not fit, or too many")
        at = end + length % 2
        if name in (b"RIFF", b"LIST"):
            name, begin = name + b":" + data[begin : begin + 4], begin + 4
        yield name, begin, end


def _is_index(index: bytes, movie: int, chunks: list[Chunk], own: bytes) -> bool:
    """Whether an index names all chunks, which are of streams, in their order, and a key frame first.

    Args:
        index: its content.
        movie: where the first chunk begins, from which it counts, or else from the file's first byte.
        chunks: what there is.
        own: the name of those of pictures.
    """
    entries = list(struct.iter_unpack("<4s3I", index))
    if not next(flags for name, flags, *_ in entries if name == own) & _KEY:
        return False
    base = chunks[0][1] - 8 - entries[0][2]
    found = [(name, at + base + 8, at + base + 8 + size) for name, _, at, size in entries]
    return (
        base in (0, movie - 4)
        and found == chunks
        and all(begin < end and name[2:] in (b"dc", b"wb") for name, begin, end in chunks)
    )


def _kinds(configuration: bytes, packets: list[bytes]) -> list[int] | None:
    """The coding types of pictures, one a packet, none of which refers to one behind it."""
    stretches = [configuration, *packets]
    if layers_admit_fields(stretches) or not are_usual(of_mpeg4(stretches)):
        return None
    if any(_DIVX.search(each) for each in stretches[:2]):
        return None
    bits = time_bits(configuration or packets[0])
    kinds = [read_plane(packet, bits) for packet in packets]
    return kinds if kinds[0] == _I and {_I, _P}.issuperset(kinds) else None
