"""Loading through a source: what a connector does where only a part of a file is needed.

A connector asks `opens` how to begin a download, and gives what that brought to `load` or `load_async`, which
read the rest as it is needed, within the limits and budgets of the request.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mmmedia import metrics
from mmmedia.connections import HTTPConnection, fetch_policy, status_of
from mmmedia.connections.budget import RequestBudget
from mmmedia.connections.ranges import Whole, aopen_source, open_source
from mmmedia.errors import SourceChangedError
from mmmedia.exceptions import MediaDownloadSizeExceededError, MediaRequestDownloadSizeExceededError
from mmmedia.media.base import MediaIO, SourceMediaIO
from mmmedia.media.buckets import ObjectConnection, ObjectURL
from mmmedia.media.fetch_errors import _wrap_media_fetch_error
from mmmedia.sources import BytesSource, FileSource, Ranges, Source
from mmmedia.sources.base import SourceInFront
from mmmedia.urls import HTTPURL, redact_url
from mmmedia.work.calls import on_behalf_of
from mmmedia.work.executors import ProcessPool

if TYPE_CHECKING:
    from mmmedia.media.cached import Goal
    from mmmedia.media.downloads import SharedDownloads

T = TypeVar("T")

THREADS = 32
"""Loads through sources on event loops at a time: most of their time they wait for pieces."""

_LOOK_SECONDS = 2.0

_threads = ProcessPool("mmmedia-sparse", lambda: THREADS)


def mode_for(media_io: MediaIO[Any]) -> str:
    """Return how what a media IO loads is fetched: "auto", "never" or "always"."""
    return media_io.fetch_mode() if isinstance(media_io, SourceMediaIO) else "never"


def opens(
    connector: "SharedDownloads", goal: "Goal", media_io: MediaIO[Any], toll: RequestBudget | None
) -> Callable[[], bytes | Source] | None:
    """Return what begins a download that may be of a part, in this thread; None: it is to be of the whole.

    Args:
        connector: which downloads.
        goal: what.
        media_io: what loads it.
        toll: is charged with the whole, if that is what comes; not with what is read of a source.
    """
    if not _is_for_pieces(connector, goal, media_io):
        return None

    def download() -> bytes | Source:
        found = _brought(_opened(connector, goal, toll))
        if isinstance(found, Source) and found.size < _smallest(media_io):
            if toll is not None:
                toll.charge(found.size)
            known = len(found.head)
            return found.head + found.read([(known, found.size)])[0] if found.size else b""
        return found

    return download


def opens_async(
    connector: "SharedDownloads", goal: "Goal", media_io: MediaIO[Any], toll: RequestBudget | None
) -> Callable[[], Awaitable[bytes | Source]] | None:
    """Return what begins a download that may be of a part, on the running loop; see `opens`."""
    if not _is_for_pieces(connector, goal, media_io):
        return None

    async def download() -> bytes | Source:
        found = _brought(await _aopened(connector, goal, toll))
        if isinstance(found, Source) and found.size < _smallest(media_io):
            if toll is not None:
                toll.charge(found.size)
            known = len(found.head)
            return found.head + (await found.aread([(known, found.size)]))[0] if found.size else b""
        return found

    return download


def _is_for_pieces(connector: "SharedDownloads", goal: "Goal", media_io: MediaIO[Any]) -> bool:
    if mode_for(media_io) == "never" or (goal.settings.revalidate and connector._can_revalidate()):
        return False
    if isinstance(goal.remote, ObjectURL):
        return isinstance(connector.connection, ObjectConnection)
    http: Any = _http(connector)
    return isinstance(goal.remote, HTTPURL) and all(
        getattr(getattr(http, name, None), "__func__", None) is getattr(HTTPConnection, name)
        for name in ("get_bytes", "async_get_bytes")
    )


def _http(connector: "SharedDownloads") -> HTTPConnection:
    """What fetches HTTP URLs for a connector."""
    connection: Any = connector.connection
    return connection.http if isinstance(connection, ObjectConnection) else connection


def _opened(connector: "SharedDownloads", goal: "Goal", toll: RequestBudget | None = None) -> Source | Whole:
    """Begin to read what is behind a URL, held to the policy under way."""
    if isinstance(goal.remote, ObjectURL):
        objects = cast("ObjectConnection", connector.connection)
        return objects.open_object(goal.url, timeout=goal.timeout)
    return open_source(_http(connector), goal.remote, request_budget=toll, **_how(goal))


async def _aopened(
    connector: "SharedDownloads", goal: "Goal", toll: RequestBudget | None = None
) -> Source | Whole:
    """Begin to read what is behind a URL; see `_opened`."""
    if isinstance(goal.remote, ObjectURL):
        objects = cast("ObjectConnection", connector.connection)
        return await objects.async_open_object(goal.url, timeout=goal.timeout)
    return await aopen_source(_http(connector), goal.remote, request_budget=toll, **_how(goal))


def _smallest(media_io: MediaIO[Any]) -> int:
    return media_io.smallest_source if isinstance(media_io, SourceMediaIO) else 0


def _brought(found: Source | Whole) -> bytes | Source:
    """What a download has brought."""
    return found.data if isinstance(found, Whole) else found


def load(
    connector: "SharedDownloads", goal: "Goal", source: Source, media_io: MediaIO[T]
) -> tuple[T, Source]:
    """Load through a source, and return it too, or what has taken its place.

    What is behind the URL may change meanwhile: then it is begun anew, once.

    Raises:
        SourceChangedError: (an `OSError`) it changed twice.
        MediaDownloadSizeExceededError: (a `ValueError`) more is needed than may be downloaded.
        Exception: what the media IO, the budgets and the source raise.
    """
    try:
        return _load_once(connector, goal, source, media_io, None)
    except SourceChangedError as error:
        again: bytes | Source | None = error.whole
    if again is None:
        with fetch_policy(connector._policy(goal)):
            again = _brought(_opened(connector, goal))
    return _load_once(connector, goal, _source(again, source), media_io, None)


async def load_async(
    connector: "SharedDownloads", goal: "Goal", source: Source, media_io: MediaIO[T]
) -> tuple[T, Source]:
    """Load through a source in a thread, while the loop fetches the pieces; see `load`."""
    try:
        return await _in_a_thread(connector, goal, source, media_io)
    except SourceChangedError as error:
        again: bytes | Source | None = error.whole
    if again is None:
        with fetch_policy(connector._policy(goal)):
            again = _brought(await _aopened(connector, goal))
    return await _in_a_thread(connector, goal, _source(again, source), media_io)


async def _in_a_thread(
    connector: "SharedDownloads", goal: "Goal", source: Source, media_io: MediaIO[T]
) -> tuple[T, Source]:
    loop = asyncio.get_running_loop()
    bridge, wanted = _OnLoop(source, loop), loop.create_future()

    def load() -> tuple[T, Source]:
        with on_behalf_of(wanted):
            return _load_once(connector, goal, source, media_io, bridge)

    try:
        return await loop.run_in_executor(_threads.executor(), load)
    finally:
        bridge.stop()
        wanted.cancel()


def _how(goal: "Goal") -> dict[str, Any]:
    return {"timeout": goal.timeout, "allow_redirects": goal.settings.allow_redirects}


def _source(brought: bytes | Source, before: Source) -> Source:
    if isinstance(brought, Source):
        return brought
    source = BytesSource(brought, name=before.name)
    source.whole = brought
    return source


def _load_once(
    connector: "SharedDownloads",
    goal: "Goal",
    source: Source,
    media_io: MediaIO[T],
    reader: Source | None,
) -> tuple[T, Source]:
    if isinstance(media_io, SourceMediaIO) and media_io.keeps_source:
        reader = None  # whose loop may be gone by then
    limited = Limited(source, connector._charge_download, goal.settings.max_download_bytes, reader=reader)
    # What comes out of the cache is not fetched, and not charged for.
    pieces = connector._kept_in_blocks(goal.url, limited)
    media = connector._decode(media_io, _loader(media_io), pieces)
    metrics.count_saved(max(source.size - limited.fetched, 0))
    return media, source


def translated(url: str, error: Exception) -> Exception:
    """Return the error to raise for one that reading a source ended with, or what was read."""
    sizes = (MediaDownloadSizeExceededError, MediaRequestDownloadSizeExceededError)
    if status_of(error) is None and not isinstance(error, sizes):
        return error
    return _wrap_media_fetch_error(url, error)


def is_for_file(media_io: MediaIO[Any], size: int) -> bool:
    """Return whether a media IO is to be given a file of so many bytes as a source."""
    return mode_for(media_io) != "never" and size >= _smallest(media_io)


def load_file(connector: "SharedDownloads", descriptor: int, name: str, media_io: MediaIO[T]) -> T:
    """Load an open file, of which only what is needed is read and charged.

    Args:
        connector: whose budgets hold.
        descriptor: of the file.
        name: for messages.
        media_io: one with `load_source`.
    """
    source = FileSource(descriptor, name=name)
    try:
        if connector.download_budget is None:
            return connector._decode(media_io, _loader(media_io), source)
        limited = Limited(source, connector._charge_download, None)
        return connector._decode(media_io, _loader(media_io), limited)
    finally:
        if not (isinstance(media_io, SourceMediaIO) and media_io.keeps_source):
            source.close()


def _loader(media_io: MediaIO[T]) -> Callable[[Source], T]:
    if isinstance(media_io, SourceMediaIO):
        return media_io.load_source
    return lambda source: media_io.load_bytes(source.read_all())  # it shares what another began


class Limited(SourceInFront):
    """A source as one request may read it.

    Attributes:
        fetched: how many bytes it has read.

    Args:
        source: what is read.
        charge: is told of all bytes that are read, before they are.
        most: so many bytes at most; None: any number.
        reader: what reads them, if not the source itself.
    """

    def __init__(
        self,
        source: Source,
        charge: Callable[[int], object],
        most: float | None,
        *,
        reader: Source | None = None,
    ) -> None:
        super().__init__(source)
        self._reader = reader or source
        self._charge, self._most = charge, most
        self.fetched = 0
        self._take(source.size if source.whole is not None else len(source.head))

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches; see `Source.read`.

        Raises:
            MediaDownloadSizeExceededError: (a `ValueError`) they are too many together.
        """
        self._take(sum(stop - start for start, stop in ranges))
        pieces = self._reader.read(ranges)
        if self._inner.whole is not None and self.fetched < self.size:
            self._take(self.size - self.fetched)  # which came in place of a piece
        return pieces

    def _take(self, count: int) -> None:
        if self._most is not None and self.fetched + count > self._most:
            raise MediaDownloadSizeExceededError(
                self._most, self.fetched + count, repr(redact_url(self.name))
            )
        self._charge(count)
        self.fetched += count


class _OnLoop(Source):
    """A source that threads read through an event loop."""

    def __init__(self, source: Source, loop: asyncio.AbstractEventLoop) -> None:
        self._source, self._loop = source, loop
        self.size, self.name = source.size, source.name
        self._lock = threading.Lock()
        self._pending: Future[list[bytes]] | None = None
        self._is_over = False

    def read(self, ranges: Ranges) -> list[bytes]:
        with self._lock:
            if self._is_over or self._loop.is_closed():
                raise CancelledError
            reading = self._source.aread(ranges)
            try:
                pending = self._pending = asyncio.run_coroutine_threadsafe(reading, self._loop)
            except RuntimeError:
                reading.close()
                raise CancelledError from None
        while True:
            try:
                return pending.result(_LOOK_SECONDS)
            except TimeoutError:
                if pending.done():
                    raise
                if self._loop.is_closed():  # nothing will ever come
                    raise CancelledError from None

    def stop(self) -> None:
        """Read nothing more: nobody waits for it."""
        with self._lock:
            self._is_over = True
            if self._pending is not None:
                self._pending.cancel()
