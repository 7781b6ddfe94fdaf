"""Reading what is behind a URL in pieces: what is asked for, what an answer is worth, and both halves.

`first_step` and `next_step` decide; they are the same for both halves. Each piece is an exchange of its own,
with its own retries and redirects, under the policy that held when the source was opened.
"""

import asyncio
import io
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from mmmedia import envs, metrics
from mmmedia.connections.budget import RequestBudget
from mmmedia.connections.exchange import Answer, Exchange, exchange
from mmmedia.connections.retries import TOTAL_SECONDS
from mmmedia.connections.rules import (
    Body,
    BodyLimits,
    FetchPolicy,
    codings_of,
    fetch_policy,
    policy_under_way,
)
from mmmedia.errors import LimitExceededError, SourceChangedError
from mmmedia.sources import Ranges, Source, check_ranges
from mmmedia.urls import HTTPURL, redact_url

if TYPE_CHECKING:
    from mmmedia.connections.connection import HTTPConnection

FIRST_BYTES = 256 * 1024
"""Of the first piece, which is asked for before anything is known."""
MOST_AT_ONCE = 6
"""Pieces of one source that are under way at a time."""
LARGEST_PIECE = 8 << 20
"""What is longer is asked for in several pieces, each of which is tried again by itself."""

ROUND_TRIP_SECONDS = 0.05
BYTES_PER_SECOND = 100e6 / 8
"""A line as many have it, by which it is judged what is worth another request."""

_RANGE = re.compile(r"\s*bytes\s+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})\s*", re.ASCII | re.IGNORECASE)


class Given(NamedTuple):
    """What an answer says that it holds.

    Attributes:
        start: where the piece begins.
        stop: where it ends.
        total: bytes of the whole.
        validator: what says that the whole is still the same; empty where nothing strong does.
    """

    start: int
    stop: int
    total: int
    validator: str


def given(status: int, headers: Mapping[str, str]) -> Given | None:
    """Return what a piece holds; None for an answer that is none, is coded, or does not say.

    >>> given(206, {"Content-Range": "bytes 0-9/100", "ETag": '"a"'})
    Given(start=0, stop=10, total=100, validator='"a"')
    >>> given(206, {"Content-Range": "bytes 0-9/*", "ETag": '"a"'}) is None
    True
    """
    match = _RANGE.fullmatch(headers.get("Content-Range", "")) if status == 206 else None
    if match is None or codings_of(headers.get("Content-Encoding", "")):
        return None
    start, last, total = (int(number) for number in match.groups())
    if not start <= last < total:
        return None
    return Given(start, last + 1, total, validator_of(headers))


def validator_of(headers: Mapping[str, str]) -> str:
    """Return the strong validator of a response, as `If-Range` takes it; empty if it has none.

    >>> validator_of({"ETag": 'W/"a"', "Last-Modified": "Sat, 28 Nov 2026 08:00:00 GMT"})
    'Sat, 28 Nov 2026 08:00:00 GMT'
    """
    etag, modified = headers.get("ETag", "").strip(), headers.get("Last-Modified", "").strip()
    for value in (etag if etag.startswith('"') else "", modified):
        if value and value.isascii() and value.isprintable():
            return value
    return ""


class Piece(NamedTuple):
    """What is asked for, and which answers to that have a body worth reading.

    Attributes:
        start: where it begins.
        stop: where it ends.
        total: bytes of the whole; None before that is known.
        validator: what the whole is known by; empty before that is known.
    """

    start: int
    stop: int
    total: int | None = None
    validator: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What asks for it."""
        asked = {"Range": f"bytes={self.start}-{self.stop - 1}", "Accept-Encoding": "identity"}
        return {**asked, "If-Range": self.validator} if self.validator else asked

    def body(self, url: HTTPURL, status: int, headers: Mapping[str, str], limits: BodyLimits) -> Body | None:
        """Return what reads the body: of the piece, or of the whole in its place; None for another answer."""
        if status == 200:
            return Body(url, headers, limits)
        limits = limits._replace(on_progress=None)  # which is told of the whole, elsewhere
        found = given(status, headers)
        if found is None or not self.fits(found):
            return None
        return Body(url, headers, limits._replace(budget=None), found.stop - found.start)

    def fits(self, found: Given) -> bool:
        """Whether an answer is a piece of the same thing, from where it was asked for."""
        if found.start != self.start or found.stop > self.stop:
            return False
        if self.total is None:  # what needs nothing put to it needs no validator
            return bool(found.validator) or found.stop == found.total
        return (found.total, found.validator) == (self.total, self.validator)

    def ends(self, status: int) -> bool:
        """Whether an answer without a body that is read ends the exchange, rather than being an error."""
        return status in (206, 416)


class Whole(NamedTuple):
    """All of what is behind a URL, as one answer brought it."""

    data: bytes


class _Context(NamedTuple):
    """How pieces are asked for.

    Attributes:
        connection: through which.
        timeout: seconds of the first attempt for each; None: no bound but that of all.
        allow_redirects: follow redirects.
        policy: what they are held to.
        end: when all must be there, by the monotonic clock.
        budget: is charged with the whole, if that is what comes.
    """

    connection: "HTTPConnection"
    timeout: float | None
    allow_redirects: bool
    policy: FetchPolicy
    end: float
    budget: RequestBudget | None

    @classmethod
    def of(
        cls,
        connection: "HTTPConnection",
        timeout: float | None,
        allow_redirects: bool,
        budget: RequestBudget | None,
    ) -> "_Context":
        policy = policy_under_way.get() or FetchPolicy()
        end = time.monotonic() + max(TOTAL_SECONDS, timeout or 0.0)
        return cls(connection, timeout, allow_redirects, policy, end, budget)

    def steps(self, url: str | HTTPURL, piece: Piece | None) -> Exchange:
        """Return the exchange that asks for a piece, or for the whole."""
        if (left := self.end - time.monotonic()) <= 0:
            raise TimeoutError(f"{redact_url(str(url))!r} took more than {TOTAL_SECONDS:g} s in all.")
        return exchange(
            url,
            timeout=left if self.timeout is None else min(self.timeout, left),
            extra_headers=piece.headers if piece is not None else None,
            allow_redirects=self.allow_redirects,
            request_budget=self.budget,
            piece=piece,
        )

    def perform(self, url: str | HTTPURL, piece: Piece | None) -> tuple[Answer, bytes]:
        sink = io.BytesIO()
        with fetch_policy(self.policy):
            return self.connection._perform(self.steps(url, piece), sink), sink.getvalue()

    async def aperform(self, url: str | HTTPURL, piece: Piece | None) -> tuple[Answer, bytes]:
        from mmmedia.connections import on_loop

        sink = io.BytesIO()
        with fetch_policy(self.policy):
            steps = self.steps(url, piece)
            answer = await on_loop.perform(self.connection._loop_clients(), steps, sink)
        return answer, sink.getvalue()


def worthwhile_gap(round_trip_seconds: float, bytes_per_second: float, at_once: int) -> int:
    """Return how many bytes apart two pieces may be that are better read as one.

    What lies between them costs the time in which it comes. Another request costs its share of a round trip,
    of which so many pass at the same time.

    >>> worthwhile_gap(0.05, 100e6 / 8, at_once=6)
    104166
    """
    return int(round_trip_seconds * bytes_per_second / at_once)


def gap() -> int:
    """Return the gap of sources behind a network: that of the settings, or what suits such a line."""
    if (kibibytes := envs.MMMEDIA_SPARSE_GAP_KB) > 0:
        return kibibytes * 1024
    return worthwhile_gap(ROUND_TRIP_SECONDS, BYTES_PER_SECOND, MOST_AT_ONCE)


def check_source_size(name: str, size: int) -> None:
    """Raise `LimitExceededError`, a `ValueError`, where so many bytes may not be read in pieces.

    Args:
        name: of the source, for messages.
        size: its bytes.
    """
    megabytes = envs.VLLM_MAX_MEDIA_SOURCE_SIZE_MB
    if 0 < megabytes << 20 < size:
        raise LimitExceededError(
            f"{name!r} has {size} bytes, more than {megabytes} MiB; "
            "VLLM_MAX_MEDIA_SOURCE_SIZE_MB sets this limit."
        )


def _opened(context: _Context, answer: Answer, data: bytes) -> "HttpSource | Whole | None":
    """What the first answer makes possible; None: nothing, and the whole has to be asked for."""
    if answer.status == 200:
        return Whole(data)
    found = given(answer.status, answer.headers)
    if found is None or len(data) != found.stop:
        return None
    check_source_size(redact_url(str(answer.hop.url)), found.total)
    if found.stop == found.total:
        if context.budget is not None:
            context.budget.charge(len(data))
        return Whole(data)
    return HttpSource(context._replace(budget=None), answer, found, data)


class HttpSource(Source):
    """What is behind a URL, read in pieces; by `read` with requests, by `aread` with aiohttp.

    It is made by `open_source` and `aopen_source`.

    Attributes:
        head: the first piece.
        fetched: bytes that all pieces had together.
        pieces: how many there were.
        on_progress: is told of every piece: how many bytes were fetched, and how many the whole has.
    """

    ahead = 64 * 1024

    def __init__(self, context: _Context, answer: Answer, found: Given, head: bytes) -> None:
        self._context, self._url = context, answer.hop.url
        self.size, self.validator, self.head = found.total, found.validator, head
        self.name, self.key = redact_url(str(self._url)), str(self._url)
        self.gap = gap()
        self.fetched, self.pieces = len(head), 1
        self.on_progress = context.policy.on_progress
        if self.on_progress is not None:
            self.on_progress(self.fetched, self.size)

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches, several asked for at once.

        Raises:
            requests.RequestException: as of `HTTPConnection.get_bytes`.
            SourceChangedError: (an `OSError`) something else is behind the URL by now.
            MediaError: as of `HTTPConnection.get_bytes`.
        """
        pieces = self._asked(ranges)
        if len(pieces) < 2:
            found = [self._read(piece) for piece in pieces]
        else:
            with ThreadPoolExecutor(min(len(pieces), MOST_AT_ONCE), "mmmedia-ranges") as pool:
                futures = [pool.submit(self._read, piece) for piece in pieces]
                try:
                    found = [future.result() for future in futures]
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        return self._told(ranges, pieces, found)

    async def aread(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches; see `read`.

        Raises:
            aiohttp.ClientError: as of `HTTPConnection.async_get_bytes`.
            SourceChangedError: (an `OSError`) something else is behind the URL by now.
        """
        pieces = self._asked(ranges)
        turns = asyncio.Semaphore(MOST_AT_ONCE)

        async def in_turn(piece: Piece) -> bytes:
            async with turns:
                return await self._aread(piece)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(piece)) for piece in pieces]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return self._told(ranges, pieces, [task.result() for task in tasks])

    def _asked(self, ranges: Ranges) -> list[Piece]:
        """The pieces that stretches are asked for in; none where they are known already."""
        check_ranges(ranges, self.size)
        return [
            Piece(at, min(at + LARGEST_PIECE, stop), self.size, self.validator)
            for start, stop in ranges
            if self.whole is None and stop > len(self.head)
            for at in range(start, stop, LARGEST_PIECE)
        ]

    def _told(self, ranges: Ranges, pieces: list[Piece], found: list[bytes]) -> list[bytes]:
        """The stretches, by the pieces that came."""
        if self.whole is not None:
            return [self.whole[start:stop] for start, stop in ranges]
        by_start = {piece.start: data for piece, data in zip(pieces, found, strict=True)}
        return [
            self.head[start:stop]
            if stop <= len(self.head)
            else b"".join(by_start[at] for at in range(start, stop, LARGEST_PIECE))
            for start, stop in ranges
        ]

    def _read(self, piece: Piece) -> bytes:
        parts: list[bytes] = []
        while piece.start < piece.stop and self.whole is None:
            part = self._taken(piece, *self._context.perform(self._url, piece))
            parts.append(part)
            piece = piece._replace(start=piece.start + len(part))
        return b"".join(parts)

    async def _aread(self, piece: Piece) -> bytes:
        parts: list[bytes] = []
        while piece.start < piece.stop and self.whole is None:
            part = self._taken(piece, *await self._context.aperform(self._url, piece))
            parts.append(part)
            piece = piece._replace(start=piece.start + len(part))
        return b"".join(parts)

    def _taken(self, piece: Piece, answer: Answer, data: bytes) -> bytes:
        """What of a piece came; a whole in its place is kept, if it is the same thing.

        Raises:
            SourceChangedError: (an `OSError`) it is of something else.
        """
        self.fetched += len(data)
        self.pieces += 1
        metrics.count_piece()
        if self.on_progress is not None:
            self.on_progress(self.fetched, self.size)
        if answer.status == 200:
            if len(data) != self.size or validator_of(answer.headers) != self.validator:
                raise SourceChangedError.of(self.name, data)
            self.whole = data
            return data[piece.start : piece.stop]
        found = given(answer.status, answer.headers)
        if found is None or not piece.fits(found) or len(data) != found.stop - found.start:
            raise SourceChangedError.of(self.name)
        return data


def open_source(
    connection: "HTTPConnection",
    url: str | HTTPURL,
    *,
    timeout: float | None = None,
    allow_redirects: bool = True,
    request_budget: RequestBudget | None = None,
) -> HttpSource | Whole:
    """Ask for the first piece of what is behind a URL, and return what reads the rest; or the whole.

    The whole comes where the server gives no pieces, or says too little for them to be put together.

    Args:
        connection: through which it is fetched.
        url: an HTTP URL.
        timeout: as of `HTTPConnection.get_bytes`, for each piece; its errors are raised.
        allow_redirects: as of `HTTPConnection.get_bytes`.
        request_budget: is charged with the whole, if that is what comes; not with pieces.

    Raises:
        LimitExceededError: (a `ValueError`) it is larger than `VLLM_MAX_MEDIA_SOURCE_SIZE_MB`.
    """
    context = _Context.of(connection, timeout, allow_redirects, request_budget)
    found = _opened(context, *context.perform(url, Piece(0, FIRST_BYTES)))
    return Whole(context.perform(url, None)[1]) if found is None else found


async def aopen_source(
    connection: "HTTPConnection",
    url: str | HTTPURL,
    *,
    timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
    allow_redirects: bool = True,
    request_budget: RequestBudget | None = None,
) -> HttpSource | Whole:
    """Ask for the first piece of what is behind a URL; see `open_source`."""
    context = _Context.of(connection, timeout, allow_redirects, request_budget)
    found = _opened(context, *await context.aperform(url, Piece(0, FIRST_BYTES)))
    return Whole((await context.aperform(url, None))[1]) if found is None else found
