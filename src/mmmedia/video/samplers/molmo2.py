"""The sampler of `molmo2`, by three rules."""

import math
from collections.abc import Sequence

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, UnsupportedMediaError
from mmmedia.video.samplers.numbers import (
    MOST_FRAMES,
    check_count,
    check_finite,
    check_total,
    evenly_spaced,
    every_frame,
    floor,
)


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
    check_total(total)
    num_frames = max(-MOST_FRAMES, min(num_frames, MOST_FRAMES))
    if frame_sample_mode is None:
        return every_frame(total)
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
        return every_frame(total)
    check_finite(InvalidMediaError, fps0=fps0, duration=duration)
    check_finite(InvalidArgumentError, max_fps=max_fps)
    if max_fps <= 0:
        raise InvalidArgumentError(f"max_fps={max_fps!r}: expected a positive number or None.")
    if duration > (num_frames - 1) / max_fps:
        return evenly_spaced(total, min(num_frames, total))
    if fps0 <= 0:
        raise InvalidMediaError(f"Can't sample by time: the video's frame rate is {fps0}.")
    step = fps0 / max_fps
    # Judged before an array is made of it, and again with the last frame.
    fits = 0 < step < math.inf and (total - 1) / step <= num_frames
    check_count(floor((total - 1) / step) if fits else 0)
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
    check_finite(InvalidMediaError, fps0=fps0)
    check_finite(InvalidArgumentError, sampling_fps=sampling_fps, max_fps=max_fps)
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
        check_total(total)
        check_count(count)
        indices: list[int] = np.linspace(0, total, count, endpoint=False, dtype=int).tolist()
        return indices
    found = range(0, total, _step(fps0, rate))[:max_frames]
    check_count(len(found))
    return list(found)


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
    check_finite(InvalidMediaError, duration=duration)
    check_finite(InvalidArgumentError, max_fps=0 if max_fps is None else max_fps)
    if frame_sample_mode == "uniform_last_frame":
        if max_fps is not None and max_fps <= 0:
            raise InvalidArgumentError(f"max_fps={max_fps!r}: expected a positive number or None.")
        if max_fps is None or duration > (max_frames - 1) / max_fps:
            check_count(max_frames)
            times = np.linspace(0, duration, max(0, max_frames)).tolist()
            return times
        check_count(floor(duration * max_fps))
        times = np.arange(0.0, max(0.0, duration), 1 / max_fps).tolist()
        return [*times, duration]
    if frame_sample_mode == "fps":
        if not rates:
            raise InvalidArgumentError("The mode 'fps' needs candidate_target_fps, at least one rate.")
        if not all(0 < rate < math.inf for rate in rates):
            raise InvalidArgumentError(f"candidate_target_fps={list(rates)}: rates must be positive.")
        rate = next((r for r in reversed(rates) if floor(duration * r) <= max_frames), rates[0])
        end = min(duration, (max_frames + 1) / rate) if max_frames >= 0 else duration
        check_count(floor(end * rate))
        times = np.arange(0.0, max(0.0, end), 1 / rate).tolist()
        return times[:max_frames]
    raise _unknown_mode(frame_sample_mode)


def _step(fps0: float, rate: float) -> int:
    if not 0 < rate < math.inf:
        raise InvalidArgumentError(f"A sampling rate must be positive, not {rate!r}.")
    check_finite(InvalidMediaError, fps0=fps0)
    return max(floor(fps0 / rate), 1)


def _unknown_mode(mode: str) -> UnsupportedMediaError:
    return UnsupportedMediaError(f"frame_sample_mode={mode!r}: expected None, 'uniform_last_frame' or 'fps'.")
