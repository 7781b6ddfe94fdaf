"""Samplers: which frames of a source to take. Pure functions of numbers; no decoder is known here.

A source is `total` frames at `fps0` frames a second for `duration` seconds. Every sampler returns source
indices as plain ints, ascending. The rules are those of vLLM 0.20's loaders of the same names; a table
recorded from it is among the tests.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MediaError, UnsupportedMediaError


class VideoSourceMetadata(NamedTuple):
    """What a container says of its video: frames, frames a second, seconds."""

    total_frames_num: int
    original_fps: float
    duration: float


class VideoTargetMetadata(NamedTuple):
    """What is asked for: a number of frames, frames a second, and seconds; -1 stands for not given."""

    num_frames: int
    fps: float
    max_duration: float


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` indices from 0 to `total - 1`, both included, truncated to integers.

    Raises:
        InvalidMediaError: (a `ValueError`) `count` is negative, as it gets for a negative `total`.

    >>> evenly_spaced(10, 4)
    [0, 3, 6, 9]
    """
    if count < 0:
        raise InvalidMediaError(f"A video of {total} frames has none to sample.")
    indices: list[int] = np.linspace(0, total - 1, count, dtype=int).tolist()
    return indices


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
    _check_finite(InvalidArgumentError, fps=fps)
    if fps > 0:
        _check_finite(InvalidMediaError, duration=duration)
        count = min(count, _floor(duration * fps))
    count = max(1, count)
    return list(range(total)) if count == total else evenly_spaced(total, count)


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
    _check_finite(InvalidMediaError, fps0=fps0, duration=duration)
    _check_finite(InvalidArgumentError, fps=fps, max_duration=max_duration)
    if total <= 0 or fps0 <= 0 or fps <= 0:
        return []
    last = total - 1
    duration = duration or round(min(last / fps0, sys.maxsize)) + 1
    if duration <= max_duration:
        return _at_rate(total, fps0, duration, fps)
    count = max(0, _floor(max_duration * fps))
    if count >= total:
        return list(range(total))
    return _ascending(math.ceil(min(last, time * fps0)) for time in np.linspace(0, duration, count).tolist())


def _at_rate(total: int, fps0: float, duration: float, fps: float) -> list[int]:
    """The frames ceil(i x fps0 / fps) of floor(duration x fps) samples, no later than the last frame.

    Work is bounded by the frames of the source, not by the samples, which a request may ask for by billions.
    """
    last = total - 1
    samples = _floor(duration * fps)
    if fps > 2 * fps0:  # no frame is passed over
        return list(range(math.ceil(min(last, (samples - 1) * fps0 / fps)) + 1)) if samples > 0 else []
    samples = min(samples, math.ceil(last * (fps / fps0)) + 2)
    return _ascending(math.ceil(min(last, i * fps0 / fps)) for i in range(samples))


def sample_molmo2(
    total: int,
    fps0: float,
    duration: float,
    frame_sample_mode: str | None = None,
    num_frames: int = -1,
    max_fps: float | None = 2,
    sampling_fps: float = 2,
) -> list[int]:
    """The sampler "molmo2": every frame, or by the rule that `frame_sample_mode` names.

    Args:
        total: frames of the source.
        fps0: frames a second of the source.
        duration: seconds of the source.
        frame_sample_mode: None: every frame. "uniform_last_frame": `max_fps` frames a second with the last
            frame among them, or evenly spaced where that would be more than `num_frames`. "fps": the highest
            multiple of `sampling_fps` that divides the integer part of `fps0` and stays within `num_frames`.
        num_frames: at most so many, for the two modes.
        max_fps: frames a second of "uniform_last_frame"; None: evenly spaced.
        sampling_fps: the rate of which "fps" takes multiples.

    Raises:
        InvalidMediaError: (a `ValueError`) the source's numbers admit no answer.
        InvalidArgumentError: (a `ValueError`) the rates don't fit the source.
        UnsupportedMediaError: (a `NotImplementedError`) another mode.

    >>> sample_molmo2(10, 2.0, 5.0, "uniform_last_frame", num_frames=8, max_fps=1)
    [0, 2, 4, 6, 8, 9]
    >>> sample_molmo2(60, 30.0, 2.0, "fps", num_frames=8)
    [0, 15, 30, 45]
    """
    if frame_sample_mode is None:
        return list(range(total))
    if frame_sample_mode == "uniform_last_frame":
        return _uniform_last_frame(total, fps0, duration, num_frames, max_fps)
    if frame_sample_mode == "fps":
        rates = candidate_rates(fps0, sampling_fps)
        rate = target_rate(fps0, num_frames, total, frame_sample_mode, rates)
        return frames_at_rate(rate, total, num_frames, fps0)
    raise _unknown_mode(frame_sample_mode)


def _uniform_last_frame(
    total: int, fps0: float, duration: float, num_frames: int, max_fps: float | None
) -> list[int]:
    if max_fps is None:
        return evenly_spaced(total, min(num_frames, total))
    if total <= 2:
        return list(range(total))
    _check_finite(InvalidMediaError, fps0=fps0, duration=duration)
    _check_finite(InvalidArgumentError, max_fps=max_fps)
    if max_fps <= 0:
        raise InvalidArgumentError(f"max_fps={max_fps!r}: expected a positive number or None.")
    if duration > (num_frames - 1) / max_fps:
        return evenly_spaced(total, min(num_frames, total))
    if fps0 <= 0:
        raise InvalidMediaError(f"Can't sample by time: the video's frame rate is {fps0}.")
    step = fps0 / max_fps
    # Judged before an array is made of it, and again with the last frame.
    fits = 0 < step < math.inf and (total - 1) / step <= num_frames
    indices = np.arange(0, total - 1, step).round().astype(int) if fits else np.empty(0, int)
    if len(indices) and indices[-1] < total - 1:
        indices = np.append(indices, total - 1)
    if not fits or len(indices) > num_frames:
        raise InvalidMediaError(f"A duration of {duration} s does not fit {total} frames at {fps0} a second.")
    result: list[int] = indices.tolist()
    return result


def candidate_rates(fps0: float, sampling_fps: float, max_fps: float = 8.0) -> list[float]:
    """Return the multiples of `sampling_fps`, up to `max_fps`, that divide the integer part of `fps0`.

    Raises:
        InvalidArgumentError: (a `ValueError`) either is not positive, or they don't divide.

    >>> candidate_rates(30.0, 2)
    [2.0, 6.0]
    """
    _check_finite(InvalidMediaError, fps0=fps0)
    _check_finite(InvalidArgumentError, sampling_fps=sampling_fps, max_fps=max_fps)
    whole, base = int(fps0), int(sampling_fps)
    if whole <= 0 or base <= 0:
        raise InvalidArgumentError(
            f"Both rates must be positive: the video's is {fps0}, sampling_fps is {sampling_fps}."
        )
    if whole % base:
        raise InvalidArgumentError(f"sampling_fps={sampling_fps} does not divide the video's rate of {fps0}.")
    return [float(rate) for rate in range(base, int(min(max_fps, whole)) + 1, base) if whole % rate == 0]


def target_rate(
    fps0: float, max_frames: int, total: int, frame_sample_mode: str, rates: Sequence[float]
) -> float | None:
    """Return the highest of `rates`, which ascend, whose frames stay within `max_frames`.

    The first is kept even when its frames don't, unless the mode's name holds "uniform": then None.

    Raises:
        InvalidArgumentError: (a `ValueError`) a later rate gives fewer frames than an earlier one.

    >>> target_rate(30.0, 8, 60, "fps", [2.0, 6.0])
    2.0
    """
    best: float | None = None
    best_count = 0  # while no rate has given a frame, the next rate takes the place of the first
    for rate in rates:
        count = total // _step(fps0, rate)
        if not best_count:
            if "uniform" in frame_sample_mode and count > max_frames:
                return None
            best, best_count = rate, count
        elif count < best_count:
            raise InvalidArgumentError(
                f"Candidate rates must ascend and the video have frames: {list(rates)}."
            )
        elif best_count < count <= max_frames:
            best, best_count = rate, count
    return best


def frames_at_rate(rate: float | None, total: int, max_frames: int, fps0: float) -> list[int]:
    """Return every step-th index for a rate, cut at `max_frames`; evenly spaced, end excluded, for None.

    >>> frames_at_rate(10.0, 10, 3, 30.0)
    [0, 3, 6]
    >>> frames_at_rate(None, 10, 4, 30.0)
    [0, 2, 5, 7]
    """
    if rate is None:
        # A source of fewer than no frames has none to offer.
        count = max(0, max_frames) if total >= 0 else 0
        indices: list[int] = np.linspace(0, total, count, endpoint=False, dtype=int).tolist()
        return indices
    return list(range(0, total, _step(fps0, rate)))[:max_frames]


def sample_times(
    duration: float,
    max_frames: int,
    frame_sample_mode: str,
    max_fps: float | None,
    rates: Sequence[float] | None = None,
) -> list[float]:
    """Return the decisions of `sample_molmo2` in seconds.

    Raises:
        InvalidArgumentError: (a `ValueError`) the mode "fps" without candidate rates.
        UnsupportedMediaError: (a `NotImplementedError`) another mode.

    >>> sample_times(2.0, 8, "uniform_last_frame", 1)
    [0.0, 1.0, 2.0]
    >>> sample_times(2.0, 3, "fps", None, [1.0, 2.0])
    [0.0, 1.0]
    """
    times: list[float]
    _check_finite(InvalidMediaError, duration=duration)
    _check_finite(InvalidArgumentError, max_fps=0 if max_fps is None else max_fps)
    if frame_sample_mode == "uniform_last_frame":
        if max_fps is not None and max_fps <= 0:
            raise InvalidArgumentError(f"max_fps={max_fps!r}: expected a positive number or None.")
        if max_fps is None or duration > (max_frames - 1) / max_fps:
            times = np.linspace(0, duration, max(0, max_frames)).tolist()
            return times
        times = np.arange(0.0, max(0.0, duration), 1 / max_fps).tolist()
        return [*times, duration]
    if frame_sample_mode == "fps":
        if not rates:
            raise InvalidArgumentError("The mode 'fps' needs candidate_target_fps, at least one rate.")
        if not all(0 < rate < math.inf for rate in rates):
            raise InvalidArgumentError(f"candidate_target_fps={list(rates)}: rates must be positive.")
        rate = next((r for r in reversed(rates) if _floor(duration * r) <= max_frames), rates[0])
        end = min(duration, (max_frames + 1) / rate) if max_frames >= 0 else duration
        times = np.arange(0.0, max(0.0, end), 1 / rate).tolist()
        return times[:max_frames]
    raise _unknown_mode(frame_sample_mode)


def _step(fps0: float, rate: float) -> int:
    if not 0 < rate < math.inf:
        raise InvalidArgumentError(f"A sampling rate must be positive, not {rate!r}.")
    _check_finite(InvalidMediaError, fps0=fps0)
    return max(_floor(fps0 / rate), 1)


def _floor(number: float) -> int:
    """Products of what sources and requests claim may be beyond all numbers."""
    return math.floor(max(-sys.maxsize, min(number, sys.maxsize)))


def _check_finite(error: type[MediaError], **numbers: float) -> None:
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise error(f"{name}={number!r}: expected a finite number.")


def _ascending(indices: Iterable[int]) -> list[int]:
    return sorted(set(indices))


def _unknown_mode(mode: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(f"frame_sample_mode={mode!r}: expected None, 'uniform_last_frame' or 'fps'.")
