"""`HTTPConnection`: blocking and async GET with retries, redirects and limits.

Each rule stands here once: `Hop` says where a redirect may lead and what it takes along, `Body` what a body
may be, `RetryPlan` when to try again. The two halves of `HTTPConnection` only perform what they decide;
below them are requests and aiohttp, whose exceptions reach the caller.
"""

import asyncio
import contextlib
import functools
import io
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from mmmedia import envs, metrics
from mmmedia._version import __version__
from mmmedia.egress import EgressPolicy, Journey
from mmmedia.errors import InvalidMediaError, LimitExceededError, MediaError, PartError, RefusedURLError
from mmmedia.slots import Slots
from mmmedia.time_limits import TimeLimits
from mmmedia.urls import (
    HTTPURL,
    MAX_REDIRECTS,
    REDIRECT_STATUSES,
    DomainList,
    domain_list,
    next_hop,
    parse_http_url,
    redact_url,
)

if TYPE_CHECKING:
    import ssl

    import aiohttp
    import requests

logger = logging.getLogger(__name__)

USER_AGENT = f"mmmedia/{__version__}"
_HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
TOTAL_SECONDS = 600.0
"""All attempts and waits of one fetch together; a longer `timeout` is granted one attempt."""
MAX_RETRY_AFTER = 30.0
"""A server that asks for a longer pause than this is not obeyed."""
MAX_CONNECTIONS = 128
"""Concurrent fetches per event loop, and idle connections kept by the blocking half."""

_PROXY_VARIABLES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_CHUNK = 64 * 1024
_PIECE = 256 * 1024
# Conditions are about one resource, and a redirect leads to another.
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
# What a redirect to another origin takes along; anything else may be a credential.
_PLAIN_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})


@dataclass(frozen=True, slots=True, eq=False)
class FetchPolicy:
    """What one request of an engine may reach; see `fetch_policy`.

    Attributes:
        domains: the hosts that URLs and redirects may name.
        egress: the addresses that may be dialled.
    """

    domains: DomainList = field(default_factory=lambda: domain_list(None))
    egress: EgressPolicy = field(default_factory=EgressPolicy.from_env)

    @classmethod
    def of(cls, domains: DomainList) -> "FetchPolicy":
        """Return the policy for `allowed_media_domains` under the settings of now."""
        return _policy_of(domains, envs.VLLM_MEDIA_EGRESS_BLOCK_PRIVATE)


@functools.lru_cache(maxsize=64)  # thousands of requests have one and the same
def _policy_of(domains: DomainList, block_private: bool) -> FetchPolicy:
    return FetchPolicy(domains, EgressPolicy(block_private, domains.names))


_policy: ContextVar[FetchPolicy | None] = ContextVar("mmmedia_fetch_policy", default=None)


class fetch_policy:  # noqa: N801  # reads as what it does
    """Hold every fetch inside the block to `policy`, on every hop.

    It travels with the context and not as an argument, so that it also holds where a subclass of
    `HTTPConnection` overrides `get_bytes` with the signature that vLLM gives it.
    """

    __slots__ = ("_policy", "_token")

    def __init__(self, policy: FetchPolicy) -> None:
        self._policy = policy

    def __enter__(self) -> FetchPolicy:
        self._token = _policy.set(self._policy)
        return self._policy

    def __exit__(self, *_: object) -> None:
        _policy.reset(self._token)


def _current_policy() -> FetchPolicy:
    return _policy.get() or FetchPolicy()


class Hop(NamedTuple):
    """One request of a chain of redirects: the URL, the headers sent, how many redirects led here."""

    url: HTTPURL
    headers: Mapping[str, str]
    number: int = 0

    @classmethod
    def first(cls, url: str, extra_headers: Mapping[str, str] | None = None) -> "Hop":
        """Return the request for `url`; it raises what `parse_http_url` and the policy raise."""
        parsed = parse_http_url(url)
        _current_policy().domains.check(parsed.host)
        if not (extra_headers or parsed.authorization):
            return cls(parsed, _HEADERS)
        extra = {name.title(): value for name, value in (extra_headers or {}).items()}
        return cls(parsed, {**_HEADERS, **_credentials(parsed), **extra})

    def redirected(self, status: int, location: str | None) -> "Hop":
        """Return the request that follows a redirect.

        Raises:
            InvalidURLError: (a `ValueError`) the `Location` can't be read.
            RefusedURLError: (a `ValueError`) it leads where the policy does not admit, or is one too many.
        """
        url = next_hop(self.url, status, location)
        if self.number >= MAX_REDIRECTS:
            raise RefusedURLError(
                f"More than {MAX_REDIRECTS} redirects, the last to {redact_url(str(url))!r}.",
                reason="redirect",
            )
        _current_policy().domains.check(url.host)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _CONDITIONS}
        if url.origin != self.url.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _PLAIN_HEADERS}
        return Hop(url, {**headers, **_credentials(url)}, self.number + 1)


def _credentials(url: HTTPURL) -> dict[str, str]:
    return {"Authorization": url.authorization} if url.authorization else {}


def _redirects(hop: Hop, status: int, allow_redirects: bool) -> bool:
    """Say whether a response is a redirect to follow; one that must not be followed is an error."""
    if status in REDIRECT_STATUSES and not allow_redirects:
        raise RefusedURLError(
            f"{redact_url(str(hop.url))!r} redirects ({status}), which VLLM_MEDIA_URL_ALLOW_REDIRECTS=0 "
            "(allow_redirects=False) does not admit.",
            reason="redirect",
        )
    return status in REDIRECT_STATUSES


def _unusable(status: int) -> str | None:
    """Say why a status that is no HTTP error still brings no whole body; `None` if it does."""
    if status == 206:
        return "Partial Content for a request of the whole"
    return None if 200 <= status < 300 else "Unexpected status"


class Download(NamedTuple):
    """What a GET brought that may be conditional.

    Attributes:
        data: the body; `None` if the server says that it has not changed.
        etag: the response's `ETag`, to ask with the next time; empty if there is none, or after a redirect.
        last_modified: its `Last-Modified`, likewise.
    """

    data: bytes | None
    etag: str = ""
    last_modified: str = ""


def _conditions(etag: str, last_modified: str) -> dict[str, str]:
    """Return the headers that ask for a body only if it has changed."""
    headers = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return {name: value for name, value in headers.items() if value}


class _Answer(NamedTuple):
    """The end of a chain of redirects: of its last response, all but the body."""

    hop: Hop
    status: int
    headers: Mapping[str, str]

    def download(self, sink: io.BytesIO) -> Download:
        """Return what it brought; its body has been written to `sink`."""
        given = ["", ""]
        if not self.hop.number:
            given = [self.headers.get(name, "") for name in ("ETag", "Last-Modified")]
        etag, last_modified = (value if value.isascii() and value.isprintable() else "" for value in given)
        return Download(None if self.status == 304 else sink.getvalue(), etag, last_modified)


class CutShortError(Exception):
    """A coded body that ends before its end; each half raises its library's own error for it."""


class Body:
    """What a response's body may be: decodes it piece by piece, within the download limit.

    Both the bytes that arrive and those that come out of gzip count against
    `VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB`.

    Raises:
        LimitExceededError: (a `ValueError`) at once for a `Content-Length` above the limit, else where the
            limit is passed.
        InvalidMediaError: (a `ValueError`) an encoding that was not asked for, or broken data in it.
    """

    def __init__(self, url: HTTPURL, headers: Mapping[str, str]) -> None:
        megabytes = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
        self._limit = megabytes * 1024 * 1024 if megabytes > 0 else None
        self._source = url
        self._received = self._decoded = 0
        declared = headers.get("Content-Length", "")
        if declared.isdecimal():
            self._check(int(declared[:20]))
        self.encoding = headers.get("Content-Encoding", "").strip().lower()
        if self.encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise InvalidMediaError(
                f"Content-Encoding {self.encoding[:64]!r} of {self._url!r} was not asked for and is not read."
            )
        self.is_coded = self.encoding not in ("", "identity")
        self._inflate: Any = None

    @property
    def _url(self) -> str:
        return redact_url(str(self._source))

    def _check(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise LimitExceededError(
                f"{self._url!r} has more than {self._limit} bytes; "
                "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB sets this limit."
            )

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what a chunk from the wire holds, decoded, in pieces of bounded size."""
        self._received += len(chunk)
        self._check(self._received)
        if not self.is_coded:
            yield chunk
            return
        try:
            while chunk:
                if self._inflate is None:
                    is_raw = self.encoding == "deflate" and (chunk[0] & 0x0F) != 8
                    self._inflate = zlib.decompressobj(-15 if is_raw else 47)
                piece = self._inflate.decompress(chunk, _PIECE)
                chunk = self._inflate.unconsumed_tail
                self._decoded += len(piece)
                self._check(self._decoded)
                yield piece
                if self._inflate.eof:  # a gzip file may be several in a row; what follows them is ignored
                    chunk = self._inflate.unused_data
                    if not chunk.startswith(b"\x1f"):
                        return
                    self._inflate = None
        except zlib.error as error:
            raise InvalidMediaError(f"The body of {self._url!r} is not {self.encoding}: {error}.") from None

    def finish(self) -> None:
        """Check that the body is whole."""
        if self.is_coded and self._received and (self._inflate is None or not self._inflate.eof):
            raise CutShortError(f"The {self.encoding} body of {self._url!r} is cut short.")


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """When to try again: attempt k has `timeout * 4**k` seconds, and then waits about `4**k` seconds.

    Attributes:
        timeout: seconds of the first attempt, `None` for no bound but the total.
        attempts: how many at most, in all.

    >>> plan = RetryPlan(timeout=5.0, attempts=3)
    >>> [plan.attempt_seconds(k, elapsed=0.0) for k in range(3)]
    [5.0, 20.0, 80.0]
    >>> [plan.wait_seconds(k, elapsed=0.0, jitter=1.0) for k in range(3)]
    [1.0, 4.0, None]
    """

    timeout: float | None
    attempts: int

    @property
    def total_seconds(self) -> float:
        """What all attempts and waits together may take."""
        return max(TOTAL_SECONDS, self.timeout or 0.0)

    @property
    def bound_seconds(self) -> float:
        """What all attempts and waits together take at most, each at its longest."""
        if self.timeout is None:
            return self.total_seconds
        attempts = sum(self.timeout * 4.0**attempt for attempt in range(min(self.attempts, 32)))
        waits = sum(
            max(1.25 * 4.0**attempt, MAX_RETRY_AFTER) for attempt in range(min(self.attempts, 32) - 1)
        )
        return min(attempts + waits, self.total_seconds)

    def attempt_seconds(self, attempt: int, elapsed: float) -> float:
        """Return how long an attempt (counted from 0) may take."""
        left = max(self.total_seconds - elapsed, 0.001)
        if self.timeout is None:
            return left
        return min(self.timeout * 4.0 ** min(attempt, 32), left)

    def wait_seconds(
        self, attempt: int, elapsed: float, *, jitter: float, retry_after: float | None = None
    ) -> float | None:
        """Return how long to wait after a failed attempt, `None` for not trying again.

        Args:
            attempt: which one failed, counted from 0.
            elapsed: seconds since the first began.
            jitter: a factor around 1, so that those who failed together don't come back together.
            retry_after: seconds that the server asked for.
        """
        if attempt + 1 >= self.attempts:
            return None
        wait = 4.0 ** min(attempt, 32) * jitter
        if retry_after is not None and retry_after <= MAX_RETRY_AFTER:
            wait = retry_after
        return wait if elapsed + wait < self.total_seconds else None


_retry_plan = functools.lru_cache(maxsize=64)(RetryPlan)  # thousands of requests have one and the same


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header, either of its two forms; `None` for none or nonsense.

    >>> retry_after_seconds("7", datetime.now(UTC))
    7.0
    >>> retry_after_seconds("Fri, 31 Dec 1999 23:59:59 GMT", datetime(1999, 12, 31, 23, 59, 50, tzinfo=UTC))
    9.0
    """
    text = (value or "").strip()
    if text.isdecimal() and text.isascii():
        return float(text[:20])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of requests or aiohttp reports, if it does."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def http_status(error: BaseException) -> int:
    """Return what an engine may answer its own client with when fetching or decoding failed.

    Errors of this library know it. Of the others, 503 stands for what may heal (time, connection, DNS, a
    server's 5xx, 408 or 429), 422 for a URL that another server answers with any other error, 500 for the
    rest.

    >>> http_status(RefusedURLError("example.org")), http_status(TimeoutError()), http_status(KeyError())
    (400, 503, 500)
    """
    if isinstance(error, PartError) and error.__cause__ is not None:
        error = error.__cause__
    for cause in _chain(error):
        if isinstance(cause, MediaError):
            return cause.http_status
    if is_transient(error):
        return 503
    return 500 if status_of(error) is None else 422


def _headers_of(error: BaseException) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    return headers or {}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it came from, also where a library keeps them as `reason` or arguments."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            queue += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


def is_transient(error: BaseException) -> bool:
    """Say whether another attempt might succeed: timeouts, connections, DNS, 5xx, 429 and 408.

    >>> is_transient(TimeoutError()), is_transient(RefusedURLError("example.org"))
    (True, False)
    """
    from http.client import LineTooLong
    from ssl import SSLCertVerificationError

    if any(isinstance(cause, MediaError | LineTooLong | SSLCertVerificationError) for cause in _chain(error)):
        return False
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    kinds: list[type[BaseException]] = [TimeoutError]
    if requests := sys.modules.get("requests"):
        errors = requests.exceptions
        kinds += [errors.ConnectionError, errors.Timeout, errors.ChunkedEncodingError]
    if aiohttp := sys.modules.get("aiohttp"):
        kinds += [aiohttp.ClientConnectionError, aiohttp.ClientPayloadError]
    return isinstance(error, tuple(kinds))


def _wait_after(
    error: BaseException, plan: RetryPlan, attempt: int, started: float, url: str
) -> float | None:
    """Return how long to wait before trying again, `None` if the error is final."""
    if not is_transient(error):
        return None
    asked = retry_after_seconds(_headers_of(error).get("Retry-After"), datetime.now(UTC))
    jitter = random.uniform(0.75, 1.25)  # noqa: S311  # spreads load, guards nothing
    elapsed = time.monotonic() - started
    wait = plan.wait_seconds(attempt, elapsed, jitter=jitter, retry_after=asked)
    if wait is not None:
        metrics.count_retry(error)
        kind = type(error).__name__
        logger.warning("Attempt %d of %d for %s failed (%s); next in %.1f s",
                       attempt + 1, plan.attempts, redact_url(str(url)), kind, wait)  # fmt: skip
    return wait


def _raise_refusal(error: BaseException) -> None:
    """Raise the error of this library that a client below wrapped into its own, if there is one."""
    for cause in _chain(error):
        if isinstance(cause, MediaError):
            raise cause


def sync_error(error: Exception, url: str) -> Exception:
    """Return the error of requests that stands for one of aiohttp; any other comes back as it is.

    Who waits for a download of the other half is told in the terms of its own.
    """
    import requests

    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is not None and isinstance(error, aiohttp.ClientResponseError):
        response = requests.Response()
        response.status_code, response.url = error.status, redact_url(url)
        response.headers.update(error.headers or {})
        return requests.HTTPError(
            f"{error.status} {error.message} for url: {response.url}", response=response
        )
    if isinstance(error, TimeoutError) and not isinstance(error, MediaError):
        return requests.Timeout(str(error))
    if aiohttp is not None and isinstance(error, aiohttp.ClientError):
        return requests.ConnectionError(str(error))
    return error


def async_error(error: Exception, url: str) -> Exception:
    """Return the error of aiohttp that stands for one of requests; any other comes back as it is."""
    import aiohttp
    from multidict import CIMultiDict, CIMultiDictProxy
    from yarl import URL

    requests = sys.modules.get("requests")
    if requests is None or not isinstance(error, requests.RequestException):
        return error
    if isinstance(error, requests.Timeout):
        return TimeoutError(str(error))
    status = status_of(error)
    if status is None:
        return aiohttp.ClientConnectionError(str(error))
    headers = CIMultiDictProxy(CIMultiDict(_headers_of(error)))
    goal = URL(redact_url(url))
    request = aiohttp.RequestInfo(goal, "GET", CIMultiDictProxy(CIMultiDict()), goal)
    return aiohttp.ClientResponseError(request, (), status=status, message=str(error), headers=headers)


def environment_proxy(url: HTTPURL) -> str | None:
    """Return the proxy that the environment names for a URL (`https_proxy`, `no_proxy`, …)."""
    # `getproxies` of the standard library goes through the whole environment, at every request.
    if not any(map(os.environ.get, _PROXY_VARIABLES[url.scheme])):
        return None
    from urllib.request import (  # type: ignore[attr-defined]  # typeshed omits the second
        getproxies_environment,
        proxy_bypass_environment,
    )

    proxies = getproxies_environment()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass_environment(f"{url.host}:{url.port}", proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _certificate_bundle() -> str | None:
    """Return the file of certificates that the environment names, as requests and curl know it."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


@functools.lru_cache(maxsize=4)
def _trusting(bundle: str, changed: int) -> "ssl.SSLContext":  # noqa: ARG001  # when it is changed it is read anew
    """Return the TLS context that trusts the certificates of a file; reading them takes 20 ms."""
    import ssl

    return ssl.create_default_context(cafile=bundle)


def _depart(hop: Hop, travelled: Journey) -> str | None:
    """Begin a hop; return the proxy to ask, after judging what can be judged of what it would reach."""
    travelled.depart()
    proxy = environment_proxy(hop.url)
    if proxy is not None:
        travelled.check_proxied(hop.url.host, hop.url.port)
    return proxy


class _AsyncResponse(Awaitable["aiohttp.ClientResponse"]):
    """A response to come: `await` it, or enter it with `async with`."""

    def __init__(self, response: Awaitable["aiohttp.ClientResponse"]) -> None:
        self._pending = response

    def __await__(self) -> Generator[Any, None, "aiohttp.ClientResponse"]:
        return self._pending.__await__()

    async def __aenter__(self) -> "aiohttp.ClientResponse":
        self._response = await self._pending
        return self._response

    async def __aexit__(self, *_: object) -> None:
        self._response.release()
        await self._response.wait_for_close()


class HTTPConnection:
    """Blocking and async GET over kept-alive connections.

    Both halves have the same methods, the async ones under `async_` names, and the same rules:

    * Timeouts, failed connections, 5xx, 408 and 429 are tried again, `VLLM_MEDIA_FETCH_MAX_RETRIES` times in
      all; attempt k has `timeout * 4**k` seconds of wall time for everything from DNS to the last byte.
    * At most 10 redirects, each held to the `fetch_policy`. Credentials don't follow to another origin, and
      no cookie is ever kept.
    * A body may have `VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB`, as it arrives and after gzip; one that is cut short
      is an error.
    * Proxies are those of the environment, and `REQUESTS_CA_BUNDLE` may name the certificates to trust;
      `.netrc` is not read.

    It is safe to share between threads and event loops. The async half keeps one session per event loop,
    which is closed with the loop.

    Args:
        reuse_client: keep connections for later requests; otherwise each request has a client of its own.
    """

    def __init__(self, *, reuse_client: bool = True) -> None:
        self.reuse_client = reuse_client
        self._lock = threading.Lock()
        self._sync_client: requests.Session | None = None
        self._process = os.getpid()
        self._async_clients: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        self._slots: dict[asyncio.AbstractEventLoop, Slots] = {}
        self._limits: dict[asyncio.AbstractEventLoop, TimeLimits] = {}

    # The blocking half.

    def get_sync_client(self) -> "requests.Session":
        """Return the session of requests below the blocking half; a new one without `reuse_client`."""
        if not self.reuse_client:
            return _new_sync_client()
        with self._lock:
            if self._sync_client is None or self._process != os.getpid():
                # After a fork the sockets are the parent's.
                self._sync_client, self._process = _new_sync_client(), os.getpid()
            return self._sync_client

    def get_response(
        self,
        url: str,
        *,
        stream: bool = False,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        allow_redirects: bool = True,
    ) -> "requests.Response":
        """Return the response to one GET, whatever its status; nothing is tried again.

        Args:
            url: an HTTP URL.
            stream: leave the body unread; the caller reads it, without a limit, and closes the response.
            timeout: seconds, in all; with `stream`, for each read.
            extra_headers: sent too; they win over the headers of this library.
            allow_redirects: follow redirects; if not, the redirect itself is returned.
        """
        from mmmedia.deadlines import deadline

        hop = Hop.first(url, extra_headers)
        client = self.get_sync_client()
        with deadline(None if stream else timeout), Journey(_current_policy().egress) as travelled:
            response = self._send(client, hop, travelled, timeout)
            while allow_redirects and response.status_code in REDIRECT_STATUSES:
                response.close()
                hop = hop.redirected(response.status_code, response.headers.get("Location"))
                response = self._send(client, hop, travelled, timeout)
            if not stream:
                sink = io.BytesIO()
                _receive(response, hop, sink)
                response._content = sink.getvalue()  # as requests itself does without stream=True
                response._content_consumed = True  # type: ignore[attr-defined]
            return response

    def get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        extra_headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body behind a URL.

        Args:
            url: an HTTP URL.
            timeout: seconds of the first attempt; `None` for no bound but the ten minutes of all attempts.
            allow_redirects: follow redirects; if not, one is refused.
            extra_headers: sent too; they win over the headers of this library.

        Raises:
            requests.HTTPError: the server answered with an error.
            requests.RequestException: connecting, reading or the time failed.
            InvalidURLError: (a `ValueError`) no HTTP URL.
            RefusedURLError: (a `ValueError`) the policy does not admit the URL or a redirect.
            LimitExceededError: (a `ValueError`) the body is longer than the download limit.
        """
        sink = io.BytesIO()
        with metrics.downloading(sink):
            self._fetch(url, sink, timeout, allow_redirects, extra_headers)
        return sink.getvalue()

    def get_if_changed(
        self,
        url: str,
        *,
        etag: str = "",
        last_modified: str = "",
        timeout: float | None = None,
        allow_redirects: bool = True,
    ) -> Download:
        """Return the body behind a URL unless it is the one that `etag` and `last_modified` came with.

        Args:
            url: an HTTP URL.
            etag: the `ETag` of what the caller has, empty for none.
            last_modified: its `Last-Modified`, empty for none.
            timeout: as in `get_bytes`, whose errors it raises.
            allow_redirects: as in `get_bytes`.
        """
        sink = io.BytesIO()
        conditions = _conditions(etag, last_modified)
        with metrics.downloading(sink):
            answer = self._fetch(
                url, sink, timeout, allow_redirects, conditions, conditional=bool(conditions)
            )
        return answer.download(sink)

    def get_text(self, url: str, *, timeout: float | None = None) -> str:
        """Return the body behind a URL as text, UTF-8; errors as in `get_bytes`."""
        return _text(self.get_bytes(url, timeout=timeout), url)

    def get_json(self, url: str, *, timeout: float | None = None) -> Any:
        """Return what the JSON behind a URL says; errors as in `get_bytes`."""
        return _json(self.get_bytes(url, timeout=timeout), url)

    def download_file(
        self,
        url: str,
        save_path: Path,
        *,
        timeout: float | None = None,
        chunk_size: int = 128,  # noqa: ARG002
    ) -> Path:
        """Write the body behind a URL to a file, and return its path; errors as in `get_bytes`.

        The file appears when it is whole; a failure leaves nothing behind. `chunk_size` is accepted for
        compatibility: chunks are as large as they arrive.
        """
        with _partial_file(Path(save_path)) as file, metrics.downloading(file):
            self._fetch(url, file, timeout, True, None)
        return Path(save_path)

    def _fetch(
        self,
        url: str,
        sink: IO[bytes],
        timeout: float | None,
        allow_redirects: bool,
        extra_headers: Mapping[str, str] | None,
        *,
        conditional: bool = False,
    ) -> _Answer:
        first = Hop.first(url, extra_headers)
        plan = _retry_plan(timeout, envs.VLLM_MEDIA_FETCH_MAX_RETRIES)
        started = time.monotonic()
        for attempt in range(plan.attempts):
            try:
                seconds = plan.attempt_seconds(attempt, time.monotonic() - started)
                return self._attempt(first, sink, seconds, allow_redirects, conditional)
            except Exception as error:
                wait = _wait_after(error, plan, attempt, started, url)
                if wait is None:
                    _raise_refusal(error)
                    raise
            time.sleep(wait)
            sink.seek(0)
            sink.truncate()
        raise AssertionError("the last attempt returns or raises")

    def _attempt(
        self, hop: Hop, sink: IO[bytes], seconds: float, allow_redirects: bool, conditional: bool
    ) -> _Answer:
        from mmmedia.deadlines import deadline

        client = self.get_sync_client()
        try:
            with deadline(seconds), Journey(_current_policy().egress) as travelled:
                while True:
                    with self._send(client, hop, travelled, seconds) as response:
                        if not _redirects(hop, response.status_code, allow_redirects):
                            if not (conditional and response.status_code == 304 and not hop.number):
                                _raise_for_status(response)
                                _receive(response, hop, sink)
                            return _Answer(hop, response.status_code, response.headers)
                        hop = hop.redirected(response.status_code, response.headers.get("Location"))
        finally:
            if not self.reuse_client:
                client.close()

    @staticmethod
    def _send(
        client: "requests.Session", hop: Hop, travelled: Journey, timeout: float | None
    ) -> "requests.Response":
        import requests

        proxy = _depart(hop, travelled)
        prepared = requests.Request("GET", headers=dict(hop.headers), url="http://localhost/").prepare()
        prepared.url = str(hop.url)  # as it was judged, not as requests would rewrite it
        verify = _certificate_bundle() or True
        return client.send(
            prepared,
            stream=True,
            timeout=timeout,
            allow_redirects=False,
            proxies={hop.url.scheme: proxy} if proxy else {},
            verify=verify,
        )

    # The async half.

    async def get_async_client(self) -> "aiohttp.ClientSession":
        """Return the session of aiohttp for the running loop; a new one without `reuse_client`.

        It is closed with the loop.
        """
        loop = asyncio.get_running_loop()
        client = self._async_clients.get(loop) if self.reuse_client else None
        if client is None or client.closed:
            client = _new_async_client()
            if self.reuse_client:
                self._async_clients[loop] = client
            _close_with_loop(loop, client, forget=lambda: self._forget(loop))
        return client

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._async_clients.pop(loop, None)
        self._limits.pop(loop, None)
        if (slots := self._slots.pop(loop, None)) is not None:
            slots.close()

    @property
    def slots(self) -> Slots:
        """Those of the running loop, in which the fetches of the async half take turns."""
        loop = asyncio.get_running_loop()
        return self._slots.get(loop) or self._slots.setdefault(loop, Slots(MAX_CONNECTIONS))

    @property
    def _time_limits(self) -> TimeLimits:
        """Those of the running loop."""
        loop = asyncio.get_running_loop()
        return self._limits.get(loop) or self._limits.setdefault(loop, TimeLimits())

    def get_async_response(
        self,
        url: str,
        *,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        allow_redirects: bool = True,
    ) -> _AsyncResponse:
        """Return the response to one GET, to be awaited or entered with `async with`; see `get_response`.

        The body is left unread; the caller reads it, without a limit.
        """
        return _AsyncResponse(self._follow(url, timeout, extra_headers, allow_redirects))

    async def _follow(
        self,
        url: str,
        timeout: float | None,  # noqa: ASYNC109  # aiohttp bounds it, body included
        extra_headers: Mapping[str, str] | None,
        allow_redirects: bool,
    ) -> "aiohttp.ClientResponse":
        hop = Hop.first(url, extra_headers)
        client = await self.get_async_client()
        with Journey(_current_policy().egress) as travelled:
            response = await _async_send(client, hop, travelled, timeout, decode=True)
            while allow_redirects and response.status in REDIRECT_STATUSES:
                response.close()
                hop = hop.redirected(response.status, response.headers.get("Location"))
                response = await _async_send(client, hop, travelled, timeout, decode=True)
        return response

    async def async_get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        allow_redirects: bool = True,
        extra_headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Return the body behind a URL; see `get_bytes`.

        Cancelling it stops the transfer at once.

        Raises:
            aiohttp.ClientResponseError: the server answered with an error.
            aiohttp.ClientError: connecting or reading failed.
            TimeoutError: the time was up.
            InvalidURLError: (a `ValueError`) no HTTP URL.
            RefusedURLError: (a `ValueError`) the policy does not admit the URL or a redirect.
            LimitExceededError: (a `ValueError`) the body is longer than the download limit.
        """
        sink = io.BytesIO()
        with metrics.downloading(sink):
            await self._async_fetch(url, sink, timeout, allow_redirects, extra_headers)
        return sink.getvalue()

    async def async_get_if_changed(
        self,
        url: str,
        *,
        etag: str = "",
        last_modified: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        allow_redirects: bool = True,
    ) -> Download:
        """Return the body behind a URL unless it is what the caller has; see `get_if_changed`."""
        sink = io.BytesIO()
        conditions = _conditions(etag, last_modified)
        with metrics.downloading(sink):
            answer = await self._async_fetch(
                url, sink, timeout, allow_redirects, conditions, conditional=bool(conditions)
            )
        return answer.download(sink)

    async def async_get_text(self, url: str, *, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Return the body behind a URL as text, UTF-8; errors as in `async_get_bytes`."""
        return _text(await self.async_get_bytes(url, timeout=timeout), url)

    async def async_get_json(self, url: str, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Return what the JSON behind a URL says; errors as in `async_get_bytes`."""
        return _json(await self.async_get_bytes(url, timeout=timeout), url)

    async def async_download_file(
        self,
        url: str,
        save_path: Path,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        chunk_size: int = 128,  # noqa: ARG002  # as in `download_file`
    ) -> Path:
        """Write the body behind a URL to a file, and return its path; see `download_file`."""
        partial = _partial_file(Path(save_path))
        file = await asyncio.to_thread(partial.__enter__)
        try:
            with metrics.downloading(file):
                await self._async_fetch(url, file, timeout, True, None)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(partial.__exit__, type(error), error, None))
            raise
        await asyncio.to_thread(partial.__exit__, None, None, None)
        return Path(save_path)

    async def _async_fetch(
        self,
        url: str,
        sink: IO[bytes],
        timeout: float | None,  # noqa: ASYNC109  # of one attempt
        allow_redirects: bool,
        extra_headers: Mapping[str, str] | None,
        *,
        conditional: bool = False,
    ) -> _Answer:
        first = Hop.first(url, extra_headers)
        plan = _retry_plan(timeout, envs.VLLM_MEDIA_FETCH_MAX_RETRIES)
        started = time.monotonic()
        for attempt in range(plan.attempts):
            try:
                seconds = plan.attempt_seconds(attempt, time.monotonic() - started)
                return await self._async_attempt(first, sink, seconds, allow_redirects, conditional)
            except Exception as error:
                wait = _wait_after(error, plan, attempt, started, url)
                if wait is None:
                    _raise_refusal(error)
                    raise
            await asyncio.sleep(wait)
            sink.seek(0)
            sink.truncate()
        raise AssertionError("the last attempt returns or raises")

    async def _async_attempt(
        self, hop: Hop, sink: IO[bytes], seconds: float, allow_redirects: bool, conditional: bool
    ) -> _Answer:
        client = await self.get_async_client()
        try:
            # Waiting for a slot is not the server's fault, so the clock does not run yet.
            async with self.slots:
                with self._time_limits.within(seconds), Journey(_current_policy().egress) as travelled:
                    while True:
                        response = await _async_send(client, hop, travelled, None)
                        try:
                            if not _redirects(hop, response.status, allow_redirects):
                                if not (conditional and response.status == 304 and not hop.number):
                                    _async_raise_for_status(response)
                                    await _async_receive(response, hop, sink)
                                return _Answer(hop, response.status, response.headers)
                            hop = hop.redirected(response.status, response.headers.get("Location"))
                        finally:
                            _drop(response)
        except TimeoutError as error:
            shown = redact_url(str(hop.url))
            raise TimeoutError(
                f"{shown!r} took more than {seconds:g} s; see VLLM_*_FETCH_TIMEOUT."
            ) from error
        finally:
            if not self.reuse_client:
                await client.close()


def _new_sync_client() -> "requests.Session":
    from http.cookiejar import DefaultCookiePolicy

    import requests

    from mmmedia.deadlines import TimedAdapter

    class Session(requests.Session):
        def resolve_redirects(
            self, resp: Any, req: Any, *args: Any, yield_requests: bool = False, **kwargs: Any
        ) -> Any:
            """Follow redirects where that is asked for; where not, don't even read their bodies.

            Without it requests would, however long they are, to prepare the next request.
            """
            if yield_requests:
                return iter(())
            return super().resolve_redirects(resp, req, *args, **kwargs)

    session = Session()
    session.trust_env = False  # proxies come from `environment_proxy`, and .netrc is nobody's business here
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers["User-Agent"] = USER_AGENT
    for prefix in ("http://", "https://"):
        session.mount(prefix, TimedAdapter(pool_connections=32, pool_maxsize=MAX_CONNECTIONS))
    return session


def _raise_for_status(response: "requests.Response") -> None:
    import requests

    response.raise_for_status()
    if reason := _unusable(response.status_code):
        raise requests.HTTPError(
            f"{response.status_code} {reason} for url: {response.url}", response=response
        )


def _receive(response: "requests.Response", hop: Hop, sink: IO[bytes]) -> None:
    """Read the body into `sink`."""
    import requests
    from urllib3.exceptions import ProtocolError, ReadTimeoutError, SSLError

    body = Body(hop.url, response.headers)
    try:
        while chunk := response.raw.read1(_CHUNK, decode_content=False):
            for piece in body.pieces(chunk):
                sink.write(piece)
        body.finish()
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error, response=response) from error
    except (ProtocolError, CutShortError) as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error
    except SSLError as error:
        raise requests.exceptions.SSLError(error) from error


def _new_async_client() -> "aiohttp.ClientSession":
    import aiohttp

    from mmmedia.dialling import JudgedConnector

    class Connector(JudgedConnector, aiohttp.TCPConnector):
        """Goes only where the egress policy admits."""

    bundle = _certificate_bundle()
    trust = _trusting(bundle, os.stat(bundle).st_mtime_ns) if bundle else True  # noqa: PTH116  # any path
    return aiohttp.ClientSession(
        # Where Python has the bug that it makes up for: TLS transports that are closed but never end.
        connector=Connector(
            limit=0,
            ssl=trust,
            enable_cleanup_closed=getattr(aiohttp.connector, "NEEDS_CLEANUP_CLOSED", False),
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
    )


def _close_with_loop(
    loop: asyncio.AbstractEventLoop, client: "aiohttp.ClientSession", forget: Callable[[], object]
) -> None:
    """Close and forget `client` when `loop` is closed.

    An event loop tells nobody that it is being closed, but every way to end one calls its `close`.
    """
    close_loop = loop.close

    def close() -> None:
        if not (loop.is_running() or loop.is_closed()):
            loop.run_until_complete(_wind_up(client))
            forget()
        close_loop()

    loop.close = close  # type: ignore[method-assign]


def _drop(response: "aiohttp.ClientResponse") -> None:
    """Let go of a response; unless it was read to its end, its connection is cut without a farewell.

    Under TLS the farewell waits for the other side's, which a stranger may withhold.
    """
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _wind_up(client: "aiohttp.ClientSession") -> None:
    await client.close()
    for _ in range(3):  # sockets are closed on the turns of the loop after the one that asks for it
        await asyncio.sleep(0)


@functools.lru_cache(maxsize=64)
def _client_timeout(seconds: float | None) -> "aiohttp.ClientTimeout":
    import aiohttp

    return aiohttp.ClientTimeout(total=seconds)


async def _async_send(
    client: "aiohttp.ClientSession",
    hop: Hop,
    travelled: Journey,
    timeout: float | None,  # noqa: ASYNC109  # aiohttp bounds it, body included
    *,
    decode: bool = False,
) -> "aiohttp.ClientResponse":
    from yarl import URL

    proxy = _depart(hop, travelled)
    return await client.get(
        URL(str(hop.url), encoded=True),
        headers=None if hop.headers is _HEADERS else hop.headers,  # the session has those
        timeout=_client_timeout(timeout),
        allow_redirects=False,
        auto_decompress=decode,
        proxy=proxy,
    )


def _async_raise_for_status(response: "aiohttp.ClientResponse") -> None:
    import aiohttp

    response.raise_for_status()
    if reason := _unusable(response.status):
        raise aiohttp.ClientResponseError(
            response.request_info,
            response.history,
            status=response.status,
            message=reason,
            headers=response.headers,
        )


async def _async_receive(response: "aiohttp.ClientResponse", hop: Hop, sink: IO[bytes]) -> None:
    """Read the body into `sink`, off the loop where that is a file."""
    import aiohttp

    body = Body(hop.url, response.headers)
    in_memory = isinstance(sink, io.BytesIO)
    try:
        async for chunk in response.content.iter_any():
            for piece in body.pieces(chunk):
                if in_memory:
                    sink.write(piece)
                else:
                    await asyncio.to_thread(sink.write, piece)
                if body.is_coded:
                    await asyncio.sleep(0)  # between two milliseconds of inflating
        body.finish()
    except CutShortError as error:
        raise aiohttp.ClientPayloadError(str(error)) from error


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that becomes `path` if the block succeeds, and vanishes if not."""
    file = tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", delete=False)  # noqa: SIM115
    try:
        with file:
            yield file
        # mkstemp makes files private; a download is as readable as any file the process writes.
        umask = os.umask(0)
        os.umask(umask)
        Path(file.name).chmod(0o666 & ~umask)
        Path(file.name).replace(path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def _text(data: bytes, url: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidMediaError(f"The body of {redact_url(url)!r} is not UTF-8 text.") from None


def _json(data: bytes, url: str) -> Any:
    try:
        return json.loads(_text(data, url))
    except (ValueError, RecursionError):
        raise InvalidMediaError(f"The body of {redact_url(url)!r} is not JSON.") from None


global_http_connection = HTTPConnection()
"""The connection that connectors share unless told otherwise."""
