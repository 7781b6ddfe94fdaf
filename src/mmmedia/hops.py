"""Hops: calls that an event loop has made in the threads of a pool.

`loop.run_in_executor` wakes a thread for every call and the loop for every result. Where thousands of calls
take less than a millisecond each, that is most of the work, as every switch waits for the interpreter's
lock. Here a thread that has done one call takes the next, and results that wait for the loop wait together;
where calls wait in line, the loop comes for them.
As many threads as there are cores are at work; all that the pool has, when those take long.
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar

from mmmedia.cores import usable_cores

T = TypeVar("T")

_SLICE = 0.1
"""Seconds after which a thread gets in line again behind the other work of its pool."""
_PATIENCE = 0.03
"""Seconds in which none of the threads at work gets done before others are set to work too.

Several times what a busy loop may have a thread wait for the interpreter's lock (5 ms): more threads would
only wait with it.
"""
_ROUND = 0.002
"""Seconds between the rounds in which a loop collects results, while more calls wait than are under way."""


class Errand(NamedTuple):
    """A result that is handed over when something short has been done for it, such as storing it.

    Threads of one loop run them one after the other. Each system call lets go of the interpreter's lock; two
    threads that make nothing but such calls take it from each other, and get less done than one of them.

    Attributes:
        result: what the call returned.
        run: takes no argument; what it raises takes the place of the result.
    """

    result: Any
    run: Callable[[], object]


def holdable(error: BaseException) -> BaseException:
    """Return an error, or what stands for it if it is one that a future can't hold."""
    if isinstance(error, StopIteration):
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Hops:
    """The calls of one event loop, made in the threads of one pool.

    Args:
        pool: where they are made.
        width: how many at a time.
    """

    def __init__(self, pool: Executor, width: int) -> None:
        self.pool = pool
        self._width = width
        self._few = min(width, usable_cores())
        self._lock = threading.Lock()
        self._calls: deque[tuple[asyncio.Future[Any] | None, Callable[..., Any], tuple[Any, ...]]] = deque()
        self._threads = 0
        self._done = self._done_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._errands: deque[tuple[asyncio.Future[Any], Errand]] = deque()
        self._is_out = False
        self._results: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._told = False
        self._collects = False

    def call(self, function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
        """Call in a thread, and return the future result; once that is cancelled, it is not begun."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.resolve(future, function, *args)
        return future

    def resolve(self, future: "asyncio.Future[T]", function: "Callable[..., T | Errand]", *args: Any) -> None:
        """Call in a thread, and hand the result to who awaits `future`; on the loop.

        Args:
            future: gets what the call returns or raises; of an `Errand`, its result.
            function: what is called.
            args: its arguments.
        """
        self._start(future, function, args)
        if self._threads < self._width and self._timer is None:
            self._timer = future.get_loop().call_later(_PATIENCE, self._grow)
        self._go_round()

    def _go_round(self) -> None:
        """See to it that results are collected, if calls have to wait anyway; on the loop."""
        if not self._collects and len(self._calls) > self._few:
            self._collects = True
            asyncio.get_running_loop().call_later(_ROUND, self._collect)

    def _collect(self) -> None:
        self._collects = False  # first: whoever comes from now on tells
        self._go_round()
        self._tell()

    def _grow(self) -> None:
        """Set more threads to work if those at work took long; on the loop."""
        self._timer = None
        with self._lock:
            more = min(len(self._calls), self._width - self._threads)
            if more <= 0:
                return
            stuck, self._done_before = self._done == self._done_before, self._done
            if stuck:
                self._threads += more
        if stuck:
            for _ in range(more):
                self._submit()
        else:
            self._timer = asyncio.get_running_loop().call_later(_PATIENCE, self._grow)

    def start(self, function: Callable[..., object], *args: Any) -> None:
        """Call in a thread what hands over its results by `finish`, and raises nothing; on the loop."""
        self._start(None, function, args)
        self._go_round()

    def help(self, function: Callable[..., object], *args: Any) -> None:
        """Do as `start` does, from any thread."""
        self._start(None, function, args)

    def _start(
        self, future: "asyncio.Future[Any] | None", function: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        self._calls.append((future, function, args))
        with self._lock:
            if self._threads >= self._few:
                return
            self._threads += 1
        self._submit()

    def _submit(self) -> None:
        try:
            self.pool.submit(self._work)
        except BaseException:
            with self._lock:
                self._threads -= 1
            raise

    def _work(self) -> None:
        now = time.monotonic()
        end = now + _SLICE
        is_quick = False
        while now < end:
            with self._lock:
                if not self._calls or (is_quick and self._threads > self._few):
                    self._threads -= 1
                    return
                future, function, args = self._calls.popleft()
            if future is None:
                function(*args)
            elif not future.cancelled():
                try:
                    result = function(*args)
                except BaseException as error:  # noqa: BLE001  # the caller's to judge
                    self.finish(future, None, error)
                else:
                    if isinstance(result, Errand):
                        self._run_errand(future, result)
                    else:
                        self.finish(future, result)
                    del result
            del future, function, args  # what they hold is not this thread's to keep
            self._done += 1  # may miss one; none is missed by all
            started, now = now, time.monotonic()
            is_quick = now - started < _PATIENCE
        with contextlib.suppress(RuntimeError):  # the pool is being shut down
            self._submit()

    def _run_errand(self, future: "asyncio.Future[Any]", errand: Errand) -> None:
        """Leave it to the thread that is out on errands; go out if there is none, or if many wait already.

        Results that wait take memory, and where errands take long, several threads get more of them done.
        """
        with self._lock:
            if self._is_out and len(self._errands) < self._few:
                self._errands.append((future, errand))
                return
            is_helping, self._is_out = self._is_out, True
        while True:
            try:
                errand.run()
            except BaseException as error:  # noqa: BLE001  # the caller's to judge
                self.finish(future, None, error)
            else:
                self.finish(future, errand.result)
            if is_helping:
                return
            with self._lock:
                if not self._errands:
                    self._is_out = False
                    return
                future, errand = self._errands.popleft()

    def finish(self, future: "asyncio.Future[T]", result: Any, error: BaseException | None = None) -> None:
        """Hand a result, or an error, to who awaits `future`; from any thread."""
        self._results.append((future, result, error and holdable(error)))
        if not (self._told or self._collects):
            self._told = True
            try:
                future.get_loop().call_soon_threadsafe(self._tell)
            except RuntimeError:  # that loop is closed, and nobody waits
                self._results.clear()

    def _tell(self) -> None:
        self._told = False  # first: whoever comes from now on tells again
        while self._results:
            future, result, error = self._results.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


_by_loop: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Hops]" = weakref.WeakKeyDictionary()


def hops(pool: Executor, width: int) -> Hops:
    """Return those of the running loop."""
    loop = asyncio.get_running_loop()
    found = _by_loop.get(loop)
    if found is None or found.pool is not pool:
        found = _by_loop[loop] = Hops(pool, width)
    return found


def waiting() -> int:
    """Return how many calls of all loops wait for a thread; those of a closed one wait for nothing."""
    # By references, of which the list is made at once: other threads may be adding to it.
    loops = [loop for ref in _by_loop.keyrefs() if (loop := ref()) is not None and not loop.is_closed()]
    return sum(len(each._calls) for loop in loops if (each := _by_loop.get(loop)) is not None)
