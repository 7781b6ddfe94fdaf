"""Time limits of tasks, of which thousands run on one event loop.

`asyncio.timeout` has the loop keep a timer for each, nearly all of which are cancelled again, at some cost
where a task only fetches a small file. Limits of one length end in the order in which they began, so that
here all of them share one timer.
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
        self.running: dict[float, dict[_TimeLimit, None]] = {}
        """By length, the oldest first; each length that is in it has a timer."""

    def within(self, seconds: float) -> "_TimeLimit":
        """Return what bounds the task that runs the `with` block; the same as `asyncio.timeout` otherwise.

        Raises:
            TimeoutError: on leaving the block, if it was cancelled for taking longer.
        """
        return _TimeLimit(self, seconds)

    def look(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        """End those of one length whose time has come, and look again when that of the next has."""
        running, now = self.running[seconds], loop.time()
        for limit in list(takewhile(lambda limit: limit.end <= now, running)):
            del running[limit]
            limit.expire()
        if running:
            loop.call_at(next(iter(running)).end, self.look, loop, seconds)
        else:
            del self.running[seconds]


class _TimeLimit:
    """One of them, entered once."""

    __slots__ = ("_cancelling", "_is_late", "_limits", "_seconds", "_task", "end")

    def __init__(self, limits: TimeLimits, seconds: float) -> None:
        self._limits, self._seconds = limits, seconds
        self._is_late = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a time limit is for a task")
        self._task, self._cancelling = task, task.cancelling()
        loop = task.get_loop()
        self.end = loop.time() + self._seconds
        running = self._limits.running.get(self._seconds)
        if running is None:
            running = self._limits.running[self._seconds] = {}
            loop.call_at(self.end, self._limits.look, loop, self._seconds)
        running[self] = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not self._is_late:
            del self._limits.running[self._seconds][self]
        # Who else has cancelled the task meanwhile must not be told that it was late.
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Have the block end."""
        self._is_late = True
        self._task.cancel()
