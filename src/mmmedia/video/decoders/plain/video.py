"""What is plain: a video whose frames its container tells so well that nobody need look at its packets."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.opencv.numbered import Steps, Times
from mmmedia.video.decoders.plan import plan_spans, seeking_pays
from mmmedia.video.decoders.shown import Shown
from mmmedia.video.samplers import VideoSourceMetadata

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlainVideo:
    """A video all of whose packets show a frame, from the first, which is a key frame, to the last.

    Attributes:
        height: of a frame as it is stored, in pixels.
        width: likewise.
        codec: FFmpeg's name of it.
        shown: its frames.
        tick: how long one of the clock's is, in seconds.
        outline: by which parts of it might be decoded.
        steps: when each packet is decoded, in milliseconds, where the file does not tell when it is shown.
    """

    height: int
    width: int
    codec: str
    shown: Shown
    tick: Fraction
    outline: "Outline"
    steps: Sequence[float] | None = None

    @property
    def total(self) -> int:
        """How many frames there are."""
        return self.shown.total

    def metadata(self, claim: VideoSourceMetadata) -> VideoSourceMetadata:
        """Return frames, frames a second, and seconds: as the decoder claims where that is true."""
        return self.shown.metadata(claim, Fraction(1))

    def clock(self) -> Steps | Times:
        """Return what tells frames by their times."""
        if self.steps is not None:
            return Steps(self.steps)
        assert self.shown.pts is not None
        times = self.shown.pts.tolist()
        return Times(times, times, times[0], self.tick)


def frames_shown(order: Ints, pts: Ints, tick: Fraction, last: Fraction) -> Shown:
    """Return the frames of packets each of which shows one.

    Args:
        order: the decode position of each, in order of presentation.
        pts: when each is shown, in ticks, ascending.
        tick: how long one is, in seconds.
        last: how long the last frame is, in ticks.
    """
    times = ((pts - pts[0]) * float(tick)).tolist()
    return Shown(len(order), np.arange(len(order)), order, pts, (int(pts[-1] - pts[0]) + last) * tick, times)


@dataclass(frozen=True)
class Outline:
    """What a container says of how packets hang together, which may be less than they do.

    Attributes:
        order: the decode position of each frame, in order of presentation.
        keys: the decode positions of key frames, ascending.
        disposable: which packets no other refers to, by decode position.
    """

    order: Sequence[int]
    keys: Sequence[int]
    disposable: Sequence[bool]

    def may_pay(self, wanted: Sequence[int], workers: int) -> bool:
        """Return whether decoding by parts might be cheaper than one pass, at the most that can be hoped for.

        Args:
            wanted: numbers of frames that there are.
            workers: how many decode at once.
        """
        ranks = [0] * len(self.order)
        for number, position in enumerate(self.order):
            ranks[position] = number
        shown = [ranks[position] for position in self.keys]
        if self.keys[0] or shown != sorted(shown):
            return True
        spans = plan_spans([self.order[number] for number in wanted], ranks, self.keys)
        return seeking_pays(spans, self.disposable, max(wanted), workers)


_MOST_FRAMES, _MOST_PIXELS = 1024, 200_000_000


def frames_at_most(height: int, width: int) -> int:
    """Return how many frames a plain video may have, as each of its packets is looked into.

    Of a longer one, to be decoded by parts or for a second, that is for nothing, or nothing beside the rest.

    >>> frames_at_most(240, 426), frames_at_most(1080, 1920)
    (1024, 96)
    """
    return min(_MOST_FRAMES, _MOST_PIXELS // max(height * width, 1))
