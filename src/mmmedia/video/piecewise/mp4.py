"""MP4 and QuickTime files with all tables in one box, `moov` (ISO/IEC 14496-12, 8.2 to 8.7)."""

import struct
from typing import NamedTuple

import numpy as np

from mmmedia.sources import Window
from mmmedia.video.piecewise import boxes
from mmmedia.video.piecewise.boxes import Box, Ints
from mmmedia.video.piecewise.layout import LARGEST_HOLE, CannotTellError, Front, Layout

_MOST_SAMPLES = 1 << 22
_MOST_TOP_BOXES = 64
_TAIL = 50  # an index is no larger a part of a file, most often
# Brands whose files are pictures, or sequences of them.
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"heim", b"heis")


class Top(NamedTuple):
    """The boxes that a file is made of, up to its `moov`; its `ftyp` whole, of the `moov` the content."""

    boxes: list[Box]
    brand: bytes
    movie: bytes


class _Track(NamedTuple):
    """Where a track has its samples: each chunk, how many bytes that has, and each sample's size."""

    is_video: bool
    chunk_offset: Ints
    chunk_size: Ints
    sample_offset: Ints
    sample_size: Ints


def top(window: Window) -> Top:
    """Return the boxes of a file up to its `moov`, wherever that stands.

    Raises:
        CannotTellError: it has none, or is cut short.
    """
    found: list[Box] = []
    brand, at = b"", 0
    while at + 8 <= window.size and len(found) < _MOST_TOP_BOXES:
        each = boxes.box_at(window, at)
        if each.name == b"ftyp":
            brand = boxes.content(window, each)
            if brand[8:12] in _PICTURES:
                raise CannotTellError("pictures")
        found.append(each)
        tail = window.size - each.stop
        if each.name == b"mdat" and window.source.gap and tail * _TAIL < window.size:
            window.need([(each.stop, window.size)])  # which is an index, most likely
        if each.name == b"moov":
            return Top(found, brand, boxes.content(window, each)[each.begin - each.start :])
        if each.name == b"moof":
            raise CannotTellError("fragments before their index")
        at = each.stop
    raise CannotTellError("no index")


def read(window: Window, whole: Top) -> Layout:
    """Return the layout of a file by its tables.

    Args:
        window: the file.
        whole: its boxes.

    Raises:
        CannotTellError: there is more to it than they say.
    """
    movie = boxes.children(whole.movie)
    tracks = [_track(body, window.size) for name, body in movie if name == b"trak"]
    videos = [track for track in tracks if track.is_video]
    if len(videos) != 1 or not len(videos[0].sample_offset):
        raise CannotTellError("tracks")
    offset, size = videos[0].sample_offset, videos[0].sample_size
    real = Front(window, offset, size)
    brand = whole.brand
    data_at = len(brand) + 8
    hole_at = data_at + len(real.data)
    largest = 1
    parts = []
    numbers = iter(tracks)
    for name, body in movie:
        if name != b"trak":
            parts.append(boxes.box(name, body))
            continue
        track = next(numbers)
        at, length = (
            (track.sample_offset, track.sample_size)
            if track.is_video
            else (track.chunk_offset, track.chunk_size)
        )
        found = real.places(at, length)
        largest = max(largest, int(length[found < 0].max(initial=0)))
        places = np.where(found < 0, hole_at, found + data_at)
        parts.append(_placed(body, places, one_each=track.is_video))
    if largest > LARGEST_HOLE:
        raise CannotTellError("chunks too large")
    media = boxes.box(b"mdat", real.data + bytes(largest))
    return Layout(brand + media + boxes.box(b"moov", b"".join(parts)), offset, size)


def _placed(body: bytes, places: Ints, *, one_each: bool) -> bytes:
    """A track whose chunks stand elsewhere, or whose samples are a chunk each."""
    table = struct.pack(">II", 0, len(places)) + places.astype(">u8").tobytes()
    offsets = boxes.box(b"co64", table)
    change = {b"stco": lambda _: offsets, b"co64": lambda _: offsets}
    if one_each:
        runs = boxes.box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
        change[b"stsc"] = lambda _: runs
    return boxes.rewritten(b"trak", body, change)


def _track(body: bytes, length: int) -> _Track:
    """Read a track's tables; all of its samples must be within the file."""
    handler = boxes.find(body, b"mdia", b"hdlr") or b""
    tables = boxes.find(body, b"mdia", b"minf", b"stbl")
    if tables is None:
        raise CannotTellError("tables")
    found = dict(boxes.children(tables))
    try:
        chunk = boxes.table(found[b"stco"], ">u4") if b"stco" in found else boxes.table(found[b"co64"], ">u8")
        runs = boxes.pairs(found[b"stsc"], 3)
        uniform, count = struct.unpack_from(">II", found[b"stsz"], 4)
        (descriptions,) = struct.unpack_from(">I", found[b"stsd"], 4)
        if not uniform:
            sizes = boxes.table(found[b"stsz"], ">u4", 12)
    except (KeyError, struct.error):
        raise CannotTellError("tables") from None
    is_video = handler[8:12] == b"vide"
    if is_video and (count > _MOST_SAMPLES or descriptions != 1):
        raise CannotTellError("tables")
    many = _samples_in_chunks(runs, len(chunk), count)
    if uniform:
        chunk_size = many * uniform
        # Of sound there may be millions, and nobody asks where each is.
        sizes = np.full(count if is_video else 0, uniform, np.int64)
    else:
        ends = np.concatenate(([0], np.cumsum(sizes)))
        last = np.cumsum(many)
        chunk_size = ends[last] - ends[last - many]
    if len(chunk) and ((chunk < 0) | (chunk + chunk_size > length)).any():
        raise CannotTellError("cut short")
    offset = np.zeros(0, np.int64)
    if is_video and count:
        before = np.cumsum(sizes) - sizes
        firsts = np.cumsum(many) - many
        offset = np.repeat(chunk - before[np.minimum(firsts, count - 1)], many) + before
    return _Track(is_video, chunk, chunk_size, offset, sizes if is_video else sizes[:0])


def _samples_in_chunks(runs: Ints, chunks: int, count: int) -> Ints:
    """How many samples are in each chunk."""
    if not chunks and not count:
        return np.zeros(0, np.int64)
    firsts = runs[:, 0] - 1
    if not len(runs) or firsts[0] != 0 or (np.diff(firsts) <= 0).any() or firsts[-1] >= chunks:
        raise CannotTellError("tables")
    many = np.repeat(runs[:, 1], np.diff(np.append(firsts, chunks)))
    if many.sum() != count:
        raise CannotTellError("tables")
    return many
