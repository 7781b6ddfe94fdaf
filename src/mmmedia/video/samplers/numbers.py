"""Arithmetic that samplers share, and what keeps it within bounds.

Sources and requests come from strangers: a total of billions, a rate of 0, a duration that is no number. What
has no answer raises an error of this library, and no list is longer than `MOST_INDICES`.
"""

import math
import sys
from collections.abc import Iterable

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, MediaError

# No list of indices is longer, whatever is claimed and asked for: all frames of ten hours. Arrays of so many
# frames are over the default limit of bytes from 37 x 37 pixels on.
MOST_INDICES = 1 << 20

# Floating point counts up to here, so that no video has more frames.
MOST_FRAMES = 1 << 53


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return `count` indices from 0 to `total - 1`, both included, truncated to integers.

    Raises:
        InvalidMediaError: (a `ValueError`) `count` is negative, as it gets for a negative `total`.
        LimitExceededError: (a `ValueError`) too many of them.

    >>> evenly_spaced(10, 4)
    [0, 3, 6, 9]
    """
    if count < 0:
        raise InvalidMediaError(f"A video of {total} frames has none to sample.")
    check_total(total)
    return spaced_between(0, total - 1, count)


def spaced_between(first: int, last: int, count: int) -> list[int]:
    """Return `count` indices from `first` to `last`, both included, truncated to integers.

    >>> spaced_between(10, 19, 4)
    [10, 13, 16, 19]
    """
    check_count(count)
    indices: list[int] = np.linspace(first, last, count, dtype=int).tolist()
    return indices


def evenly_spaced_rounded(total: int, count: int) -> list[int]:
    """Return `count` indices from 0 to `total - 1`, both included, rounded, halves to the even neighbour.

    >>> evenly_spaced_rounded(6, 3)
    [0, 2, 5]
    """
    check_count(count)
    indices: list[int] = np.linspace(0, total - 1, count).round().astype(int).tolist()
    return indices


def every_frame(total: int) -> list[int]:
    """Return all indices.

    Raises:
        LimitExceededError: (a `ValueError`) too many of them.
    """
    check_count(total)
    return list(range(total))


def known_duration(total: int, fps0: float, duration: float) -> float:
    """Return the duration in seconds; where it is 0, that from the first to the last frame, and one second.

    >>> known_duration(300, 30.0, 0)
    11
    """
    if duration or fps0 <= 0:
        return duration
    return round(min((total - 1) / fps0, sys.maxsize)) + 1


def seconds_of(total: int, fps0: float) -> float:
    """Return how long so many frames last.

    Raises:
        InvalidMediaError: (a `ValueError`) the rate is not positive, or too small to divide by.
    """
    seconds = total / fps0 if fps0 > 0 else math.nan
    if not math.isfinite(seconds):
        raise InvalidMediaError(f"Can't sample by time: the video's frame rate is {fps0}.")
    return seconds


def floor(number: float) -> int:
    """Return the floor of a number that is not NaN; the machine's largest for numbers beyond it.

    Products of what sources and requests claim may be beyond all numbers.
    """
    return math.floor(max(-sys.maxsize, min(number, sys.maxsize)))


def whole_number(name: str, value: object, least: int) -> int:
    """Return an option that has to be an integer; `MOST_FRAMES` for more than that.

    Raises:
        InvalidArgumentError: (a `ValueError`) it is none, or less than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidArgumentError(f"{name}={value!r}: expected an integer, at least {least}.")
    return min(int(value), MOST_FRAMES)


def check_finite(error: type[MediaError], **numbers: float | None) -> None:
    """Raise `error` with the name of the first number that is none."""
    for name, number in numbers.items():
        # Integers beyond floating point can't even be asked whether they are finite.
        if not isinstance(number, int | float | np.number) or not abs(number) <= sys.float_info.max:
            raise error(f"{name}={number!r}: expected a finite number.")


def check_positive(**numbers: float) -> None:
    """Raise InvalidArgumentError, a `ValueError`, with the name of the first number that is not positive."""
    check_finite(InvalidArgumentError, **numbers)
    for name, number in numbers.items():
        if number <= 0:
            raise InvalidArgumentError(f"{name}={number!r}: expected a positive number.")


def check_source(total: int, fps0: float = 0, duration: float = 0) -> None:
    """Raise InvalidMediaError, a `ValueError`, for numbers that no sampler can reckon with."""
    check_total(total)
    check_finite(InvalidMediaError, fps0=fps0, duration=duration)
    if duration < 0:
        raise InvalidMediaError(f"The video claims to last {duration} s.")


def check_total(total: int) -> None:
    """Raise InvalidMediaError, a `ValueError`, for more frames than floating point can count."""
    if not -MOST_FRAMES <= total <= MOST_FRAMES:
        raise InvalidMediaError(f"The video claims {total} frames.")


def check_count(count: int) -> None:
    """Raise LimitExceededError, a `ValueError`, for more indices than any request is given."""
    if count > MOST_INDICES:
        raise LimitExceededError(
            f"{count} frames would be sampled, more than {MOST_INDICES}; ask for fewer or for a lower rate."
        )


def ascending(indices: Iterable[int]) -> list[int]:
    """Return indices in order, none twice."""
    return sorted(set(indices))
