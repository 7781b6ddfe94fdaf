"""Single flight: who asks for the same thing at the same time shares one download.

It works across coroutines, event loops and threads. The first to ask leads: a thread downloads itself, a
coroutine through a task of its loop. The others wait. When one of them gives up, nothing changes for the
rest; when all have, the task is cancelled. An error reaches all who wait, and is not remembered.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class _Abandoned(Exception):  # noqa: N818  # never leaves this module
    """The leader was interrupted, or its loop has ended; somebody else has to lead."""


class Flight(Generic[T]):
    """One download under way, and after it has landed, what it brought.

    Attributes:
        patience: the timeout that its leader gave it, `None` for none.
        has_landed: whether it has ended, one way or the other.
        error: what it failed with, if it did.
        is_shared: whether others than its leader have waited for it.
        decodes: what those who share it also share, by what they ask for.
    """

    def __init__(self, patience: float | None, loop: asyncio.AbstractEventLoop | None) -> None:
        self.patience = patience
        self.loop = loop
        self.task: asyncio.Task[T] | None = None
        self.has_landed = False
        self.error: Exception | None = None
        self.waiting = 0
        self.is_open = self.is_shared = False
        self.decodes: dict[Hashable, Any] = {}
        self._result: T | None = None
        self._lock = threading.Lock()
        self._calls: list[Callable[[], object]] = []
        self._unclaimed = [True]

    @property
    def result(self) -> T:
        """What the download brought."""
        return cast("T", self._result)

    def land(self, result: T | None, error: BaseException | None) -> None:
        """End, and tell all who wait."""
        with self._lock:
            self._result = result
            self.error = error if error is None or isinstance(error, Exception) else _Abandoned()
            self.has_landed = True
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def call_when_landed(self, call: Callable[[], object]) -> None:
        """Call in the thread in which it lands, or now if it has landed."""
        with self._lock:
            if not self.has_landed:
                self._calls.append(call)
                return
        call()

    def wait(self, seconds: float) -> None:
        """Block until it has landed, or so many seconds."""
        event = threading.Event()
        self.call_when_landed(event.set)
        event.wait(seconds)

    async def wait_async(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        """Wait on the running loop until it has landed, or so many seconds."""
        told = loop.create_future()

        def tell() -> None:
            if not told.done():
                told.set_result(None)

        def tell_from_elsewhere() -> None:
            with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody waits
                loop.call_soon_threadsafe(tell)

        self.call_when_landed(tell if self.loop is loop else tell_from_elsewhere)
        timer = None if seconds is None else loop.call_later(seconds, tell)
        try:
            await told
        finally:
            if timer is not None:
                timer.cancel()

    def claim(self) -> bool:
        """Return true to the first who asks; it does what needs doing once, such as storing."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False


class SingleFlight(Generic[T]):
    """The flights that are under way, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def retire(self, key: Hashable, flight: Flight[T]) -> None:
        """Let nobody join any more."""
        if flight.is_open:
            with self._lock:
                self._close(key, flight)

    def _close(self, key: Hashable, flight: Flight[T]) -> None:
        if flight.is_open:
            flight.is_open = False
            del self._flights[key]

    def _open(self, key: Hashable, flight: Flight[T]) -> Flight[T]:
        flight.is_open = True
        self._flights[key] = flight
        return flight

    def fly(
        self,
        key: Hashable,
        download: Callable[[], T],
        *,
        patience: float | None,
        bound: Callable[[], float],
        linger: bool = False,
    ) -> Flight[T]:
        """Download, or wait for who is downloading already.

        Args:
            key: what is asked for; under the same key all get the same.
            download: called if nobody is under way.
            patience: seconds; a flight that failed for lack of time is flown again by who has more.
            bound: gives the seconds to wait for others at most.
            linger: leave it open to join after landing, until `retire`.

        Raises:
            TimeoutError: others took longer than `bound`.
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                # Who blocks a loop's thread must not wait for what that loop may have to do.
                blocks = flight is not None and flight.loop is not None and _in_a_loop()
                leads = flight is None or blocks
                if flight is None or blocks:
                    flight = Flight(patience, None)
                    if not blocks:
                        self._open(key, flight)
                else:
                    flight.waiting += 1
                    flight.is_shared = True
            if leads:
                self._lead(key, flight, download, linger)
                return flight
            try:
                seconds = bound()
                flight.wait(seconds)
                if not flight.has_landed:
                    raise TimeoutError(f"others took more than {seconds:g} s for the same URL")
            finally:
                self._leave(key, flight)
            if flight.error is None:
                return flight
            if not _fly_again(flight.error, flight.patience, patience):
                raise flight.error

    def _lead(self, key: Hashable, flight: Flight[T], download: Callable[[], T], linger: bool) -> None:
        try:
            result = download()
        except BaseException as error:
            self.retire(key, flight)
            flight.land(None, error)
            raise
        if not linger:
            self.retire(key, flight)
        flight.land(result, None)

    async def fly_async(
        self,
        key: Hashable,
        download: Callable[[], Coroutine[Any, Any, T]],
        *,
        patience: float | None,
        bound: Callable[[], float],
        linger: bool = False,
    ) -> Flight[T]:
        """Download, or wait for who is downloading already; see `fly`.

        The leader's cancellation does not cancel the download while others wait for it.
        """
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._open(key, Flight(patience, loop))
                    flight.task = loop.create_task(download())
                    flight.task.add_done_callback(self._landing(key, flight, linger))
                else:
                    flight.is_shared = True
                flight.waiting += 1
            try:
                seconds = None if leads else bound()
                await flight.wait_async(loop, seconds)
                if not flight.has_landed:
                    raise TimeoutError(f"others took more than {seconds:g} s for the same URL")
            finally:
                self._leave(key, flight)
            if flight.error is None:
                return flight
            if not _fly_again(flight.error, flight.patience, patience):
                raise flight.error

    def _landing(self, key: Hashable, flight: Flight[T], linger: bool) -> Callable[[asyncio.Task[T]], None]:
        def land(task: asyncio.Task[T]) -> None:
            error = _Abandoned() if task.cancelled() else task.exception()
            if error is not None or not linger:
                self.retire(key, flight)
            flight.land(task.result() if error is None else None, error)

        return land

    def _leave(self, key: Hashable, flight: Flight[T]) -> None:
        """Stop waiting; the last to leave a flight that has not landed cancels it."""
        with self._lock:
            flight.waiting -= 1
            if flight.waiting or flight.task is None or flight.has_landed:
                return
            self._close(key, flight)
        loop, task = flight.loop, flight.task
        assert loop is not None
        if _running_loop() is loop:
            task.cancel()
        else:
            with contextlib.suppress(RuntimeError):  # that loop is closed, and its tasks with it
                loop.call_soon_threadsafe(task.cancel)


def _fly_again(error: BaseException, its_patience: float | None, mine: float | None) -> bool:
    """Say whether a flight that failed should be flown by who waited for it."""
    if isinstance(error, _Abandoned):
        return True
    has_more = its_patience is not None and (mine is None or mine > its_patience)
    return has_more and _is_timeout(error)


def _is_timeout(error: BaseException) -> bool:
    requests = sys.modules.get("requests")
    return isinstance(error, TimeoutError) or (requests is not None and isinstance(error, requests.Timeout))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in_a_loop() -> bool:
    return _running_loop() is not None
