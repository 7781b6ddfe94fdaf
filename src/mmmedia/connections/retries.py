"""When a failed attempt is followed by another."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

TOTAL_SECONDS = 600.0
"""All attempts and waits of one fetch together; a longer `timeout` is granted one attempt."""
MAX_RETRY_AFTER = 30.0
"""Seconds; a server that asks for a longer pause than this is not obeyed."""


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """When to try again: attempt k has `timeout * 4**k` seconds, and then waits about `4**k` seconds.

    Attributes:
        timeout: seconds of the first attempt, `None` for no bound but the total.
        attempts: how many at most, in all.

    >>> plan = RetryPlan(timeout=5.0, attempts=3)
    >>> [plan.attempt_seconds(k, elapsed=0.0) for k in range(3)]
    [5.0, 20.0, 80.0]
    >>> [plan.wait_seconds(k, elapsed=0.0, jitter=1.0) for k in range(3)]
    [1.0, 4.0, None]
    """

    timeout: float | None
    attempts: int

    @property
    def total_seconds(self) -> float:
        """What all attempts and waits together may take."""
        return max(TOTAL_SECONDS, self.timeout or 0.0)

    @property
    def bound_seconds(self) -> float:
        """What all attempts and waits together take at most, each at its longest."""
        if self.timeout is None:
            return self.total_seconds
        attempts = sum(self.timeout * 4.0**attempt for attempt in range(min(self.attempts, 32)))
        waits = sum(
            max(1.25 * 4.0**attempt, MAX_RETRY_AFTER) for attempt in range(min(self.attempts, 32) - 1)
        )
        return min(attempts + waits, self.total_seconds)

    def attempt_seconds(self, attempt: int, elapsed: float) -> float:
        """Return how long an attempt (counted from 0) may take."""
        left = max(self.total_seconds - elapsed, 0.001)
        if self.timeout is None:
            return left
        return min(self.timeout * 4.0 ** min(attempt, 32), left)

    def wait_seconds(
        self, attempt: int, elapsed: float, *, jitter: float, retry_after: float | None = None
    ) -> float | None:
        """Return how long to wait after a failed attempt, `None` for not trying again.

        Args:
            attempt: which one failed, counted from 0.
            elapsed: seconds since the first began.
            jitter: a factor around 1, so that those who failed together don't come back together.
            retry_after: seconds that the server asked for.
        """
        if attempt + 1 >= self.attempts:
            return None
        wait = 4.0 ** min(attempt, 32) * jitter
        if retry_after is not None and retry_after <= MAX_RETRY_AFTER:
            wait = retry_after
        return wait if elapsed + wait < self.total_seconds else None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header, either of its two forms; `None` for none or nonsense.

    >>> retry_after_seconds("7", datetime.now(UTC))
    7.0
    >>> retry_after_seconds("Fri, 31 Dec 1999 23:59:59 GMT", datetime(1999, 12, 31, 23, 59, 50, tzinfo=UTC))
    9.0
    """
    text = (value or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:20])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
