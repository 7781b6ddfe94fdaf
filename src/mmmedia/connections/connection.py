"""`HTTPConnection`: blocking and async GET with retries, redirects and limits.

`exchange` says what is done, `blocking` and `on_loop` do it; below them are requests and aiohttp, which are
loaded with the half that needs them, and whose exceptions reach the caller.
"""

import asyncio
import io
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mmmedia.connections import replaced
from mmmedia.connections.budget import RequestBudget
from mmmedia.connections.exchange import Answer, Exchange, exchange
from mmmedia.connections.files import partial_file
from mmmedia.connections.rules import (
    Body,
    BodyLimits,
    Download,
    FetchPolicy,
    Progress,
    json_of,
    policy_under_way,
    text_of,
)
from mmmedia.urls import HTTPURL
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import aiohttp
    import requests

    from mmmedia.connections.on_loop import AsyncResponse, LoopClients


class HTTPConnection:
    """Blocking and async GET over kept-alive connections.

    Both halves have the same methods, the async ones under `async_` names, and the same rules:

    * Timeouts, failed connections, 5xx, 408 and 429 are tried again, `VLLM_MEDIA_FETCH_MAX_RETRIES` times in
      all; attempt k has `timeout * 4**k` seconds of wall time for everything from DNS to the last byte.
    * At most 10 redirects, each held to the `fetch_policy`. Credentials don't follow to another origin, and
      no cookie is ever kept.
    * A body may have `VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB`, as it arrives and after gzip; one that is cut short
      is an error.
    * Proxies and certificates to trust are those of the environment, see `mmmedia.connections.environment`;
      `.netrc` is not read.

    It is safe to share between threads and event loops. The async half keeps one session per event loop,
    which is closed with it by `asyncio.run` and all that ends a loop like it. Who closes a loop by hand runs
    `loop.shutdown_asyncgens()` or `aclose` before, or leaves the session to the next use on another loop.

    A copy, also one in another process, has connections of its own; the global one is itself wherever it is
    sent.

    Args:
        reuse_client: keep connections for later requests; otherwise each request has a client of its own.
    """

    def __init__(self, *, reuse_client: bool = True) -> None:
        self.reuse_client = reuse_client
        self._lock = threading.Lock()
        self._sync_client: requests.Session | None = None
        self._clients: LoopClients | None = None
        afresh_in_child(self._begin_afresh)

    def __repr__(self) -> str:
        if self is globals().get("global_http_connection"):
            return "global_http_connection"
        return f"{type(self).__name__}(reuse_client={self.reuse_client})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _OF_THIS_PROCESS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        HTTPConnection.__init__(self)
        vars(self).update(state)

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        if self is globals().get("global_http_connection"):
            return "global_http_connection"
        return super().__reduce_ex__(protocol)

    def _begin_afresh(self) -> None:
        """Forget, in a forked child, the sockets of its parent."""
        self._lock = threading.Lock()
        self._sync_client = None

    # The blocking half.

    def get_sync_client(self) -> "requests.Session":
        """Return the session of requests below the blocking half; a new one without `reuse_client`.

        Raises:
            RefusedURLError: (a `ValueError`) these versions can't be held to the egress policy.
        """
        from mmmedia.connections import blocking

        if not self.reuse_client:
            return blocking.new_client()
        with self._lock:
            if self._sync_client is None:
                self._sync_client = blocking.new_client()
            return self._sync_client

    def close(self) -> None:
        """Close the session of the blocking half, and those of event loops that were closed."""
        with self._lock:
            client, self._sync_client = self._sync_client, None
        if client is not None:
            client.close()
        if self._clients is not None:
            self._clients.sweep()

    def get_response(
        self,
        url: str | HTTPURL,
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
        from mmmedia.connections import blocking

        end = time.monotonic() + (timeout or 0.0)
        steps = exchange(
            url,
            timeout=timeout,
            extra_headers=extra_headers,
            allow_redirects=allow_redirects,
            any_status=True,
        )
        response, answer = blocking.open_response(self.get_sync_client(), steps, timeout, stream=stream)
        if not stream:
            try:
                policy = policy_under_way.get() or FetchPolicy()
                limits = BodyLimits(policy.settings.max_download_bytes, policy.is_of_kind)
                body = Body(answer.hop.url, response.headers, limits)
                blocking.read_all(response, body, None if timeout is None else end - time.monotonic())
            except BaseException:
                response.close()
                raise
        return response

    def get_bytes(
        self,
        url: str | HTTPURL,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        extra_headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
        request_budget: RequestBudget | None = None,
        on_progress: Progress | None = None,
    ) -> bytes:
        """Return the body behind a URL.

        Args:
            url: an HTTP URL.
            timeout: seconds of the first attempt; `None` for no bound but the ten minutes of all attempts.
            allow_redirects: follow redirects; if not, one is refused.
            extra_headers: sent too; they win over the headers of this library.
            max_bytes: what the body may have beside the download limit; `None` for no such limit.
            request_budget: its `charge` is told of all that comes, also in attempts that fail, and raises
                when the request has used up its share.
            on_progress: is told the bytes that have come, and how many there will be, `None` where the server
                does not say; before they are decompressed, in the thread that reads them. Another attempt
                begins at 0 again, and what it raises ends the download.

        Raises:
            requests.HTTPError: the server answered with an error.
            requests.RequestException: connecting, reading or the time failed.
            InvalidURLError: (a `ValueError`) no HTTP URL.
            RefusedURLError: (a `ValueError`) the policy does not admit the URL or a redirect.
            MediaDownloadSizeExceededError: (a `ValueError`) the body is longer than the download limit.
            HTTPResponseSizeExceededError: (a `ValueError`) it is longer than `max_bytes`.
        """
        fetch = None
        if extra_headers is None and _is_replaced(self.get_response, HTTPConnection.get_response):
            fetch = replaced.fetch(self.get_response, url, allow_redirects)
        sink = io.BytesIO()
        self._perform(
            exchange(
                url,
                timeout=timeout,
                extra_headers=extra_headers,
                allow_redirects=allow_redirects,
                max_bytes=max_bytes,
                request_budget=request_budget,
                on_progress=on_progress,
                fetch=fetch,
            ),
            sink,
        )
        return sink.getvalue()

    def get_if_changed(
        self,
        url: str | HTTPURL,
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
        steps = _conditional(url, etag, last_modified, timeout, allow_redirects)
        return self._perform(steps, sink).download(sink)

    def get_text(self, url: str | HTTPURL, *, timeout: float | None = None) -> str:
        """Return the body behind a URL as text, UTF-8; errors as in `get_bytes`."""
        return text_of(self.get_bytes(url, timeout=timeout), url)

    def get_json(self, url: str | HTTPURL, *, timeout: float | None = None) -> Any:
        """Return what the JSON behind a URL says; errors as in `get_bytes`."""
        return json_of(self.get_bytes(url, timeout=timeout), url)

    def download_file(
        self,
        url: str | HTTPURL,
        save_path: Path,
        *,
        timeout: float | None = None,
        chunk_size: int = 128,  # noqa: ARG002
        on_progress: Progress | None = None,
    ) -> Path:
        """Write the body behind a URL to a file, and return its path; errors as in `get_bytes`.

        The file appears when it is whole; a failure leaves nothing behind. `chunk_size` is accepted for
        compatibility: chunks are as large as they arrive. `on_progress` is as in `get_bytes`.
        """
        with partial_file(Path(save_path)) as file:
            self._perform(exchange(url, timeout=timeout, on_progress=on_progress), file)
        return Path(save_path)

    def _perform(self, steps: Exchange, sink: IO[bytes]) -> Answer:
        from mmmedia.connections import blocking

        client = self.get_sync_client()
        try:
            return blocking.perform(client, steps, sink)
        finally:
            if not self.reuse_client:
                client.close()

    # The async half.

    async def get_async_client(self) -> "aiohttp.ClientSession":
        """Return the session of aiohttp for the running loop; without `reuse_client` a new one, to be closed.

        Raises:
            RefusedURLError: (a `ValueError`) this version can't be held to the egress policy.
        """
        return await self._loop_clients().session()

    @property
    def _async_client(self) -> "aiohttp.ClientSession | None":
        """The session of the running loop, `None` where it has none yet; by it tests of engines end it."""
        return None if self._clients is None else self._clients.session_here()

    async def aclose(self) -> None:
        """Close the session of the running loop, and those of loops that were closed."""
        if self._clients is not None:
            await self._clients.aclose()

    def _loop_clients(self) -> "LoopClients":
        if self._clients is None:
            from mmmedia.connections import on_loop

            made = on_loop.LoopClients(reuse=self.reuse_client)
            with self._lock:
                self._clients = self._clients or made
        return self._clients

    def get_async_response(
        self,
        url: str | HTTPURL,
        *,
        timeout: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
        allow_redirects: bool = True,
    ) -> "AsyncResponse":
        """Return the response to one GET, to be awaited or entered with `async with`; see `get_response`.

        The body is left unread; the caller reads it, without a limit.
        """
        from mmmedia.connections import on_loop

        steps = exchange(
            url,
            timeout=timeout,
            extra_headers=extra_headers,
            allow_redirects=allow_redirects,
            any_status=True,
        )
        return on_loop.AsyncResponse(on_loop.open_response(self._loop_clients(), steps, timeout))

    def async_get_bytes(
        self,
        url: str | HTTPURL,
        *,
        timeout: float | None = None,
        allow_redirects: bool = True,
        extra_headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
        request_budget: RequestBudget | None = None,
        on_progress: Progress | None = None,
    ) -> Coroutine[Any, Any, bytes]:
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
        fetch = None
        if extra_headers is None and _is_replaced(self.get_async_response, HTTPConnection.get_async_response):
            fetch = replaced.async_fetch(self.get_async_response, url, allow_redirects)
        from mmmedia.connections import on_loop

        return on_loop.fetch_bytes(
            self._loop_clients(),
            exchange(
                url,
                timeout=timeout,
                extra_headers=extra_headers,
                allow_redirects=allow_redirects,
                max_bytes=max_bytes,
                request_budget=request_budget,
                on_progress=on_progress,
                fetch=fetch,
            ),
        )

    async def async_get_if_changed(
        self,
        url: str | HTTPURL,
        *,
        etag: str = "",
        last_modified: str = "",
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        allow_redirects: bool = True,
    ) -> Download:
        """Return the body behind a URL unless it is what the caller has; see `get_if_changed`."""
        from mmmedia.connections import on_loop

        sink = io.BytesIO()
        steps = _conditional(url, etag, last_modified, timeout, allow_redirects)
        return (await on_loop.perform(self._loop_clients(), steps, sink)).download(sink)

    async def async_get_text(self, url: str | HTTPURL, *, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Return the body behind a URL as text, UTF-8; errors as in `async_get_bytes`."""
        return text_of(await self.async_get_bytes(url, timeout=timeout), url)

    async def async_get_json(self, url: str | HTTPURL, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        """Return what the JSON behind a URL says; errors as in `async_get_bytes`."""
        return json_of(await self.async_get_bytes(url, timeout=timeout), url)

    async def async_download_file(
        self,
        url: str | HTTPURL,
        save_path: Path,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        chunk_size: int = 128,  # noqa: ARG002  # as in `download_file`
        on_progress: Progress | None = None,
    ) -> Path:
        """Write the body behind a URL to a file, and return its path; see `download_file`."""
        from mmmedia.connections import on_loop

        partial = partial_file(Path(save_path))
        file = await asyncio.to_thread(partial.__enter__)
        try:
            steps = exchange(url, timeout=timeout, on_progress=on_progress)
            await on_loop.perform(self._loop_clients(), steps, file)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(partial.__exit__, type(error), error, None))
            raise
        await asyncio.to_thread(partial.__exit__, None, None, None)
        return Path(save_path)


def _conditional(
    url: str | HTTPURL, etag: str, last_modified: str, timeout: float | None, allow_redirects: bool
) -> Exchange:
    asked = {"If-None-Match": etag, "If-Modified-Since": last_modified}
    asked = {name: value for name, value in asked.items() if value}
    return exchange(
        url,
        timeout=timeout,
        extra_headers=asked,
        allow_redirects=allow_redirects,
        is_conditional=bool(asked),
    )


def _is_replaced(method: Any, function: Any) -> bool:
    """Whether a method is another's than ours: a subclass overrides it, or somebody has put it there."""
    return getattr(method, "__func__", None) is not function


_OF_THIS_PROCESS = frozenset({"_lock", "_sync_client", "_clients"})

global_http_connection = HTTPConnection()
"""The connection that connectors share unless told otherwise."""
