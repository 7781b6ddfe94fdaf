"""The samplers of Qwen's models: `qwen2_vl` and `qwen3_vl`."""

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.video.samplers.numbers import (
    check_finite,
    check_source,
    evenly_spaced_rounded,
    floor,
    seconds_of,
    whole_number,
)

# No request gets more frames, nor more of them a second.
_MOST_FRAMES = 768
_MOST_FPS = 30

# What Qwen 3 takes a source for that tells no rate.
_USUAL_FPS = 24.0


def sample_qwen2_vl(
    total: int,
    fps0: float,
    fps: float = 2,
    *,
    min_frames: int = 4,
    max_frames: int = 768,
    temporal_patch_size: int = 2,
) -> list[int]:
    """The sampler "qwen2_vl": `fps` frames a second, evenly, as many as fill temporal patches.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        fps: wanted frames a second, at most 30.
        min_frames: at least so many, where the source has them.
        max_frames: at most so many, and never over 768.
        temporal_patch_size: the number of frames is a multiple of it.

    Returns:
        Indices, the first of them 0; the last frame may be among them twice.

    Raises:
        InvalidMediaError: (a `ValueError`) the source has no rate, or fewer frames than one patch.
        InvalidArgumentError: (a `ValueError`) an option that leaves no frame to take.

    >>> sample_qwen2_vl(300, 30.0, 1)
    [0, 30, 60, 90, 120, 150, 180, 210, 240, 270]
    """
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    patch = whole_number("temporal_patch_size", temporal_patch_size, 1)
    least = whole_number("min_frames", min_frames, 0)
    most = min(whole_number("max_frames", max_frames, 1), _MOST_FRAMES)
    if total < patch:
        raise InvalidMediaError(f"A video of {total} frames does not fill a temporal patch of {patch}.")
    wanted = max(seconds_of(total, fps0) * min(fps, _MOST_FPS), least)
    count = floor(min(wanted, floor(min(most, total) / patch) * patch, total) / patch) * patch
    if count < 1:
        raise InvalidArgumentError(
            f"No frame to take: fps={fps!r}, min_frames={least}, max_frames={most}, "
            f"temporal_patch_size={patch}."
        )
    import torch  # its single-precision steps round in a way of their own

    return [min(int(place), total - 1) for place in torch.arange(0, total, total / count).tolist()]


def sample_qwen3_vl(
    total: int, fps0: float, fps: float = 2, *, min_frames: int = 4, max_frames: int = 768
) -> list[int]:
    """The sampler "qwen3_vl": `fps` frames a second, evenly from the first frame to the last.

    Args:
        total: frames of the source.
        fps0: frames a second of the source; not positive: 24.
        fps: wanted frames a second, at most 30.
        min_frames: at least so many, where the source has them.
        max_frames: at most so many, and never over 768.

    Returns:
        Indices, rounded, halves to the even neighbour; none of a source without frames.

    >>> sample_qwen3_vl(300, 30.0, 1)
    [0, 33, 66, 100, 133, 166, 199, 233, 266, 299]
    """
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    least = whole_number("min_frames", min_frames, 0)
    most = min(whole_number("max_frames", max_frames, 1), _MOST_FRAMES)
    if total <= 0:
        return []
    count = floor(seconds_of(total, known_rate(fps0)) * min(fps, _MOST_FPS))
    return evenly_spaced_rounded(total, min(max(count, least), most, total))


def known_rate(fps0: float) -> float:
    """Return a source's frames a second as Qwen 3 has them: 24 for a source that tells none."""
    return fps0 if fps0 > 0 else _USUAL_FPS
