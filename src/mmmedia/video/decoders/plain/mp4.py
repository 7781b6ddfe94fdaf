"""Which MP4s are plain: those whose tables hold nothing unusual."""

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import cast

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.video.decoders.bitstreams.colours import AV1_HEAD, Colours, are_usual, of_av1
from mmmedia.video.decoders.bitstreams.shown import shown_of_vp9
from mmmedia.video.decoders.plain.h264 import are_disposable, is_plain_record
from mmmedia.video.decoders.plain.video import Outline, PlainVideo, frames_at_most, frames_shown

_MOST_BOXES = 200
_PICTURES = 78  # bytes of a description of pictures, in front of its boxes
Place = tuple[int, int]


def plain_mp4(data: bytes) -> PlainVideo | None:
    """Return what an MP4 holds if it is plain, else None.

    So it is with samples of the same length, the first of which is a key frame, and without an edit list that
    leaves anything out.

    Raises:
        struct.error, ValueError, IndexError, KeyError, CannotSeekError, HeaderEndError: it can't be read.
    """
    movie = _movie(data)
    tracks = [dict(_boxes(data, within)) for name, within in movie if name == b"trak"]
    (track,) = (each for each in tracks if _is_of_pictures(data, each))
    table = _table(data, track)
    if not _is_upright(data, track[b"tkhd"][0], 40) or not _is_upright(data, dict(movie)[b"mvhd"][0], 36):
        return None
    (descriptions,) = struct.unpack_from(">I", data, table[b"stsd"][0] + 4)
    runs, frames, step = struct.unpack_from(">3I", data, table[b"stts"][0] + 4)
    (total,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 8)
    ((name, entry),) = _boxes(data, (table[b"stsd"][0] + 8, table[b"stsd"][1]))
    # Behind what all samples have, and 16 bytes of pictures.
    width, height = struct.unpack_from(">HH", data, entry[0] + 8 + 16)
    is_usual = (descriptions, runs, frames) == (1, 1, total) and step > 0
    if not is_usual or not 2 <= total <= frames_at_most(height, width):
        return None
    samples = _samples(data, table, total)
    # A sample of any track that is not there ends the file.
    are_stored = all(_is_stored(data, each) for each in tracks if each is not track)
    times = _shown(data, table)
    if samples is None or not are_stored or not _is_whole(data, dict(movie), track, times, step):
        return None
    told = _boxes(data, (entry[0] + _PICTURES, entry[1]))
    codec = _codec(data, name, dict(told), samples)
    if codec is None or not are_usual(_colours(data, told)):
        return None
    order = np.argsort(times, kind="stable")
    tick = Fraction(1, _clock(data, dict(_boxes(data, track[b"mdia"]))[b"mdhd"]))
    shown = frames_shown(order, times[order], tick, Fraction(step))
    disposable = [False] * total
    if codec == "h264":
        disposable = are_disposable(data[begin:end] for begin, end in samples)
    outline = Outline(order.tolist(), _keys(data, table, total), disposable)
    return PlainVideo(height, width, codec, shown, tick, outline)


def _movie(data: bytes) -> list[tuple[bytes, Place]]:
    """What stands in the box of the movie, which has no fragments and no cover."""
    top = _boxes(data, (0, len(data)))
    movie = _boxes(data, dict(top)[b"moov"])
    if [name for name, _ in top].count(b"moov") != 1 or any(name == b"moof" for name, _ in top):
        raise ValueError("several movies, or fragments")
    if any(name == b"mvex" for name, _ in movie) or data.find(b"covr", *dict(top)[b"moov"]) >= 0:
        raise ValueError("fragments, or a cover")
    return movie


def _keys(data: bytes, table: dict[bytes, Place], total: int) -> Sequence[int]:
    """The positions of the key frames (ISO/IEC 14496-12, 8.6.2)."""
    if b"stss" not in table:
        return range(total)
    (count,) = struct.unpack_from(">I", data, table[b"stss"][0] + 4)
    keys = _column(data, table[b"stss"], 8, ">u4", count) - 1
    if keys[0] != 0 or (np.diff(keys) <= 0).any() or keys[-1] >= total:
        raise ValueError("key frames out of order")
    return cast("list[int]", keys.tolist())


def _is_upright(data: bytes, header: int, at: int) -> bool:
    """Whether the matrix in a header, so many bytes from its start in version 0, changes nothing."""
    place = header + at + (12 if data[header] else 0)
    return struct.unpack_from(">5i", data, place) == (1 << 16, 0, 0, 0, 1 << 16)


def _codec(data: bytes, name: bytes, told: dict[bytes, Place], samples: list[tuple[int, int]]) -> str | None:
    """The codec, if it is one that is plain by what its description says, and its samples."""
    if name == b"avc1":
        return "h264" if is_plain_record(data[slice(*told[b"avcC"])]) else None
    if name == b"av01":
        begin, end = told[b"av1C"]
        return "av1" if are_usual(of_av1(data, [(begin + AV1_HEAD, end), *samples])) else None
    if name == b"vp09":
        is_shown = (shown_of_vp9(data, begin, end - begin) == 1 for begin, end in samples)
        return "vp9" if all(is_shown) else None
    return None


def _colours(data: bytes, told: list[tuple[bytes, Place]]) -> Iterator[Colours]:
    """What a sample description tells of colours (ISO/IEC 14496-12, 12.1.5)."""
    for name, (begin, _) in told:
        if name == b"colr":
            if data[begin : begin + 4] not in (b"nclx", b"nclc"):
                raise ValueError("colours by a profile")
            yield struct.unpack_from(">3H", data, begin + 4)


def _boxes(data: bytes, within: Place) -> list[tuple[bytes, Place]]:
    found = []
    for number, box in enumerate(containers.boxes(data, *within)):
        if number >= _MOST_BOXES or box[1][1] > within[1]:
            raise ValueError("too many boxes, or one that does not fit")
        found.append(box)
    return found


def _is_of_pictures(data: bytes, track: dict[bytes, Place]) -> bool:
    at = dict(_boxes(data, track[b"mdia"]))[b"hdlr"][0]
    return data[at + 8 : at + 12] not in (b"soun", b"text", b"sbtl", b"tmcd", b"meta", b"subt", b"hint")


def _is_whole(
    data: bytes,
    movie: dict[bytes, Place],
    track: dict[bytes, Place],
    times: npt.NDArray[np.int64],
    ticks: int,
) -> bool:
    """Whether all that is stored is shown, one step after the other: there is no edit, or one of it all.

    Args:
        data: the file.
        movie: what stands in the box of the movie.
        track: what stands in that of the track.
        times: when samples are shown, by decode position.
        ticks: how long each is.
    """
    first = int(times[0])
    if first != times.min() or (np.diff(np.sort(times)) != ticks).any():
        return False
    if b"edts" not in track:
        return b"ctts" not in _table(data, track)
    edits = dict(_boxes(data, track[b"edts"]))[b"elst"][0]
    (count,) = struct.unpack_from(">I", data, edits + 4)
    if data[edits] or count != 1:
        return False
    begin = struct.unpack_from(">i", data, edits + 12)[0]
    (length,) = struct.unpack_from(">I", data, edits + 8)
    step = ticks / _clock(data, dict(_boxes(data, track[b"mdia"]))[b"mdhd"])
    seconds = length / _clock(data, movie[b"mvhd"])
    return bool(begin == first and seconds > (len(times) - 0.5) * step)


def _shown(data: bytes, table: dict[bytes, Place]) -> npt.NDArray[np.int64]:
    """When samples are shown that are as long as the other (ISO/IEC 14496-12, 8.6.1)."""
    frames, ticks = struct.unpack_from(">II", data, table[b"stts"][0] + 8)
    decoded: npt.NDArray[np.int64] = np.arange(frames, dtype=np.int64) * ticks
    if b"ctts" not in table:
        return decoded
    (runs,) = struct.unpack_from(">I", data, table[b"ctts"][0] + 4)
    counts, values = _column(data, table[b"ctts"], 8, ">i4", 2 * runs).reshape(runs, 2).T
    if (counts <= 0).any() or counts.sum() != frames:
        raise ValueError("shifts of other samples")
    decoded += np.repeat(values, counts)
    return decoded


def _samples(data: bytes, table: dict[bytes, Place], count: int) -> list[tuple[int, int]] | None:
    """Where each sample of a track begins and ends; None if the file does not hold all of them.

    ISO/IEC 14496-12, 8.7.
    """
    (size,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 4)
    sizes = np.full(count, size, np.int64) if size else _column(data, table[b"stsz"], 12, ">u4", count)
    starts, each = _chunks(data, table)
    if each.sum() != count or (sizes <= 0).any():
        return None
    before = np.cumsum(sizes) - sizes
    begins = before + np.repeat(starts - before[np.cumsum(each) - each], each)
    ends = begins + sizes
    if begins.min() < 0 or ends.max() > len(data):
        return None
    return list(zip(begins.tolist(), ends.tolist(), strict=True))


def _is_stored(data: bytes, track: dict[bytes, Place]) -> bool:
    """Whether the file holds all samples of a track, of which there may be as many as of sound."""
    table = _table(data, track)
    size, count = struct.unpack_from(">II", data, table[b"stsz"][0] + 4)
    starts, each = _chunks(data, table)
    if each.sum() != count:
        return False
    if size:
        stored = each.astype(np.float64) * size
    else:
        sizes = _column(data, table[b"stsz"], 12, ">u4", count)
        behind = np.concatenate([[0], np.cumsum(sizes)])
        if (sizes == 0).any():
            return False
        stored = np.diff(behind[np.append(0, np.cumsum(each))]).astype(np.float64)
    return bool((starts >= 0).all() and (starts + stored <= len(data)).all())


def _table(data: bytes, track: dict[bytes, Place]) -> dict[bytes, Place]:
    """What says where a track's samples are."""
    media = dict(_boxes(data, track[b"mdia"]))
    return dict(_boxes(data, dict(_boxes(data, media[b"minf"]))[b"stbl"]))


def _chunks(data: bytes, table: dict[bytes, Place]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each chunk of samples begins, and how many are in it; all of the track's only description."""
    name, kind = (b"stco", ">u4") if b"stco" in table else (b"co64", ">u8")
    (chunks,) = struct.unpack_from(">I", data, table[name][0] + 4)
    starts = _column(data, table[name], 8, kind, chunks)
    (runs,) = struct.unpack_from(">I", data, table[b"stsc"][0] + 4)
    first, samples, described = _column(data, table[b"stsc"], 8, ">u4", 3 * runs).reshape(runs, 3).T
    lengths = np.diff(np.append(first, chunks + 1))
    if first[0] != 1 or (lengths <= 0).any() or (samples <= 0).any() or (described != 1).any():
        raise ValueError("chunks that are not one behind the other")
    return starts, np.repeat(samples, lengths)


def _column(data: bytes, box: Place, at: int, kind: str, count: int) -> npt.NDArray[np.int64]:
    """Return numbers that stand in a box, `at` so many bytes from its start."""
    if box[0] + at + count * np.dtype(kind).itemsize > box[1]:
        raise ValueError("a table is longer than its box")
    return np.frombuffer(data, kind, count, box[0] + at).astype(np.int64)


def _clock(data: bytes, header: Place) -> int:
    """Return how many units a second has, by the header of a movie or of a track's media."""
    (units,) = struct.unpack_from(">I", data, header[0] + (20 if data[header[0]] else 12))
    if units == 0:
        raise ValueError("no units of time")
    return int(units)
