"""One fetch as a series of steps: what is sent where, read, waited for and given up.

`exchange` decides and performs nothing: it yields what is to be done next, and who drives it (`blocking` with
requests, `on_loop` with aiohttp) sends back what came of it, or throws in the error. So redirects and retries
are the same in both halves.
"""

import logging
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from mmmedia import metrics
from mmmedia.connections.failures import headers_of, is_transient, own_error
from mmmedia.connections.retries import RetryPlan, retry_after_seconds
from mmmedia.connections.rules import (
    Answer,
    Body,
    FetchPolicy,
    Hop,
    RequestBudget,
    current_policy,
    refused_redirect,
)
from mmmedia.egress.policy import Journey
from mmmedia.urls import HTTPURL, REDIRECT_STATUSES, parse_http_url, redact_url

logger = logging.getLogger(__name__)


class Send(NamedTuple):
    """Send a request, and give back the status and the headers of the response, of which no body is read.

    Attributes:
        hop: the request.
        seconds: how long that may take.
    """

    hop: Hop
    seconds: float


class Receive(NamedTuple):
    """Read the body of that response.

    Attributes:
        body: what decodes it.
        seconds: how long that may take.
    """

    body: Body
    seconds: float


class Reject(NamedTuple):
    """Throw in the error that the library below has for the status of that response.

    Attributes:
        reason: says why, where the status is no error by itself; else `None`.
    """

    reason: str | None


class Wait(NamedTuple):
    """Let go of the response, wait so many seconds, and forget what was read."""

    seconds: float


Step = Send | Receive | Reject | Wait | Answer
Exchange = Generator[Step, Any, None]
"""Its last step is the `Answer`, after which it is closed."""


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
) -> Exchange:
    """Return the steps that fetch the body behind a URL.

    Args:
        url: an HTTP URL.
        timeout: seconds of the first attempt; `None` for no bound but the ten minutes of all attempts.
        extra_headers: sent too; they win over the headers of this library.
        allow_redirects: follow redirects; if not, one is refused.
        is_conditional: take "304 Not Modified" for an answer, without a body.
        any_status: take any response for the answer, also a redirect that is not to be followed, and leave
            its body unread; nothing is tried again.
        max_bytes: what the body may have beside the download limit; `None`: as the policy has it.
        request_budget: charged with all that comes, also in attempts that fail.

    Raises:
        InvalidURLError: (a `ValueError`) no HTTP URL.
        RefusedURLError: (a `ValueError`) the policy does not admit it.
        InvalidSettingError: (a `ValueError`) a setting can't be read.
    """
    policy = current_policy()
    parsed = parse_http_url(url)
    policy.domains.check(parsed.host)
    plan = RetryPlan(timeout, 1 if any_status else policy.attempts)
    first = Hop.first(parsed, extra_headers)
    if max_bytes is not None:
        policy = replace(policy, kind_max_bytes=max_bytes)
    return _attempts(first, policy, plan, allow_redirects, is_conditional, any_status, request_budget)


def _attempts(
    first: Hop,
    policy: FetchPolicy,
    plan: RetryPlan,
    allow_redirects: bool,
    is_conditional: bool,
    any_status: bool,
    budget: RequestBudget | None,
) -> Exchange:
    started = time.monotonic()
    attempt = 0
    while True:
        begun = time.monotonic()
        seconds = plan.attempt_seconds(attempt, begun - started)
        hop = first
        try:
            with Journey(policy.egress) as journey:
                while True:
                    journey.begin_hop(hop.url.host, hop.url.port, by_proxy=hop.proxy is not None)
                    status, headers = yield Send(hop, begun + seconds - time.monotonic())
                    if status not in REDIRECT_STATUSES or (any_status and not allow_redirects):
                        break
                    if not allow_redirects:
                        raise refused_redirect(hop.url, status)
                    hop = hop.redirected(status, headers.get("Location"), policy.domains)
                is_unchanged = is_conditional and status == 304 and not hop.number
                if not (any_status or is_unchanged):
                    if not 200 <= status < 300 or status == 206:
                        yield Reject(_reason(status))
                    body = Body(hop.url, headers, policy.max_bytes, policy.kind_max_bytes, budget)
                    yield Receive(body, begun + seconds - time.monotonic())
            break
        except Exception as error:
            failure = _late(hop, seconds, error) if isinstance(error, TimeoutError) else error
            wait = _wait_after(failure, plan, attempt, started, first.url)
            if wait is None:
                own = own_error(failure)
                if own is error:
                    raise
                raise own from own.__cause__
        yield Wait(wait)
        attempt += 1
    yield Answer(hop, status, headers)


def _reason(status: int) -> str | None:
    """Say why a status that is no HTTP error still brings no whole body; `None` if it is an error."""
    if status == 206:
        return "Partial Content for a request of the whole"
    return None if status >= 400 else "Unexpected status"


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
