"""Which MP4s are plain: those whose tables hold nothing unusual."""

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.video.decoders.bitstreams.colours import AV1_HEAD, Colours, are_usual, of_av1
from mmmedia.video.decoders.bitstreams.h264_sets import begins_with_idr
from mmmedia.video.decoders.bitstreams.shown import shown_of_vp9
from mmmedia.video.decoders.plain.h264 import is_plain_record
from mmmedia.video.decoders.plain.video import PlainVideo, frames_at_most

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
    top = _boxes(data, (0, len(data)))
    if [name for name, _ in top].count(b"moov") != 1 or any(name == b"moof" for name, _ in top):
        return None
    movie = _boxes(data, dict(top)[b"moov"])
    place = dict(top)[b"moov"]
    if any(name == b"mvex" for name, _ in movie) or data.find(b"covr", *place) >= 0:
        return None
    tracks = [dict(_boxes(data, within)) for name, within in movie if name == b"trak"]
    pictures = [track for track in tracks if _is_of_pictures(data, track)]
    if len(pictures) != 1:
        return None
    track = pictures[0]
    media = dict(_boxes(data, track[b"mdia"]))
    table = dict(_boxes(data, dict(_boxes(data, media[b"minf"]))[b"stbl"]))
    if not _is_upright(data, track[b"tkhd"][0], 40) or not _is_upright(data, dict(movie)[b"mvhd"][0], 36):
        return None
    (descriptions,) = struct.unpack_from(">I", data, table[b"stsd"][0] + 4)
    (runs,) = struct.unpack_from(">I", data, table[b"stts"][0] + 4)
    (total,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 8)
    if descriptions != 1 or runs != 1 or total < 2:
        return None
    if b"stss" in table and struct.unpack_from(">II", data, table[b"stss"][0] + 4)[1] != 1:
        return None
    # A sample of any track that is not there ends the file.
    stored = [_samples(data, each) for each in tracks]
    own = stored[tracks.index(track)]
    if own is None or any(each is None for each in stored) or not _is_whole(data, dict(movie), track, table):
        return None
    ((name, entry),) = _boxes(data, (table[b"stsd"][0] + 8, table[b"stsd"][1]))
    told = _boxes(data, (entry[0] + _PICTURES, entry[1]))
    # Behind what all samples have, and 16 bytes of pictures.
    width, height = struct.unpack_from(">HH", data, entry[0] + 8 + 16)
    if name != b"avc1" and total > frames_at_most(height, width):
        return None
    codec = _codec(data, name, dict(told), own)
    if codec is None or not are_usual(_colours(data, told)):
        return None
    return PlainVideo(total, height, width, codec)


def _is_upright(data: bytes, header: int, at: int) -> bool:
    """Whether the matrix in a header, so many bytes from its start in version 0, changes nothing."""
    place = header + at + (12 if data[header] else 0)
    return struct.unpack_from(">5i", data, place) == (1 << 16, 0, 0, 0, 1 << 16)


def _codec(data: bytes, name: bytes, told: dict[bytes, Place], samples: npt.NDArray[np.int64]) -> str | None:
    """The codec, if it is one that is plain by what its description says, and its samples."""
    if name == b"avc1":
        record, first = data[slice(*told[b"avcC"])], data[slice(*samples[0].tolist())]
        return "h264" if is_plain_record(record) and begins_with_idr(first, record) else None
    places = samples.tolist()
    if name == b"av01":
        begin, end = told[b"av1C"]
        return "av1" if are_usual(of_av1(data, [(begin + AV1_HEAD, end), *places])) else None
    if name == b"vp09":
        return "vp9" if all(shown_of_vp9(data, begin, end - begin) == 1 for begin, end in places) else None
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
    data: bytes, movie: dict[bytes, Place], track: dict[bytes, Place], table: dict[bytes, Place]
) -> bool:
    """Whether all that is stored is shown, one step after the other: there is no edit, or one of it all."""
    frames, ticks = struct.unpack_from(">II", data, table[b"stts"][0] + 8)
    if b"ctts" in table and not _is_even(data, table[b"ctts"], frames, ticks):
        return False
    if b"edts" not in track:
        return b"ctts" not in table
    edits = dict(_boxes(data, track[b"edts"]))[b"elst"][0]
    (count,) = struct.unpack_from(">I", data, edits + 4)
    if data[edits] or count != 1:
        return False
    begin = struct.unpack_from(">i", data, edits + 12)[0]
    first = struct.unpack_from(">Ii", data, table[b"ctts"][0] + 8)[1] if b"ctts" in table else 0
    (length,) = struct.unpack_from(">I", data, edits + 8)
    step = ticks / _clock(data, dict(_boxes(data, track[b"mdia"]))[b"mdhd"])
    seconds = length / _clock(data, movie[b"mvhd"])
    return bool(begin == first and seconds > (frames - 0.5) * step)


def _is_even(data: bytes, shifts: Place, frames: int, ticks: int) -> bool:
    """Whether frames are shown one step after the other, the first of them first (14496-12, 8.6.1.3)."""
    (runs,) = struct.unpack_from(">I", data, shifts[0] + 4)
    counts, values = _column(data, shifts, 8, ">i4", 2 * runs).reshape(runs, 2).T
    if (counts <= 0).any() or counts.sum() != frames:
        return False
    shown = np.arange(frames) * ticks + np.repeat(values, counts)
    return bool(shown[0] == shown.min() and (np.diff(np.sort(shown)) == ticks).all())


def _samples(data: bytes, track: dict[bytes, Place]) -> npt.NDArray[np.int64] | None:
    """Where each of a track's samples begins and ends; None if the file does not hold all of them.

    ISO/IEC 14496-12, 8.7.
    """
    table = dict(_boxes(data, dict(_boxes(data, dict(_boxes(data, track[b"mdia"]))[b"minf"]))[b"stbl"]))
    size, count = struct.unpack_from(">II", data, table[b"stsz"][0] + 4)
    if count > len(data):
        return None
    sizes = np.full(count, size, np.int64) if size else _column(data, table[b"stsz"], 12, ">u4", count)
    name, kind = (b"stco", ">u4") if b"stco" in table else (b"co64", ">u8")
    (chunks,) = struct.unpack_from(">I", data, table[name][0] + 4)
    starts = _column(data, table[name], 8, kind, chunks)
    (runs,) = struct.unpack_from(">I", data, table[b"stsc"][0] + 4)
    first, samples, described = _column(data, table[b"stsc"], 8, ">u4", 3 * runs).reshape(runs, 3).T
    lengths = np.diff(np.append(first, chunks + 1))
    if not runs or first[0] != 1 or (lengths <= 0).any() or (samples <= 0).any() or (sizes <= 0).any():
        return None
    if (described != 1).any():
        return None
    each = np.repeat(samples, lengths)
    if each.sum() != count:
        return None
    before = np.cumsum(sizes) - sizes
    begins = before + np.repeat(starts - before[np.cumsum(each) - each], each)
    places = np.stack([begins, begins + sizes], axis=1)
    return None if (begins < 0).any() or places.max() > len(data) else places


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
