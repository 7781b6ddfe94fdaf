"""What the tables of an MP4 or QuickTime file say of a track, without reading any of its samples.

FFmpeg tells where the samples are, how large, and when they are to be decoded; not when they are to be shown.
That stands in the box `ctts` (ISO/IEC 14496-12, 8.6.1.3), which is read here.
"""

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import containers

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Ints = npt.NDArray[np.int64]

# The flags of an entry.
_KEY, _DISCARD = 1, 2
_MAX_BOXES = 1000
_MAX_SAMPLES = 1 << 24


class Samples(NamedTuple):
    """All samples of a track in decode order; times in units of the track's clock."""

    pts: Ints
    dts: Ints
    duration: Ints
    offset: Ints
    size: Ints
    key: npt.NDArray[np.bool_]
    discard: npt.NDArray[np.bool_]


def samples(data: bytes, container: "InputContainer", stream: "VideoStream") -> Samples | None:
    """Return the samples of a track of which the file's tables say all; None if there may be more to it.

    That is where samples are in fragments, an edit list drops some, descriptions change midway, times go
    back, or the file is cut short.

    Args:
        data: the whole file.
        container: the file, as FFmpeg opened it; nothing of it has been read yet.
        stream: the track.
    """
    try:
        boxes = _sample_tables(data, stream.id)
        shifts, lasts = (None, None) if boxes is None else _times(data, boxes)
    except (struct.error, ValueError, IndexError):
        return None
    # Older PyAV does not hand them out.
    entries = getattr(stream, "index_entries", None)
    if shifts is None or lasts is None or entries is None or not 0 < len(entries) == len(shifts):
        return None
    # A sample of any track that can't be read ends the file, for OpenCV as well.
    for other in container.streams:
        if other is not stream and not all(
            0 <= each.pos <= each.pos + each.size <= len(data) for each in other.index_entries
        ):
            return None
    rows = [(each.pos, each.timestamp, each.size, each.flags) for each in entries]
    offset, dts, size, flags = np.array(rows, np.int64).T
    is_plain = (size > 0) & (offset >= 0) & (offset + size <= len(data)) & (flags <= _KEY | _DISCARD)
    if not is_plain.all() or (np.diff(dts) <= 0).any():
        return None
    duration = np.append(np.diff(dts), lasts[-1])
    return Samples(dts + shifts, dts, duration, offset, size, flags & _KEY != 0, flags & _DISCARD != 0)


def matrix(data: bytes, track: int) -> tuple[float, float, float, float] | None:
    """Return how a track's pictures are to be turned and mirrored: a, b, c, d of its matrix and the movie's.

    None where they are shown as they are, or where it can't be read.
    """
    try:
        movie = list(_boxes(data, *_top(data)[b"moov"]))
        ours = [
            header
            for name, within in movie
            if name == b"trak" and (header := dict(_boxes(data, *within)).get(b"tkhd"))
        ]
        header = next(each for each in ours if _number(data, each[0]) == track)
        own = _entries(data, header[0] + (52 if data[header[0]] else 40))
        movies = dict(movie).get(b"mvhd")
        whole = _entries(data, movies[0] + (48 if data[movies[0]] else 36)) if movies else np.eye(2)
    except (struct.error, ValueError, IndexError, KeyError, StopIteration):
        return None
    a, b, c, d = (own @ whole).ravel().tolist()
    return None if (a, b, c, d) == (1, 0, 0, 1) else (a, b, c, d)


def _entries(data: bytes, at: int) -> npt.NDArray[np.float64]:
    """The upper left part of a matrix, of fixed-point numbers with 16 bits behind the point."""
    a, b, _, c, d = struct.unpack_from(">5i", data, at)
    return np.array([[a, b], [c, d]], np.float64) / (1 << 16)


def _sample_tables(data: bytes, track: int) -> dict[bytes, tuple[int, int]] | None:
    """Where the tables of a track stand; None where they don't say all of it."""
    top = _top(data)
    if b"moov" not in top or b"moof" in top:
        return None
    movie = list(_boxes(data, *top[b"moov"]))
    if any(name == b"mvex" for name, _ in movie):
        return None
    tracks = [dict(_boxes(data, *within)) for name, within in movie if name == b"trak"]
    ours = [boxes for boxes in tracks if b"tkhd" in boxes and _number(data, boxes[b"tkhd"][0]) == track]
    if len(ours) != 1:
        return None
    boxes = ours[0]
    for name in (b"mdia", b"minf", b"stbl"):
        if name not in boxes:
            return None
        boxes = dict(_boxes(data, *boxes[name]))
    if not {b"stsd", b"stsz", b"stts"} <= boxes.keys():
        return None
    (descriptions,) = struct.unpack_from(">I", data, boxes[b"stsd"][0] + 4)
    return boxes if descriptions == 1 else None


def _top(data: bytes) -> dict[bytes, tuple[int, int]]:
    """The boxes of a file; of two of a name, as where files are joined, the first, which FFmpeg takes."""
    return dict(reversed(list(_boxes(data, 0, len(data)))))


def _times(data: bytes, boxes: dict[bytes, tuple[int, int]]) -> tuple[Ints | None, Ints | None]:
    """By how much each sample is shown later than it is decoded, and for how long."""
    (count,) = struct.unpack_from(">I", data, boxes[b"stsz"][0] + 8)
    if count > _MAX_SAMPLES:
        return None, None
    shifts = _runs(data, *boxes[b"ctts"], count) if b"ctts" in boxes else np.zeros(count, np.int64)
    return shifts, _runs(data, *boxes[b"stts"], count)


def _number(data: bytes, header: int) -> int:
    """The number of a track, by its header: what stands before it is longer in version 1."""
    number: int = struct.unpack_from(">I", data, header + (20 if data[header] else 12))[0]
    return number


def _runs(data: bytes, start: int, stop: int, count: int) -> Ints | None:
    """The `count` values of a table of pairs: how many samples, and the value of each."""
    (length,) = struct.unpack_from(">I", data, start + 4)
    if 8 + 8 * length > stop - start:
        return None
    pairs = np.frombuffer(data, ">i4", 2 * length, start + 8).astype(np.int64)
    numbers, values = pairs[::2], pairs[1::2]
    if (numbers <= 0).any() or (values < 0).any() or numbers.sum() != count:
        return None
    return np.repeat(values, numbers)


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The boxes of a stretch, as `containers.boxes` yields them.

    Raises:
        ValueError: one reaches beyond the stretch, or there are too many.
    """
    for number, (name, (begin, end)) in enumerate(containers.boxes(data, start, stop)):
        if end > stop or number >= _MAX_BOXES:
            raise ValueError(f"box {name!r} does not fit")
        yield name, (begin, end)
