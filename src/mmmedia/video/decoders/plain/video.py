"""What is plain: a video whose frames its container tells so well that nobody need look at its packets."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from mmmedia.video.decoders.opencv.numbered import Even, Steps, Times
from mmmedia.video.decoders.shown import Shown
from mmmedia.video.samplers import VideoSourceMetadata


@dataclass(frozen=True)
class PlainVideo:
    """A video all of whose packets show a frame, from the first, which is a key frame, to the last.

    Attributes:
        total: how many there are.
        height: of a frame as it is stored, in pixels.
        width: likewise.
        codec: FFmpeg's name of it.
        shown: its frames, where they are not all as long as the other for sure.
        steps: when each packet is decoded, in milliseconds, where the file does not tell when it is shown.
    """

    total: int
    height: int
    width: int
    codec: str
    shown: Shown | None = None
    steps: Sequence[float] | None = None

    def metadata(self, claim: VideoSourceMetadata) -> VideoSourceMetadata | None:
        """Return frames, frames a second, and seconds; None where these are not sure.

        Args:
            claim: what the decoder says of them.
        """
        if self.shown is not None:
            return self.shown.metadata(claim, Fraction(1))
        return claim if claim.total_frames_num == self.total and claim.original_fps > 0 else None

    def clock(self, source: VideoSourceMetadata) -> Even | Steps | Times:
        """Return what tells frames by their times."""
        if self.steps is not None:
            return Steps(self.steps)
        if self.shown is None or self.shown.pts is None:
            return Even(source.original_fps)
        times = self.shown.pts.tolist()
        return Times(times, times, times[0], MILLISECOND)


MILLISECOND = Fraction(1, 1000)

_MOST_FRAMES, _MOST_PIXELS = 1024, 200_000_000


def frames_at_most(height: int, width: int) -> int:
    """Return how many frames a video may have of which each packet is looked into.

    Of a longer one, to be decoded by parts or for a second, that is for nothing, or nothing beside the rest.

    >>> frames_at_most(240, 426), frames_at_most(1080, 1920)
    (1024, 96)
    """
    return min(_MOST_FRAMES, _MOST_PIXELS // max(height * width, 1))
