"""A quick look at an MP4: whether its tables hold nothing unusual, so that its header's claims are true."""

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.video.decoders.bitstreams.bits import HeaderEndError
from mmmedia.video.decoders.bitstreams.h264_sets import SPS, is_progressive_h264, read_avcc, read_sequence
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError

_MOST_BOXES = 200
Place = tuple[int, int]
_STRETCH = 1 << 20
# Of H.264 (ITU-T H.264, annex A).
_PROFILES = frozenset([66, 77, 88, 100, 110, 122, 244, 44])


class PlainVideo(NamedTuple):
    """How many frames an MP4 has, each as long as the other, the size of each as stored, and its codec."""

    total: int
    height: int
    width: int
    codec: bytes


def plain_video(data: bytes) -> PlainVideo | None:
    """Return what an MP4 holds if it is plain, else None; FFmpeg is not asked.

    Plain is one track of pictures, upright and not fields, whole, with samples of the same length, the first
    of which is a key frame, and without an edit list that leaves anything out. `stays_plain` says the rest.
    """
    try:
        return _plain(data)
    except (struct.error, IndexError, KeyError, ValueError, CannotSeekError, HeaderEndError):
        return None


def _plain(data: bytes) -> PlainVideo | None:
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
    header = track[b"tkhd"][0] + (52 if data[track[b"tkhd"][0]] else 40)
    if struct.unpack_from(">5i", data, header) != (1 << 16, 0, 0, 0, 1 << 16):
        return None
    (descriptions,) = struct.unpack_from(">I", data, table[b"stsd"][0] + 4)
    (runs,) = struct.unpack_from(">I", data, table[b"stts"][0] + 4)
    (total,) = struct.unpack_from(">I", data, table[b"stsz"][0] + 8)
    if data.find(b"colr", *table[b"stsd"]) >= 0 or descriptions != 1 or runs != 1 or total < 2:
        return None
    if b"stss" in table and struct.unpack_from(">II", data, table[b"stss"][0] + 4)[1] != 1:
        return None
    if not _is_whole(data, dict(movie), track, table) or not _is_progressive(data, table[b"stsd"]):
        return None
    # A sample of any track that is not there ends the file.
    if not all(_is_stored(data, each) for each in tracks):
        return None
    # Behind the entry's own header: what all samples have, and 16 bytes of pictures.
    width, height = struct.unpack_from(">HH", data, table[b"stsd"][0] + 8 + 8 + 24)
    codec = data[table[b"stsd"][0] + 12 : table[b"stsd"][0] + 16]
    return PlainVideo(total, height, width, bytes(codec))


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
    """Whether all that is stored is shown: there is no edit, or one from the first frame to the last."""
    if b"edts" not in track:
        return b"ctts" not in table
    edits = dict(_boxes(data, track[b"edts"]))[b"elst"][0]
    (count,) = struct.unpack_from(">I", data, edits + 4)
    if data[edits] or count != 1:
        return False
    begin = struct.unpack_from(">i", data, edits + 12)[0]
    first = struct.unpack_from(">Ii", data, table[b"ctts"][0] + 8)[1] if b"ctts" in table else 0
    (length,) = struct.unpack_from(">I", data, edits + 8)
    frames, ticks = struct.unpack_from(">II", data, table[b"stts"][0] + 8)
    step = ticks / _clock(data, dict(_boxes(data, track[b"mdia"]))[b"mdhd"])
    seconds = length / _clock(data, movie[b"mvhd"])
    return bool(begin == first and seconds > (frames - 0.5) * step)


def _is_stored(data: bytes, track: dict[bytes, Place]) -> bool:
    """Whether the file holds all samples that a track's tables name (ISO/IEC 14496-12, 8.7)."""
    table = dict(_boxes(data, dict(_boxes(data, dict(_boxes(data, track[b"mdia"]))[b"minf"]))[b"stbl"]))
    size, count = struct.unpack_from(">II", data, table[b"stsz"][0] + 4)
    if count > len(data):
        return False
    sizes = np.full(count, size, np.int64) if size else _column(data, table[b"stsz"], 12, ">u4", count)
    name, kind = (b"stco", ">u4") if b"stco" in table else (b"co64", ">u8")
    (chunks,) = struct.unpack_from(">I", data, table[name][0] + 4)
    starts = _column(data, table[name], 8, kind, chunks)
    (runs,) = struct.unpack_from(">I", data, table[b"stsc"][0] + 4)
    first, samples, _ = _column(data, table[b"stsc"], 8, ">u4", 3 * runs).reshape(runs, 3).T
    lengths = np.diff(np.append(first, chunks + 1))
    if not runs or first[0] != 1 or (lengths <= 0).any() or (samples <= 0).any() or (sizes <= 0).any():
        return False
    behind = np.cumsum(np.repeat(samples, lengths))
    stored = np.diff(np.concatenate([[0], np.cumsum(sizes)])[np.append(0, behind)])
    return bool(behind[-1] == count and ((starts >= 0) & (starts + stored <= len(data))).all())


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


def _is_progressive(data: bytes, descriptions: Place) -> bool:
    name = data[descriptions[0] + 12 : descriptions[0] + 16]
    if name == b"avc1":
        record = data.index(b"avcC", *descriptions) + 4
        # Lengths in other than four bytes are unusual: looked at more closely elsewhere.
        is_progressive = data[record + 4] & 3 == 3 and is_progressive_h264(data[slice(*descriptions)])
        return is_progressive and not _tells_colours(data, descriptions)
    return name == b"vp09"


def stays_plain(data: bytes, plain: PlainVideo) -> bool:
    """Return whether no sequence parameter set stands among samples, which need not be as the first says."""
    if plain.codec != b"avc1":
        return True
    for start in range(0, len(data), _STRETCH):
        stretch = np.frombuffer(data, np.uint8)[start : start + _STRETCH + 6]
        if len(stretch) < 6:
            break
        # A length in four bytes, of less than 256; the unit's kind; a profile.
        begins = (stretch[4:-1] & 0x9F == SPS) & (stretch[3:-2] > 0)
        begins &= (stretch[2:-3] == 0) & (stretch[1:-4] == 0) & (stretch[:-5] == 0)
        if any(stretch[at + 5] in _PROFILES for at in np.flatnonzero(begins).tolist()):
            return False
    return True


def _tells_colours(data: bytes, descriptions: Place) -> bool:
    """Whether pictures may be of colours that OpenCV does not convert."""
    record = data[data.index(b"avcC", *descriptions) + 4 : descriptions[1]]
    return any(read_sequence(each).colours for each in read_avcc(record)[1] if each[0] & 31 == SPS)
