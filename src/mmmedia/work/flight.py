"""Single flight: who asks for the same thing at the same time shares one download.

It works across coroutines, event loops and threads. The first to ask leads: a thread downloads itself, a
coroutine through a task of its loop. The others wait. When one of them gives up, nothing changes for the
rest; when all have, the task is cancelled. An error reaches all who wait, and is not remembered.

With the sharing of decodes that rests on it, 500 requests for 50 pictures take a sixth of the CPU time
(`benchmarks/connector.py --without`).
"""

import asyncio
import contextlib
import functools
import sys
import threading
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class _Abandoned(Exception):  # noqa: N818  # never leaves this module
    """The leader was interrupted, or its loop has ended; somebody else has to lead."""


class Flight(Generic[T]):
    """One download under way, and after it has landed, what it brought.

    Thousands may be under way at once: its lock is that of all.

    Attributes:
        key: what is asked for.
        timeout: seconds of the first attempt, as its leader has them, `None` for no limit.
        loop: that of the task that downloads, `None` if a thread does.
        has_landed: whether it has ended, one way or the other.
        result: what it brought, once it has landed without an error.
        error: what it failed with, if it did.
        is_shared: whether others than its leader have waited for it.
        decodes: what those who share it also share, by what they ask for.
        toll: what they pay by while it is under way, if they do.
    """

    def __init__(
        self,
        key: Hashable,
        timeout: float | None,
        loop: asyncio.AbstractEventLoop | None,
        lock: threading.Lock,
        toll: Any = None,
    ) -> None:
        self.toll = toll
        self.key, self.timeout, self.loop = key, timeout, loop
        self.task: asyncio.Future[T] | None = None
        self.has_landed = False
        self.error: Exception | None = None
        self.waiting = 0
        self.is_open = self.is_shared = False
        self.decodes: dict[Hashable, Any] = {}
        self.result: T = cast("T", None)
        self._lock = lock
        self._calls: list[Callable[[], object]] = []
        self._is_claimed = False

    def land(self, result: T | None, error: BaseException | None) -> None:
        """End, and tell all who wait."""
        with self._lock:
            self.result = cast("T", result)
            self.error = error if error is None or isinstance(error, Exception) else _Abandoned()
            self.has_landed = True
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def call_when_landed(
        self, call: Callable[[], object], loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        """Call in the thread in which it lands, or now if it has landed.

        Args:
            call: takes no argument.
            loop: the running one, if it must be called there.
        """
        if loop is not None and loop is not self.loop and not self.has_landed:
            call = functools.partial(_call_on, loop, call)
        with self._lock:
            if not self.has_landed:
                self._calls.append(call)
                return
        call()

    def claim(self) -> bool:
        """Return true to the first who asks; it does what needs doing once, such as storing."""
        with self._lock:
            is_first, self._is_claimed = not self._is_claimed, True
        return is_first


class SingleFlight(Generic[T]):
    """The flights that are under way, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def retire(self, flight: Flight[T]) -> None:
        """Let nobody join any more."""
        if flight.is_open:
            with self._lock:
                self._close(flight)

    def _close(self, flight: Flight[T]) -> None:
        if flight.is_open:
            flight.is_open = False
            del self._flights[flight.key]

    def fly(
        self,
        key: Hashable,
        download: Callable[..., T],
        *args: Any,
        timeout: float | None,
        longest: float,
        linger: bool = False,
        toll: Any = None,
        joined: Callable[[Flight[T]], object] | None = None,
    ) -> Flight[T]:
        """Download, or wait for who is downloading already.

        Args:
            key: what is asked for; under the same key all get the same.
            download: called if nobody is under way.
            args: what it is called with.
            timeout: seconds of its first attempt; a flight that failed for lack of time is flown again by who
                has more.
            longest: seconds to wait for others at most.
            linger: leave it open to join after landing, until `retire`.
            toll: that of the flight, if it begins now.
            joined: called with the flight of others, before it is waited for.

        Raises:
            TimeoutError: others took longer than `longest`.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                # Who blocks a loop's thread must not wait for what that loop may have to do.
                blocks = flight is not None and flight.loop is not None and _running_loop() is not None
                leads = flight is None or blocks
                if flight is None or blocks:
                    flight = Flight(key, timeout, None, self._lock, toll)
                    if not blocks:
                        self._flights[key] = flight
                        flight.is_open = True
                else:
                    flight.waiting += 1
                    flight.is_shared = True
            if leads:
                self._lead(flight, download, args, linger)
                return flight
            try:
                if joined is not None:
                    joined(flight)
                told = threading.Event()
                flight.call_when_landed(told.set)
                told.wait(longest)
                if not flight.has_landed:
                    raise late(longest)
            finally:
                self.leave(flight)
            if flight.error is None:
                return flight
            if not fly_again(flight, timeout):
                raise flight.error

    def _lead(
        self,
        flight: Flight[T],
        download: Callable[..., T],
        args: tuple[Any, ...],
        linger: bool,
    ) -> None:
        try:
            result = download(*args)
        except BaseException as error:
            self.retire(flight)
            flight.land(None, error)
            raise
        if not linger:
            self.retire(flight)
        flight.land(result, None)

    def board(
        self,
        key: Hashable,
        download: Callable[[], Awaitable[T]],
        call: Callable[[], object],
        *,
        timeout: float | None,
        linger: bool = False,
        toll: Any = None,
    ) -> tuple[Flight[T], bool]:
        """Join the flight of a key, or begin one as a task of the running loop.

        Who has called this calls `leave` in the end, unless it has landed; the leader's leaving does not
        cancel the download while others wait for it.

        Args:
            key: what is asked for; as of `fly`, as the last two.
            download: called if nobody is under way, once this has returned or before.
            call: is called on the loop when it has landed, if the caller leads.
            timeout: seconds of its first attempt.
            linger: leave it open to join after landing.
            toll: that of the flight, if it begins now.

        Returns:
            The flight, which may have landed, and whether the caller leads it.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                flight.is_shared = True
                flight.waiting += 1
                return flight, False
            loop = asyncio.get_running_loop()
            flight = self._flights[key] = Flight(key, timeout, loop, self._lock, toll)
            flight._calls.append(call)
            flight.is_open = True
            flight.waiting = 1
        try:  # without the lock: an eager task begins at once
            flight.task = asyncio.ensure_future(download(), loop=loop)
        except BaseException as error:
            self.retire(flight)
            flight.land(None, error)
            raise
        flight.task.add_done_callback(functools.partial(self._land, flight, linger))
        return flight, True

    def _land(self, flight: Flight[T], linger: bool, task: "asyncio.Future[T]") -> None:
        """End a flight as its task has ended."""
        error = _Abandoned() if task.cancelled() else task.exception()
        if error is not None or not linger:
            self.retire(flight)
        flight.land(task.result() if error is None else None, error)

    def leave(self, flight: Flight[T]) -> None:
        """Stop waiting; the last to leave a flight that has not landed cancels it."""
        with self._lock:
            flight.waiting -= 1
            if flight.waiting or flight.loop is None or flight.has_landed:
                return
            self._close(flight)
        if flight.task is None:
            return
        if _running_loop() is flight.loop:
            flight.task.cancel()
        else:
            with contextlib.suppress(RuntimeError):  # that loop is closed, and its tasks with it
                flight.loop.call_soon_threadsafe(flight.task.cancel)


def _call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody waits
        loop.call_soon_threadsafe(call)


def fly_again(flight: Flight[Any], timeout: float | None) -> bool:
    """Say whether a flight that failed should be flown by one of those who waited for it."""
    if flight.error is None or isinstance(flight.error, _Abandoned):
        return flight.error is not None
    has_more = flight.timeout is not None and (timeout is None or timeout > flight.timeout)
    return has_more and _is_timeout(flight.error)


def late(seconds: float) -> TimeoutError:
    """Return the error of who has waited for others as long as this."""
    return TimeoutError(f"others took more than {seconds:g} s for the same URL")


def _is_timeout(error: BaseException) -> bool:
    requests = sys.modules.get("requests")
    return isinstance(error, TimeoutError) or (requests is not None and isinstance(error, requests.Timeout))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
