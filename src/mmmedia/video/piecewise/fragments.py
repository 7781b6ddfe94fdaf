"""Fragmented MP4 files (ISO/IEC 14496-12, 8.8): tables of samples stand before each stretch of them.

Where the fragments are is said by an index of segments (`sidx`), or by one at the end of the file (`mfra`);
without either by going from one to the next, of which a source that takes its time for each admits few.
"""

import itertools
import struct
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmmedia import containers
from mmmedia.sources import Window
from mmmedia.video.piecewise import boxes
from mmmedia.video.piecewise.boxes import Box, Ints
from mmmedia.video.piecewise.layout import LARGEST_HOLE, CannotTellError, Layout, front
from mmmedia.video.piecewise.mp4 import Top

_MOST_BOXES, _MOST_SAMPLES = 1 << 17, 1 << 22
_MOST_FRAGMENTS = 4096  # each of which is asked for
_MOST_STEPS = 64  # into a source that takes its time for each
_HEAD = 4096  # most often all of a fragment's tables
_MEDIA = b"\x00\x00\x00\x09mdat\x00"  # FFmpeg does not see one of nothing

_KEPT = frozenset({b"sidx", b"moof", b"styp"})
_LEFT_OUT = frozenset({b"free", b"skip", b"mfra", b"emsg", b"prft"})

# Flags of the boxes `tfhd` and `trun`, and how many bytes each of them adds.
_BASE, _FROM_MOOF, _DEFAULT_SIZE = 0x1, 0x20000, 0x10
_IN_HEADER = ((0x1, 8), (0x2, 4), (0x8, 4))
_OFFSET, _FIRST_FLAGS, _SIZE = 0x1, 0x4, 0x200
_IN_SAMPLE = (0x100, 0x200, 0x400, 0x800)


class _Run(NamedTuple):
    """Samples side by side: of which track, where in the source, how large, and where that is told."""

    track: int
    offset: int
    sizes: Ints
    told_at: int
    base_at: int | None

    @property
    def length(self) -> int:
        return int(self.sizes.sum())


class _Fragment(NamedTuple):
    start: int
    tables: bytes
    runs: list[_Run]


def is_fragmented(whole: Top) -> bool:
    """Return whether there is more to a file than its `moov` says."""
    return any(name == b"mvex" for name, _ in boxes.children(whole.movie))


def read(window: Window, whole: Top) -> Layout:
    """Return the layout of a file by the tables of all of its fragments.

    Args:
        window: the file.
        whole: its boxes up to the `moov`.

    Raises:
        CannotTellError: it does not say where they are, or does not say all.
    """
    movie = boxes.children(whole.movie)
    tracks = [body for name, body in movie if name == b"trak"]
    videos = [number(body) for body in tracks if _is_video(body)]
    if len(videos) != 1 or any(_has_samples(body) for body in tracks):
        raise CannotTellError("tracks")
    _look_ahead(window, whole.boxes[-1].stop)
    top = _walk(window, whole.boxes[-1].stop)
    usual = _usual_sizes(movie)
    fragments = {
        each.start: _fragment(each, boxes.content(window, each), usual)
        for each in top
        if each.name == b"moof"
    }
    runs = [run for fragment in fragments.values() for run in fragment.runs]
    video = [run for run in runs if run.track == videos[0]]
    if not 0 < sum(len(run.sizes) for run in runs) <= _MOST_SAMPLES or not video:
        raise CannotTellError("samples")
    if any(run.offset < 0 or run.offset + run.length > window.size for run in runs):
        raise CannotTellError("cut short")
    size = np.concatenate([run.sizes for run in video])
    offset = np.concatenate([run.offset + np.cumsum(run.sizes) - run.sizes for run in video])
    real = front(size)
    begin, end = int(offset[:real].min()), int((offset[:real] + size[:real]).max())
    hole = max(run.length for run in runs)
    if max(end - begin, hole) > LARGEST_HOLE:
        raise CannotTellError("fragments too large")
    window.need([(begin, end)])
    media = boxes.box(b"mdat", window.piece(begin, end) + bytes(hole))
    start = whole.brand + boxes.box(b"moov", whole.movie)
    return Layout(start + _written(window, top, fragments, media, len(start), (begin, end)), offset, size)


def _written(
    window: Window,
    top: list[Box],
    fragments: Mapping[int, _Fragment],
    media: bytes,
    at: int,
    real: tuple[int, int],
) -> bytes:
    """The boxes behind the `moov`: tables as they are, but for offsets; media once, and else none."""
    first = next((each.start for each in top if each.name == b"mdat"), None)
    pieces, moved, places = [], {}, []
    media_at = at
    for each in top:
        moved[each.start] = at
        if each.name in _KEPT:
            piece = fragments[each.start].tables if each.name == b"moof" else boxes.content(window, each)
        elif each.start == first:
            piece, media_at = media, at + 8
        else:
            piece = _MEDIA if each.name == b"mdat" else b""
        places.append(at)
        pieces.append(piece)
        at += len(piece)
    moved[top[-1].stop] = at
    begin, end = real
    for number, each in enumerate(top):
        if each.name == b"moof":
            tables = bytearray(pieces[number])
            for run in fragments[each.start].runs:
                target = media_at + (run.offset - begin if begin <= run.offset < end else end - begin)
                if run.base_at is not None:
                    struct.pack_into(">Q", tables, run.base_at, places[number])
                struct.pack_into(">i", tables, run.told_at, target - places[number])
            pieces[number] = bytes(tables)
        elif each.name == b"sidx":
            pieces[number] = _moved_index(pieces[number], each, moved)
    return b"".join(pieces)


def _walk(window: Window, at: int) -> list[Box]:
    """All boxes from an offset to the end of the file."""
    found: list[Box] = []
    steps = 0
    while at < window.size:
        steps += bool(window.missing([(at, min(at + 16, window.size))]))
        if len(found) > _MOST_BOXES or (window.source.gap and steps > _MOST_STEPS):
            raise CannotTellError("no index of fragments")
        each = boxes.box_at(window, at)
        if each.name not in _KEPT and each.name not in _LEFT_OUT and each.name != b"mdat":
            raise CannotTellError("boxes between fragments")
        found.append(each)
        at = each.stop
    if not found:
        raise CannotTellError("no fragments")
    return found


def _look_ahead(window: Window, at: int) -> None:
    """Read at once what stands where fragments begin, as far as an index tells."""
    starts = _starts_by_segments(window, at) or _starts_by_the_end(window)
    if window.source.gap and len(starts) > _MOST_FRAGMENTS:
        raise CannotTellError("too many fragments")
    window.need([(start, start + _HEAD) for start in starts])
    longer = []
    for start in starts:
        for name, (_, stop) in containers.boxes(window.piece(start, start + _HEAD), 0, _HEAD):
            if name == b"moof" and stop + 16 > _HEAD:
                longer.append((start, start + stop + 16))
    window.need(longer)


def _starts_by_segments(window: Window, at: int) -> list[int]:
    """Where segments begin by the index behind the `moov`."""
    for _ in range(4):
        if at >= window.size:
            break
        each = boxes.box_at(window, at)
        if each.name == b"sidx":
            bounds, _ = _segments(boxes.content(window, each), each)
            return bounds[:-1]
        at = each.stop
    return []


def _segments(data: bytes, index: Box) -> tuple[list[int], int]:
    """The bounds of the segments that an index tells of, and where in it the first's length stands."""
    at = index.begin - index.start
    wide = bool(data[at])
    at += 12
    (first,) = struct.unpack_from(">Q" if wide else ">I", data, at + (8 if wide else 4))
    at += 16 if wide else 8
    (count,) = struct.unpack_from(">H", data, at + 2)
    lengths = np.frombuffer(data, ">u4", 3 * count, at + 4)[::3].astype(np.int64)
    if (lengths >> 31).any():
        raise CannotTellError("an index of indices")
    bounds = index.stop + first + np.concatenate(([0], np.cumsum(lengths)))
    return bounds.tolist(), at + 4


def _moved_index(data: bytes, index: Box, moved: Mapping[int, int]) -> bytes:
    """An index of segments that are elsewhere by now."""
    bounds, at = _segments(data, index)
    if index.stop != bounds[0] or not all(bound in moved for bound in bounds):
        raise CannotTellError("an index of other bounds")
    written = bytearray(data)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        struct.pack_into(">I", written, at + 12 * number, moved[stop] - moved[start])
    return bytes(written)


def _starts_by_the_end(window: Window) -> list[int]:
    """Where fragments begin by the index at the end of the file; nowhere if there is none."""
    tail = window.head(window.size - 16, 16)
    if tail[4:8] != b"mfro":
        return []
    start = window.size - int.from_bytes(tail[12:], "big")
    if not 0 < start < window.size:
        return []
    found: set[int] = set()
    for name, body in boxes.children(window.piece(start, window.size)[8:]):
        if name == b"tfra":
            lengths, count = struct.unpack_from(">II", body, 8)
            wide = body[0] == 1
            step = (16 if wide else 8) + sum((lengths >> shift & 3) + 1 for shift in (0, 2, 4))
            for number in range(count):
                at = 16 + number * step
                found.add(struct.unpack_from(">Q" if wide else ">I", body, at + (8 if wide else 4))[0])
    return sorted(each for each in found if 0 < each < start)


def _fragment(moof: Box, tables: bytes, usual: Mapping[int, int]) -> _Fragment:
    """Read a fragment's tables."""
    runs = []
    head = moof.begin - moof.start
    trafs = [inner for name, inner in containers.boxes(tables, head, len(tables)) if name == b"traf"]
    for begin, stop in trafs:
        base, base_at, track, default = moof.start, None, 0, 0
        for name, (at, end) in containers.boxes(tables, begin, stop):
            if name == b"tfhd":
                flags, track = struct.unpack_from(">II", tables, at)
                flags &= 0xFFFFFF
                if flags & _BASE:
                    base_at = at + 8
                    (base,) = struct.unpack_from(">Q", tables, base_at)
                elif not flags & _FROM_MOOF and len(trafs) > 1:
                    raise CannotTellError("offsets")
                default = usual.get(track, 0)
                if flags & _DEFAULT_SIZE:
                    behind = at + 8 + sum(length for flag, length in _IN_HEADER if flags & flag)
                    (default,) = struct.unpack_from(">I", tables, behind)
            elif name == b"trun":
                runs.append(_run(tables, at, end, track, base, base_at, default))
    return _Fragment(moof.start, tables, runs)


def _run(tables: bytes, at: int, end: int, track: int, base: int, base_at: int | None, default: int) -> _Run:
    flags, count = struct.unpack_from(">II", tables, at)
    flags &= 0xFFFFFF
    if not flags & _OFFSET or count > _MOST_SAMPLES:
        raise CannotTellError("offsets")
    (offset,) = struct.unpack_from(">i", tables, at + 8)
    fields = [flag for flag in _IN_SAMPLE if flags & flag]
    first = at + 12 + (4 if flags & _FIRST_FLAGS else 0)
    if first + 4 * len(fields) * count > end:
        raise CannotTellError("tables")
    if flags & _SIZE:
        rows = np.frombuffer(tables, ">u4", len(fields) * count, first).astype(np.int64)
        sizes = rows.reshape(count, len(fields))[:, fields.index(_SIZE)]
    else:
        sizes = np.full(count, default, np.int64)
    return _Run(track, base + offset, sizes, at + 8, base_at)


def _usual_sizes(movie: list[tuple[bytes, bytes]]) -> dict[int, int]:
    """The size of a track's samples where fragments tell none."""
    extends = next(body for name, body in movie if name == b"mvex")
    found = [struct.unpack_from(">4xIIII", body) for name, body in boxes.children(extends) if name == b"trex"]
    return {track: size for track, _, _, size in found}


def number(track: bytes) -> int:
    """Return the number of a track, by its content."""
    header = boxes.find(track, b"tkhd") or bytes(32)
    found: int = struct.unpack_from(">I", header, 20 if header[:1] == b"\x01" else 12)[0]
    return found


def _is_video(track: bytes) -> bool:
    return (boxes.find(track, b"mdia", b"hdlr") or b"")[8:12] == b"vide"


def _has_samples(track: bytes) -> bool:
    table = boxes.find(track, b"mdia", b"minf", b"stbl", b"stsz")
    return table is None or struct.unpack_from(">I", table, 8)[0] > 0
