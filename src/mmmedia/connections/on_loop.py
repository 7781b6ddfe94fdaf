"""The async half: performs the steps of an exchange with aiohttp, and keeps what belongs to each event loop.

A session belongs to one event loop. Nothing tells that a loop is being closed, but there are four moments at
which it can be known, and each of them closes the session:

* `loop.shutdown_asyncgens`, which `asyncio.run` and all that is like it call: an asynchronous generator that
  the loop knows holds the session, and closes it in the end;
* `aclose`, for who wants to;
* the next use on another loop, for a loop that was closed without a word;
* the end of the interpreter, for a loop that was never closed, as a notebook's.
"""

import asyncio
import atexit
import contextlib
import io
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from typing import IO, Any

import aiohttp
from aiohttp.connector import NEEDS_CLEANUP_CLOSED
from yarl import URL

from mmmedia import metrics
from mmmedia.connections.environment import trust
from mmmedia.connections.exchange import Answer, Call, Exchange, Reject, Send, Step, Wait
from mmmedia.connections.failures import async_status_error, portable_error
from mmmedia.connections.rules import (
    HEADERS,
    MAX_CONNECTIONS,
    MAX_HEADERS,
    MAX_LINE_BYTES,
    Body,
    CutShortError,
    whole_body,
)
from mmmedia.egress.on_loop import JudgedConnector
from mmmedia.egress.policy import journey_under_way
from mmmedia.work.fork import afresh_in_child

_UNBOUNDED = aiohttp.ClientTimeout(total=None)


class LoopClient:
    """What belongs to one event loop: a session, and who waits for whom.

    Attributes:
        loop: that loop.
        session: that of aiohttp; `None` where each fetch has its own.
        semaphore: in it the fetches take turns.
        fetches: how many have begun or wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, session: aiohttp.ClientSession | None) -> None:
        self.loop, self.session = loop, session
        self.semaphore = asyncio.Semaphore(MAX_CONNECTIONS)
        self.fetches = 0
        self._guard = None if session is None else _hold(session)

    @property
    def is_over(self) -> bool:
        """Whether it is of no use any more."""
        return self.loop.is_closed() or (self.session is not None and self.session.closed)

    async def begin(self) -> None:
        """Have the loop close the session when it shuts down its asynchronous generators."""
        if self._guard is not None:
            await anext(self._guard)

    async def aclose(self) -> None:
        """Close the session, on its loop."""
        if self._guard is not None and self.session is not None:
            await self._guard.aclose()
            await _wind_up(self.session)  # the generator may have been closed before it began

    def detach(self) -> None:
        """Let go of the session, without closing its sockets; nothing is left for the loop to do."""
        if self.session is not None and self._guard is not None:
            self.session.detach()
            _finish(self._guard.aclose())

    def abandon(self) -> None:
        """Close the session from elsewhere, as well as that can be done."""
        if self.session is None or self.session.closed:
            return
        if self.loop.is_closed():
            _finish(self.session.close())
            return
        with contextlib.suppress(Exception):
            if self.loop.is_running():  # in a thread of its own
                asyncio.run_coroutine_threadsafe(self.aclose(), self.loop).result(1)
            else:
                self.loop.run_until_complete(self.aclose())


async def _hold(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await _wind_up(session)


async def _wind_up(session: aiohttp.ClientSession) -> None:
    if not session.closed:
        await session.close()
        for _ in range(3):  # sockets are closed on the turns of the loop after the one that asks for it
            await asyncio.sleep(0)


def _finish(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()


class LoopClients:
    """The clients of one connection, by loop; to be used from any thread.

    Args:
        reuse: keep a session for each loop.
    """

    def __init__(self, *, reuse: bool) -> None:
        self._reuse = reuse
        self._lock = threading.Lock()
        self._clients: dict[asyncio.AbstractEventLoop, LoopClient] = {}
        _alive.add(self)
        afresh_in_child(self._begin_afresh)

    def _begin_afresh(self) -> None:
        """Forget, in a forked child, the sessions of its parent, without closing their sockets."""
        for each in self._clients.values():
            each.detach()
        self._lock = threading.Lock()
        self._clients = {}

    async def client(self) -> LoopClient:
        """Return that of the running loop.

        Raises:
            RefusedURLError: (a `ValueError`) this version of aiohttp can't be held to the egress policy.
        """
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is not None and (found.session is None or not found.session.closed):
            return found
        self.sweep()
        made = LoopClient(loop, new_session() if self._reuse else None)
        with self._lock:
            self._clients[loop] = made
        await made.begin()
        return made

    async def session(self) -> aiohttp.ClientSession:
        """Return the session of the running loop, or a new one where each fetch has its own."""
        return (await self.client()).session or new_session()

    def session_here(self) -> aiohttp.ClientSession | None:
        """Return the session of the running loop if there is one."""
        found = self._clients.get(asyncio.get_running_loop())
        return None if found is None else found.session

    def sweep(self) -> None:
        """Forget those that are of no use any more; sessions of loops that were closed are closed."""
        with self._lock:
            over = [each for each in self._clients.values() if each.is_over]
            for each in over:
                del self._clients[each.loop]
        for each in over:
            each.abandon()

    async def aclose(self) -> None:
        """Close the session of the running loop, and those of loops that were closed."""
        with self._lock:
            mine = self._clients.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.aclose()
        self.sweep()

    def abandon(self) -> None:
        """Close all of them, as the interpreter ends."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for each in clients.values():
            each.abandon()

    def waiting(self) -> int:
        """Return how many fetches wait for their turn, over all loops."""
        with self._lock:
            return sum(max(0, each.fetches - MAX_CONNECTIONS) for each in self._clients.values())


_alive: "weakref.WeakSet[LoopClients]" = weakref.WeakSet()


@atexit.register
def _abandon_all() -> None:
    for each in list(_alive):
        each.abandon()


metrics.register_gauge(
    "mmmedia_pool_queue_length", lambda: sum(each.waiting() for each in list(_alive)), "downloads"
)


def new_session() -> aiohttp.ClientSession:
    """Return a session that keeps no cookies and goes where the policy admits.

    Raises:
        RefusedURLError: (a `ValueError`) this version of aiohttp can't be held to it.
    """
    return aiohttp.ClientSession(
        # Where Python has the bug that it makes up for: TLS transports that are closed but never end.
        connector=JudgedConnector(limit=0, enable_cleanup_closed=NEEDS_CLEANUP_CLOSED),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )


async def fetch_bytes(clients: LoopClients, steps: Exchange) -> bytes:
    """Return the body that an exchange brings; errors as of `perform`."""
    sink = io.BytesIO()
    await perform(clients, steps, sink)
    return sink.getvalue()


async def perform(clients: LoopClients, steps: Exchange, sink: IO[bytes]) -> Answer:
    """Perform an exchange, each attempt when its turn comes; the body is written to `sink`.

    Raises:
        aiohttp.ClientError: it failed.
        TimeoutError: the time was up.
        MediaError: it was refused, or what came was.
    """
    client = await clients.client()
    session = client.session or new_session()
    step: Step | None = None
    response: Any = None
    client.fetches += 1
    try:
        with metrics.downloading(sink):
            while not isinstance(step, Answer):
                if isinstance(step, Wait):
                    _drop(response)
                    await asyncio.sleep(step.seconds)
                    sink.seek(0)
                    sink.truncate()
                async with client.semaphore:  # no clock runs while who is not served waits for a turn
                    step = next(steps)
                    while isinstance(step, Send | Call | Reject):
                        outcome: object = None
                        try:
                            if isinstance(step, Send):
                                url = step.hop.url
                                _drop(response)
                                async with asyncio.timeout(step.seconds):
                                    response = await _request(session, step)
                                    status, headers = response.status, response.headers
                                    if step.limits is not None and (
                                        body := whole_body(url, status, headers, step.limits)
                                    ):
                                        await _receive(response, body, sink)
                                        _drop(response)
                                        return Answer(step.hop, status, headers)
                                outcome = status, headers, _location(response)
                            elif isinstance(step, Call):
                                url = step.hop.url
                                await step.fetch(step.seconds, step.limits, sink)
                            else:
                                reason = step.reason or response.reason or ""
                                raise async_status_error(status, reason, url, headers)
                        except BaseException as error:  # noqa: BLE001  # the exchange decides
                            step = steps.throw(portable_error(error, url))
                        else:
                            step = steps.send(outcome)
            _drop(response)
        return step
    except BaseException:
        _drop(response)
        raise
    finally:
        client.fetches -= 1
        if client.session is None:
            await session.close()


async def open_response(
    clients: LoopClients,
    steps: Exchange,
    timeout: float | None,  # noqa: ASYNC109  # aiohttp bounds it, body included
) -> aiohttp.ClientResponse:
    """Perform an exchange to its response, of which the body is left unread.

    Args:
        clients: those of the connection.
        steps: those of `exchange` with `any_status`.
        timeout: seconds in all, body included; `None` for no bound.

    Raises:
        aiohttp.ClientError: it failed.
        TimeoutError: the time was up.
        RefusedURLError: (a `ValueError`) the policy does not admit where it leads.
    """
    session = await clients.session()
    response: Any = None
    try:
        step = next(steps)
        while isinstance(step, Send):
            _drop(response)
            try:
                response = await _request(session, step, timeout=timeout, decode=True)
            except BaseException as error:  # noqa: BLE001  # the exchange decides
                step = steps.throw(error)
            else:
                step = steps.send((response.status, response.headers, _location(response)))
    except BaseException:
        _drop(response)
        raise
    opened: aiohttp.ClientResponse = response
    return opened


async def _request(
    session: aiohttp.ClientSession,
    step: Send,
    *,
    timeout: float | None = None,  # noqa: ASYNC109  # aiohttp bounds it, body included
    decode: bool = False,
) -> aiohttp.ClientResponse:
    url, headers, proxy, _ = step.hop
    token = journey_under_way.set(step.journey)
    try:
        return await session.get(
            URL(url.text, encoded=True),
            headers=None if headers is HEADERS else headers,  # the session has those
            timeout=_UNBOUNDED if timeout is None else aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
            auto_decompress=decode,
            proxy=proxy,
            ssl=trust() if url.scheme == "https" or (proxy or "").startswith("https") else True,
        )
    finally:
        journey_under_way.reset(token)


def _location(response: aiohttp.ClientResponse) -> bytes | None:
    """Return the `Location` as it was on the wire."""
    return next((value for name, value in response.raw_headers if name.lower() == b"location"), None)


def _drop(response: aiohttp.ClientResponse | None) -> None:
    """Let go of a response; unless it was read to its end, its connection is cut without a farewell.

    Under TLS the farewell waits for the other side's, which a stranger may withhold.
    """
    if response is not None:
        if response.connection is not None and response.connection.transport is not None:
            response.connection.transport.abort()
        response.close()


async def _receive(response: aiohttp.ClientResponse, body: Body, sink: IO[bytes]) -> None:
    """Read the body into `sink`, off the loop where that is a file."""
    in_memory = isinstance(sink, io.BytesIO)
    try:
        async for chunk in response.content.iter_any():
            for piece in (chunk,) if body.is_plain else body.pieces(chunk):
                if in_memory:
                    sink.write(piece)
                else:
                    await asyncio.to_thread(sink.write, piece)
                if body.coding:
                    await asyncio.sleep(0)  # between two milliseconds of inflating
        if not body.is_plain:
            body.finish()
    except CutShortError as error:
        raise aiohttp.ClientPayloadError(str(error)) from error


class AsyncResponse(Awaitable[aiohttp.ClientResponse]):
    """A response to come: `await` it, or enter it with `async with`."""

    def __init__(self, response: Awaitable[aiohttp.ClientResponse]) -> None:
        self._pending = response

    def __await__(self) -> Generator[Any, None, aiohttp.ClientResponse]:
        return self._pending.__await__()

    async def __aenter__(self) -> aiohttp.ClientResponse:
        self._response = await self._pending
        return self._response

    async def __aexit__(self, *_: object) -> None:
        self._response.release()
        await self._response.wait_for_close()
