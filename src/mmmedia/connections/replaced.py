"""Bodies by way of a `get_response` that somebody put in the place of ours.

vLLM's `get_bytes` calls `get_response`, so that who overrides that one, as engines' tests do, changes both.
It alone says what may be reached then; limits, budgets and retries are those of any fetch.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from mmmedia.connections.budget import RequestBudget
from mmmedia.connections.failures import headers_of, is_transient
from mmmedia.connections.retries import RetryPlan, retry_after_seconds
from mmmedia.connections.rules import BodyLimits, FetchPolicy, policy_under_way
from mmmedia.exceptions import HTTPResponseSizeExceededError, MediaDownloadSizeExceededError
from mmmedia.urls import redact_url

_CHUNK_BYTES = 64 * 1024


class _Body:
    """What has come of a body, within its limits."""

    def __init__(self, url: object, response: Any, limits: BodyLimits) -> None:
        self._source, self._limits = repr(redact_url(str(url))), limits
        self._chunks: list[bytes] = []
        self._received = 0
        declared = str((getattr(response, "headers", None) or {}).get("Content-Length", ""))
        if declared.isdecimal():
            self._check(int(declared[:20]))

    def add(self, chunk: bytes) -> None:
        self._received += len(chunk)
        self._check(self._received)
        if self._limits.budget is not None:
            self._limits.budget.charge(len(chunk))
        self._chunks.append(chunk)

    def whole(self) -> bytes:
        return b"".join(self._chunks)

    def _check(self, size: int) -> None:
        if size > self._limits.max_bytes:
            of_kind = self._limits.is_of_kind
            kind = HTTPResponseSizeExceededError if of_kind else MediaDownloadSizeExceededError
            raise kind(self._limits.max_bytes, size, self._source)


class _Attempts:
    """The attempts of one fetch: how long each may take, and how long to wait after one that failed."""

    def __init__(self, timeout: float | None, policy: FetchPolicy) -> None:
        self._plan = RetryPlan(timeout, policy.settings.attempts)
        self._started = time.monotonic()

    def __iter__(self) -> Iterator[tuple[int, float | None]]:
        for number in itertools.count():
            seconds = self._plan.attempt_seconds(number, time.monotonic() - self._started)
            yield number, None if self._plan.timeout is None else seconds

    def wait_after(self, number: int, error: Exception) -> float:
        """Return the seconds to wait; raise the error if it is final."""
        wait = None
        if is_transient(error):
            asked = retry_after_seconds(headers_of(error).get("Retry-After"), datetime.now(UTC))
            elapsed = time.monotonic() - self._started
            wait = self._plan.wait_seconds(number, elapsed, jitter=1.0, retry_after=asked)
        if wait is None:
            raise error
        return wait


def get_bytes(
    connection: Any,
    url: Any,
    timeout: float | None,
    allow_redirects: bool,
    max_bytes: int | None,
    request_budget: RequestBudget | None,
) -> bytes:
    """Return the body behind a URL; arguments and errors as in `HTTPConnection.get_bytes`."""
    policy = policy_under_way.get() or FetchPolicy()
    attempts = _Attempts(timeout, policy)
    for number, seconds in attempts:
        try:
            with connection.get_response(
                url, stream=True, timeout=seconds, allow_redirects=allow_redirects
            ) as response:
                response.raise_for_status()
                body = _Body(url, response, BodyLimits.of(policy, max_bytes, request_budget))
                for chunk in response.iter_content(_CHUNK_BYTES):
                    body.add(chunk)
                return body.whole()
        except Exception as error:  # noqa: BLE001  # judged there
            wait = attempts.wait_after(number, error)
        time.sleep(wait)
    raise AssertionError  # the last attempt raises


async def async_get_bytes(
    connection: Any,
    url: Any,
    timeout: float | None,  # noqa: ASYNC109  # of the first attempt
    allow_redirects: bool,
    max_bytes: int | None,
    request_budget: RequestBudget | None,
) -> bytes:
    """Return the body behind a URL by `get_async_response`; see `get_bytes`."""
    policy = policy_under_way.get() or FetchPolicy()
    attempts = _Attempts(timeout, policy)
    for number, seconds in attempts:
        try:
            async with await connection.get_async_response(
                url, timeout=seconds, allow_redirects=allow_redirects
            ) as response:
                response.raise_for_status()
                body = _Body(url, response, BodyLimits.of(policy, max_bytes, request_budget))
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body.add(chunk)
                return body.whole()
        except Exception as error:  # noqa: BLE001  # judged there
            wait = attempts.wait_after(number, error)
        await asyncio.sleep(wait)
    raise AssertionError  # the last attempt raises
