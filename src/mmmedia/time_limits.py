"""Time limits of tasks, of which thousands run on one event loop.

`asyncio.timeout` has the loop keep a timer for each, nearly all of which are cancelled again: a tenth of what
fetching a small file costs the loop. Limits of one length end in the order in which they began, so that here
all of them share one timer.
"""

import asyncio
from itertools import takewhile


class TimeLimits:
    """The time limits on one event loop.

    >>> async def main():
    ...     try:
    ...         with TimeLimits().within(0.01):
    ...             await asyncio.sleep(60)
    ...     except TimeoutError:
    ...         return "late"
    >>> asyncio.run(main())
    'late'
    """

    def __init__(self) -> None:
        self._by_length: dict[float, dict[_TimeLimit, None]] = {}
        """Those that run, the oldest first; there is a timer for each length that is in it."""

    def within(self, seconds: float) -> "_TimeLimit":
        """Return what bounds the task that runs the `with` block; the same as `asyncio.timeout` otherwise.

        Raises:
            TimeoutError: on leaving the block, if it was cancelled for taking longer.
        """
        return _TimeLimit(self._by_length, seconds)


class _TimeLimit:
    """One of them, entered once."""

    __slots__ = ("_by_length", "_cancelling", "_is_late", "_seconds", "_task", "end")

    def __init__(self, by_length: "dict[float, dict[_TimeLimit, None]]", seconds: float) -> None:
        self._by_length, self._seconds = by_length, seconds
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task, self._cancelling = task, task.cancelling()
        loop = task.get_loop()
        self.end = loop.time() + self._seconds
        running = self._by_length.get(self._seconds)
        if running is None:
            running = self._by_length[self._seconds] = {}
            loop.call_at(self.end, _look, loop, self._by_length, self._seconds)
        running[self] = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._is_late:
            del self._by_length[self._seconds][self]
        # Who else has cancelled the task meanwhile must not be told that it was late.
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Have the block end."""
        self._is_late = True
        self._task.cancel()


def _look(
    loop: asyncio.AbstractEventLoop, by_length: dict[float, dict[_TimeLimit, None]], seconds: float
) -> None:
    """End those of one length whose time has come, and look again when that of the next has."""
    running, now = by_length[seconds], loop.time()
    for limit in list(takewhile(lambda limit: limit.end <= now, running)):
        del running[limit]
        limit.expire()
    if running:
        loop.call_at(next(iter(running)).end, _look, loop, by_length, seconds)
    else:
        del by_length[seconds]
