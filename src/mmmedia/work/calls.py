"""Calls that an event loop has made in the threads of a pool, where most take less than a millisecond.

`loop.run_in_executor` wakes a thread for every call and the loop for every result, and every such switch
waits for the interpreter's lock. Here a thread that has done one call takes the next, and the results that
have come by the time the loop looks are handed over together: a call costs 5 us of CPU time, not 18
(`benchmarks/connector.py --without`).
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

_TURN_SECONDS = 0.1
"""After so long a thread gets in line again, behind the other work of its pool."""


class _UnderWay(threading.local):
    """The call that this thread makes for an event loop."""

    future: "asyncio.Future[Any] | None" = None


_under_way = _UnderWay()


@contextlib.contextmanager
def on_behalf_of(future: "asyncio.Future[Any]") -> Iterator[None]:
    """Make the calls inside for who awaits a future; `is_wanted` says there whether anybody still does."""
    before, _under_way.future = _under_way.future, future
    try:
        yield
    finally:
        _under_way.future = before


def is_wanted() -> bool:
    """Say whether anybody still waits for the call under way in this thread: nobody has cancelled it."""
    return _under_way.future is None or not _under_way.future.cancelled()


def unwanted() -> BaseException:
    """Return the error of a call that nobody waits for."""
    return asyncio.CancelledError()


def holdable(error: BaseException) -> BaseException:
    """Return an error, or what stands for it if it is one that a future can't hold."""
    if isinstance(error, StopIteration):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Calls:
    """The calls of one event loop, made in the threads of one pool.

    Args:
        pool: where they are made.
        width: how many at a time.
    """

    def __init__(self, pool: Executor, width: int) -> None:
        self.pool = pool
        self._width = width
        self._lock = threading.Lock()
        self._waiting: deque[tuple[asyncio.Future[Any] | None, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._threads = 0
        self._results: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._is_told = False

    @property
    def number_waiting(self) -> int:
        """How many calls wait for a thread."""
        return len(self._waiting)

    def call(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call in a thread, and return the future result; once that is cancelled, it is not begun.

        Raises:
            RuntimeError: the pool is shut down.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.resolve(future, function, *args)
        return future

    def resolve(self, future: "asyncio.Future[T] | None", function: Callable[..., T], *args: Any) -> None:
        """Call in a thread, and hand what it returns or raises to who awaits a future; from any thread.

        Args:
            future: of the loop whose calls these are; `None` if the function hands over results itself, by
                `finish`, and raises nothing.
            function: what is called.
            args: its arguments.

        Raises:
            RuntimeError: the pool is shut down.
        """
        with self._lock:
            self._waiting.append((future, function, args))
            if self._threads >= self._width:
                return
            self._threads += 1
        self._submit()

    def finish(self, future: "asyncio.Future[T]", result: Any, error: BaseException | None = None) -> None:
        """Hand a result, or an error, to who awaits a future; from any thread."""
        self._results.append((future, result, error and holdable(error)))
        if not self._is_told:
            self._is_told = True
            try:
                future.get_loop().call_soon_threadsafe(self._hand_over)
            except RuntimeError:  # that loop is closed, and nobody waits
                self._results.clear()

    def _submit(self) -> None:
        try:
            self.pool.submit(self._work)
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work(self) -> None:
        end = time.monotonic() + _TURN_SECONDS
        while time.monotonic() < end:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                future, function, args = self._waiting.popleft()
            if future is None:
                function(*args)
            elif not future.cancelled():
                _under_way.future = future
                try:
                    result = function(*args)
                except BaseException as error:  # noqa: BLE001  # the caller's to judge
                    self.finish(future, None, error)
                else:
                    self.finish(future, result)
                    del result
                _under_way.future = None
            del future, function, args  # what they hold is not this thread's to keep
        with contextlib.suppress(RuntimeError):  # the pool is being shut down
            self._submit()

    def _hand_over(self) -> None:
        self._is_told = False  # first: whoever comes from now on tells again
        while self._results:
            future, result, error = self._results.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


_by_loop: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Calls]" = weakref.WeakKeyDictionary()


def calls_of_loop(pool: Executor) -> Calls:
    """Return those of the running loop in a pool."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None or found.pool is not pool:
        # Nothing public tells how many threads an executor has.
        found = _by_loop[loop] = Calls(pool, getattr(pool, "_max_workers", 1))
    return found


def number_waiting() -> int:
    """Return how many calls of all loops wait for a thread; those of a closed one wait for nothing."""
    # By references, of which the list is made at once: other threads may be adding to it.
    loops = [loop for ref in _by_loop.keyrefs() if (loop := ref()) is not None and not loop.is_closed()]
    return sum(calls.number_waiting for loop in loops if (calls := _by_loop.get(loop)) is not None)
