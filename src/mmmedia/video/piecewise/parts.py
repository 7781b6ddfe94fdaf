"""The packets that some frames need, read from a source and judged as a video of their own."""

import bisect
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.containers.signatures import by_magic
from mmmedia.errors import InvalidMediaError, MediaError
from mmmedia.sources import Window
from mmmedia.video.decoders import eligible, sparse
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields
from mmmedia.video.decoders.bitstreams.shown import pictures_shown
from mmmedia.video.decoders.bitstreams.structure import INTERLACED, CannotSeekError, Structure
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.plan import Span
from mmmedia.video.decoders.shown import Shown, shown_frames
from mmmedia.video.piecewise import fragments, matroska, mp4
from mmmedia.video.piecewise.layout import CannotTellError, Layout

logger = logging.getLogger(__name__)

Positions = npt.NDArray[np.intp]

_COLUMNS = ("pts", "dts", "duration", "key", "discard", "corrupt")

# Of other codecs a packet's bytes say how many pictures it shows, or what is behind it whether any.
CODECS = frozenset(
    ["h264", "hevc", "libdav1d", "av1", "vp8", "libvpx", "vp9", "libvpx-vp9", "mjpeg", "prores", "dnxhd"]
)
# A key frame by the container's word may be none to begin with: so often the one before is tried.
_TRIES = 3


@dataclass(frozen=True)
class Video:
    """A video of which the index has been read.

    Attributes:
        window: what of its source has been read.
        layout: what its index says.
        admitted: its skeleton.
        packets: all of its packets, with the payloads of the skeleton.
        shown: the frames that a player shows.
    """

    window: Window
    layout: Layout
    admitted: "containers.Admitted[bytes]"
    packets: index.PacketIndex
    shown: Shown


@dataclass(frozen=True)
class Parts:
    """What some frames need, as a video of its own.

    Attributes:
        packets: the packets that were read.
        structure: what they are to each other.
        positions: the decode position of each frame that is shown, in order.
        shown: which packets show one.
        plan: how to get the wanted frames.
        rows: of each wanted frame, where it stands in `positions`.
    """

    packets: index.PacketIndex
    structure: Structure
    positions: Positions
    shown: Shown
    plan: sparse.SparsePlan
    rows: list[int]


def open_video(window: Window) -> Video:
    """Read what a file's index says of its video.

    Args:
        window: the file.

    Raises:
        CannotTellError: it does not say enough, so that all of the file is needed.
        MediaError: as of `Source.read`.
    """
    try:
        layout = _layout(window)
    except MediaError:
        raise
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError):
        raise CannotTellError("damaged tables") from None
    try:
        admitted = containers.admit(layout.skeleton)
        packets = index.build(admitted)
    except InvalidMediaError:
        raise CannotTellError("index") from None
    if len(packets) != len(layout.size):
        raise CannotTellError("index")
    if layout.times is None:
        if (packets.size != layout.size).any():
            raise CannotTellError("index")
    elif (packets.pts != layout.times.pts).any():
        raise CannotTellError("times")
    else:  # FFmpeg looks for key frames in placeholders
        packets = replace(packets, key=layout.times.key)
    if packets.codec not in CODECS:
        raise CannotTellError("codec")
    if not len(packets) or not packets.key[0] or packets.side_data:
        raise CannotTellError("packets")
    shown = shown_frames(packets)
    if shown.positions is None or shown.times is None:
        raise CannotTellError("times")
    return Video(window, layout, admitted, packets, shown)


def _layout(window: Window) -> Layout:
    name = by_magic(window.head(0, 4096))
    if name == "mov":
        whole = mp4.top(window)
        return fragments.read(window, whole) if fragments.is_fragmented(whole) else mp4.read(window, whole)
    if name == "matroska":
        return matroska.read(window)
    raise CannotTellError("container")


def read_parts(video: Video, wanted: Sequence[int], *, one_clip: bool = False) -> Parts:
    """Read the packets that frames need, and find out what they are to each other.

    Args:
        video: the video.
        wanted: numbers of frames that it has, ascending, each once.
        one_clip: whether all must fit into a single clip.

    Raises:
        CannotTellError: the whole is needed.
        CannotSeekError: it may not be decoded by parts.
    """
    assert video.shown.positions is not None
    positions = video.shown.positions[list(wanted)]
    keys = np.flatnonzero(video.packets.key)
    starts = [_start(video.packets, keys, int(position)) for position in positions]
    for _ in range(_TRIES):
        stretches = _joined(zip(starts, (positions + 1).tolist(), strict=True))
        if video.layout.locate is None:
            read = _by_tables(video, stretches)
        else:
            read = _by_looking(video, stretches, positions)
        packets, shown = read.packets, read.shown
        if packets.codec in ("h264", "hevc") and may_hold_fields(packets):
            raise CannotSeekError(INTERLACED)
        if (pictures_shown(packets) != 1).any():
            raise CannotTellError("packets without a picture")
        packets, structure, ordered = eligible.judge(packets, shown)
        firsts = read.bounds[:-1]
        late = {start for (start, _), first in zip(stretches, firsts, strict=True)
                if not structure.access_points[first]}  # fmt: skip
        if not late:
            break
        if 0 in late:
            raise CannotSeekError("no key frame at the start")
        starts = [_before(keys, start) if start in late else start for start in starts]
    else:
        raise CannotTellError("key frames to begin with")
    rows = np.searchsorted(read.numbers[ordered], wanted).tolist()
    if read.numbers[ordered[rows]].tolist() != list(wanted):
        raise CannotTellError("frames are missing")
    plan = sparse.make_plan(packets, structure, ordered[rows], one_clip=one_clip)
    if not _within(plan.in_one() if one_clip else plan.spans, read.bounds):
        raise CannotTellError("packets in between")
    return Parts(packets, structure, ordered, shown, plan, rows)


def stretches(video: Video, wanted: Sequence[int]) -> list[list[int]]:
    """Return frames by the stretch of packets that they need, each from a key frame on.

    Args:
        video: the video.
        wanted: as of `read_parts`.

    Raises:
        CannotSeekError: one of them stands before all key frames.
    """
    assert video.shown.positions is not None
    keys = np.flatnonzero(video.packets.key)
    positions = video.shown.positions[list(wanted)].tolist()
    joined = _joined((_start(video.packets, keys, position), position + 1) for position in positions)
    groups: list[list[int]] = [[] for _ in joined]
    begun = [start for start, _ in joined]
    for number, position in zip(wanted, positions, strict=True):
        groups[bisect.bisect_right(begun, position) - 1].append(number)
    return groups


class _Read(NamedTuple):
    """Packets that were read: which frames they are, and where stretches of them begin, and the last ends."""

    packets: index.PacketIndex
    numbers: npt.NDArray[np.int64]
    bounds: list[int]

    @property
    def shown(self) -> Shown:
        """Which of them show a frame."""
        own = np.flatnonzero(self.numbers >= 0)
        return Shown(len(own), own, own[np.argsort(self.numbers[own], kind="stable")], None, None)


def _by_tables(video: Video, stretches: Sequence[tuple[int, int]]) -> _Read:
    """Read packets of which it is known where they are."""
    chosen = np.concatenate([np.arange(*each) for each in stretches])
    start, size = video.layout.offset[chosen], video.layout.size[chosen]
    columns = {name: getattr(video.packets, name)[chosen] for name in _COLUMNS}
    numbers = _numbers(video.shown, len(video.packets))[chosen]
    bounds = np.cumsum([0, *(stop - begin for begin, stop in stretches)]).tolist()
    return _Read(_fetched(video, start, size, columns), numbers, bounds)


def _by_looking(video: Video, stretches: Sequence[tuple[int, int]], wanted: Positions) -> _Read:
    """Read packets from key frames on, until the wanted ones have come."""
    assert video.layout.locate is not None
    numbers = _numbers(video.shown, len(video.packets))
    pairs = [
        (int(numbers[start]), int(numbers[wanted[(wanted >= start) & (wanted < stop)]].max()))
        for start, stop in stretches
    ]
    found = video.layout.locate(pairs)
    packets = [packet for each in found for packet in each]
    number, pts, key, start, stop = (np.array(column, np.int64) for column in zip(*packets, strict=True))
    none = np.zeros(len(packets), np.bool_)
    columns = {
        "pts": pts,
        "dts": np.full(len(packets), index.NO_PTS),
        "duration": np.zeros(len(packets), np.int64),
        "key": key.astype(np.bool_),
        "discard": none,
        "corrupt": none.copy(),
    }
    bounds = np.cumsum([0, *map(len, found)]).tolist()
    return _Read(_fetched(video, start, stop - start, columns), number, bounds)


def _fetched(
    video: Video, start: npt.NDArray[Any], size: npt.NDArray[Any], columns: dict[str, Any]
) -> index.PacketIndex:
    """Packets with their payloads."""
    ranges = list(zip(start.tolist(), (start + size).tolist(), strict=True))
    video.window.need(ranges)
    data = b"".join(video.window.piece(*each) for each in ranges)
    return replace(video.packets, data=data, offset=np.cumsum(size) - size, size=size, **columns)


def _numbers(shown: Shown, count: int) -> npt.NDArray[np.int64]:
    """Which frame each of so many packets shows; -1: none."""
    assert shown.positions is not None
    numbers = np.full(count, -1, np.int64)
    numbers[shown.positions] = np.arange(shown.total)
    return numbers


def bytes_needed(video: Video, wanted: Sequence[int]) -> int:
    """Return about how many bytes of a source frames need, with what has been read of it."""
    assert video.shown.positions is not None
    keys = np.flatnonzero(video.packets.key)
    positions = video.shown.positions[list(wanted)].tolist()
    stretches = _joined((_start(video.packets, keys, position), position + 1) for position in positions)
    return video.window.fetched + sum(int(video.layout.size[slice(*each)].sum()) for each in stretches)


def _start(packets: index.PacketIndex, keys: Positions, position: int) -> int:
    """The last key frame that is decoded and shown no later than a packet."""
    before = keys[(keys <= position) & (packets.pts[keys] <= packets.pts[position])]
    if not len(before):
        raise CannotSeekError("no key frame at the start")
    return int(before[-1])


def _before(keys: Positions, start: int) -> int:
    """The key frame before one."""
    return int(keys[np.searchsorted(keys, start) - 1])


def _joined(stretches: Any) -> list[tuple[int, int]]:
    """Stretches in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(stretches):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


def _within(spans: Sequence[Span], bounds: list[int]) -> bool:
    """Whether each span lies between two bounds that follow each other."""
    return all(
        np.searchsorted(bounds, span.start, side="right") == np.searchsorted(bounds, span.stop, side="left")
        for span in spans
    )
