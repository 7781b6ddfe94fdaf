"""A part of a video, from one second to another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.samplers import VideoSourceMetadata


@dataclass(frozen=True)
class Part:
    """From `start` to `end` (excluded), in seconds from the first frame; `end` may be infinite."""

    start: float = 0.0
    end: float = math.inf

    def numbers(self, source: VideoSourceMetadata, times: Sequence[float] | None) -> range:
        """Return the frames of a part, by their number in the whole; if none begins in it, the one on screen.

        Args:
            source: what the video is.
            times: when each frame is shown, in seconds from the first, ascending; None: at a constant rate.

        Raises:
            InvalidArgumentError: (a `ValueError`) the video ends before, or tells no times.
        """
        total, fps, duration = source
        if self == WHOLE or not total:
            return range(max(total, 0))
        if times is None:
            if fps <= 0:
                raise InvalidArgumentError("start and end: the video has no rate by which to tell times.")
            first, last = math.ceil(self.start * fps - 1e-6), min(self.end * fps, float(total))
            found = range(first, min(total, math.ceil(last - 1e-6)))
            before = int(self.start * fps)
        else:
            near = np.asarray(times) + 1e-6  # clocks tick in fractions of a second that are no round numbers
            found = range(*(int(at) for at in np.searchsorted(near, (self.start, self.end))))
            before = found.start - 1
        if self.start > 0 and self.start >= max(duration, 0 if times is None else times[-1]):
            raise InvalidArgumentError(f"start={self.start:g}: the video ends at {duration:g} s.")
        return found or range(max(before, 0), max(before, 0) + 1)


WHOLE = Part()


def part_of(start: float | None, end: float | None) -> Part:
    """Return a part as keywords ask for it; None is the video's own start or end.

    Raises:
        InvalidArgumentError: (a `ValueError`) not numbers, negative, or in the wrong order.
    """
    numbers = []
    for name, value, default in (("start", start, 0.0), ("end", end, math.inf)):
        number = default if value is None else value
        if (
            isinstance(number, bool)
            or not isinstance(number, int | float)
            or math.isnan(number)
            or number < 0
        ):
            raise InvalidArgumentError(f"{name}={value!r}: expected seconds, not negative.")
        numbers.append(float(number))
    if numbers[0] >= numbers[1]:
        raise InvalidArgumentError(f"start={start!r}, end={end!r}: expected the end behind the start.")
    return Part(*numbers)
