"""`MediaConnector`: from a URL that a stranger wrote to a decoded object.

An engine makes one connector per request. What outlives a request (connections, the cache's state, the
thread pool) belongs to the process and is only referred to.
"""

import asyncio
import atexit
import errno
import functools
import os
import stat
import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import unquote

from mmmedia import envs, metrics
from mmmedia.budget import MediaBudget
from mmmedia.cache import MediaCache, StaleEntry, find_media_cache, get_media_cache
from mmmedia.connections import (
    Download,
    FetchPolicy,
    HTTPConnection,
    RetryPlan,
    async_error,
    environment_proxy,
    fetch_policy,
    global_http_connection,
    sync_error,
)
from mmmedia.egress import EgressPolicy, literal_address
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidURLError,
    LimitExceededError,
    LocalFileError,
    LocalFileNotFoundError,
    LocalFilesDisabledError,
    RefusedURLError,
    UnsupportedMediaError,
)
from mmmedia.flight import Flight, SingleFlight, fly_again, late
from mmmedia.hops import Errand, Hops, holdable, hops, waiting as waiting_hops
from mmmedia.media.base import MediaIO
from mmmedia.registry import ExtensionManager
from mmmedia.urls import domain_list, file_url_path, parse_http_url, redact_url, url_scheme

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL import Image
    from urllib3.util import Url

    from mmmedia.media.base import MediaWithBytes
    from mmmedia.media.image import ImageMediaIO
    from mmmedia.media.sharing import SharedDecode

T = TypeVar("T")

MEDIA_CONNECTOR_REGISTRY: ExtensionManager["MediaConnector"] = ExtensionManager("media connector")
"""Connectors by name; `VLLM_MEDIA_CONNECTOR` names the one that an engine makes."""

global_thread_pool: ThreadPoolExecutor
"""The workers that decode for the async methods, `VLLM_MEDIA_LOADING_THREAD_COUNT` of them."""

_pool_lock = threading.Lock()


class Fetched(NamedTuple):
    """What a flight brought.

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
    def of(cls, answer: Download, stale: StaleEntry) -> "Fetched":
        """Return what there is after asking the server about an expired entry."""
        if answer.data is None:
            return cls(stale.data, stale.etag, stale.last_modified, is_confirmed=True)
        return cls(answer.data, answer.etag, answer.last_modified)


_NO_ENTRY = StaleEntry(b"")
_SOON_STORED = 1 << 20
"""Bytes up to which storing takes a millisecond or so."""
_flights: SingleFlight[Fetched] = SingleFlight()


def __getattr__(name: str) -> ThreadPoolExecutor:
    if name != "global_thread_pool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with _pool_lock:
        if name not in globals():
            globals()[name] = _new_thread_pool()
        pool: ThreadPoolExecutor = globals()[name]
        return pool


def _new_thread_pool() -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(envs.VLLM_MEDIA_LOADING_THREAD_COUNT, thread_name_prefix="mmmedia")
    # The interpreter would first finish all work that is queued; `_register_atexit` runs before that.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(lambda: pool.shutdown(wait=False, cancel_futures=True))
    return pool


def _start_afresh() -> None:
    """Forget, in a forked child, what its parent's threads are doing."""
    global _flights  # noqa: PLW0603
    globals().pop("global_thread_pool", None)
    _flights = SingleFlight()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_afresh)


def _queue_length() -> int:
    """Return how many calls wait for a thread of `global_thread_pool`."""
    # Nothing public tells how long the queue of an executor is.
    queue = getattr(globals().get("global_thread_pool"), "_work_queue", None)
    return max(queue.qsize() if queue is not None else 0, waiting_hops())


metrics.register_gauge("mmmedia_pool_queue_length", _queue_length, "loading")


def _hops() -> Hops:
    """Return what takes the running loop's calls to the thread pool."""
    pool = globals().get("global_thread_pool") or __getattr__("global_thread_pool")
    return hops(pool, getattr(pool, "_max_workers", 1))


async def _in_pool(call: Callable[..., T], *args: Any) -> T:
    """Call in the thread pool; if the caller is cancelled before a worker is free, it never runs."""
    return await _hops().call(call, *args)


@functools.cache  # an import statement takes its time even when all is loaded
def _sharing() -> "tuple[Callable[[MediaIO[Any]], Hashable | None], type[SharedDecode]]":
    """Return what tells which media IOs decode to the same, and what decodes for all of them."""
    from mmmedia.media.sharing import SharedDecode, decode_key

    return decode_key, SharedDecode


def _decode_key(media_io: MediaIO[Any]) -> Hashable | None:
    """Return what must be equal for others to have what a media IO decodes; `None` if they can't."""
    decode_key, _ = _sharing()
    return decode_key(media_io)


def _longest(timeout: float | None) -> float:
    """Return how many seconds a fetch with all its attempts takes at most."""
    return _bound_seconds(timeout, envs.VLLM_MEDIA_FETCH_MAX_RETRIES)


@functools.lru_cache(maxsize=64)
def _bound_seconds(timeout: float | None, attempts: int) -> float:
    return RetryPlan(timeout, attempts).bound_seconds


class Budget(Protocol):
    """What a request may still use up."""

    def charge(self, number_of_bytes: int) -> object:
        """Take so many bytes; raise if the request has used up its share."""


def merge_media_io_kwargs(
    defaults: Mapping[str, Mapping[str, Any] | None] | None,
    overrides: Mapping[str, Mapping[str, Any] | None] | None,
) -> dict[str, dict[str, Any]] | None:
    """Merge `media_io_kwargs` of an engine with those of a request, each modality by its own rule.

    Returns:
        A new dict by modality; `None` when both are empty.

    >>> merge_media_io_kwargs({"video": {"num_frames": 8}}, {"video": {"fps": 2}, "image": {"a": 1}})
    {'video': {'fps': 2}, 'image': {'a': 1}}
    """
    if not defaults and not overrides:
        return None
    defaults, overrides = defaults or {}, overrides or {}
    return {
        modality: _media_io_class(modality).merge_kwargs(defaults.get(modality), overrides.get(modality))
        for modality in {**defaults, **overrides}
    }


@functools.lru_cache(maxsize=16)  # as with `_sharing`
def _media_io_class(modality: str) -> type[MediaIO[Any]]:
    if modality == "image":
        from mmmedia.media.image import ImageMediaIO

        return ImageMediaIO
    if modality == "audio":
        from mmmedia.media.audio import AudioMediaIO

        return AudioMediaIO
    if modality == "video":
        from mmmedia.media.video import VideoMediaIO

        return VideoMediaIO
    return MediaIO


MEDIA_CONNECTOR_REGISTRY.register_lazily("fsspec", "mmmedia.media.fsspec_connector")


@MEDIA_CONNECTOR_REGISTRY.register("http")
class MediaConnector:
    """Loads media from `data:`, `file:` and `http(s):` URLs.

    Every method has an `_async` twin, in which the event loop only waits: files, base64 and decoding are
    work of `global_thread_pool`.

    Args:
        media_io_kwargs: keywords for the media IOs, by modality (`image`, `audio`, `video`).
        connection: what fetches HTTP URLs: anything with `get_bytes(url, *, timeout, allow_redirects)` and
            `async_get_bytes`.
        allowed_local_media_path: the directory below which file URLs may point; empty for none.
        allowed_media_domains: the hosts that HTTP URLs and redirects may name, `*.example.org` for all below
            one; empty for any.
        decoded_budget: an object whose `charge(number_of_bytes)` is told of all decoded bytes, and raises
            when the request has used up its share.
        download_budget: the same for encoded bytes, whichever way they came.
        budget: both in one, for all connectors of a request.

    Raises:
        InvalidArgumentError: (a `ValueError`) a path that is no directory, an entry that is no host.

    >>> import io, base64
    >>> from PIL import Image
    >>> png = io.BytesIO()
    >>> Image.new("RGB", (4, 3)).save(png, "PNG")
    >>> url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    >>> MediaConnector().fetch_image(url).size
    (4, 3)
    """

    def __init__(
        self,
        media_io_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        connection: HTTPConnection = global_http_connection,
        *,
        allowed_local_media_path: str | os.PathLike[str] = "",
        allowed_media_domains: Iterable[str] | None = None,
        decoded_budget: Budget | None = None,
        download_budget: Budget | None = None,
        budget: MediaBudget | None = None,
    ) -> None:
        self.media_io_kwargs: dict[str, dict[str, Any]] = {
            modality: dict(kwargs or {}) for modality, kwargs in (media_io_kwargs or {}).items()
        }
        self.connection = connection
        self.allowed_local_media_path = _allowed_directory(allowed_local_media_path)
        self._domains = domain_list(allowed_media_domains)
        self.allowed_media_domains = list(allowed_media_domains or [])
        self.decoded_budget = budget.decoded if decoded_budget is None and budget else decoded_budget
        self.download_budget = budget.download if download_budget is None and budget else download_budget
        self._media_cache_dir = envs.VLLM_MEDIA_CACHE
        self._media_cache_max_bytes = envs.VLLM_MEDIA_CACHE_MAX_SIZE_MB * 1024 * 1024
        self._media_cache_ttl_secs = envs.VLLM_MEDIA_CACHE_TTL_HOURS * 3600.0

    # Any media.

    def load_from_url(self, url: str, media_io: MediaIO[T], *, fetch_timeout: float | None = None) -> T:
        """Load from a URL through a media IO.

        Args:
            url: a `data:`, `file:`, `http:` or `https:` URL.
            media_io: what decodes it.
            fetch_timeout: seconds for the first attempt to fetch an HTTP URL; later ones have more.

        Raises:
            InvalidURLError: (a `ValueError`) none of these, or malformed.
            RefusedURLError: (a `ValueError`) a host or path that is not allowed.
            UnsupportedMediaError: (a `NotImplementedError`) a data URL that is not base64.
            LocalFilesDisabledError: (a `RuntimeError`) a file URL, and no path is allowed.
            LocalFileError: (an `OSError` and a `ValueError`) a file that can't be read.
            requests.RequestException: fetching failed; from the async twin `aiohttp.ClientError` and
                `TimeoutError`.
        """
        with metrics.counting_refusals():
            if not self._is_http(url):
                return self._load_in_place(url, media_io)
            self._assert_url_in_allowed_media_domains(url)
            found, media = self._load_cached(url, media_io)
            if found:
                return media
            with fetch_policy(FetchPolicy.of(self._domains)) as policy:
                key, allow_redirects = self._flight_key(url, policy)
                try:
                    flight = _flights.fly(
                        key,
                        self._download,
                        url,
                        fetch_timeout,
                        allow_redirects,
                        patience=fetch_timeout,
                        bound=_longest,
                        linger=bool(self._media_cache_dir),
                    )
                except Exception as error:
                    translated = sync_error(error, url)
                    if translated is error:
                        raise
                    raise translated from error
            try:
                return self._load_fetched(url, flight, media_io)
            finally:
                _flights.retire(key, flight)

    async def load_from_url_async(
        self, url: str, media_io: MediaIO[T], *, fetch_timeout: float | None = None
    ) -> T:
        """Load from a URL through a media IO; see `load_from_url`.

        Cancelling it stops a transfer at once and takes decoding that has not begun off the queue.
        """
        with metrics.counting_refusals():
            if not self._is_http(url):
                return await _in_pool(self._load_in_place, url, media_io)
            self._assert_url_in_allowed_media_domains(url)
            if self._media_cache_dir and not self._is_missing(url):
                load: Callable[..., tuple[bool, T]] = self._load_cached
                found, media = await _in_pool(load, url, media_io)
                if found:
                    return media
            policy = FetchPolicy.of(self._domains)
            key, allow_redirects = self._flight_key(url, policy)
            while True:
                with fetch_policy(policy):  # which the download inherits
                    flight, leads = _flights.board(
                        key,
                        self._download_async,
                        url,
                        fetch_timeout,
                        allow_redirects,
                        patience=fetch_timeout,
                        linger=bool(self._media_cache_dir),
                    )
                try:
                    return await self._landed(
                        url, flight, media_io, None if leads else _longest(fetch_timeout)
                    )
                except Exception:
                    if not fly_again(flight, fetch_timeout):
                        raise
                finally:
                    _flights.leave(key, flight)
                    if flight.has_landed:
                        _flights.retire(key, flight)

    def _download(self, url: str, timeout: float | None, allow_redirects: bool) -> Fetched:
        """Fetch, or let the server confirm what is in the cache."""
        if not self._revalidates():
            return Fetched(self.connection.get_bytes(url, timeout=timeout, allow_redirects=allow_redirects))
        stale = self._get_stale(url)
        answer = self.connection.get_if_changed(
            url, timeout=timeout, allow_redirects=allow_redirects, **stale.validators
        )
        return Fetched.of(answer, stale)

    async def _download_async(self, url: str, timeout: float | None, allow_redirects: bool) -> Fetched:  # noqa: ASYNC109  # of one attempt
        """Fetch, or let the server confirm what is in the cache."""
        if not self._revalidates():
            return Fetched(
                await self.connection.async_get_bytes(url, timeout=timeout, allow_redirects=allow_redirects)
            )
        stale = await _in_pool(self._get_stale, url)
        answer = await self.connection.async_get_if_changed(
            url, timeout=timeout, allow_redirects=allow_redirects, **stale.validators
        )
        return Fetched.of(answer, stale)

    def _revalidates(self) -> bool:
        """Say whether servers are asked about expired entries: by setting, and where nothing is overridden.

        A subclass may keep other bytes than those that were downloaded, a connection may fetch otherwise.
        """
        if not self._media_cache_dir or not envs.VLLM_MEDIA_CACHE_REVALIDATE:
            return False
        return (
            _is_of(self._get_cached_bytes, MediaConnector._get_cached_bytes)
            and _is_of(self._put_cached_bytes, MediaConnector._put_cached_bytes)
            and _is_of(self.connection.get_bytes, HTTPConnection.get_bytes)
            and _is_of(self.connection.async_get_bytes, HTTPConnection.async_get_bytes)
        )

    def _get_stale(self, url: str) -> StaleEntry:
        """Return the expired entry of a URL, an empty one if there is none to ask about."""
        cache = self._media_cache
        megabytes = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
        limit = megabytes * 1024 * 1024 if megabytes > 0 else None
        return (cache and cache.get_stale(url, max_size=limit)) or _NO_ENTRY

    @staticmethod
    def _is_http(url: str) -> bool:
        scheme = url_scheme(url) if isinstance(url, str) else ""
        if scheme not in ("data", "file", "http", "https"):
            shown = redact_url(url) if isinstance(url, str) else type(url).__name__
            raise InvalidURLError(f"The URL must be either a HTTP, data or file URL. Got {shown!r}.")
        return scheme.startswith("http")

    def _load_in_place(self, url: str, media_io: MediaIO[T]) -> T:
        """Load from a data or file URL."""
        if url_scheme(url) == "data":
            return self._load_data_url(url, media_io)
        return self._load_file_url(url, media_io)

    def _assert_url_in_allowed_media_domains(self, url_spec: "str | Url") -> None:
        """Raise `RefusedURLError` (a `ValueError`) if the host of an HTTP URL is not allowed."""
        self._domains.check(parse_http_url(str(url_spec)).host)

    def _is_missing(self, url: str) -> bool:
        """Say, without waiting for a disk, whether the cache surely has no entry of a URL.

        A subclass may keep its bytes elsewhere.
        """
        if not _is_of(self._get_cached_bytes, MediaConnector._get_cached_bytes):
            return False
        cache = find_media_cache(
            self._media_cache_dir, self._media_cache_max_bytes, self._media_cache_ttl_secs
        )
        return cache is not None and cache.is_missing(url)

    def _load_cached(self, url: str, media_io: MediaIO[T]) -> tuple[bool, T]:
        """Read from the cache and decode; the first item says whether there was anything to decode."""
        data = self._get_cached_bytes(url) if self._media_cache_dir else None
        missing: Any = None
        if data is None or not self._may_still_be_served(url):
            return False, missing
        self._check_download_limit(url, len(data))
        try:
            return True, self._load_bytes(data, media_io)
        except LimitExceededError:
            raise
        except ValueError:
            # It decoded once, so the file is damaged: fetch it anew.
            cache = self._media_cache
            if cache is not None:
                cache.discard(url)
            return False, missing

    def _may_still_be_served(self, url: str) -> bool:
        """Say whether the policy of now admits cached bytes; false where that takes a new download.

        The host that they came from may have been admitted by another policy. Addresses are judged; names
        too, by what they resolve to, where private addresses are blocked.

        Raises:
            RefusedURLError: (a `ValueError`) it does not.
        """
        policy = EgressPolicy.from_env(self._domains)
        parsed = parse_http_url(url)
        policy.check_port(parsed.host, parsed.port)
        address = literal_address(parsed.host)
        if address is not None:
            policy.check(parsed.host, address)
        elif policy.block_private and environment_proxy(parsed) is None:
            from mmmedia.egress.resolve import resolve

            try:
                answers = resolve(parsed.host, parsed.port, timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT)
            except OSError:
                return False
            for answer in answers:
                policy.check(parsed.host, answer.address)
        return True

    @staticmethod
    def _check_download_limit(url: str, size: int) -> None:
        megabytes = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
        if 0 < megabytes * 1024 * 1024 < size:
            raise LimitExceededError(
                f"{redact_url(url)!r} has {size} bytes, more than {megabytes} MiB; "
                "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB sets this limit."
            )

    def _flight_key(self, url: str, policy: FetchPolicy) -> tuple[Hashable, bool]:
        """Return what must be equal to share a download, and whether redirects are followed."""
        allow_redirects = envs.VLLM_MEDIA_URL_ALLOW_REDIRECTS
        return (url, id(self.connection), policy, allow_redirects), allow_redirects

    def _load_fetched(self, url: str, flight: Flight[Fetched], media_io: MediaIO[T]) -> T:
        """Decode what was fetched, and store it if it decodes."""
        media, store = self._decode_fetched(url, flight, media_io)
        if store is not None:
            store()
        return media

    def _decode_fetched(
        self, url: str, flight: Flight[Fetched], media_io: MediaIO[T]
    ) -> tuple[T, Callable[[], object] | None]:
        """Decode what was fetched; also returns what is then to be called to store it, if anything is."""
        media = self._load_bytes(flight.result.data, media_io)
        if self._media_cache_dir and flight.claim():
            return media, functools.partial(self._store, url, flight.result)
        return media, None

    def _store(self, url: str, fetched: Fetched) -> None:
        if not (fetched.etag or fetched.last_modified):
            self._put_cached_bytes(url, fetched.data)
        elif (cache := self._media_cache) and not (fetched.is_confirmed and cache.refresh(url)):
            cache.put(url, fetched.data, etag=fetched.etag, last_modified=fetched.last_modified)

    async def _landed(
        self, url: str, flight: Flight[Fetched], media_io: MediaIO[T], seconds: float | None
    ) -> T:
        """Wait until a flight has landed and what it brought is decoded.

        Raises:
            TimeoutError: it has not landed in so many seconds.
        """
        wanted = _Wanted(self, url, flight, media_io, seconds)
        try:
            return await wanted.wait()
        except Exception as error:
            if error is not flight.error:
                raise
            translated = async_error(error, url)
            if translated is error:
                raise
            raise translated from error

    def _charge_copy(self, flight: Flight[Fetched], media: object) -> None:
        """Charge for a copy of an object before it is made, as for decoding it."""
        self._charge_download(len(flight.result.data))
        if self.decoded_budget is not None:
            with getattr(self.decoded_budget, "one_at_a_time", nullcontext)():
                self.decoded_budget.charge(_size_of(media))

    def _load_bytes(self, data: bytes, media_io: MediaIO[T]) -> T:
        self._charge_download(len(data))
        return self._decode(media_io.load_bytes, data)

    def _charge_download(self, size: int) -> None:
        if self.download_budget is not None:
            self.download_budget.charge(size)

    def _decode(self, load: Callable[..., T], *args: Any) -> T:
        """Call what decodes, and charge for the result."""
        media_io = getattr(load, "__self__", args[0])
        if self.decoded_budget is None:
            with metrics.decoding(media_io):
                return load(*args)
        one_at_a_time = getattr(
            self.decoded_budget, "one_at_a_time", nullcontext
        )  # other budgets only charge
        with one_at_a_time():
            with metrics.decoding(media_io):
                media = load(*args)
            self.decoded_budget.charge(_size_of(media))
        return media

    def _load_data_url(self, url_spec: "str | Url", media_io: MediaIO[T]) -> T:
        """Load from `data:[<media type>][;<param>]*;base64,<data>`."""
        url = url_spec if isinstance(url_spec, str) else f"data:{(url_spec.path or '').lstrip('/')}"
        comma = url.find(",")
        if comma < 0:
            raise InvalidURLError(f"Invalid data URL {redact_url(url)!r}: missing ','.")
        media_type, *parameters = url[5:comma].split(";")
        if not parameters or parameters[-1].strip().lower() != "base64":
            raise UnsupportedMediaError("Only base64 data URLs are supported for now.")
        self._charge_download((len(url) - comma - 1) * 3 // 4)
        load: Callable[..., T] = _load_base64
        return self._decode(load, media_io, media_type.strip(), url, comma + 1)

    def _load_file_url(self, url_spec: "str | Url", media_io: MediaIO[T]) -> T:
        """Load from a file below the allowed path."""
        url = str(url_spec)
        if self.allowed_local_media_path is None:
            raise LocalFilesDisabledError("Cannot load local files without `--allowed-local-media-path`.")
        with _opened_below(self.allowed_local_media_path, file_url_path(url)) as (path, size):
            self._charge_download(size)
            return self._decode(media_io.load_file, path)

    # The cache.

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

    # By modality.

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> "MediaWithBytes[Image.Image]":
        """Load an image; errors as in `load_from_url` and of `ImageMediaIO`.

        Args:
            image_url: where it is.
            image_mode: the pixel mode to convert to, `None` to keep that of the file.
        """
        return self.load_from_url(
            image_url, self._image_io(image_mode), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
        )

    async def fetch_image_async(
        self, image_url: str, *, image_mode: str | None = "RGB"
    ) -> "MediaWithBytes[Image.Image]":
        """Load an image; see `fetch_image`."""
        return await self.load_from_url_async(
            image_url, self._image_io(image_mode), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
        )

    def fetch_audio(self, audio_url: str) -> "tuple[npt.NDArray[np.float32], float]":
        """Load a sound: the samples, 1-D float32 in [-1, 1], and their rate in Hz."""
        return self.load_from_url(audio_url, self._audio_io(), fetch_timeout=envs.VLLM_AUDIO_FETCH_TIMEOUT)

    async def fetch_audio_async(self, audio_url: str) -> "tuple[npt.NDArray[np.float32], float]":
        """Load a sound; see `fetch_audio`."""
        return await self.load_from_url_async(
            audio_url, self._audio_io(), fetch_timeout=envs.VLLM_AUDIO_FETCH_TIMEOUT
        )

    def fetch_video(
        self,
        video_url: str,
        *,
        image_mode: str | None = "RGB",
        video_processor: str | None = None,  # noqa: ARG002  # newer engines pass it
    ) -> "tuple[npt.NDArray[np.uint8], dict[str, Any]]":
        """Load a video: the sampled frames, uint8 `(frames, height, width, 3)`, and their metadata.

        Args:
            video_url: where it is.
            image_mode: the pixel mode for frames that were sent as single images.
            video_processor: the name of the model's processor; accepted for compatibility.
        """
        return self.load_from_url(
            video_url, self._video_io(image_mode), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT
        )

    async def fetch_video_async(
        self,
        video_url: str,
        *,
        image_mode: str | None = "RGB",
        video_processor: str | None = None,  # noqa: ARG002  # newer engines pass it
    ) -> "tuple[npt.NDArray[np.uint8], dict[str, Any]]":
        """Load a video; see `fetch_video`."""
        return await self.load_from_url_async(
            video_url, self._video_io(image_mode), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT
        )

    def fetch_image_embedding(self, data: str) -> "torch.Tensor":
        """Load an image embedding from base64 text."""
        from mmmedia.media.image import ImageEmbeddingMediaIO

        return self._load_embedding(ImageEmbeddingMediaIO(), data)

    async def fetch_image_embedding_async(self, data: str) -> "torch.Tensor":
        """Load an image embedding from base64 text."""
        return await _in_pool(self.fetch_image_embedding, data)

    def fetch_audio_embedding(self, data: str) -> "torch.Tensor":
        """Load an audio embedding from base64 text."""
        from mmmedia.media.audio import AudioEmbeddingMediaIO

        return self._load_embedding(AudioEmbeddingMediaIO(), data)

    async def fetch_audio_embedding_async(self, data: str) -> "torch.Tensor":
        """Load an audio embedding from base64 text."""
        return await _in_pool(self.fetch_audio_embedding, data)

    def fetch_video_embedding(self, data: str) -> "torch.Tensor":
        """Load a video embedding from base64 text."""
        from mmmedia.media.video import VideoEmbeddingMediaIO

        return self._load_embedding(VideoEmbeddingMediaIO(), data)

    async def fetch_video_embedding_async(self, data: str) -> "torch.Tensor":
        """Load a video embedding from base64 text."""
        return await _in_pool(self.fetch_video_embedding, data)

    def _load_embedding(self, media_io: MediaIO[T], data: str) -> T:
        self._charge_download(len(data) * 3 // 4)
        return self._decode(media_io.load_base64, "", data)

    def _image_io(self, image_mode: str | None) -> "ImageMediaIO":
        image_io: Any = _media_io_class("image")
        made: ImageMediaIO = image_io(**{"image_mode": image_mode, **self.media_io_kwargs.get("image", {})})
        return made

    def _audio_io(self) -> "MediaIO[tuple[npt.NDArray[np.float32], float]]":
        from mmmedia.media.audio import AudioMediaIO

        return AudioMediaIO(**self.media_io_kwargs.get("audio", {}))

    def _video_io(self, image_mode: str | None) -> "MediaIO[tuple[npt.NDArray[np.uint8], dict[str, Any]]]":
        from mmmedia.media.video import VideoMediaIO

        return VideoMediaIO(self._image_io(image_mode), **self.media_io_kwargs.get("video", {}))


def _is_of(method: Callable[..., object] | None, function: Callable[..., object]) -> bool:
    """Say whether a method is this very function, and not one that overrides it."""
    return getattr(method, "__func__", None) is function


class _Wanted(Generic[T]):
    """What one request on an event loop wants of a flight; thousands may be waiting."""

    __slots__ = ("_connector", "_flight", "_media_io", "_seconds", "_url", "deadline", "future", "has_budget")

    def __init__(
        self,
        connector: MediaConnector,
        url: str,
        flight: Flight[Fetched],
        media_io: MediaIO[T],
        seconds: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._connector, self._url, self._flight, self._media_io = connector, url, flight, media_io
        self._seconds = seconds
        self.deadline = None if seconds is None or flight.has_landed else loop.time() + seconds
        self.future: asyncio.Future[T] = loop.create_future()
        self.has_budget = connector.decoded_budget is not None or connector.download_budget is not None

    def wait(self) -> "asyncio.Future[T]":
        """Return what will be the object, or the error."""
        flight, loop = self._flight, self.future.get_loop()
        if flight.is_shared and self._share():
            return self.future
        flight.call_when_landed(self._begin, loop)
        if self.deadline is not None:
            timer = loop.call_at(self.deadline, self.give_up)
            self.future.add_done_callback(lambda _: timer.cancel())
        return self.future

    def load(self) -> T:
        """Decode what was fetched, for this request alone."""
        return self._connector._load_fetched(self._url, self._flight, self._media_io)

    def _load_then_store(self) -> T | Errand:
        """Decode what was fetched, and leave storing it, unless it is large, to who does so for all."""
        media, store = self._connector._decode_fetched(self._url, self._flight, self._media_io)
        if store is None:
            return media
        if len(self._flight.result.data) <= _SOON_STORED:
            return Errand(media, store)
        store()  # nobody else's result has to wait for it
        return media

    def charge(self, media: T) -> None:
        """Charge for a copy of what another request decoded."""
        self._connector._charge_copy(self._flight, media)

    def _begin(self) -> None:
        """Have what was fetched decoded, by now perhaps for others too; on the loop."""
        if self.future.done():
            return
        try:
            if self._flight.error is not None:
                self.future.set_exception(holdable(self._flight.error))
            elif not (self._flight.is_shared and self._share()):
                _hops().resolve(self.future, self._load_then_store)
        except Exception as error:  # noqa: BLE001  # its own, and nobody else's who waits
            self.future.set_exception(error)

    def _share(self) -> bool:
        """Have what was or will be fetched decoded once for all who want the same of it, if that can be."""
        if (decoding := _decode_key(self._media_io)) is None:
            return False
        loop = self.future.get_loop()
        key = (loop, type(self._connector), decoding)
        shared: SharedDecode | None = self._flight.decodes.get(key)
        if shared is None:
            _, shared_decode = _sharing()
            made = shared_decode(_hops())
            shared = self._flight.decodes.setdefault(key, made)
            if shared is made:
                self._flight.call_when_landed(functools.partial(made.open, self._flight), loop)
        shared.join(self)
        return True

    def give_up(self) -> None:
        """End the waiting for a flight that has not landed in time."""
        if not (self._flight.has_landed or self.future.done()):
            self.future.set_exception(late(self._seconds or 0.0))


def _load_base64(media_io: MediaIO[T], media_type: str, url: str, start: int) -> T:
    """Load what stands in `url` from `start` on; percent-encoding is undone where there is some."""
    load: Any = media_io.load_base64
    module: str = getattr(getattr(load, "__func__", None), "__module__", "")
    if module.startswith("mmmedia.media.") and media_type.lower() != "video/jpeg" and url.isascii():
        # Our own decode any buffer, and refuse a percent sign: no copy of 20 MB, nor a search through them.
        try:
            loaded: T = load(media_type, _ascii_buffer(url)[start:])
        except ValueError:
            if "%" not in url:
                raise
        else:
            return loaded
    data = url[start:]
    return media_io.load_base64(media_type, unquote(data, errors="replace") if "%" in data else data)


def _ascii_buffer(text: str) -> memoryview | bytes:
    """Return the bytes of an ASCII text without copying it; to be used while `text` lives."""
    if sys.implementation.name != "cpython":
        return text.encode("ascii")
    locate, view = _text_functions()
    buffer: memoryview = view(locate(text, None), len(text), 0x100)  # PyBUF_READ
    return buffer


@functools.cache
def _text_functions() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what tells where a text lies in memory, and what makes a view of so many bytes there."""
    import ctypes

    prototype = ctypes.PYFUNCTYPE
    locate = prototype(ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    view = prototype(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
    return (
        locate(("PyUnicode_AsUTF8AndSize", ctypes.pythonapi)),
        view(("PyMemoryView_FromMemory", ctypes.pythonapi)),
    )


def _allowed_directory(path: str | os.PathLike[str]) -> Path | None:
    """Check `allowed_local_media_path`; `None` when it is empty."""
    if not os.fspath(path):
        return None
    directory = Path(path)
    if not directory.exists():
        raise InvalidArgumentError(f"Invalid `--allowed-local-media-path`: {str(path)!r} does not exist.")
    if not directory.is_dir():
        raise InvalidArgumentError(f"Invalid `--allowed-local-media-path`: {str(path)!r} is not a directory.")
    return directory.absolute()


class _OpenPath(type(Path())):  # type: ignore[misc]  # PosixPath or WindowsPath, as the system has it
    """A path whose name is the file's, but which opens the very file that was checked.

    Whoever swaps the file for a link after the check changes nothing: `os.fspath`, and so `open`, leads
    through the descriptor.
    """

    pinned: str | None = None  # a path made from this one (its parent, say) is pinned to nothing

    def __fspath__(self) -> str:
        return self.pinned or str(self)


@contextmanager
def _opened_below(directory: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Give the path and the size of a regular file below a directory, kept open for as long.

    Raises:
        RefusedURLError: (a `ValueError`) it is elsewhere, after `..` and symbolic links.
        LocalFileError: (an `OSError` and a `ValueError`) it is missing, unreadable or no regular file.
    """
    root = os.path.realpath(directory)
    try:
        resolved = os.path.realpath(name)
        _check_below(root, resolved, name)
        # Without O_NONBLOCK a FIFO would wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(resolved, flags)
    except OSError as error:
        kind = LocalFileNotFoundError if error.errno in (errno.ENOENT, errno.ENOTDIR) else LocalFileError
        raise kind(f"Cannot open {name!r}: {os.strerror(error.errno or 0)}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocalFileError(f"{name!r} is not a regular file.")
        path = _OpenPath(resolved)
        if os.path.exists(link := f"/proc/self/fd/{descriptor}"):  # noqa: PTH110  # no Path needed
            _check_below(root, os.path.realpath(link), name)
            path.pinned = link
        yield path, status.st_size
    finally:
        os.close(descriptor)


def _check_below(root: str, path: str, name: str) -> None:
    if not Path(path).is_relative_to(root):
        raise RefusedURLError(
            f"The file path {name!r} must be a subpath of `--allowed-local-media-path`.", reason="path"
        )


def _size_of(media: object) -> int:
    """Return the bytes that a decoded object occupies, as far as its kind is known."""
    if isinstance(media, tuple | list):
        return sum(_size_of(item) for item in media)
    if isinstance(size := getattr(media, "nbytes", None), int):  # arrays and tensors
        return size
    picture: Any = getattr(media, "media", media)
    if hasattr(picture, "getbands") and hasattr(picture, "size"):
        width, height = picture.size
        sample = {"1": 1, "I": 4, "F": 4, "I;16": 2}.get(picture.mode, 1)
        return int(width * height * len(picture.getbands()) * sample)
    return 0
