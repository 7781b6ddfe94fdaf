"""The sampler of `opencv`, `nemotron_vl` and `pynvvideocodec`: frames evenly spaced."""

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.video.samplers.numbers import check_finite, evenly_spaced, every_frame, floor


def sample_uniform(total: int, duration: float, num_frames: int = -1, fps: float = -1) -> list[int]:
    """The sampler "opencv": all frames, capped by `num_frames` and by `fps` over the duration.

    Args:
        total: frames of the source.
        duration: seconds of the source.
        num_frames: at most so many; not positive: no cap.
        fps: at most floor(duration x fps); not positive: no cap.

    Returns:
        At least one index.

    >>> sample_uniform(100, 10.0, num_frames=5)
    [0, 24, 49, 74, 99]
    >>> sample_uniform(100, 10.0, fps=0.3)
    [0, 49, 99]
    """
    count = total
    if num_frames > 0:
        count = min(num_frames, count)
    check_finite(InvalidArgumentError, fps=fps)
    if fps > 0:
        check_finite(InvalidMediaError, duration=duration)
        count = min(count, floor(duration * fps))
    count = max(1, count)
    return every_frame(total) if count == total else evenly_spaced(total, count)
