"""The samplers of one model each.

`openpangu`, `embedding_gemma2`, `clef_omni`, `minimax_m3_vl`, `muse_spark` and `llava_onevision2`.
"""

import math

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError
from mmmedia.video.samplers.numbers import (
    MOST_FRAMES,
    check_count,
    check_finite,
    check_positive,
    check_source,
    evenly_spaced,
    evenly_spaced_rounded,
    every_frame,
    floor,
    seconds_of,
    spaced_between,
    whole_number,
)

_MOST_FRAMES_CLEF = 768
_MOST_FRAMES_MUSE = 600


def sample_openpangu(total: int, fps0: float, num_frames: int, fps: float = 2) -> list[int]:
    """The sampler "openpangu": `fps` frames a second, or `num_frames` where that would be more.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        num_frames: at most so many.
        fps: wanted frames a second; -1: `num_frames` over the whole video.

    Returns:
        Indices; the same one several times where fewer frames are there than wanted.

    Raises:
        InvalidArgumentError: (a `ValueError`) `num_frames` is negative, or `fps` neither positive nor -1.

    >>> sample_openpangu(90, 30.0, 32, 1)
    [0, 30, 60]
    >>> sample_openpangu(90, 30.0, 3, -1)
    [0, 44, 89]
    """
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    count = whole_number("num_frames", num_frames, 0)
    if fps <= 0 and fps != -1:
        raise InvalidArgumentError(f"fps={fps!r}: expected a positive number, or -1 for none.")
    if total <= 0:
        return []
    end = seconds_of(total - 1, fps0) if fps0 > 0 else 0.0
    if fps > 0 and count >= floor(end * fps) + 1:
        count = floor(end * fps) + 1
        end = min(end, (count - 1) / fps)
    check_count(count)
    places = np.minimum((np.linspace(0, end, count) * fps0).round(), total - 1)
    indices: list[int] = places.astype(int).tolist()
    return indices


def sample_embedding_gemma2(
    total: int,
    fps0: float,
    duration: float,
    fps: float = 1.0,
    *,
    max_frames: int = 32,
    overflow_strategy: str | None = "uniform",
) -> list[int]:
    """The sampler "embedding_gemma2": `fps` frames a second; every frame of a source without a rate.

    Args:
        total: frames of the source.
        fps0: frames a second of the source; not positive: every frame is a candidate.
        duration: seconds of the source; 0: every frame is a candidate.
        fps: wanted frames a second, at most 60; not positive: 1.
        max_frames: at most so many, 1 to 128.
        overflow_strategy: which of more than `max_frames` candidates to take: "uniform": evenly spaced ones;
            "truncate": the first; None: all.

    Returns:
        Indices; the same one several times where `fps` is beyond the source's rate.

    Raises:
        InvalidArgumentError: (a `ValueError`) an option out of its range.

    >>> sample_embedding_gemma2(90, 30.0, 3.0)
    [0, 30, 60]
    >>> sample_embedding_gemma2(900, 30.0, 30.0, max_frames=3)
    [0, 420, 870]
    """
    check_source(total, fps0, duration)
    check_finite(InvalidArgumentError, fps=fps)
    fps = fps if fps > 0 else 1.0
    if fps > 60:
        raise InvalidArgumentError(f"fps={fps!r}: expected at most 60.")
    most = whole_number("max_frames", max_frames, 1)
    if most > 128:
        raise InvalidArgumentError(f"max_frames={most}: expected at most 128.")
    if overflow_strategy not in {"uniform", "truncate", None}:
        raise InvalidArgumentError(
            f"overflow_strategy={overflow_strategy!r}: expected 'uniform', 'truncate' or None."
        )
    if total <= 0:
        return []
    by_time = fps0 > 0 and duration > 0
    # The least of numbers that floating point no longer counts is beyond any video's end.
    candidates = max(1, min(floor(duration * fps), MOST_FRAMES)) if by_time else total
    check_count(candidates if overflow_strategy is None else 0)
    if candidates <= most or overflow_strategy is None:
        chosen = list(range(candidates))
    elif overflow_strategy == "uniform":
        chosen = spaced_between(0, candidates - 1, most)
    else:
        chosen = list(range(most))
    return [min(total - 1, floor(i * fps0 / fps)) for i in chosen] if by_time else chosen


def sample_clef_omni(total: int, fps0: float, fps: float = 2) -> list[int]:
    """The sampler "clef_omni": `fps` frames a second, and an error rather than more than 768.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        fps: wanted frames a second.

    Returns:
        Indices; the same one several times where `fps` is beyond the source's rate.

    Raises:
        InvalidMediaError: (a `ValueError`) the source has no frames, or no rate.
        LimitExceededError: (a `ValueError`) more than 768 frames.
        InvalidArgumentError: (a `ValueError`) `fps` is not positive.

    >>> sample_clef_omni(90, 30.0, 1)
    [0, 30, 60]
    """
    check_source(total, fps0)
    check_positive(fps=fps)
    if fps0 <= 0:
        raise InvalidMediaError(f"Can't sample by time: the video's frame rate is {fps0}.")
    if total <= 0:
        raise InvalidMediaError("The video has no frames.")
    most = _MOST_FRAMES_CLEF
    indices: list[int] = []
    while (index := math.ceil(min(len(indices) * fps0 / fps - 1e-6, total))) < total:
        if len(indices) == most:
            raise LimitExceededError(
                f"More than {most} frames at {fps} a second: the video is longer than {most / fps:g} s."
            )
        indices.append(index)
    return indices


def sample_minimax_m3_vl(total: int, fps0: float, fps: float = 1) -> list[int]:
    """The sampler "minimax_m3_vl": `fps` frames a second, each told from the one before it.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        fps: wanted frames a second.

    Returns:
        Indices, none twice; the first frame alone where either rate is not positive.

    Raises:
        LimitExceededError: (a `ValueError`) too many of them.

    >>> sample_minimax_m3_vl(90, 30.0)
    [0, 30, 60]
    """
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    if total <= 0:
        return []
    if fps0 <= 0 or fps <= 0:
        return [0]
    # No step is longer than this, so that no fewer frames come of it.
    check_count(floor(total / (floor(fps0 / fps) + 2)))
    indices = [0]
    while True:
        last = indices[-1]
        place = (last / fps0 + 1 / fps - 1e-4) * fps0
        index = max(last + 1, math.ceil(place) if place < total else total)
        if index >= total:
            return indices
        indices.append(index)
        check_count(len(indices))


def sample_muse_spark(total: int, fps0: float, fps: float = 2.0) -> list[int]:
    """The sampler "muse_spark": `fps` frames a second, evenly, an even number, 2 to 600.

    Args:
        total: frames of the source.
        fps0: frames a second of the source; not positive: as many frames as there may be.
        fps: wanted frames a second; -1: 2; else not positive: as many frames as there may be.

    Returns:
        Indices, from the first frame to the last; every frame where there are no more.

    >>> sample_muse_spark(90, 30.0, 1)
    [0, 89]
    """
    fps = 2.0 if fps == -1 else fps
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    if total <= 0:
        return []
    if fps0 <= 0 or fps <= 0:
        count = min(_MOST_FRAMES_MUSE, total)
    else:
        count = min(max(floor(total * fps / fps0), 2), _MOST_FRAMES_MUSE, total)
    count = max(2, count // 2 * 2)
    return every_frame(total) if count >= total else evenly_spaced(total, count)


def sample_llava_onevision2(total: int, fps0: float, num_frames: int = -1, fps: float = 1.0) -> list[int]:
    """The sampler "llava_onevision2": `fps` frames a second, evenly, an even number from 4 on.

    Args:
        total: frames of the source.
        fps0: frames a second of the source; not positive: as many frames as there may be.
        num_frames: at most so many; not positive: 32.
        fps: wanted frames a second; not positive: 1.

    Returns:
        An even number of indices, from the first frame to the last, rounded, halves to the even neighbour;
        the only frame of a video twice.

    >>> sample_llava_onevision2(90, 30.0, fps=2)
    [0, 18, 36, 53, 71, 89]
    """
    check_source(total, fps0)
    check_finite(InvalidArgumentError, fps=fps)
    given = whole_number("num_frames", num_frames, -1)
    if total <= 0:
        return []
    most = (given if given > 0 else 32) // 2 * 2
    wanted = seconds_of(total, fps0) * (fps if fps > 0 else 1.0) if fps0 > 0 else total
    count = floor(min(max(wanted, 4), most, total)) // 2 * 2
    return evenly_spaced_rounded(total, max(2, count))
