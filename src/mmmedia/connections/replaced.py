"""One attempt by way of a `get_response` that somebody put in the place of ours.

vLLM's `get_bytes` calls `get_response`, so that who overrides that one, as engines' tests do, changes both.
It alone says what may be reached then; limits, budgets and retries are those of any fetch.
"""

from collections.abc import Awaitable, Callable
from typing import IO, Any

from mmmedia.connections.rules import Body, BodyLimits
from mmmedia.urls import HTTPURL, parse_http_url

_CHUNK_BYTES = 64 * 1024


def fetch(
    get_response: Callable[..., Any], url: str | HTTPURL, allow_redirects: bool
) -> Callable[[float | None, BodyLimits, IO[bytes]], None]:
    """Return what fetches the body behind a URL by a `get_response`, for an `exchange`."""

    def attempt(seconds: float | None, limits: BodyLimits, sink: IO[bytes]) -> None:
        with get_response(url, stream=True, timeout=seconds, allow_redirects=allow_redirects) as response:
            response.raise_for_status()
            body = _body(url, response, limits)
            for chunk in response.iter_content(_CHUNK_BYTES):
                sink.writelines(body.pieces(chunk))

    return attempt


def async_fetch(
    get_async_response: Callable[..., Any], url: str | HTTPURL, allow_redirects: bool
) -> Callable[[float | None, BodyLimits, IO[bytes]], Awaitable[None]]:
    """Return what fetches the body behind a URL by a `get_async_response`; see `fetch`."""

    async def attempt(seconds: float | None, limits: BodyLimits, sink: IO[bytes]) -> None:
        response = await get_async_response(url, timeout=seconds, allow_redirects=allow_redirects)
        async with response:
            response.raise_for_status()
            body = _body(url, response, limits)
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                sink.writelines(body.pieces(chunk))

    return attempt


def _body(url: str | HTTPURL, response: Any, limits: BodyLimits) -> Body:
    """Return what holds a body to its limits that comes decoded."""
    declared = str((getattr(response, "headers", None) or {}).get("Content-Length", ""))
    return Body(parse_http_url(url), {"Content-Length": declared}, limits)
