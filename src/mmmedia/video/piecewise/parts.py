"""The packets that some frames need, read from a source and judged as a video of their own."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.containers.signatures import by_magic
from mmmedia.errors import InvalidMediaError
from mmmedia.sources import Window
from mmmedia.video.decoders import eligible, sparse
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields
from mmmedia.video.decoders.bitstreams.structure import INTERLACED, CannotSeekError, Structure
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.plan import Span
from mmmedia.video.decoders.shown import Shown, shown_frames
from mmmedia.video.piecewise import fragments, matroska, mp4
from mmmedia.video.piecewise.layout import CannotTellError, Layout

logger = logging.getLogger(__name__)

Positions = npt.NDArray[np.intp]

# Of other codecs a packet's first bytes say how many pictures it shows, or what is behind it whether any.
CODECS = frozenset(["h264", "hevc", "libdav1d", "av1", "vp9", "libvpx-vp9", "mjpeg", "prores", "dnxhd"])
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
        InvalidMediaError: (a `ValueError`) the bytes are refused.
    """
    name = by_magic(window.head(0, 4096))
    if name == "mov":
        whole = mp4.top(window)
        layout = fragments.read(window, whole) if fragments.is_fragmented(whole) else mp4.read(window, whole)
    elif name == "matroska":
        layout = matroska.read(window)
    else:
        raise CannotTellError("container")
    admitted = containers.admit(layout.skeleton)
    try:
        packets = index.build(admitted)
    except InvalidMediaError:
        raise CannotTellError("index") from None
    if len(packets) != len(layout.size) or (packets.size != layout.size).any():
        raise CannotTellError("index")
    if packets.codec not in CODECS:
        raise CannotTellError("codec")
    if not len(packets) or not packets.key[0] or packets.side_data:
        raise CannotTellError("packets")
    shown = shown_frames(packets)
    if shown.positions is None or shown.times is None:
        raise CannotTellError("times")
    return Video(window, layout, admitted, packets, shown)


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
        chosen = np.concatenate([np.arange(*each) for each in stretches])
        packets = _fetched(video, chosen)
        if packets.codec in ("h264", "hevc") and may_hold_fields(packets):
            raise CannotSeekError(INTERLACED)
        shown = _shown_of(video.shown, chosen)
        packets, structure, ordered = eligible.judge(packets, shown)
        firsts = np.searchsorted(chosen, [start for start, _ in stretches])
        late = set((chosen[firsts[~structure.access_points[firsts]]]).tolist())
        if not late:
            break
        if 0 in late:
            raise CannotSeekError("no key frame at the start")
        starts = [_before(keys, start) if start in late else start for start in starts]
    else:
        raise CannotTellError("key frames to begin with")
    numbers = {int(position): row for row, position in enumerate(chosen[ordered].tolist())}
    rows = [numbers[int(position)] for position in positions]
    plan = sparse.make_plan(packets, structure, ordered[rows], one_clip=one_clip)
    spans = plan.in_one() if one_clip else plan.spans
    if not _within(spans, [*firsts.tolist(), len(chosen)]):
        raise CannotTellError("packets in between")
    return Parts(packets, structure, ordered, shown, plan, rows)


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


def _fetched(video: Video, chosen: Positions) -> index.PacketIndex:
    """Some packets with their payloads."""
    layout, window = video.layout, video.window
    starts, sizes = layout.offset[chosen], layout.size[chosen]
    ranges = list(zip(starts.tolist(), (starts + sizes).tolist(), strict=True))
    window.need(ranges)
    payloads = [window.bytes(*each) for each in ranges]
    ends = np.cumsum(sizes)
    columns = {
        name: getattr(video.packets, name)[chosen]
        for name in ("pts", "dts", "duration", "key", "discard", "corrupt")
    }
    return replace(video.packets, data=b"".join(payloads), offset=ends - sizes, size=sizes, **columns)


def _shown_of(shown: Shown, chosen: Positions) -> Shown:
    """Which of some packets show a frame."""
    assert shown.positions is not None
    is_shown = np.isin(chosen, shown.packets)
    own = np.flatnonzero(is_shown)
    place = np.full(int(shown.positions.max(initial=0)) + 1, -1, np.int64)
    place[shown.positions] = np.arange(len(shown.positions))
    order = own[np.argsort(place[chosen[own]], kind="stable")]
    return Shown(len(own), own, order, None, None)


def _within(spans: Sequence[Span], bounds: list[int]) -> bool:
    """Whether each span lies between two bounds that follow each other."""
    return all(
        np.searchsorted(bounds, span.start, side="right") == np.searchsorted(bounds, span.stop, side="left")
        for span in spans
    )
