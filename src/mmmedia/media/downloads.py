"""Downloads that all who ask at the same time share, and the decoding of what they bring."""

import asyncio
import contextlib
import functools
import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar, cast

from mmmedia.cache import BlockCacheSource
from mmmedia.connections import (
    FetchPolicy,
    HTTPConnection,
    async_error,
    fetch_policy,
    sync_error,
)
from mmmedia.connections.budget import Toll
from mmmedia.connections.rules import policy_under_way
from mmmedia.media import sparse
from mmmedia.media.base import MediaIO
from mmmedia.media.cached import Brought, CachedLoads, Downloaded, Goal, refusal
from mmmedia.media.fetch_errors import _wrap_media_fetch_error
from mmmedia.media.handles import Opening
from mmmedia.media.sharing import SharedDecode, decode_key
from mmmedia.sources import Source
from mmmedia.work.calls import calls_of_loop, holdable
from mmmedia.work.flight import Flight, SingleFlight, fly_again, late
from mmmedia.work.fork import afresh_in_child

T = TypeVar("T")

_flights: SingleFlight[Brought] = SingleFlight()


def _start_afresh() -> None:
    """Forget, in a forked child, what its parent's threads are downloading."""
    global _flights  # noqa: PLW0603
    _flights = SingleFlight()


afresh_in_child(_start_afresh)


def _offered(fetch: Callable[..., Any], **offers: Any) -> dict[str, Any]:
    """Return those keywords that a function takes, be it one written for vLLM 0.20."""
    try:
        taken = inspect.signature(fetch).parameters
    except (TypeError, ValueError):
        return {}
    if any(each.kind is each.VAR_KEYWORD for each in taken.values()):
        return offers
    return {name: value for name, value in offers.items() if name in taken}


def _held_to(goal: Goal, media_io: MediaIO[Any]) -> Goal:
    """Return a goal of no more bytes than a media IO takes; most take any number."""
    if getattr(type(media_io), "get_max_bytes", None) in (None, MediaIO.get_max_bytes):
        return goal
    held = goal.settings.held_to(media_io.get_max_bytes())
    return goal._replace(settings=held, is_of_kind=held is not goal.settings)


class SharedDownloads(CachedLoads):
    """Loads from remote URLs: who asks for the same at the same time shares the download and the decode."""

    def _policy(self, goal: Goal) -> FetchPolicy:
        return FetchPolicy(self._domains, goal.settings, goal.is_of_kind, self.on_progress)

    def _terms(self, fetch: Callable[..., Any], ours: Any, media_io: MediaIO[Any]) -> dict[str, Any]:
        """Return what else to tell what fetches: of a connection that is not ours, how much it may fetch.

        Ours is held to the policy, and told of a `Toll`, by which all who share the download pay.
        """
        terms: dict[str, Any] = {}
        budget: Any = None if self.download_budget is None else Toll()
        if getattr(fetch, "__func__", None) is not ours:
            limit = getattr(media_io, "get_max_bytes", lambda: None)()
            terms, budget = _offered(fetch, max_bytes=limit), self.download_budget
        return terms if budget is None else terms | _offered(fetch, request_budget=budget)

    def _shares(self, terms: Mapping[str, Any]) -> Hashable:
        """Return what else must be equal for two to share a download: whether they pay, and to whom."""
        budget = terms.get("request_budget")
        return budget is None if budget is None or isinstance(budget, Toll) else id(budget)

    def _load_remote(self, goal: Goal, media_io: MediaIO[T]) -> T:
        """Download, or wait for who is downloading the same under the same policy, and decode."""
        goal = _held_to(goal, media_io)
        with fetch_policy(self._policy(goal)) as policy:
            how: dict[str, Any] = {"timeout": goal.timeout, "allow_redirects": goal.settings.allow_redirects}
            fetch = self.connection.get_bytes
            terms = self._terms(fetch, HTTPConnection.get_bytes, media_io)
            toll, refused = terms.get("request_budget"), list[Exception]()
            key: Hashable = (goal.url, id(self.connection), policy, self._shares(terms))

            def join(flight: Flight[Brought]) -> None:
                if isinstance(flight.toll, Toll) and self.download_budget is not None:
                    flight.toll.join(self.download_budget, refused.append)

            url = goal.remote if getattr(fetch, "__func__", None) is HTTPConnection.get_bytes else goal.url
            download: Callable[[], Brought] = functools.partial(fetch, url, **how, **terms)
            if goal.settings.revalidate and self._can_revalidate():
                download, toll = functools.partial(self._get_if_changed, goal, how), None
            download = sparse.opens(self, goal, media_io, toll) or download
            try:
                if isinstance(toll, Toll) and self.download_budget is not None:
                    toll.join(self.download_budget, refused.append)
                flight = _flights.fly(
                    key,
                    download,
                    timeout=goal.timeout,
                    longest=goal.longest,
                    linger=bool(self._media_cache_dir),
                    toll=toll,
                    joined=join,
                )
                if refused:
                    raise refused[0]
            except Exception as error:
                if refused:
                    raise refusal(goal.url, refused[0]) from None
                is_ours = getattr(fetch, "__func__", None) is HTTPConnection.get_bytes
                told = sync_error(error, goal.url) if is_ours else error
                translated = _wrap_media_fetch_error(goal.url, told)
                if translated is error:
                    raise
                raise translated from error
        try:
            if isinstance(flight.result, Source):
                return self._load_pieces(goal, flight, media_io)
            return self._load_downloaded(goal.url, flight, media_io)
        finally:
            _flights.retire(flight)

    def _load_pieces(self, goal: Goal, flight: Flight[Brought], media_io: MediaIO[T]) -> T:
        """Load what a download has begun to bring, and fetch of it what is needed."""
        try:
            media, source = sparse.load(self, goal, cast("Source", flight.result), media_io)
        except Exception as error:
            translated = sparse.translated(goal.url, sync_error(error, goal.url))
            if translated is error:
                raise
            raise translated from error
        self._keep(goal, flight, source, media_io)
        return media

    async def _load_pieces_async(self, goal: Goal, flight: Flight[Brought], media_io: MediaIO[T]) -> T:
        """Load what a download has begun to bring; see `_load_pieces`."""
        try:
            media, source = await sparse.load_async(self, goal, cast("Source", flight.result), media_io)
        except Exception as error:
            translated = sparse.translated(goal.url, async_error(error, goal.url))
            if translated is error:
                raise
            raise translated from error
        if self._media_cache_dir:
            await asyncio.to_thread(self._keep, goal, flight, source, media_io)
        return media

    def _keep(self, goal: Goal, flight: Flight[Brought], source: Source, media_io: MediaIO[Any]) -> None:
        """Store what was read in pieces, if by now all of it was; once it is decoded."""
        keep = functools.partial(self._store_source, goal, flight, source)
        if isinstance(media_io, Opening):
            media_io.opened_download(keep)
        else:
            keep()

    def _store_source(self, goal: Goal, flight: Flight[Brought], source: Source) -> None:
        if source.whole is None:
            blocks = self._kept_in_blocks(goal.url, source)
            # What is larger than a download may be is of use only in pieces.
            if isinstance(blocks, BlockCacheSource) and source.size <= goal.settings.max_download_bytes:
                blocks.become_whole()
        elif self._media_cache_dir and flight.claim():
            self._store(goal.url, Downloaded(source.whole))

    def _begin(self, goal: Goal, media_io: MediaIO[T], pool: Executor) -> "Wanted[T]":
        """Begin to download on a loop, or join who is downloading the same; `pool` will decode it."""
        goal = _held_to(goal, media_io)
        policy = self._policy(goal)
        how: dict[str, Any] = {"timeout": goal.timeout, "allow_redirects": goal.settings.allow_redirects}
        fetch = self.connection.async_get_bytes
        terms = self._terms(fetch, HTTPConnection.async_get_bytes, media_io)
        toll = terms.get("request_budget")
        is_ours = getattr(fetch, "__func__", None) is HTTPConnection.async_get_bytes
        url = goal.remote if is_ours else goal.url  # others take a text
        download: Callable[[], Awaitable[Brought]] = functools.partial(fetch, url, **how, **terms)
        if goal.settings.revalidate and self._can_revalidate():
            download, toll = functools.partial(self._get_if_changed_async, goal, how, pool), None
        download = sparse.opens_async(self, goal, media_io, toll) or download
        return Wanted(self, goal, policy, download, media_io, pool, toll, self._shares(terms))

    def _get_if_changed(self, goal: Goal, how: dict[str, Any]) -> Downloaded:
        """Fetch, or let the server confirm what is in the cache."""
        stale = self._get_stale(goal.url, goal.settings.max_download_bytes)
        return Downloaded.of(
            self.connection.get_if_changed(goal.remote, **{**how, **stale.validators}), stale
        )

    async def _get_if_changed_async(self, goal: Goal, how: dict[str, Any], pool: Executor) -> Downloaded:
        """Fetch, or let the server confirm what is in the cache."""
        calls = calls_of_loop(pool)
        stale = await calls.call(self._get_stale, goal.url, goal.settings.max_download_bytes)
        answer = await self.connection.async_get_if_changed(goal.remote, **{**how, **stale.validators})
        return Downloaded.of(answer, stale)


class Wanted(Generic[T]):
    """What one request on an event loop wants of a flight; thousands may be waiting.

    Attributes:
        flight: the download.
        future: what will be the object, or the error.
        has_budget: whether its errors may be its own.
    """

    __slots__ = (
        "_download", "_goal", "_is_refused", "_loads", "_media_io", "_policy", "_pool", "_shares", "_toll",
        "flight", "future", "has_budget",
    )  # fmt: skip

    def __init__(
        self,
        loads: SharedDownloads,
        goal: Goal,
        policy: FetchPolicy,
        download: Callable[[], Awaitable[Brought]],
        media_io: MediaIO[T],
        pool: Executor,
        toll: Any,
        shares: Hashable,
    ) -> None:
        self._loads, self._goal, self._media_io, self._pool = loads, goal, media_io, pool
        self._toll = toll
        self._is_refused, self._shares = False, shares
        self._policy, self._download = policy, download
        own = getattr(media_io, "decoded_budget", None)
        self.has_budget = not (loads.decoded_budget is loads.download_budget is own is None)
        self.board()

    def board(self) -> None:
        """Begin the download, or join it."""
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        token = policy_under_way.set(self._policy)  # which the download inherits
        budget = self._loads.download_budget
        try:
            if isinstance(self._toll, Toll) and budget is not None:
                self._toll.join(budget, self._refuse)
            self.flight, leads = _flights.board(
                (self._goal.url, id(self._loads.connection), self._policy, self._shares),
                self._download,
                self._begin,
                timeout=self._goal.timeout,
                linger=bool(self._loads._media_cache_dir),
                toll=self._toll,
            )
        finally:
            policy_under_way.reset(token)
        if leads:
            return
        if isinstance(self.flight.toll, Toll) and budget is not None:
            try:
                self.flight.toll.join(budget, self._refuse)
            except Exception as error:  # noqa: BLE001  # its own
                self._refuse(error)
                return
        self._join()

    def _refuse(self, error: Exception) -> None:
        """Give up the waiting, in whatever thread, as the request has used up its share."""
        translated, self._is_refused = refusal(self._goal.url, error), True

        def end() -> None:
            if not self.future.done():
                self.future.set_exception(translated)

        with contextlib.suppress(RuntimeError):  # that loop is closed, and nobody waits
            self.future.get_loop().call_soon_threadsafe(end)

    def board_again(self, error: Exception) -> None:
        """Begin anew if the flight failed for others' reasons; raise what is to be raised, if not."""
        if self._is_refused:
            raise error
        if fly_again(self.flight, self._goal.timeout):
            self.board()
        elif error is not self.flight.error:
            raise error
        else:
            translated = _wrap_media_fetch_error(self._goal.url, async_error(error, self._goal.url))
            raise translated from (None if translated is error else error)

    def leave(self) -> None:
        """Wait no more for a flight that is open: not landed yet, or still there to be joined."""
        _flights.leave(self.flight)
        if self.flight.has_landed:
            _flights.retire(self.flight)

    def _join(self) -> None:
        """Wait for a flight that others lead, no longer than one of its own would take."""
        loop = self.future.get_loop()
        if not self.flight.has_landed:
            timer = loop.call_later(self._goal.longest, self._give_up)
            self.future.add_done_callback(lambda _: timer.cancel())
        if not self._share():
            self.flight.call_when_landed(self._begin, loop)

    def load(self) -> T:
        """Decode what was downloaded, for this request alone, and store it."""
        return self._loads._load_downloaded(self._goal.url, self.flight, self._media_io)

    def charge(self, media: T) -> None:
        """Charge for a copy of what another request decoded."""
        result = self.flight.result
        data = result.data if isinstance(result, Downloaded) else cast("bytes", result)
        if self.flight.toll is None:
            self._loads._charge_for(self._goal.url, len(data))
        self._loads._charge_copy(media, self._media_io)

    def _begin(self) -> None:
        """Have what was downloaded decoded, by now perhaps for others too; on the loop."""
        if self.future.done():
            return
        try:
            if self.flight.error is not None:
                self.future.set_exception(holdable(self.flight.error))
            elif isinstance(self.flight.result, Source):
                loading = self._loads._load_pieces_async(self._goal, self.flight, self._media_io)
                _follow(self.future, asyncio.ensure_future(loading))
            elif not (self.flight.is_shared and self._share()):
                calls_of_loop(self._pool).resolve(
                    self.future, self._loads._load_downloaded, self._goal.url, self.flight, self._media_io
                )
        except Exception as error:  # noqa: BLE001  # its own, and nobody else's who waits
            self.future.set_exception(error)

    def _share(self) -> bool:
        """Have what was or will be downloaded decoded once for all who want the same, if that can be."""
        if (decoding := decode_key(self._media_io)) is None:
            return False
        loop = self.future.get_loop()
        key = (loop, type(self._loads), decoding)
        shared: SharedDecode | None = self.flight.decodes.get(key)
        if shared is None:
            made = SharedDecode(calls_of_loop(self._pool))
            shared = self.flight.decodes.setdefault(key, made)
            if shared is made:
                self.flight.call_when_landed(functools.partial(made.open, self.flight), loop)
        shared.join(self)
        return True

    def _give_up(self) -> None:
        """End the waiting for a flight that has not landed in time."""
        if not (self.flight.has_landed or self.future.done()):
            self.future.set_exception(late(self._goal.longest))


def _follow(future: "asyncio.Future[T]", task: "asyncio.Future[T]") -> None:
    """Have a future end as a task does, and the task with it if it is cancelled."""

    def end(_: object) -> None:
        if future.done():
            if not task.cancelled():
                task.exception()
        elif task.cancelled():
            future.cancel()
        elif (error := task.exception()) is not None:
            future.set_exception(holdable(error))
        else:
            future.set_result(task.result())

    task.add_done_callback(end)
    future.add_done_callback(lambda _: task.cancel() if future.cancelled() else None)
