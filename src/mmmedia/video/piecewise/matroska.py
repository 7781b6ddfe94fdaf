"""Matroska and WebM files (RFC 9559).

They have no table of their frames. Of a file that costs nothing to look into the head of every block is read,
and all is known. Of others there are the times of key frames (`Cues`), and where those are. Where the file
declares a constant rate, a time says which frame it is; that is checked at every key frame, and at every
frame that is read.
"""

import bisect
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from mmmedia.containers import ebml
from mmmedia.containers.ebml import Block
from mmmedia.sources import Source, Window
from mmmedia.video.piecewise.layout import (
    FRONT_BYTES,
    FRONT_PACKETS,
    CannotTellError,
    Layout,
    Packet,
    Times,
)

Peek = Callable[[int, int], bytes]

_VIDEO = 1
_MOST_FRAMES = 1 << 21
_LARGEST_INDEX = 1 << 24
_MOST_ELEMENTS = 256  # before the first cluster
_CHUNK = 8192  # most blocks' heads are within so many bytes of each other, or a step apart
_FRONT_GUESS = 1 << 18
_HEAD = 64  # of a cluster, up to its time
_TICKS = 30_000  # within a cluster, of 16 bits
_MORE = 0.1  # what more is read than is expected to do
_REORDERED = 20
_REGULAR = 0.5
_VP8 = b"V_VP8"
_CODECS = (b"V_MPEG4/ISO/AVC", b"V_MPEGH/ISO/HEVC", _VP8, b"V_VP9", b"V_AV1")
_COUNT = b"NUMBER_OF_FRAMES"


class _File(NamedTuple):
    """What stands around the clusters.

    Attributes:
        header: the header of the file.
        described: the elements that say what is in it, as they are.
        track: the number of the video's track.
        codec: of the video.
        told: how many frames it has, where a tag tells; else None.
        scale: nanoseconds of a tick.
        step: nanoseconds from one frame to the next; 0 where none is declared.
        first: where the first cluster begins.
        base: where the segment's content begins.
        stop: where that ends.
        cues: the content of the index; None where there is none.
    """

    header: bytes
    described: bytes
    track: int
    codec: bytes
    told: int | None
    scale: int
    step: int
    first: int
    base: int
    stop: int
    cues: bytes | None


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except ebml.ElementError as error:
        raise CannotTellError(str(error)) from None


@_reading()
def read(window: Window) -> Layout:
    """Return the layout of a file.

    Args:
        window: the file.

    Raises:
        CannotTellError: it does not say enough.
    """
    file = opened(window)
    if not window.source.gap:
        return _by_blocks(window, file)
    if not file.step:
        raise CannotTellError("no rate")
    return _ByCues(window, file, _cues(file)).layout()


@_reading()
def opened(window: Window) -> _File:
    """Read what stands around the clusters of a file.

    Raises:
        CannotTellError: more or less than one video of a codec that is read in pieces, or a file cut short.
    """
    head = _element(window, 0)
    if head.kind != ebml.HEADER:
        raise CannotTellError("elements")
    segment = _element(window, head.stop)
    if segment.kind != ebml.SEGMENT:
        raise CannotTellError("elements")
    if segment.stop > window.size:
        raise CannotTellError("cut short")
    described: list[bytes] = []
    seeks: dict[int, int] = {}
    cues = None
    at, number, found = segment.begin, 0, None
    while at < segment.stop:
        found = _element(window, at)
        if found.kind == ebml.CLUSTER:
            break
        if found.kind in (ebml.INFO, ebml.TRACKS, ebml.TAGS):
            described.append(_piece(window, found))
        elif found.kind == ebml.SEEK_HEAD:
            seeks.update(_seeks(_content(window, found)))
        elif found.kind == ebml.CUES:
            cues = _content(window, found)
        at, number = found.stop, number + 1
        if number > _MOST_ELEMENTS:
            raise CannotTellError("elements")
    if found is None or found.kind != ebml.CLUSTER:
        raise CannotTellError("no clusters")
    if cues is None and ebml.CUES in seeks:
        place = segment.begin + seeks[ebml.CUES]
        if place < segment.stop:
            index = _element(window, place)
            if index.kind == ebml.CUES and index.stop <= window.size:
                cues = _content(window, index)
    if ebml.TAGS in seeks and segment.begin + seeks[ebml.TAGS] > found.start:
        tags = _element(window, segment.begin + seeks[ebml.TAGS])
        if tags.kind == ebml.TAGS and tags.stop <= window.size:
            described.append(_piece(window, tags))
    track, codec, count, scale, step = _described(described)
    header = _piece(window, head)
    return _File(
        header, b"".join(described), track, codec, count, scale, step,
        found.start, segment.begin, segment.stop, cues,
    )  # fmt: skip


def _element(window: Window, at: int) -> ebml.Element:
    found = ebml.element(window.head(at, ebml.LONGEST_HEAD), 0, at)
    if found is None:
        raise CannotTellError("cut short")
    return found


def _piece(window: Window, element: ebml.Element) -> bytes:
    """An element of an index, with its head."""
    if element.stop - element.start > _LARGEST_INDEX:
        raise CannotTellError("an index too large")
    return window.piece(element.start, element.stop)


def _content(window: Window, element: ebml.Element) -> bytes:
    return _piece(window, element)[element.begin - element.start :]


def _seeks(content: bytes) -> dict[int, int]:
    """Where elements are, as the file says, from where the segment's content begins."""
    places = {}
    for kind, inner in ebml.children(content):
        if kind == ebml.SEEK:
            entry = dict(ebml.children(inner))
            if {ebml.SEEK_ID, ebml.SEEK_POSITION} <= entry.keys():
                places[ebml.number(entry[ebml.SEEK_ID])] = ebml.number(entry[ebml.SEEK_POSITION])
    return places


def _described(elements: Sequence[bytes]) -> tuple[int, bytes, int | None, int, int]:
    """The only video track's number, codec and frames; nanoseconds of a tick, and from frame to frame."""
    scale, tracks, tags = 1_000_000, [], []
    for kind, content in ebml.children(b"".join(elements)):
        if kind == ebml.INFO:
            scale = next((ebml.number(each) for k, each in ebml.children(content) if k == ebml.SCALE), scale)
        elif kind == ebml.TRACKS:
            tracks += [dict(ebml.children(each)) for k, each in ebml.children(content) if k == ebml.TRACK]
        elif kind == ebml.TAGS:
            tags += [each for k, each in ebml.children(content) if k == ebml.TAG]
    videos = [each for each in tracks if ebml.number(each.get(ebml.KIND, b"")) == _VIDEO]
    if len(videos) != 1 or not scale:
        raise CannotTellError("tracks")
    video = videos[0]
    codec = video.get(ebml.CODEC, b"").rstrip(b"\0")
    if ebml.ENCODINGS in video or codec not in _CODECS:
        raise CannotTellError("codec")
    step = ebml.number(video.get(ebml.DEFAULT_DURATION, b""))
    count = _count(tags, ebml.number(video.get(ebml.UID, b"")))
    return ebml.number(video.get(ebml.NUMBER, b"")), codec, count, scale, step


def _count(tags: Iterable[bytes], uid: int) -> int | None:
    """How many frames a track has by a tag such as mkvmerge writes; None where it has none."""
    for tag in tags:
        parts = list(ebml.children(tag))
        targets = [dict(ebml.children(each)) for kind, each in parts if kind == ebml.TARGETS]
        if uid and any(ebml.number(each.get(ebml.TAG_UID, b"")) == uid for each in targets):
            for kind, content in parts:
                simple = dict(ebml.children(content)) if kind == ebml.SIMPLE_TAG else {}
                text = simple.get(ebml.TAG_STRING, b"").rstrip(b"\0")
                if simple.get(ebml.TAG_NAME, b"").rstrip(b"\0") == _COUNT and text.isdigit():
                    return int(text[:18])
    return None


# What both ways have in common.


class _Front:
    """The first blocks of all tracks, as they are, in clusters."""

    def __init__(self, track: int) -> None:
        self._track = track
        self._count = self._bytes = 0
        self._clusters: list[tuple[int, list[bytes]]] = []

    @property
    def is_full(self) -> bool:
        return self._count >= FRONT_PACKETS or self._bytes >= FRONT_BYTES

    def take(self, window: Window, time: int, block: Block) -> None:
        if not self._clusters or self._clusters[-1][0] != time:
            self._clusters.append((time, []))
        self._clusters[-1][1].append(window.piece(block.start, block.end))
        self._count += block.track == self._track
        self._bytes += block.end - block.start

    def written(self) -> bytes:
        return b"".join(
            ebml.written(ebml.CLUSTER, _time(time) + b"".join(each)) for time, each in self._clusters
        )


def _time(ticks: int) -> bytes:
    return ebml.written(ebml.TIME, ticks.to_bytes(max(1, (ticks.bit_length() + 7) // 8), "big"))


def _placeholders(track: int, frames: Iterable[tuple[int, bool, bytes]]) -> bytes:
    """Clusters with a block for each frame: its time, whether it is a key frame, and what stands for it."""
    number = bytes([0x80 | track]) if track < 127 else (1 << 14 | track).to_bytes(2, "big")
    clusters: list[bytes] = []
    begun, blocks = 0, list[bytes]()
    for time, is_key, payload in frames:
        if blocks and not -_TICKS < time - begun < _TICKS:
            clusters.append(ebml.written(ebml.CLUSTER, _time(begun) + b"".join(blocks)))
            blocks = []
        if not blocks:
            begun = time
        flags = 0x80 if is_key else 0
        blocks.append(
            ebml.written(ebml.SIMPLE_BLOCK, number + struct.pack(">hB", time - begun, flags) + payload)
        )
    if blocks:
        clusters.append(ebml.written(ebml.CLUSTER, _time(begun) + b"".join(blocks)))
    return b"".join(clusters)


def _stand_in(codec: bytes, is_key: bool) -> bytes:
    """What stands for a packet that shows a picture, as far as its first byte says so."""
    return bytes([0x10 | (not is_key)]) if codec == _VP8 else b"\0"


def _skeleton(file: _File, front: _Front, frames: Iterable[tuple[int, bool, bytes]]) -> bytes:
    content = file.described + front.written() + _placeholders(file.track, frames)
    return file.header + ebml.written(ebml.SEGMENT, content, wide=True)


def _check(block: Block) -> None:
    if block.is_laced or block.time < 0:
        raise CannotTellError("laced blocks, or times below zero")


# By the heads of all blocks.


class _Reader:
    """Bytes of a source here and there, ascending, of which hardly any are kept."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._start, self._piece = 0, b""

    def __call__(self, at: int, length: int) -> bytes:
        if not self._start <= at <= at + length <= self._start + len(self._piece):
            stop = min(at + max(length, _CHUNK), self._source.size)
            self._start, self._piece = at, self._source.read([(at, stop)])[0]
        return self._piece[at - self._start : at - self._start + length]


def _by_blocks(window: Window, file: _File) -> Layout:
    peek = _Reader(window.source)
    found: list[Block] = []
    front = _Front(file.track)
    real, count, at = 0, 0, file.first
    stand_ins: list[bytes] = []
    while at < file.stop:
        cluster = ebml.element(peek(at, ebml.LONGEST_HEAD), 0, at)
        if cluster is None or cluster.stop > window.size:
            raise CannotTellError("cut short")
        begun = ebml.first(peek, cluster) if cluster.kind == ebml.CLUSTER else None
        if begun is not None:
            for block in ebml.blocks(peek, begun[0], cluster.stop, begun[1]):
                count += 1
                if not front.is_full:
                    front.take(window, begun[1], block)
                    real += block.track == file.track
                if block.track == file.track:
                    _check(block)
                    found.append(block)
                    # That of VP8 tells whether it is shown.
                    is_told = file.codec == _VP8 and block.begin < block.stop
                    stand_ins.append(peek(block.begin, 1) if is_told else b"\0")
        at = cluster.stop
        if count > _MOST_FRAMES:
            raise CannotTellError("too many blocks")
    times = np.array([block.time for block in found], np.int64)
    keys = np.array([block.is_key for block in found], np.bool_)
    offset = np.array([block.begin for block in found], np.int64)
    size = np.array([block.stop for block in found], np.int64) - offset
    rest = zip(times[real:].tolist(), keys[real:].tolist(), stand_ins[real:], strict=True)
    return Layout(_skeleton(file, front, rest), offset, size, Times(times, keys))


# By the times of key frames.


class _Cue(NamedTuple):
    """A key frame: its time in ticks, its cluster, and where its block is within; None: not told."""

    time: int
    cluster: int
    within: int | None

    @property
    def start(self) -> int:
        """Where its block is at the earliest."""
        return self.cluster + (0 if self.within is None else 5 + self.within)


def _cues(file: _File) -> list[_Cue]:
    if file.cues is None:
        raise CannotTellError("no index of key frames")
    found = {}
    for kind, content in ebml.children(file.cues):
        if kind != ebml.CUE_POINT:
            continue
        time = None
        for inner, body in ebml.children(content):
            if inner == ebml.CUE_TIME:
                time = ebml.number(body)
            elif inner == ebml.CUE_PLACES and time is not None:
                place = dict(ebml.children(body))
                if ebml.number(place.get(ebml.CUE_TRACK, b"")) == file.track and ebml.CUE_CLUSTER in place:
                    within = place.get(ebml.CUE_WITHIN)
                    at = file.base + ebml.number(place[ebml.CUE_CLUSTER])
                    found[time] = _Cue(time, at, None if within is None else ebml.number(within))
    cues = [found[time] for time in sorted(found)]
    if not cues or any(not file.first <= cue.cluster < file.stop for cue in cues):
        raise CannotTellError("no index of key frames")
    return cues


class _ByCues:
    """A file of a constant rate, by its key frames' times."""

    def __init__(self, window: Window, file: _File, cues: list[_Cue]) -> None:
        self._window, self._file, self._cues = window, file, cues
        self._origin = cues[0].time
        self._numbers = {self.number(cue.time): cue for cue in cues}
        self._keys = sorted(self._numbers)
        self._first = 0  # bytes of a key frame, about

    def number(self, time: int) -> int:
        """Which frame is shown at a time.

        Raises:
            CannotTellError: none is, at a constant rate.
        """
        number, late = divmod((time - self._origin) * self._file.scale, self._file.step)
        if late > self._file.step - late:
            number, late = number + 1, late - self._file.step
        if number < 0 or abs(late) > self._file.scale:
            raise CannotTellError("the rate is not constant")
        return number

    def time(self, number: int) -> int:
        """When a frame is shown, in ticks."""
        return self._origin + (number * self._file.step + self._file.scale // 2) // self._file.scale

    def layout(self) -> Layout:
        """Read the first frames and the last, and say which there are in between."""
        window, file = self._window, self._file
        if file.told is None:
            self._check_intervals()
        last = self._keys[-1]
        window.need([(file.first, file.first + _FRONT_GUESS), *self._ranges(last, file.stop)])
        front, real, goes_on = _Front(file.track), {}, False
        for time, block in self._blocks(_Cue(0, file.first, None)):
            if block is None or front.is_full or window.missing([(block.start, block.end)]):
                goes_on = block is not None
                break
            front.take(window, time, block)
            if block.track == file.track:
                _check(block)
                real[self.number(block.time)] = block.time
        behind = list(self._stretch(last))
        self._first = next((block.end - block.start for block in behind if block is not None), 0)
        ends = {self.number(block.time) for block in behind if block is not None}
        total = max(ends, default=-1) + 1
        if total > _MOST_FRAMES or not real or behind[-1:] != [None] or not ends >= set(range(last, total)):
            raise CannotTellError("frames are missing")
        if file.told not in (None, total):
            raise CannotTellError("the rate is not constant")
        # Of the last that were read some may be shown before others that stand behind them.
        sure = max(real) - _REORDERED if goes_on else total
        if not real.keys() >= set(range(sure)):
            raise CannotTellError("frames are missing")
        rest = [(self.time(number), number in self._numbers) for number in range(total) if number not in real]
        times = np.array([*real.values(), *(time for time, _ in rest)], np.int64)
        keys = np.array([*(each in self._numbers for each in real), *(key for _, key in rest)], np.bool_)
        unknown = np.zeros(len(times), np.int64)
        places = ((time, is_key, _stand_in(file.codec, is_key)) for time, is_key in rest)
        return Layout(_skeleton(file, front, places), unknown, unknown, Times(times, keys), self.locate)

    def _check_intervals(self) -> None:
        """See that most of the time is between key frames as far apart as the encoder lets them be.

        It counts frames for that, so that one that it never got makes such an interval longer.
        """
        steps = np.diff(self._keys)
        if len(steps) and steps[steps == steps.max()].sum() < _REGULAR * steps.sum():
            raise CannotTellError("the rate may not be constant")

    @_reading()
    def locate(self, stretches: Sequence[tuple[int, int]]) -> list[list[Packet]]:
        """Read the packets from key frames on until others have come, by their numbers."""
        window = self._window
        lacking = dict(stretches)
        found: dict[int, list[Packet]] = {}
        more = {key: self._guess(key, last) for key, last in stretches}
        while lacking:
            window.need([each for key in lacking for each in self._ranges(key, more[key])])
            for key, last in list(lacking.items()):
                packets, is_all = self._upto(key, last)
                if is_all:
                    found[key] = packets
                    del lacking[key]
                elif self._numbers[key].start + more[key] >= self._file.stop:
                    raise CannotTellError("frames are missing")
                else:
                    more[key] = max(more[key] + 4096, self._longer(key, last, packets))
        return [found[key] for key, _ in stretches]

    def _upto(self, key: int, last: int) -> tuple[list[Packet], bool]:
        """The packets read from a key frame on, and whether all up to another are there."""
        lacking, seen = set(range(key, last + 1)), set[int]()
        packets: list[Packet] = []
        for block in self._stretch(key):
            if block is None:
                raise CannotTellError("frames are missing")
            number = self.number(block.time)
            if number in seen or len(packets) > last - key + _REORDERED + 1:
                raise CannotTellError("frames are missing")
            seen.add(number)
            lacking.discard(number)
            packets.append(Packet(number, block.time, block.is_key, block.begin, block.stop))
            if not lacking:
                return packets, True
        return packets, False

    def _stretch(self, key: int) -> Iterator[Block | None]:
        """The blocks of the track from a key frame on, as far as they have been read; None: the end."""
        cue, begun = self._numbers[key], False
        for _, block in self._blocks(cue):
            if block is None:
                yield None
                return
            if self._window.missing([(block.start, block.end)]):
                return
            if block.track != self._file.track:
                continue
            begun = begun or block.time == cue.time
            if begun:
                _check(block)
                yield block

    def _blocks(self, cue: _Cue) -> Iterator[tuple[int, Block | None]]:
        """Yield the blocks from one on, with their clusters' times, as far as they go; None: the end."""
        at, within = cue.cluster, cue.within
        while at < self._file.stop:
            found = ebml.element(self._peek(at, ebml.LONGEST_HEAD), 0, at)
            if found is None:
                return
            if found.kind == ebml.CLUSTER:
                begun = ebml.first(self._peek, found)
                if begun is None:
                    return
                start, time = begun
                if within is not None:
                    start, within = found.begin + within, None
                blocks = ebml.blocks(self._peek, start, found.stop, time)
                while (block := next(blocks, None)) is not None:
                    start = block.end
                    yield time, block
                if start < found.stop and self._window.missing([(start, min(start + 16, found.stop))]):
                    return
            at = found.stop
        yield 0, None

    def _peek(self, at: int, length: int) -> bytes:
        """As many of some bytes as have been read."""
        stop = min(at + length, self._window.size)
        lacking = self._window.missing([(at, stop)])
        return self._window.piece(at, lacking[0][0] if lacking else stop)

    def _ranges(self, key: int, length: int) -> list[tuple[int, int]]:
        """Where the time of a key frame's cluster stands, and so many bytes from about the frame on."""
        cue = self._numbers[key]
        return [(cue.cluster, cue.cluster + _HEAD), (cue.start, cue.start + length)]

    def _length(self, key: int) -> int:
        """About how many bytes there are up to the next key frame."""
        after = bisect.bisect_right(self._keys, key)
        end = self._numbers[self._keys[after]].start if after < len(self._keys) else self._file.stop
        return max(end - self._numbers[key].start, 0)

    def _guess(self, key: int, last: int) -> int:
        """About how many bytes a stretch has, if key frames are equally large."""
        after = bisect.bisect_right(self._keys, key)
        frames = self._keys[after] - key if after < len(self._keys) else last - key + 1
        part = min((last - key) / max(frames - 1, 1), 1.0)
        length = self._length(key)
        first = min(self._first, length)
        return first + int((length - first) * part) + 4096

    def _longer(self, key: int, last: int, packets: Sequence[Packet]) -> int:
        """About how many bytes a stretch has, of which some packets are there."""
        if len(packets) < 2:
            return self._first + int(_MORE * self._length(key))
        each = (packets[-1].stop - packets[0].stop) / (len(packets) - 1)
        left = max(last - key + 1 - len(packets), 0) + 2  # in another order than they are shown in
        return packets[-1].stop - self._numbers[key].start + int((1 + _MORE) * left * each)
