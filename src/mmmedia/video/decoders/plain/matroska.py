"""Which Matroska and WebM files are plain: those that hold nothing but clusters of blocks, evenly spaced."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from mmmedia.containers import ebml
from mmmedia.video.decoders.bitstreams.colours import AV1_HEAD, are_usual, of_av1
from mmmedia.video.decoders.bitstreams.shown import shown_of_vp8, shown_of_vp9
from mmmedia.video.decoders.plain.h264 import are_disposable, is_plain_record
from mmmedia.video.decoders.plain.video import Outline, PlainVideo, frames_at_most, frames_shown
from mmmedia.video.decoders.shown import Shown

_MOST_ELEMENTS = 1024  # that stand side by side, clusters with what is around them
_LARGEST_INDEX = 1 << 16  # of what describes the file
_BESIDE = 4  # so many times as many blocks as those of pictures may there be of all tracks
_VOID, _CRC = 0xEC, 0xBF
_TOP = frozenset(
    [ebml.SEEK_HEAD, ebml.INFO, ebml.TRACKS, ebml.TAGS, ebml.CHAPTERS, ebml.CLUSTER, ebml.CUES, _VOID, _CRC]
)
# What may be said of a track without consequence: names, languages, flags, how long a frame is.
_PRIVATE = 0x63A2
_OF_TRACK = frozenset(
    {
        ebml.NUMBER,
        ebml.UID,
        ebml.KIND,
        ebml.DEFAULT_DURATION,
        ebml.CODEC,
        _PRIVATE,
        ebml.PICTURES,
        _VOID,
        _CRC,
    }
    | {0x9C, 0x22B59C, 0x22B59D, 0x536E, 0x88, 0xB9, 0x55AA, 0x258688, 0x6DE7, 0x6DF8, 0xAA}
)
_WIDTH, _HEIGHT, _INTERLACED, _MOST_ADDED = 0xB0, 0xBA, 0x9A, 0x55EE
_MATRIX, _TRANSFER, _PRIMARIES = 0x55B1, 0x55BA, 0x55BB
_OF_PICTURES = frozenset([_WIDTH, _HEIGHT, _INTERLACED, ebml.COLOUR, 0x54B0, 0x54BA, 0x54B2])
_OF_COLOUR = frozenset(
    [_MATRIX, _TRANSFER, _PRIMARIES, 0x55B2, 0x55B3, 0x55B4, ebml.SITED_ACROSS, ebml.SITED_DOWN, 0x55B9]
)
_PROGRESSIVE = 2
_OF_GROUP = frozenset([ebml.BLOCK, ebml.REFERENCE, 0x9B])
# Of a cluster, in front of its blocks.
_POSITION, _PREVIOUS = 0xA7, 0xAB
_VIDEO, _SOUND = 1, 2
_CODECS = {b"V_VP8": "vp8", b"V_VP9": "vp9", b"V_AV1": "av1", b"V_MPEG4/ISO/AVC": "h264"}
_MILLISECOND = Fraction(1, 1000)
_TICK = 1_000_000  # nanoseconds, which nearly all files have
_UNEVEN = 2  # so many times the usual step is the longest of a plain video
_REORDERED = 17

Track = dict[int, bytes]


def plain_matroska(data: bytes) -> PlainVideo | None:
    """Return what a Matroska or WebM file holds if it is plain, else None.

    Raises:
        ValueError, IndexError, KeyError, CannotSeekError, HeaderEndError: it can't be read.
    """
    described, clusters = _elements(data)
    (tracks,) = described[ebml.TRACKS]
    (info,) = described[ebml.INFO]
    if ebml.number(dict(ebml.children(info)).get(ebml.SCALE, _TICK.to_bytes(3, "big"))) != _TICK:
        return None
    track, others = _only_video(tracks)
    codec = _CODECS[track[ebml.CODEC]]
    size = dict(ebml.children(track[ebml.PICTURES]))
    height, width = ebml.number(size[_HEIGHT]), ebml.number(size[_WIDTH])
    most = frames_at_most(height, width)
    blocks = _blocks(data, clusters, ebml.number(track[ebml.NUMBER]), others, most)
    private = track.get(_PRIVATE, b"")
    if not _are_plain(data, codec, private, blocks):
        return None
    is_key = [block.is_key for block in blocks]
    shown = _evenly_shown([block.time for block in blocks], is_key)
    if shown is None or shown.positions is None:
        return None
    disposable = [False] * shown.total
    if codec == "h264":
        disposable = are_disposable(data[block.begin : block.stop] for block in blocks)
    keys = [position for position, each in enumerate(is_key) if each]
    outline = Outline(shown.positions.tolist(), keys, disposable)
    return PlainVideo(height, width, codec, shown, _MILLISECOND, outline)


def _elements(data: bytes) -> tuple[dict[int, list[bytes]], list[ebml.Element]]:
    """What stands around the clusters, and these; the file ends where they do."""
    header = _element(data, 0)
    segment = _element(data, header.stop)
    if (header.kind, segment.kind, segment.stop) != (ebml.HEADER, ebml.SEGMENT, len(data)):
        raise ValueError("no file of one segment")
    described: dict[int, list[bytes]] = {}
    clusters: list[ebml.Element] = []
    at = segment.begin
    for _ in range(_MOST_ELEMENTS):
        if at >= segment.stop:
            return described, clusters
        found = _element(data, at)
        if found.kind not in _TOP or found.stop > segment.stop:
            raise ValueError("an unusual element, or one that does not fit")
        if found.kind == ebml.CLUSTER:
            clusters.append(found)
        elif found.stop - found.begin <= _LARGEST_INDEX:
            described.setdefault(found.kind, []).append(data[found.begin : found.stop])
        at = found.stop
    raise ValueError("too many elements")


def _element(data: bytes, at: int) -> ebml.Element:
    found = ebml.element(data[at : at + ebml.LONGEST_HEAD], 0, at)
    if found is None:
        raise ValueError("an element is cut short")
    return found


def _kinds(data: bytes, at: int) -> set[int]:
    """What stands in the element at an offset."""
    found = _element(data, at)
    return {kind for kind, _ in ebml.children(data[found.begin : found.stop])}


def _only_video(tracks: bytes) -> tuple[Track, set[int]]:
    """The only track of pictures, and the numbers of those of sound beside it."""
    found = [list(ebml.children(each)) for kind, each in ebml.children(tracks) if kind == ebml.TRACK]
    kinds = [ebml.number(dict(each)[ebml.KIND]) for each in found]
    if kinds.count(_VIDEO) != 1 or not {_VIDEO, _SOUND}.issuperset(kinds):
        raise ValueError("other tracks than one of pictures and those of sound")
    elements = found[kinds.index(_VIDEO)]
    track = dict(elements)
    pictures = list(ebml.children(track[ebml.PICTURES]))
    added = ebml.number(track.pop(_MOST_ADDED, b""))
    interlaced = ebml.number(dict(pictures).get(_INTERLACED, bytes([_PROGRESSIVE])))
    if added or interlaced != _PROGRESSIVE or not _OF_TRACK.issuperset(track):
        raise ValueError("an unusual track")
    colour = dict(ebml.children(dict(pictures).get(ebml.COLOUR, b"")))
    told = [ebml.number(colour.get(kind, b"\2")) for kind in (_PRIMARIES, _TRANSFER, _MATRIX)]
    is_usual = _OF_PICTURES.issuperset(kind for kind, _ in pictures) and _OF_COLOUR.issuperset(colour)
    if not is_usual or not are_usual([(told[0], told[1], told[2])]):
        raise ValueError("unusual pictures")
    return track, {ebml.number(dict(each)[ebml.NUMBER]) for each in found if each is not elements}


def _blocks(
    data: bytes, clusters: Sequence[ebml.Element], track: int, others: set[int], most: int
) -> list[ebml.Block]:
    """The blocks of a track, no more than so many; with those of the others they fill the clusters."""

    def peek(at: int, length: int) -> bytes:
        return data[at : at + length]

    own, count = [], 0
    for cluster in clusters:
        begun = ebml.first(peek, cluster)
        if begun is None:
            raise ValueError("a cluster without a time")
        at, time = begun
        for _ in (_POSITION, _PREVIOUS):
            if at < cluster.stop and (found := _element(data, at)).kind in (_POSITION, _PREVIOUS):
                at = found.stop
        for block in ebml.blocks(peek, at, cluster.stop, time, _BESIDE * most):
            count += 1
            if block.start != at or block.begin >= block.stop or count > _BESIDE * most:
                raise ValueError("an unusual block, or too many")
            if block.track == track:
                is_usual = data[at] != ebml.GROUP or _OF_GROUP.issuperset(_kinds(data, at))
                if block.is_laced or not is_usual:
                    raise ValueError("an unusual block")
                own.append(block)
                if len(own) > most:
                    raise ValueError("too many blocks")
            elif block.track not in others:
                raise ValueError("a block of no track")
            at = block.end
        if at != cluster.stop:
            raise ValueError("other elements than blocks")
    return own


def _are_plain(data: bytes, codec: str, private: bytes, blocks: Sequence[ebml.Block]) -> bool:
    """Whether every block shows a picture, in colours that OpenCV converts, as the codec has it."""
    if codec == "vp8":
        return all(shown_of_vp8(data, block.begin) for block in blocks)
    if codec == "vp9":
        return all(shown_of_vp9(data, block.begin, block.stop - block.begin) == 1 for block in blocks)
    if codec == "av1":
        places = [(block.begin, block.stop) for block in blocks]
        return are_usual([*of_av1(private, [(AV1_HEAD, len(private))]), *of_av1(data, places)])
    return is_plain_record(private)


def _evenly_shown(times: Sequence[int], is_key: Sequence[bool]) -> Shown | None:
    """The frames of packets in decode order, if their times are evenly apart and in about that order."""
    total = len(times)
    if total < 2 or not is_key[0] or times[0] != min(times) or times[0] < 0:
        return None
    order = sorted(range(total), key=times.__getitem__)
    steps = [times[behind] - times[before] for before, behind in pairwise(order)]
    longest = _UNEVEN * sorted(steps)[len(steps) // 2]
    if min(steps) <= 0 or max(steps) > longest:
        return None
    latest = 0
    for time, key in zip(times, is_key, strict=True):
        latest = max(latest, time)
        if latest - time > (0 if key else _REORDERED * longest):
            return None
    usual = Fraction(times[order[-1]] - times[order[0]], total - 1)
    return frames_shown(np.array(order), np.array(times)[order], _MILLISECOND, usual)
