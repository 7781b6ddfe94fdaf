"""What samplers are told: what a source is, and what is asked for."""

from collections.abc import Sequence
from typing import NamedTuple


class VideoSourceMetadata(NamedTuple):
    """What a container says of its video: frames, frames a second, seconds."""

    total_frames_num: int
    original_fps: float
    duration: float


class TimedSource(VideoSourceMetadata):
    """What a source is, told to who chooses frames of it together with their times.

    Attributes:
        times: when each frame is shown, in seconds from the first, ascending; None: at a constant rate, or
            not known.

    >>> TimedSource.of(VideoSourceMetadata(2, 1.0, 2.0), [0.0, 1.5])
    TimedSource(total_frames_num=2, original_fps=1.0, duration=2.0)
    """

    times: Sequence[float] | None = None

    @classmethod
    def of(cls, source: VideoSourceMetadata, times: Sequence[float] | None) -> "TimedSource":
        """Return a source with the times of its frames."""
        timed = cls(*source)
        timed.times = times
        return timed


class VideoTargetMetadata(NamedTuple):
    """What is asked for: a number of frames, frames a second, and seconds; -1 stands for not given."""

    num_frames: int
    fps: float
    max_duration: float
