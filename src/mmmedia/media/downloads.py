"""Downloads that all who ask at the same time share, and the decoding of what they bring."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mmmedia.connections import FetchPolicy, HTTPConnection, async_error, fetch_policy, sync_error
from mmmedia.media.base import MediaIO
from mmmedia.media.cached import CachedLoads, Downloaded, Goal
from mmmedia.media.fetch_errors import _wrap_media_fetch_error
from mmmedia.work.calls import Calls, holdable
from mmmedia.work.flight import Flight, SingleFlight, fly_again, late
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    from mmmedia.media.sharing import SharedDecode

T = TypeVar("T")

_flights: SingleFlight[bytes | Downloaded] = SingleFlight()


def _start_afresh() -> None:
    """Forget, in a forked child, what its parent's threads are downloading."""
    global _flights  # noqa: PLW0603
    _flights = SingleFlight()


afresh_in_child(_start_afresh)


@functools.cache  # an import statement takes its time even when all is loaded
def _sharing() -> "tuple[Callable[[MediaIO[Any]], Hashable | None], type[SharedDecode]]":
    """Return what tells which media IOs decode to the same, and what decodes for all of them."""
    from mmmedia.media.sharing import SharedDecode, decode_key

    return decode_key, SharedDecode


def _decode_key(media_io: MediaIO[Any]) -> Hashable | None:
    """Return what must be equal for others to have what a media IO decodes; `None` if they can't."""
    decode_key, _ = _sharing()
    return decode_key(media_io)


class SharedDownloads(CachedLoads):
    """Loads from remote URLs: who asks for the same at the same time shares the download and the decode."""

    def _load_remote(self, goal: Goal, media_io: MediaIO[T]) -> T:
        """Download, or wait for who is downloading the same under the same policy, and decode."""
        allowed = FetchPolicy.of(self._domains, goal.settings, media_io.get_max_bytes())
        with fetch_policy(allowed) as policy:
            key: Hashable = (goal.url, id(self.connection), policy, goal.settings.allow_redirects)
            how: dict[str, Any] = {"timeout": goal.timeout, "allow_redirects": goal.settings.allow_redirects}
            fetch = self.connection.get_bytes
            url = goal.remote if getattr(fetch, "__func__", None) is HTTPConnection.get_bytes else goal.url
            download: Callable[[], bytes | Downloaded] = functools.partial(fetch, url, **how)
            if goal.settings.revalidate and self._can_revalidate():
                download = functools.partial(self._get_if_changed, goal, how)
            try:
                flight = _flights.fly(
                    key,
                    download,
                    timeout=goal.timeout,
                    longest=goal.longest,
                    linger=bool(self._media_cache_dir),
                )
            except Exception as error:
                translated = _wrap_media_fetch_error(goal.url, sync_error(error, goal.url))
                if translated is error:
                    raise
                raise translated from error
        try:
            return self._load_downloaded(goal.url, flight, media_io)
        finally:
            _flights.retire(key, flight)

    async def _load_remote_async(self, goal: Goal, media_io: MediaIO[T], calls: Calls) -> T:
        """Download, or wait for who is downloading the same, and decode in the threads of `calls`."""
        policy = FetchPolicy.of(self._domains, goal.settings, media_io.get_max_bytes())
        key: Hashable = (goal.url, id(self.connection), policy, goal.settings.allow_redirects)
        how: dict[str, Any] = {"timeout": goal.timeout, "allow_redirects": goal.settings.allow_redirects}
        fetch = self.connection.async_get_bytes
        is_ours = getattr(fetch, "__func__", None) is HTTPConnection.async_get_bytes
        url = goal.remote if is_ours else goal.url  # others take a text
        download: Callable[[], Awaitable[bytes | Downloaded]] = functools.partial(fetch, url, **how)
        if goal.settings.revalidate and self._can_revalidate():
            download = functools.partial(self._get_if_changed_async, goal, how, calls)
        while True:
            with fetch_policy(policy):  # which the download inherits
                flight, leads = _flights.board(
                    key,
                    download,
                    timeout=goal.timeout,
                    linger=bool(self._media_cache_dir),
                )
            try:
                return await _Wanted(self, goal, flight, media_io, calls, may_be_late=not leads).wait()
            except Exception as error:
                if not fly_again(flight, goal.timeout):
                    if error is not flight.error:
                        raise
                    translated = _wrap_media_fetch_error(goal.url, async_error(error, goal.url))
                    if translated is error:
                        raise
                    raise translated from error
            finally:
                _flights.leave(key, flight)
                if flight.has_landed and flight.is_open:
                    _flights.retire(key, flight)

    def _get_if_changed(self, goal: Goal, how: dict[str, Any]) -> Downloaded:
        """Fetch, or let the server confirm what is in the cache."""
        stale = self._get_stale(goal.url, goal.settings.max_download_bytes)
        return Downloaded.of(
            self.connection.get_if_changed(goal.remote, **{**how, **stale.validators}), stale
        )

    async def _get_if_changed_async(self, goal: Goal, how: dict[str, Any], calls: Calls) -> Downloaded:
        """Fetch, or let the server confirm what is in the cache."""
        stale = await calls.call(self._get_stale, goal.url, goal.settings.max_download_bytes)
        answer = await self.connection.async_get_if_changed(goal.remote, **{**how, **stale.validators})
        return Downloaded.of(answer, stale)

    def _charge_for(self, url: str, number_of_bytes: int) -> None:
        """Charge a request for what was downloaded."""
        try:
            self._charge_download(number_of_bytes)
        except Exception as error:
            if (translated := _wrap_media_fetch_error(url, error)) is error:
                raise
            raise translated from error

    def _load_downloaded(self, url: str, flight: Flight[bytes | Downloaded], media_io: MediaIO[T]) -> T:
        """Decode what was downloaded, and store it if it decodes."""
        result = flight.result
        data = result.data if isinstance(result, Downloaded) else result
        self._charge_for(url, len(data))
        media = self._decode(media_io, media_io.load_bytes, data)
        if self._media_cache_dir and flight.claim():
            self._store(url, result if isinstance(result, Downloaded) else Downloaded(data))
        return media


class _Wanted(Generic[T]):
    """What one request on an event loop wants of a flight; thousands may be waiting."""

    __slots__ = ("_calls", "_flight", "_goal", "_loads", "_may_be_late", "_media_io", "future", "has_budget")

    def __init__(
        self,
        loads: SharedDownloads,
        goal: Goal,
        flight: Flight[bytes | Downloaded],
        media_io: MediaIO[T],
        calls: Calls,
        *,
        may_be_late: bool,
    ) -> None:
        self._loads, self._goal, self._flight, self._media_io = loads, goal, flight, media_io
        self._calls, self._may_be_late = calls, may_be_late
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.has_budget = loads.decoded_budget is not None or loads.download_budget is not None

    def wait(self) -> "asyncio.Future[T]":
        """Return what will be the object, or the error."""
        flight, loop = self._flight, self.future.get_loop()
        if self._may_be_late and not flight.has_landed:
            timer = loop.call_later(self._goal.longest, self._give_up)
            self.future.add_done_callback(lambda _: timer.cancel())
        if not (flight.is_shared and self._share()):
            flight.call_when_landed(self._begin, loop)
        return self.future

    def load(self) -> T:
        """Decode what was downloaded, for this request alone, and store it."""
        return self._loads._load_downloaded(self._goal.url, self._flight, self._media_io)

    def charge(self, media: T) -> None:
        """Charge for a copy of what another request decoded."""
        result = self._flight.result
        data = result.data if isinstance(result, Downloaded) else result
        self._loads._charge_for(self._goal.url, len(data))
        self._loads._charge_copy(media)

    def _begin(self) -> None:
        """Have what was downloaded decoded, by now perhaps for others too; on the loop."""
        if self.future.done():
            return
        try:
            if self._flight.error is not None:
                self.future.set_exception(holdable(self._flight.error))
            elif not (self._flight.is_shared and self._share()):
                self._calls.resolve(self.future, self.load)
        except Exception as error:  # noqa: BLE001  # its own, and nobody else's who waits
            self.future.set_exception(error)

    def _share(self) -> bool:
        """Have what was or will be downloaded decoded once for all who want the same, if that can be."""
        if (decoding := _decode_key(self._media_io)) is None:
            return False
        loop = self.future.get_loop()
        key = (loop, type(self._loads), decoding)
        shared: SharedDecode | None = self._flight.decodes.get(key)
        if shared is None:
            _, shared_decode = _sharing()
            made = shared_decode(self._calls)
            shared = self._flight.decodes.setdefault(key, made)
            if shared is made:
                self._flight.call_when_landed(functools.partial(made.open, self._flight), loop)
        shared.join(self)
        return True

    def _give_up(self) -> None:
        """End the waiting for a flight that has not landed in time."""
        if not (self._flight.has_landed or self.future.done()):
            self.future.set_exception(late(self._goal.longest))
