"""One fetch as a series of steps: what is sent where, given up, waited for and tried again.

`exchange` decides and performs nothing: it yields what is to be done next, and who drives it (`blocking` with
requests, `on_loop` with aiohttp) sends back what came of it, or throws in the error. So redirects and retries
are the same in both halves.
"""

import io
import itertools
import logging
import random
import time
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from mmmedia import metrics
from mmmedia.connections.budget import RequestBudget
from mmmedia.connections.environment import environment_proxy
from mmmedia.connections.failures import headers_of, is_transient, own_error
from mmmedia.connections.retries import TOTAL_SECONDS, RetryPlan, retry_after_seconds
from mmmedia.connections.rules import (
    HEADERS,
    AskedPiece,
    BodyLimits,
    Download,
    FetchPolicy,
    Progress,
    policy_under_way,
)
from mmmedia.egress.policy import EgressPolicy, Journey
from mmmedia.errors import RefusedURLError
from mmmedia.urls import (
    ANY_HOST,
    HTTPURL,
    MAX_REDIRECTS,
    REDIRECT_STATUSES,
    DomainList,
    next_hop,
    parse_http_url,
    redact_url,
)

logger = logging.getLogger(__name__)

# Conditions are about one resource, and a redirect leads to another.
_CONDITIONS = frozenset({"if-none-match", "if-modified-since"})
# What a redirect to another origin takes along; anything else may be a credential.
_PLAIN_HEADERS = frozenset(
    {"accept", "accept-encoding", "accept-language", "if-range", "range", "user-agent"}
)


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

    def redirected(self, status: int, location: bytes | None, domains: DomainList) -> "Hop":
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


class Send(NamedTuple):
    """Send a request and, if the response has the whole, read its body: then all is done.

    If not, read nothing and give back status, headers, and the `Location` as it was on the wire.

    Attributes:
        hop: the request.
        journey: what connections are judged by while it is sent.
        seconds: how long that may take, body included.
        limits: what the body may have; `None` to read none, whatever comes.
    """

    hop: Hop
    journey: Journey
    seconds: float
    limits: BodyLimits | None


class Call(NamedTuple):
    """Have a function of somebody else fetch the body: it does all of one attempt.

    Attributes:
        hop: the request that it stands for.
        fetch: called with `seconds`, `limits` and the sink; in the async half awaited.
        seconds: how long that may take; `None` for no bound.
        limits: what the body may have.
    """

    hop: Hop
    fetch: Callable[[float | None, BodyLimits, IO[bytes]], Any]
    seconds: float | None
    limits: BodyLimits


class Reject(NamedTuple):
    """Throw in the error that the library below has for the status of that response.

    Attributes:
        reason: why, where the status does not say so by itself.
    """

    reason: str


class Wait(NamedTuple):
    """Let go of the response, wait so many seconds, and forget what was read."""

    seconds: float


Step = Send | Call | Reject | Wait | Answer
Exchange = Generator[Step, Any, None]
"""Its last step is an `Answer`, where the driver has not made one of a body."""


def exchange(
    url: str | HTTPURL,
    *,
    timeout: float | None,
    extra_headers: Mapping[str, str] | None = None,
    allow_redirects: bool = True,
    is_conditional: bool = False,
    any_status: bool = False,
    max_bytes: int | None = None,
    request_budget: RequestBudget | None = None,
    on_progress: Progress | None = None,
    piece: AskedPiece | None = None,
    fetch: Callable[[float | None, BodyLimits, IO[bytes]], Any] | None = None,
) -> Exchange:
    """Yield the steps that fetch the body behind a URL.

    Args:
        url: an HTTP URL.
        timeout: seconds of the first attempt; `None` for no bound but the ten minutes of all attempts.
        extra_headers: sent too; they win over the headers of this library.
        allow_redirects: follow redirects; if not, one is refused.
        is_conditional: take "304 Not Modified" for an answer, without a body.
        any_status: take any response for the answer, also a redirect that is not to be followed, and leave
            its body unread; nothing is tried again.
        max_bytes: what the body may have beside the download limit; `None` for no such limit.
        request_budget: charged with all that comes, also in attempts that fail.
        on_progress: is told how much has come; of a further attempt from 0 again.
        piece: what of the body is asked for by `extra_headers`; None: all.
        fetch: makes each attempt in the place of this library, see `Call`; it also says what it may reach.

    Raises:
        InvalidURLError: (a `ValueError`) no HTTP URL.
        RefusedURLError: (a `ValueError`) the policy does not admit it.
        InvalidSettingError: (a `ValueError`) a setting can't be read.
    """
    policy = policy_under_way.get() or FetchPolicy()
    parsed = url if isinstance(url, HTTPURL) else parse_http_url(url)
    if policy.domains is not ANY_HOST:
        policy.domains.check(parsed.host)
    egress = EgressPolicy(policy.settings.block_private, policy.domains.names)
    first = Hop.first(parsed, extra_headers) if fetch is None else Hop(parsed, HEADERS, None)
    plan = RetryPlan(timeout, 1 if any_status else policy.settings.attempts)
    settings = policy.settings if max_bytes is None else policy.settings.held_to(max_bytes)
    limits = BodyLimits(
        settings.max_download_bytes,
        policy.is_of_kind or settings is not policy.settings,
        request_budget,
        on_progress or policy.on_progress,
        piece,
    )
    started = begun = time.monotonic()
    seconds = TOTAL_SECONDS if timeout is None else timeout
    for attempt in itertools.count():
        hop, journey = first, Journey(egress)
        try:
            if fetch is not None:
                yield Call(first, fetch, seconds if timeout is not None else None, limits)
                yield Answer(first, 200, {})
            while True:
                journey.begin_hop(hop.url, by_proxy=hop.proxy is not None)
                left = begun + seconds - time.monotonic()
                status, headers, location = yield Send(hop, journey, left, None if any_status else limits)
                if status not in REDIRECT_STATUSES or (any_status and not allow_redirects):
                    break
                if not allow_redirects:
                    raise RefusedURLError(
                        f"{redact_url(str(hop.url))!r} redirects ({status}), which "
                        "VLLM_MEDIA_URL_ALLOW_REDIRECTS=0 (allow_redirects=False) does not admit.",
                        reason="redirect",
                    )
                hop = hop.redirected(status, location, policy.domains)
            is_unchanged = is_conditional and status == 304 and not hop.number
            if any_status or is_unchanged or (piece is not None and piece.ends(status)):
                yield Answer(hop, status, headers)
            yield Reject(_reason(status))
        except Exception as error:
            failure = _late(hop, seconds, error) if isinstance(error, TimeoutError) else error
            wait = _wait_after(failure, plan, attempt, started, first.url)
            if wait is None:
                own = own_error(failure)
                if own is error:
                    raise
                raise own from own.__cause__
            pause = Wait(wait)
        yield pause
        begun = time.monotonic()
        seconds = plan.attempt_seconds(attempt + 1, begun - started)


def _reason(status: int) -> str:
    """Say why a status that is no HTTP error still brings no whole body; nothing of one that is."""
    if status == 206:
        return "Partial Content for a request of the whole"
    return "" if status >= 400 else "Unexpected status"


def _late(hop: Hop, seconds: float, error: BaseException) -> TimeoutError:
    shown = redact_url(str(hop.url))
    late = TimeoutError(f"{shown!r} took more than {seconds:g} s; see VLLM_*_FETCH_TIMEOUT.")
    late.__cause__ = error
    return late


def _wait_after(
    error: BaseException, plan: RetryPlan, attempt: int, started: float, url: HTTPURL
) -> float | None:
    """Return the seconds to wait before trying again, `None` if the error is final."""
    if not is_transient(error):
        return None
    asked = retry_after_seconds(headers_of(error).get("Retry-After"), datetime.now(UTC))
    jitter = random.uniform(0.75, 1.25)  # noqa: S311  # spreads load, guards nothing
    elapsed = time.monotonic() - started
    wait = plan.wait_seconds(attempt, elapsed, jitter=jitter, retry_after=asked)
    if wait is not None:
        metrics.count_retry(error)
        kind = type(error).__name__
        logger.warning("Attempt %d of %d for %s failed (%s); next in %.1f s",
                       attempt + 1, plan.attempts, redact_url(str(url)), kind, wait)  # fmt: skip
    return wait
