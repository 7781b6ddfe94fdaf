"""What a connector does with bytes: decode and charge for them, and keep them in the on-disk cache."""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mmmedia import envs, metrics
from mmmedia.cache import BlockCacheSource, MediaCache, StaleEntry, get_media_cache
from mmmedia.connections import Download, HTTPConnection, Progress, RetryPlan, environment_proxy
from mmmedia.egress import EgressPolicy, literal_address
from mmmedia.envs import FetchSettings
from mmmedia.errors import LimitExceededError
from mmmedia.exceptions import MediaRequestDownloadSizeExceededError
from mmmedia.media.base import MediaIO
from mmmedia.media.budget import Budget, charges_itself, own_charge, size_of
from mmmedia.media.decoded import Content, Decoded, decoded_cache, how, media_type_of
from mmmedia.media.fetch_errors import _wrap_media_fetch_error
from mmmedia.media.handles import Opening
from mmmedia.sources import Source
from mmmedia.urls import HTTPURL, DomainList, redact_url
from mmmedia.work.flight import Flight

T = TypeVar("T")

_NO_ENTRY = StaleEntry(b"")


class Goal(NamedTuple):
    """What one request wants to be fetched, and how.

    Attributes:
        url: as it was given.
        remote: as it was read: an `HTTPURL`, or what a subclass of the connector makes of a URL.
        timeout: seconds of the first attempt, `None` for no limit.
        settings: those of the moment in which the request began.
        is_of_kind: whether their download limit is that of the kind of media.
    """

    url: str
    remote: Any
    timeout: float | None
    settings: FetchSettings
    is_of_kind: bool = False

    @property
    def longest(self) -> float:
        """Seconds that it takes at most, with all attempts."""
        return _longest(self.timeout, self.settings.attempts)


@functools.lru_cache(maxsize=64)
def _longest(timeout: float | None, attempts: int) -> float:
    return RetryPlan(timeout, attempts).bound_seconds


class Downloaded(NamedTuple):
    """What a download brought.

    Attributes:
        data: the bytes behind the URL.
        etag: what the server gave for asking whether they are still good.
        last_modified: likewise.
        is_confirmed: whether they are those of an expired entry of the cache, which the server confirmed.
    """

    data: bytes
    etag: str = ""
    last_modified: str = ""
    is_confirmed: bool = False

    @classmethod
    def of(cls, answer: Download, stale: StaleEntry) -> "Downloaded":
        """Return what there is after asking the server about an expired entry."""
        if answer.data is None:
            return cls(stale.data, stale.etag, stale.last_modified, is_confirmed=True)
        return cls(answer.data, answer.etag, answer.last_modified)


Brought = bytes | Downloaded | Source
"""What a download ends with; a source of which not all has been fetched."""


class CachedLoads:
    """Decodes, charges for it, loads out of the cache, and stores what was downloaded.

    Attributes:
        connection: what fetches HTTP URLs.
        decoded_budget: what decoded bytes are charged to, if anything.
        download_budget: what encoded bytes are charged to, if anything.
        on_progress: is told how far downloads are, if anything is.
    """

    connection: HTTPConnection
    decoded_budget: Budget | None
    download_budget: Budget | None
    on_progress: Progress | None
    _domains: DomainList
    _media_cache_dir: str
    _media_cache_max_bytes: int
    _media_cache_ttl_secs: float
    _decoded_cache_bytes: int

    def _charge_download(self, number_of_bytes: int) -> None:
        if self.download_budget is not None:
            self.download_budget.charge(number_of_bytes)

    def _charge_for(self, url: str, number_of_bytes: int) -> None:
        """Charge a request for what was downloaded."""
        try:
            self._charge_download(number_of_bytes)
        except MediaRequestDownloadSizeExceededError as error:
            raise refusal(url, error) from None

    def _charge_copy(self, media: object, media_io: MediaIO[Any]) -> None:
        """Charge for a copy before it is made, as for decoding it."""
        if (own := getattr(media_io, "decoded_budget", None)) is not None:
            own.charge(own_charge(media))
        if self.decoded_budget is not None and not charges_itself(media_io, self.decoded_budget):
            with getattr(self.decoded_budget, "one_at_a_time", nullcontext)():
                self.decoded_budget.charge(size_of(media))

    def _load_bytes(self, data: bytes, media_io: MediaIO[T]) -> T:
        if self.download_budget is not None:
            self.download_budget.charge(len(data))
        return self._decode(media_io, media_io.load_bytes, data)

    def _decode(self, media_io: MediaIO[T], load: Callable[..., T], *args: Any) -> T:
        """Call what decodes, `load_bytes`, `load_base64` or `load_source`, and charge for the result."""
        if isinstance(media_io, Opening):
            return load(*args)
        if not self._decoded_cache_bytes or how(media_io, media_type_of(*args)) is None:
            return self._decode_anew(media_io, load, *args)
        content = Content.of(*args)
        media: T = self._decoded(media_io, content, content.hash).hand_out(content)
        return media

    def _decoded(self, media_io: MediaIO[Any], content: Content, content_hash: str) -> Decoded:
        """Decode, or find what was decoded, and charge for it."""
        is_mine = False

        def decode() -> Decoded:
            nonlocal is_mine
            is_mine = True
            return Decoded(self._decode_anew(media_io, content.load, media_io), content)

        cache, depends_on = decoded_cache(self._decoded_cache_bytes), how(media_io, content.media_type)
        is_named = content.source is None or bool(content.source.validator)
        if cache is None or depends_on is None or not is_named:
            return decode()
        found = cache.get_or_decode((content_hash, depends_on), decode)
        if not is_mine:
            self._charge_copy(found.media, media_io)
        return found

    def _decode_anew(self, media_io: MediaIO[T], load: Callable[..., T], *args: Any) -> T:
        if self.decoded_budget is None or charges_itself(media_io, self.decoded_budget):
            return metrics.timed_decode(media_io, load, *args)
        one_at_a_time = getattr(self.decoded_budget, "one_at_a_time", nullcontext)  # others only charge
        with one_at_a_time():
            media = metrics.timed_decode(media_io, load, *args)
            self.decoded_budget.charge(size_of(media))
        return media

    def _load_downloaded(self, url: str, flight: Flight[Brought], media_io: MediaIO[T]) -> T:
        """Decode what was downloaded, and store it if it decodes."""
        result = flight.result
        assert not isinstance(result, Source)  # which is loaded in pieces
        data = result.data if isinstance(result, Downloaded) else result
        if self.download_budget is not None and flight.toll is None:
            self._charge_for(url, len(data))
        media = self._decode(media_io, media_io.load_bytes, data)
        if isinstance(media_io, Opening):
            media_io.opened_download(functools.partial(self._store_once, url, flight))
        elif self._media_cache_dir:
            self._store_once(url, flight)
        return media

    def _kept_in_blocks(self, url: str, source: Source) -> Source:
        """Return a source whose pieces are kept in the cache, if there is one, and nothing overridden."""
        is_ours = _is_of(self._get_cached_bytes, CachedLoads._get_cached_bytes) and _is_of(
            self._put_cached_bytes, CachedLoads._put_cached_bytes
        )
        cache = self._media_cache if is_ours else None
        return source if cache is None else BlockCacheSource(source, cache, url)

    def _store_once(self, url: str, flight: Flight[Brought]) -> None:
        """Store what was downloaded, of all who shared it by the first who comes."""
        if self._media_cache_dir and flight.claim():
            result = flight.result
            assert not isinstance(result, Source)
            self._store(url, result if isinstance(result, Downloaded) else Downloaded(result))

    @property
    def _media_cache(self) -> MediaCache | None:
        if not self._media_cache_dir:
            return None
        return get_media_cache(self._media_cache_dir, self._media_cache_max_bytes, self._media_cache_ttl_secs)

    def _media_cache_path(self, url: str) -> Path:
        """Return where the bytes of a URL are kept; without a cache directory, the bare file name."""
        return MediaCache(
            self._media_cache_dir or ".",
            max_bytes=self._media_cache_max_bytes,
            ttl_secs=self._media_cache_ttl_secs,
        ).path(url)

    def _get_cached_bytes(self, url: str) -> bytes | None:
        """Return the cached bytes of a URL, `None` if there are none that still live."""
        cache = self._media_cache
        return None if cache is None else cache.get(url)

    def _put_cached_bytes(self, url: str, data: bytes) -> None:
        """Store the bytes of a URL."""
        cache = self._media_cache
        if cache is not None:
            cache.put(url, data)

    def _maybe_evict(self, exclude: Path | None = None) -> None:
        """Bring the cache back within its budget, keeping the file `exclude`."""
        cache = self._media_cache
        if cache is not None:
            cache.evict(exclude)

    def _load_cached(self, url: str, remote: Any, media_io: MediaIO[T]) -> tuple[bool, T]:
        """Read from the cache and decode; the first item says whether there was anything to decode.

        Raises:
            LimitExceededError: (a `ValueError`) there is more than a download may have.
            RefusedURLError: (a `ValueError`) the policy of now does not admit the URL.
        """
        data = self._get_cached_bytes(url)
        missing: Any = None
        if data is None or not self._may_still_be_served(remote):
            return False, missing
        megabytes = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
        if 0 < megabytes << 20 < len(data):
            raise LimitExceededError(
                f"{redact_url(url)!r} has {len(data)} bytes, more than {megabytes} MiB; "
                "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB sets this limit."
            )
        if isinstance(media_io, Opening):
            media_io.opened_cached(functools.partial(self._discard, url))
        try:
            return True, self._load_bytes(data, media_io)
        except LimitExceededError:
            raise
        except ValueError:
            # It decoded once, so the file is damaged: fetch it anew.
            self._discard(url)
            return False, missing

    def _discard(self, url: str) -> None:
        """Forget the cached bytes of a URL."""
        cache = self._media_cache
        if cache is not None:
            cache.discard(url)

    def _may_still_be_served(self, remote: HTTPURL) -> bool:
        """Say whether the policy of now admits cached bytes; false where that takes a new download.

        The host that they came from may have been admitted by another policy. Addresses are judged; names
        too, by what they resolve to, where private addresses are blocked.

        Raises:
            RefusedURLError: (a `ValueError`) it does not.
        """
        policy = EgressPolicy.from_env(self._domains)
        policy.check_port(remote.host, remote.port)
        address = literal_address(remote.host)
        if address is not None:
            policy.check(remote.host, address)
        elif policy.block_private and environment_proxy(remote) is None:
            from mmmedia.egress.resolve import resolve

            try:
                answers = resolve(remote.host, remote.port, timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)
            except OSError:
                return False
            for answer in answers:
                policy.check(remote.host, answer.address)
        return True

    def _store(self, url: str, downloaded: Downloaded) -> None:
        """Store what was downloaded, with what the server gave for asking about it."""
        if not (downloaded.etag or downloaded.last_modified):
            self._put_cached_bytes(url, downloaded.data)
        elif (cache := self._media_cache) and not (downloaded.is_confirmed and cache.refresh(url)):
            cache.put(url, downloaded.data, etag=downloaded.etag, last_modified=downloaded.last_modified)

    def _can_revalidate(self) -> bool:
        """Say whether servers can be asked about expired entries: where nothing is overridden.

        A subclass may keep other bytes than those that were downloaded, a connection may fetch otherwise.
        """
        return (
            bool(self._media_cache_dir)
            and _is_of(self._get_cached_bytes, CachedLoads._get_cached_bytes)
            and _is_of(self._put_cached_bytes, CachedLoads._put_cached_bytes)
            and _is_of(self.connection.get_bytes, HTTPConnection.get_bytes)
            and _is_of(self.connection.async_get_bytes, HTTPConnection.async_get_bytes)
        )

    def _get_stale(self, url: str, max_bytes: float) -> StaleEntry:
        """Return the expired entry of a URL, an empty one if there is none to ask about."""
        cache = self._media_cache
        return (cache and cache.get_stale(url, max_size=max_bytes)) or _NO_ENTRY


def refusal(url: str, error: Exception) -> Exception:
    """Return what to raise for what a budget of downloads raised: what an engine's own does is its to say."""
    is_ours = isinstance(error, MediaRequestDownloadSizeExceededError)
    return _wrap_media_fetch_error(url, error) if is_ours else error


def _is_of(method: Callable[..., object] | None, function: Callable[..., object]) -> bool:
    """Say whether a method is this very function, and not one that overrides it."""
    return getattr(method, "__func__", None) is function
