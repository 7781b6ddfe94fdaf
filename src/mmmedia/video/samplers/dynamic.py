"""The sampler of `opencv_dynamic`: frames at a rate, spread thinner over long videos."""

import math

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.video.samplers.numbers import (
    ascending,
    check_count,
    check_finite,
    check_total,
    every_frame,
    floor,
    known_duration,
)


def sample_dynamic(
    total: int, fps0: float, duration: float, fps: float = 2, max_duration: float = 300
) -> list[int]:
    """The sampler "opencv_dynamic": `fps` frames a second, spread thinner beyond `max_duration`.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        duration: seconds of the source; 0: told from the last frame's index.
        fps: wanted frames a second.
        max_duration: seconds beyond which the number of samples no longer grows.

    Returns:
        Indices without duplicates; none for a source without frames or without a rate.

    >>> sample_dynamic(60, 30.0, 2.0)
    [0, 15, 30, 45]
    >>> sample_dynamic(600, 1.0, 600.0, fps=1, max_duration=4)
    [0, 200, 400, 599]
    """
    check_finite(InvalidMediaError, fps0=fps0, duration=duration)
    check_finite(InvalidArgumentError, fps=fps, max_duration=max_duration)
    if total <= 0 or fps0 <= 0 or fps <= 0:
        return []
    check_total(total)
    duration = known_duration(total, fps0, duration)
    if duration <= max_duration:
        return _at_rate(total, fps0, duration, fps)
    count = max(0, floor(max_duration * fps))
    if count >= total:
        return every_frame(total)
    check_count(count)
    last = total - 1
    return ascending(math.ceil(min(last, time * fps0)) for time in np.linspace(0, duration, count).tolist())


def _at_rate(total: int, fps0: float, duration: float, fps: float) -> list[int]:
    """The frames ceil(i x fps0 / fps) of floor(duration x fps) samples, no later than the last frame.

    Work is bounded by the frames of the source, not by the samples, which a request may ask for by billions.
    """
    last = total - 1
    samples = floor(duration * fps)
    if fps > 2 * fps0:  # no frame is passed over
        return every_frame(math.ceil(min(last, (samples - 1) * fps0 / fps)) + 1) if samples > 0 else []
    samples = min(samples, math.ceil(last * (fps / fps0)) + 2)
    check_count(samples)
    return ascending(math.ceil(min(last, i * fps0 / fps)) for i in range(samples))
