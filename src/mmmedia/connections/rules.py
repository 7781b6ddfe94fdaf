"""The rules of a fetch, each once: what it may reach, where a redirect may lead, what a body may be."""

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from mmmedia import envs
from mmmedia._version import __version__
from mmmedia.egress.policy import EgressPolicy
from mmmedia.errors import InvalidMediaError, LimitExceededError, RefusedURLError
from mmmedia.exceptions import HTTPResponseSizeExceededError, MediaDownloadSizeExceededError
from mmmedia.urls import HTTPURL, MAX_REDIRECTS, DomainList, domain_list, next_hop, redact_url

USER_AGENT = f"mmmedia/{__version__}"
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
"""What every request says, unless the caller says otherwise."""
MAX_CONNECTIONS = 128
"""Fetches at a time on an event loop, and idle connections kept by the blocking half."""

_PROXY_VARIABLES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
_PIECE_BYTES = 256 * 1024
# Conditions are about one resource, and a redirect leads to another.
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
# What a redirect to another origin takes along; anything else may be a credential.
_PLAIN_HEADERS = frozenset({"accept", "accept-encoding", "accept-language", "user-agent"})


def _limit_bytes(megabytes: int) -> float:
    """Return the download limit that a setting stands for."""
    return megabytes * 1024 * 1024 if megabytes > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What one request of an engine may reach and take up, as the settings were when it was made.

    Policies are equal if they admit the same hosts and addresses.

    Attributes:
        domains: the hosts that URLs and redirects may name.
        egress: the addresses that may be dialled.
        attempts: how many at most, in all, to fetch one URL.
        max_bytes: the download limit, infinity for none.
        kind_max_bytes: what a file of the kind that is fetched may have, infinity for any size.
    """

    domains: DomainList = field(default_factory=lambda: domain_list(None))
    egress: EgressPolicy = field(default_factory=EgressPolicy.from_env)
    attempts: int = field(default_factory=lambda: envs.VLLM_MEDIA_FETCH_MAX_RETRIES, compare=False)
    max_bytes: float = field(
        default_factory=lambda: _limit_bytes(envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB), compare=False
    )
    kind_max_bytes: float = float("inf")

    @classmethod
    def of(
        cls,
        domains: DomainList,
        settings: envs.FetchSettings | None = None,
        kind_max_bytes: int | None = None,
    ) -> "FetchPolicy":
        """Return the policy for `allowed_media_domains` under settings, or those of now.

        Raises:
            InvalidSettingError: (a `ValueError`) a setting can't be read.
        """
        settings = settings or envs.fetch_settings()
        max_bytes = settings.max_download_bytes
        return cls(
            domains,
            EgressPolicy(settings.block_private, domains.names),
            settings.attempts,
            float("inf") if max_bytes is None else max_bytes,
            float("inf") if kind_max_bytes is None else kind_max_bytes,
        )


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


def current_policy() -> FetchPolicy:
    """Return the policy of the `fetch_policy` block, or that of the settings of now."""
    return _policy.get() or FetchPolicy()


class Hop(NamedTuple):
    """One request of a chain of redirects.

    Attributes:
        url: where it goes, as it is sent.
        headers: those sent.
        proxy: the URL of the proxy to ask, `None` for none.
        number: how many redirects led here.
    """

    url: HTTPURL
    headers: Mapping[str, str]
    proxy: str | None
    number: int = 0

    @classmethod
    def first(cls, url: HTTPURL, extra_headers: Mapping[str, str] | None = None) -> "Hop":
        """Return the request for a URL."""
        headers: Mapping[str, str] = HEADERS
        if extra_headers or url.authorization:
            extra = {name.title(): value for name, value in (extra_headers or {}).items()}
            headers = {**HEADERS, **_credentials(url), **extra}
        return cls(url, headers, environment_proxy(url))

    def redirected(self, status: int, location: str | None, domains: DomainList) -> "Hop":
        """Return the request that follows a redirect.

        Raises:
            InvalidURLError: (a `ValueError`) the `Location` can't be read.
            RefusedURLError: (a `ValueError`) it leads where `domains` does not admit, or is one too many.
        """
        url = next_hop(self.url, status, location)
        if self.number >= MAX_REDIRECTS:
            raise RefusedURLError(
                f"More than {MAX_REDIRECTS} redirects, the last to {redact_url(str(url))!r}.",
                reason="redirect",
            )
        domains.check(url.host)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _CONDITIONS}
        if url.origin != self.url.origin:
            headers = {name: value for name, value in headers.items() if name.lower() in _PLAIN_HEADERS}
        return Hop(url, {**headers, **_credentials(url)}, environment_proxy(url), self.number + 1)


def _credentials(url: HTTPURL) -> dict[str, str]:
    return {"Authorization": url.authorization} if url.authorization else {}


def refused_redirect(url: HTTPURL, status: int) -> RefusedURLError:
    """Return the error for a redirect where none is to be followed."""
    return RefusedURLError(
        f"{redact_url(str(url))!r} redirects ({status}), which VLLM_MEDIA_URL_ALLOW_REDIRECTS=0 "
        "(allow_redirects=False) does not admit.",
        reason="redirect",
    )


def environment_proxy(url: HTTPURL) -> str | None:
    """Return the proxy that the environment names for a URL (`https_proxy`, `no_proxy`, …)."""
    # `getproxies` of the standard library goes through the whole environment, at every request.
    for variable in _PROXY_VARIABLES[url.scheme]:
        if variable in os.environ:
            break
    else:
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


def certificate_bundle() -> str | None:
    """Return the file of certificates that the environment names, as requests and curl know it."""
    return os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")


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


def conditions(etag: str, last_modified: str) -> dict[str, str]:
    """Return the headers that ask for a body only if it has changed."""
    headers = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    return {name: value for name, value in headers.items() if value}


class Answer(NamedTuple):
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


class RequestBudget(Protocol):
    """What a request may still download; as `MediaRequestDownloadBudget`."""

    def charge(self, num_bytes: int, /) -> object:
        """Take so many bytes; raise if the request has used up its share."""


class CutShortError(Exception):
    """A coded body that ends before its end; each half raises its library's own error for it."""


class Body:
    """What a response's body may be: decodes it piece by piece, within the download limit.

    Both the bytes that arrive and those that come out of gzip count against the limit.

    Args:
        url: where it comes from, for messages.
        headers: those of the response.
        max_bytes: the download limit, infinity for none.
        kind_max_bytes: what a file of this kind may have, likewise.
        budget: charged with what comes out, piece by piece; `None` for none.

    Raises:
        MediaDownloadSizeExceededError: (a `ValueError`) at once for a `Content-Length` above the download
            limit, else where it is passed.
        HTTPResponseSizeExceededError: (a `ValueError`) likewise where the other limit is the lower one.
        Exception: what the budget raises.
        InvalidMediaError: (a `ValueError`) an encoding that was not asked for, or broken data in it.
    """

    def __init__(
        self,
        url: HTTPURL,
        headers: Mapping[str, str],
        max_bytes: float,
        kind_max_bytes: float = float("inf"),
        budget: RequestBudget | None = None,
    ) -> None:
        self._max_bytes, self._source = min(max_bytes, kind_max_bytes), url
        self._is_of_kind = kind_max_bytes < max_bytes
        self._budget = budget
        self._received = self._decoded = 0
        declared = headers.get("Content-Length", "")
        if declared.isdecimal() and int(declared[:20]) > self._max_bytes:
            raise self._too_long(int(declared[:20]))
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

    def _too_long(self, received: int) -> LimitExceededError:
        source = repr(self._url)
        if self._is_of_kind:
            return HTTPResponseSizeExceededError.of(received, self._max_bytes, source)
        return MediaDownloadSizeExceededError(self._max_bytes, received, source)

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """Return what a chunk from the wire holds, decoded, in pieces of bounded size."""
        self._received += len(chunk)
        if self._received > self._max_bytes:
            raise self._too_long(self._received)
        if self.is_coded:
            return self._decode(chunk)
        if self._budget is not None:
            self._budget.charge(len(chunk))
        return (chunk,)

    def _decode(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk:
                if self._inflate is None:
                    is_raw = self.encoding == "deflate" and (chunk[0] & 0x0F) != 8
                    self._inflate = zlib.decompressobj(-15 if is_raw else 47)
                piece = self._inflate.decompress(chunk, _PIECE_BYTES)
                chunk = self._inflate.unconsumed_tail
                self._decoded += len(piece)
                if self._decoded > self._max_bytes:
                    raise self._too_long(self._decoded)
                if self._budget is not None:
                    self._budget.charge(len(piece))
                yield piece
                if self._inflate.eof:  # a gzip file may be several in a row; what follows them is ignored
                    chunk = self._inflate.unused_data
                    if not chunk.startswith(b"\x1f"):
                        return
                    self._inflate = None
        except zlib.error as error:
            raise InvalidMediaError(f"The body of {self._url!r} is not {self.encoding}: {error}.") from None

    def finish(self) -> None:
        """Check that the body is whole.

        Raises:
            CutShortError: it is not.
        """
        if self.is_coded and self._received and (self._inflate is None or not self._inflate.eof):
            raise CutShortError(f"The {self.encoding} body of {self._url!r} is cut short.")


def text_of(data: bytes, url: str | HTTPURL) -> str:
    """Return a body as text.

    Raises:
        InvalidMediaError: (a `ValueError`) it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidMediaError(f"The body of {redact_url(str(url))!r} is not UTF-8 text.") from None


def json_of(data: bytes, url: str | HTTPURL) -> Any:
    """Return what the JSON in a body says.

    Raises:
        InvalidMediaError: (a `ValueError`) it is no JSON.
    """
    try:
        return json.loads(text_of(data, url))
    except (ValueError, RecursionError):
        raise InvalidMediaError(f"The body of {redact_url(str(url))!r} is not JSON.") from None
