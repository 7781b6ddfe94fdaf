"""The samplers of GLM's models: `glm46v`, `glm5next` and `glmga`.

All three walk over the frames, take the first at or after each tick of a clock, and then put right how many
frames came of it.
"""

import math

from mmmedia.errors import InvalidMediaError
from mmmedia.video.samplers.numbers import (
    check_count,
    check_positive,
    check_source,
    evenly_spaced,
    floor,
    known_duration,
    spaced_between,
    whole_number,
)

_MOST_SECONDS_46V = 2400
_MOST_FRAMES = 640
_MOST_FPS = 30


def sample_glm46v(total: int, fps0: float, duration: float, *, temporal_patch_size: int = 2) -> list[int]:
    """The sampler "glm46v": 3, 1 or 0.5 patches a second by the video's length, at most 640 frames.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        duration: seconds of the source; 0: told from the last frame's index.
        temporal_patch_size: so many frames are taken for each patch.

    Returns:
        An even number of indices, the last of them twice where that makes it even; none of a video that is
        too short for one.

    >>> sample_glm46v(16, 8.0, 2.0)
    [0, 2, 3, 4, 6, 7, 8, 10, 11, 12, 14, 15]
    """
    check_source(total, fps0, duration)
    patch = whole_number("temporal_patch_size", temporal_patch_size, 1)
    if total <= 0:
        return []
    duration = known_duration(total, fps0, duration)
    seconds = min(duration, _MOST_SECONDS_46V)
    rate = 3 if seconds <= 30 else 1 if seconds <= 300 else 0.5
    count = min(floor(seconds * rate * patch), _MOST_FRAMES)
    if total < count:
        picks = evenly_spaced(total, count)
    else:
        # A source without a rate has no frame at any time.
        picks = _walk(total, fps0, 1 / (patch * rate), floor(duration), count) if fps0 > 0 else []
        picks = _exactly(picks, total, count)
    return _even(_once_each(picks))


def sample_glm5next(
    total: int,
    fps0: float,
    duration: float,
    fps: float = 2.0,
    *,
    max_frames: int = 2048,
    temporal_patch_size: int = 2,
) -> list[int]:
    """The sampler "glm5next": `fps` frames a second, at most `max_frames`.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        duration: seconds of the source.
        fps: wanted frames a second; -1: 2.
        max_frames: at most so many.
        temporal_patch_size: the clock ticks so many times for each wanted frame.

    Returns:
        An even number of indices, the last of them twice where that makes it even; none of a video that is
        too short for one.

    Raises:
        InvalidMediaError: (a `ValueError`) the source has no rate.
        InvalidArgumentError: (a `ValueError`) a rate or an option that is not positive.

    >>> sample_glm5next(120, 30.0, 4.0, 1)
    [0, 39, 79, 119]
    """
    fps = 2.0 if fps == -1 else fps
    check_source(total, fps0, duration)
    check_positive(fps=fps)
    patch = whole_number("temporal_patch_size", temporal_patch_size, 1)
    most = whole_number("max_frames", max_frames, 1)
    if total <= 0:
        return []
    count = min(floor(duration * fps), most)
    check_count(count)
    if total < count:
        picks = [i * total // count for i in range(count)]
    else:
        picks = _exactly(_walk(total, fps0, 1 / (patch * fps), floor(duration), count), total, count)
    return _even(_once_each(picks))


def sample_glmga(
    total: int, fps0: float, duration: float, fps: float = 2, *, max_frames: int = 640
) -> list[int]:
    """The sampler "glmga": `fps` frames a second, at most 30, of all but the end of the video.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        duration: seconds of the source; 0: told from the last frame's index.
        fps: wanted frames a second, at most 30.
        max_frames: at most so many, and never over 640.

    Returns:
        Indices, none twice; none of a video that is too short for one.

    Raises:
        InvalidMediaError: (a `ValueError`) the source has no rate.
        InvalidArgumentError: (a `ValueError`) a rate or an option that is not positive.

    >>> sample_glmga(120, 30.0, 4.0, 1)
    [0, 20, 40, 60]
    """
    check_source(total, fps0, duration)
    check_positive(fps=fps)
    most = min(whole_number("max_frames", max_frames, 1), _MOST_FRAMES)
    if total <= 0:
        return []
    duration = known_duration(total, fps0, duration)
    rate = min(fps, _MOST_FPS)
    count = min(floor(duration * rate), most, total)
    picks = _walk(total, fps0, 1 / rate, duration - 1 / rate, count)
    return _once_each(_exactly(picks, total, count))


def _walk(total: int, fps0: float, tick: float, stop: float, enough: int) -> list[int]:
    """Return the first frame at or after each tick, until the clock stands at `stop` or beyond it.

    Returns:
        Indices, ascending; at most `enough` and one more, which tells that there are too many.

    Raises:
        InvalidMediaError: (a `ValueError`) the rate is not positive, or too small to divide by.
    """
    frame = 1 / fps0 if fps0 > 0 else math.inf
    if not math.isfinite(frame):
        raise InvalidMediaError(f"Can't sample by time: the video's frame rate is {fps0}.")
    picks: list[int] = []
    index, due = 0, 0.0
    while len(picks) <= enough:
        # Not one by one, as a header may claim billions of frames; and not further than rounding reaches.
        index = max(index, floor(due / frame) - 1)
        while index < total and index * frame < due:
            index += 1
        if index >= total:
            break
        picks.append(index)
        index += 1
        due += tick
        if due >= stop:
            break
    return picks


def _exactly(picks: list[int], total: int, count: int) -> list[int]:
    """Return `count` indices: `picks`, or evenly spaced in their stead if there are more or fewer of them."""
    if len(picks) == count:
        return picks
    if len(picks) > count:
        return evenly_spaced(total, count)
    return spaced_between(picks[0], picks[-1], count) if picks else evenly_spaced(total, count)


def _once_each(indices: list[int]) -> list[int]:
    return list(dict.fromkeys(indices))


def _even(indices: list[int]) -> list[int]:
    return [*indices, indices[-1]] if len(indices) % 2 else indices
