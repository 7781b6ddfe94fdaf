"""The rules of a fetch, each once: what it may reach, where a redirect may lead, what a body may be."""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from mmmedia import envs
from mmmedia._version import __version__
from mmmedia.connections.budget import RequestBudget
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.exceptions import HTTPResponseSizeExceededError, MediaDownloadSizeExceededError
from mmmedia.urls import ANY_HOST, HTTPURL, DomainList, redact_url

USER_AGENT = f"mmmedia/{__version__}"
HEADERS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}
"""What every request says, unless the caller says otherwise."""
MAX_CONNECTIONS = 128
"""Fetches at a time on an event loop, and idle connections kept by the blocking half."""

MAX_LINE_BYTES = 64 * 1024
"""A line of a response's head may have."""
MAX_HEADERS = 100
"""Lines that a response's head may have. Both are http.client's."""

_PIECE_BYTES = 256 * 1024
# What changes a body, but for those that are asked for (RFC 9110, 8.4.1, and what IANA has besides). Other
# words that servers put there (UTF-8, aws-chunked, none, binary, …) are no codings and change nothing.
_OTHER_CODINGS = frozenset(
    {"aes128gcm", "br", "bzip2", "compress", "dcb", "dcz", "exi", "lz4", "lzma", "pack200-gzip", "sdch",
     "snappy", "x-bzip2", "x-compress", "x-xz", "xz", "zstd"}
)  # fmt: skip
_CONTENT_RANGE = re.compile(r"\s*bytes\s+0-([0-9]{1,18})/([0-9]{1,18})\s*", re.ASCII | re.IGNORECASE)
_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", **{each: each for each in _OTHER_CODINGS}}


Progress = Callable[[int, int | None], object]
"""Is told the bytes that have come, and how many there will be; `None` where the server does not say."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """What one request of an engine may reach and take up.

    Attributes:
        domains: the hosts that URLs and redirects may name.
        settings: those of the moment in which the request began.
        is_of_kind: whether their download limit is that of a kind of media, lower than the general one.
        on_progress: is told how far downloads are; no part of what makes policies equal.

    Raises:
        InvalidSettingError: (a `ValueError`) a setting can't be read.
    """

    domains: DomainList = ANY_HOST
    settings: envs.FetchSettings = field(default_factory=envs.fetch_settings)
    is_of_kind: bool = False
    on_progress: Progress | None = field(default=None, compare=False)


policy_under_way: ContextVar[FetchPolicy | None] = ContextVar("mmmedia_fetch_policy", default=None)
"""What fetches are held to here; see `fetch_policy`."""


@contextmanager
def fetch_policy(policy: FetchPolicy) -> Iterator[FetchPolicy]:
    """Hold every fetch inside the block to `policy`, on every hop.

    It travels with the context and not as an argument, so that it also holds where a subclass of
    `HTTPConnection` overrides `get_bytes` with the signature that vLLM gives it.
    """
    token = policy_under_way.set(policy)
    try:
        yield policy
    finally:
        policy_under_way.reset(token)


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


class AskedPiece(Protocol):
    """A part of a body that is asked for; as `mmmedia.connections.ranges.Piece`."""

    def body(
        self, url: HTTPURL, status: int, headers: Mapping[str, str], limits: "BodyLimits", /
    ) -> "Body | None":
        """Return what reads the body of a response; None for one that does not have what is asked for."""

    def ends(self, status: int, /) -> bool:
        """Return whether a response of which no body is read is an answer too."""


class BodyLimits(NamedTuple):
    """What a body may have.

    Attributes:
        max_bytes: infinity for any number.
        is_of_kind: whether that is the limit of a kind of media, lower than the general one.
        budget: charged with what comes out, piece by piece.
        on_progress: is told how much has come, piece by piece.
        piece: what of the whole is asked for; None: all.
    """

    max_bytes: float
    is_of_kind: bool = False
    budget: RequestBudget | None = None
    on_progress: Progress | None = None
    piece: "AskedPiece | None" = None


class CutShortError(Exception):
    """A coded body that ends before its end; each half raises its library's own error for it."""


def codings_of(encoding: str) -> list[str]:
    """Return the codings in a `Content-Encoding`; words that are none change nothing.

    >>> codings_of("UTF-8, x-gzip")
    ['gzip']
    """
    words = (word.strip().lower() for word in encoding.split(","))
    return [_CODINGS[word] for word in words if word in _CODINGS]


class Body:
    """What a response's body may be: decodes it piece by piece, within the download limit.

    Both the bytes that arrive and those that come out of gzip count against the limit.

    Attributes:
        is_plain: it is not coded, and as long as its `Content-Length` says: what arrives is the body, and
            needs neither `pieces` nor `finish`.
        coding: `gzip` or `deflate`, empty for none.

    Args:
        url: where it comes from, for messages.
        headers: those of the response.
        limits: what it may have.
        whole_bytes: how long the whole is, where the server gives it as a part.

    Raises:
        MediaDownloadSizeExceededError: (a `ValueError`) at once for a `Content-Length` above the limit, else
            where the limit is passed.
        HTTPResponseSizeExceededError: (a `ValueError`) likewise, where it is the limit of a kind.
        Exception: what the budget raises.
        InvalidMediaError: (a `ValueError`) an encoding that was not asked for, or broken data in it.
    """

    def __init__(
        self,
        url: HTTPURL,
        headers: Mapping[str, str],
        limits: BodyLimits,
        whole_bytes: int | None = None,
    ) -> None:
        self._source, self._limits, self._whole_bytes = url, limits, whole_bytes
        self._max_bytes = limits.max_bytes
        self._received = self._decoded = 0
        self._inflate: Any = None
        declared = headers.get("Content-Length", "")
        is_declared = declared.isdecimal() and "Transfer-Encoding" not in headers
        self._expected = int(declared[:20]) if is_declared else None
        if self._expected is not None and self._expected > self._max_bytes:
            raise self._too_long(self._expected)
        self.coding = ""
        if encoding := headers.get("Content-Encoding"):
            codings = codings_of(encoding)
            if len(codings) > 1 or not _OTHER_CODINGS.isdisjoint(codings):
                raise InvalidMediaError(
                    f"Content-Encoding {encoding[:64]!r} of {self._url!r} was not asked for and is not read."
                )
            self.coding = "".join(codings)
        is_whole = is_declared and whole_bytes is None
        self.is_plain = is_whole and not self.coding and (limits.budget, limits.on_progress) == (None, None)

    @property
    def _url(self) -> str:
        return redact_url(str(self._source))

    def _too_long(self, received: int) -> LimitExceededError:
        source = repr(self._url)
        if self._limits.is_of_kind:
            return HTTPResponseSizeExceededError(self._max_bytes, received, source)
        return MediaDownloadSizeExceededError(self._max_bytes, received, source)

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        """Return what a chunk from the wire holds, decoded, in pieces of bounded size."""
        self._received += len(chunk)
        if self._received > self._max_bytes:
            raise self._too_long(self._received)
        if self._limits.on_progress is not None:
            self._limits.on_progress(self._received, self._expected)
        if self.coding:
            return self._decode(chunk)
        if self._limits.budget is not None:
            self._limits.budget.charge(len(chunk))
        return (chunk,)

    def _decode(self, chunk: bytes) -> Iterator[bytes]:
        try:
            while chunk:
                if self._inflate is None:
                    is_raw = self.coding == "deflate" and (chunk[0] & 0x0F) != 8
                    self._inflate = zlib.decompressobj(-15 if is_raw else 47)
                piece = self._inflate.decompress(chunk, _PIECE_BYTES)
                chunk = self._inflate.unconsumed_tail
                self._decoded += len(piece)
                if self._decoded > self._max_bytes:
                    raise self._too_long(self._decoded)
                if self._limits.budget is not None:
                    self._limits.budget.charge(len(piece))
                yield piece
                if self._inflate.eof:  # a gzip file may be several in a row; what follows them is ignored
                    chunk = self._inflate.unused_data
                    if not chunk.startswith(b"\x1f"):
                        return
                    self._inflate = None
        except zlib.error as error:
            raise InvalidMediaError(f"The body of {self._url!r} is not {self.coding}: {error}.") from None

    def finish(self) -> None:
        """Check that the body is whole.

        Raises:
            CutShortError: it is not.
        """
        if self._whole_bytes not in (None, self._received):
            raise CutShortError(f"{self._url!r} sent {self._received} bytes of {self._whole_bytes}.")
        if self.coding and self._received and (self._inflate is None or not self._inflate.eof):
            raise CutShortError(f"The {self.coding} body of {self._url!r} is cut short.")


def whole_body(url: HTTPURL, status: int, headers: Mapping[str, str], limits: BodyLimits) -> Body | None:
    """Return what reads the body of a response that has the whole, `None` for any other response.

    The whole is a 2xx but for a part (206), unless it is the part from the first byte to the last.

    Raises:
        LimitExceededError: (a `ValueError`) it is longer than the limit.
        InvalidMediaError: (a `ValueError`) an encoding that was not asked for.
    """
    if limits.piece is not None:
        return limits.piece.body(url, status, headers, limits)
    if status == 206:
        part = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if part is None or int(part[1]) + 1 != int(part[2]):
            return None
        return Body(url, headers, limits, int(part[2]))
    return Body(url, headers, limits) if 200 <= status < 300 else None


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
