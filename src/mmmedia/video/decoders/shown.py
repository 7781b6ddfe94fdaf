"""Which frames a player shows, in which order and for how long: by the packets, hardly ever by decoding.

The n-th frame is the n-th that is shown: in order of presentation, without those that an edit list leaves
out, from the first picture that can be decoded. What a header claims of count, rate and length counts where
it agrees with that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.annex_b import with_lengths
from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.h264_sets import IDR, SLICE
from mmmedia.video.decoders.bitstreams.nal_units import unit_heads
from mmmedia.video.decoders.bitstreams.shown import pictures_shown
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, ranks_by_time
from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.decoders.packets.ends import start_for_last
from mmmedia.video.decoders.packets.index import NO_PTS, PacketIndex, is_timed, segments, tells_no_times
from mmmedia.video.samplers import VideoSourceMetadata

Ints = npt.NDArray[np.int64]

# Codecs all of whose pictures can be decoded by themselves, or whose first packet says all by its flag.
_OPEN_STARTS = frozenset(["h264", "hevc", "mpeg2video", "mpeg1video", "mpeg4", "vc1", "wmv3"])


@dataclass(frozen=True)
class Shown:
    """The frames that a player shows.

    Attributes:
        total: how many there are.
        packets: the decode positions of packets that show one, in decode order.
        positions: the decode position of each in order of presentation; None where only the total is known.
        pts: when each is shown, by the stream's clock; None where that does not tell.
        seconds: from the first to the end of the last; None where there is no clock.
        times: when each is shown, in seconds from the first; None likewise.
        made_up: how many frames a decoder gives before these, for want of what the first refer to.
        begin: the decode position of the first packet that a decoder may be given, as some never recover.
    """

    total: int
    packets: npt.NDArray[np.intp]
    positions: npt.NDArray[np.intp] | None
    pts: Ints | None
    seconds: Fraction | None
    times: Sequence[float] | None = None
    made_up: int = 0
    begin: int = 0

    def metadata(self, claim: VideoSourceMetadata | None, rate: Fraction) -> VideoSourceMetadata:
        """Return frames, frames a second, and seconds: as claimed where that is true.

        Args:
            claim: what the container's header says, as the decoder hands it on; None: nothing.
            rate: frames a second, where nothing else is known.
        """
        if claim is not None and self._agrees(claim):
            return claim
        if not self.total:
            return VideoSourceMetadata(0, 0.0, 0.0)
        if self.seconds:
            return VideoSourceMetadata(self.total, float(self.total / self.seconds), float(self.seconds))
        return VideoSourceMetadata(self.total, float(rate), float(self.total / rate) if rate > 0 else 0.0)

    def _agrees(self, claim: VideoSourceMetadata) -> bool:
        if claim.total_frames_num != self.total or not claim.original_fps > 0:
            return False
        if not self.seconds:
            return True
        # Less than half a frame is a matter of rounding, or of how long the last one stays.
        tolerance = max(0.5 / claim.original_fps, 0.01 * claim.duration)
        return abs(claim.duration - float(self.seconds)) <= tolerance


def shown_frames(index: PacketIndex) -> Shown:
    """Return which frames of a stream are shown."""
    if not len(index):
        return Shown(0, np.arange(0), None, None, None)
    pictures = pictures_shown(index)
    pictures[index.discard] = 0
    timed = is_timed(index)
    start = _start(index, timed=timed)
    pictures[start.lost] = 0
    keep = np.flatnonzero(pictures)
    total = int(pictures.sum())
    stretches = segments(index)
    clock = index.pts if timed else index.dts  # of AVI the former are guesses
    seconds = None
    if len(keep) and not (clock[keep] == NO_PTS).any():
        seconds = _seconds(index, clock[keep], stretches[keep], keep)
    if not len(keep) or (pictures[keep] != 1).any():
        return Shown(total, keep, None, None, seconds, made_up=start.made_up, begin=start.begin)
    if not timed:
        ranks = display_ranks(index)
        positions = None if ranks is None else keep[np.argsort(ranks[keep])]
        return Shown(total, keep, positions, None, seconds, made_up=start.made_up, begin=start.begin)
    order = keep[np.lexsort((keep, index.pts[keep], stretches[keep]))]
    pts = index.pts[order]
    times = None
    if (np.diff(pts) >= 0).all():
        times = ((pts - pts[0]) * float(index.time_base)).tolist()
    return Shown(total, keep, order, pts, seconds, times, start.made_up, start.begin)


def display_ranks(index: PacketIndex) -> Ints | None:
    """Return the place of each packet in display order, by its time, or where there are none by its headers.

    None where neither tells.
    """
    by_time = ranks_by_time(index)
    if by_time is not None or not tells_no_times(index):
        return by_time
    try:
        return analyse(with_lengths(index)).ranks
    except CannotSeekError:
        return None


def _seconds(index: PacketIndex, clock: Ints, stretches: Ints, positions: Ints) -> Fraction | None:
    """From the first frame to the end of the last, whose length is the usual one where nothing tells it."""
    first = {number: int(clock[stretches == number].min()) for number in np.unique(stretches)}
    last = {number: int(clock[stretches == number].max()) for number in first}
    ticks, steps = sum(last[number] - first[number] for number in first), len(clock) - len(first)
    end = int(index.duration[positions[np.argmax(clock)]])
    if "mov" in index.container or index.container == "gif" or not steps:  # they say it of every frame
        tail = Fraction(end * len(first))
    else:
        tail = Fraction(ticks, steps) * len(first)
    seconds = (ticks + tail) * index.time_base
    return seconds if seconds > 0 else None


class _Start(NamedTuple):
    """How decoding begins, as in `Shown`, and which packets give no picture, the last among them if cut."""

    lost: npt.NDArray[np.bool_]
    made_up: int = 0
    begin: int = 0


def _start(index: PacketIndex, *, timed: bool) -> _Start:
    start = _Start(np.zeros(len(index), np.bool_))
    if not _starts_plainly(index):
        start = _lost_at_the_start(index, timed=timed)
    if index.corrupt[-1] and not start.lost.all():
        start.lost[-1] |= not _last_is_decoded(index)
    return start


def _starts_plainly(index: PacketIndex) -> bool:
    """Whether decoding begins with the first packet, and nothing is shown before it."""
    if not index.key[0]:
        return False
    if index.codec not in _OPEN_STARTS:
        return True
    if (index.pts[:_REORDERED] < index.pts[0]).any():
        return False
    return index.codec != "h264" or _begins_with_idr(index)


_REORDERED = 64
"""No picture is shown before one that stands so many packets in front of it (H.264 stores 16)."""
_LEADING = 16
"""How many packets behind a key packet may be shown before it."""


def _begins_with_idr(index: PacketIndex) -> bool:
    """Whether the first slice of an H.264 stream is of an IDR picture."""
    kinds = (head & 31 for head in unit_heads(index, 0) if head is not None)
    return next((kind for kind in kinds if kind in (SLICE, IDR)), None) == IDR


def _lost_at_the_start(index: PacketIndex, *, timed: bool) -> _Start:
    """Decode until pictures come, and see which of the first packets gave none, or two before all others."""
    lost = np.zeros(len(index), np.bool_)
    keys = np.flatnonzero(index.key)
    key = int(keys[0]) if len(keys) else 0
    order = index.pts if timed else display_ranks(index)
    begin, came = 0, _first_pictures(index, 0, key, order)
    if not came and key:
        begin, came = key, _first_pictures(index, key, key, order)
    if not came:
        lost[:] = True
        return _Start(lost)
    last = came[-1]
    if order is not None:
        lost[: last + _REORDERED] = order[: last + _REORDERED] < order[last]
    else:
        lost[: key + 1 + _LEADING] = True
    lost[came] = False
    made_up = next(at for at, position in enumerate(came) if position not in came[at + 1 :])
    return _Start(lost, made_up, begin)


def _first_pictures(index: PacketIndex, begin: int, key: int, order: Ints | None) -> list[int]:
    """Decode until the picture of a key packet comes, or one behind it; return the positions of all.

    Where no order is known it is one so far behind that those shown before the key have come.
    """
    far = key if order is not None else key + _REORDERED
    came: list[int] = []
    for position in _decoded(index, begin, len(index)):
        came.append(position)
        if position >= far and (order is None or order[position] >= order[key]):
            break
    return came


def _last_is_decoded(index: PacketIndex) -> bool:
    """Whether the last packet, of which a part is missing, gives a picture nevertheless."""
    last = len(index) - 1
    return any(position == last for position in _decoded(index, start_for_last(index), last + 1))


def _decoded(index: PacketIndex, start: int, stop: int) -> Iterator[int]:
    """Decode a stretch of packets, and yield the decode position of each picture that comes."""
    import av

    decoder, deadline = index.decoder(), Deadline()
    for position in range(start, stop + 1):
        deadline.check()
        packet = None
        if position < stop:
            packet = index.packet(position)
            packet.pts = packet.dts = position  # which its picture brings along
        try:
            for frame in decoder.decode(packet):
                if frame.pts is not None:
                    yield frame.pts
        except av.FFmpegError:
            continue
