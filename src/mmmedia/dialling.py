"""Connections that go only where the egress policy admits.

A host is resolved once, every answer is judged, and a judged address is dialled; Host, SNI and certificate
checks keep the name. There is no second look-up that DNS rebinding could win. A kept-alive connection is
judged again each time it is used, as it may have been made under another policy.

The classes are to be mixed in before those of aiohttp and urllib3, so that this module loads neither.
"""

import asyncio
import functools
import os
import socket
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor, TimeoutError as FutureTimeoutError
from contextvars import ContextVar
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from mmmedia.egress import Address, current_journey, literal_address
from mmmedia.errors import RefusedURLError

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import ResolveResult
    from urllib3.connection import HTTPConnection as _URLLib3Connection
    from urllib3.connectionpool import HTTPConnectionPool as _URLLib3Pool

    _TCPConnector = aiohttp.TCPConnector
else:
    _URLLib3Connection = _URLLib3Pool = _TCPConnector = object

DNS_THREADS = 32
"""Look-ups at a time, in threads of their own: a stranger's slow name server must not hold up other work."""


class Answer(NamedTuple):
    """One address of a host, and what it takes to dial it."""

    family: int
    proto: int
    sockaddr: tuple[Any, ...]
    address: Address


_peer = functools.lru_cache(maxsize=1024)(ip_address)


def _literal_answer(host: str, port: int) -> list[Answer]:
    address = literal_address(host)
    if address is None:
        return []
    if isinstance(address, IPv4Address):
        return [Answer(socket.AF_INET, socket.IPPROTO_TCP, (str(address), port), address)]
    return [Answer(socket.AF_INET6, socket.IPPROTO_TCP, (str(address), port, 0, 0), address)]


def _look_up(host: str, port: int) -> list[Answer]:
    """Ask the system's resolver.

    Raises:
        OSError: the name can't be resolved.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # no name for the DNS
        raise socket.gaierror(socket.EAI_NONAME, f"{host[:64]!r} is no host name: {error}") from None
    answers = [
        Answer(family, proto, sockaddr, ip_address(sockaddr[0]))
        for family, _, proto, _, sockaddr in found
        if family in (socket.AF_INET, socket.AF_INET6)
    ]
    if not answers:
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} has no address")
    return answers


class _Threads:
    """The threads of this process that resolve names; a forked one has none of its parent's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._executor = None

    def executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(DNS_THREADS, "mmmedia-dns")
            return self._executor


_threads = _Threads()


def resolve(host: str, port: int, timeout: float | None = None) -> list[Answer]:
    """Resolve a host, once.

    Raises:
        socket.gaierror: (an `OSError`) it has no address.
        TimeoutError: the resolver took longer than `timeout` seconds.
    """
    if literal := _literal_answer(host, port):
        return literal
    pending = _threads.executor().submit(_look_up, host, port)
    try:
        return pending.result(timeout)
    except FutureTimeoutError:
        pending.cancel()
        raise TimeoutError(f"resolving {host!r} took more than {timeout:g} s") from None


async def async_resolve(host: str, port: int) -> list[Answer]:
    """Resolve a host, once; see `resolve`."""
    if literal := _literal_answer(host, port):
        return literal
    return await asyncio.get_running_loop().run_in_executor(_threads.executor(), _look_up, host, port)


def connect(
    answers: list[Answer],
    timeout: float | None,
    options: list[tuple[int, int, int | bytes]] | None = None,
    source_address: tuple[str, int] | None = None,
) -> tuple[socket.socket, Answer]:
    """Connect to the first answer that can be reached; none is given all of the time while others wait.

    Raises:
        TimeoutError: none answered in time.
        OSError: none could be reached.
    """
    end = None if timeout is None else time.monotonic() + timeout
    failure = OSError("no address to connect to")
    for tried, answer in enumerate(answers):
        sock = socket.socket(answer.family, socket.SOCK_STREAM, answer.proto)
        try:
            for option in options or []:
                sock.setsockopt(*option)
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError("timed out")
                sock.settimeout(left / (len(answers) - tried))
            if source_address is not None:
                sock.bind(source_address)
            sock.connect(answer.sockaddr)
            sock.settimeout(timeout)
        except OSError as error:
            failure = error
            sock.close()
        except BaseException:
            sock.close()
            raise
        else:
            return sock, answer
    raise failure


class JudgedDial(_URLLib3Connection):
    """Mixed into a connection of urllib3: dials judged addresses."""

    def _new_conn(self) -> socket.socket:
        if self.proxy is not None:  # the operator's, and no stranger's choice
            return super()._new_conn()

        from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

        timeout = self.timeout if isinstance(self.timeout, int | float) else socket.getdefaulttimeout()
        started = time.monotonic()
        try:
            journey = current_journey()
            answers = resolve(self.host, self.port, timeout)
            journey.check_dial(self.host, self.port, [answer.address for answer in answers])
            left = None if timeout is None else max(timeout - (time.monotonic() - started), 1e-3)
            options = list(self.socket_options or [])
            sock, answer = connect(answers, left, options, self.source_address)
            journey.arrive(self.host, answer.address)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connecting to {self.host} timed out: {error}.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        sock.settimeout(timeout)
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock


class JudgedPool(_URLLib3Pool):
    """Mixed into a connection pool of urllib3: gives out kept-alive connections that are still admitted."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        if self.proxy is None and connection.sock is not None:
            try:
                current_journey().arrive(self.host, _peer(connection.sock.getpeername()[0]))
            except (RefusedURLError, OSError):
                connection.close()  # it is dialled, and judged, anew
        return connection


_by_proxy: ContextVar[bool] = ContextVar("mmmedia_by_proxy", default=False)


class JudgedConnector(_TCPConnector):
    """Mixed into the TCP connector of aiohttp: dials judged addresses, reuses what is still admitted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admitted: weakref.WeakSet[Any] = weakref.WeakSet()
        """The connections that a request had before."""

    async def connect(
        self,
        req: Any,
        traces: Any,
        timeout: Any,  # noqa: ASYNC109  # the base class's
    ) -> "aiohttp.connector.Connection":
        """Give a connection for a request, kept alive or new."""
        if req.proxy is not None:  # the operator's, and no stranger's choice
            token = _by_proxy.set(True)
            try:
                return await super().connect(req, traces, timeout)
            finally:
                _by_proxy.reset(token)
        host = req.url.raw_host or ""
        journey = current_journey()
        while True:
            connection = await super().connect(req, traces, timeout)
            peer = connection.transport and connection.transport.get_extra_info("peername")
            try:
                journey.arrive(host, _peer(peer[0]) if peer else None)
            except RefusedURLError:
                is_new = connection.protocol not in self._admitted
                connection.close()
                if is_new:
                    raise
            else:
                self._admitted.add(connection.protocol)
                return connection

    async def _resolve_host(
        self,
        host: str,
        port: int,
        traces: Any = None,  # noqa: ARG002  # the base class's
    ) -> "list[ResolveResult]":
        # Here and not in a resolver, which aiohttp does not ask for hosts that look like an address.
        answers = await async_resolve(host, port)
        if not _by_proxy.get():
            current_journey().check_dial(host, port, [answer.address for answer in answers])
        return [
            {
                "hostname": host,
                "host": str(answer.address),
                "port": port,
                "family": answer.family,
                "proto": answer.proto,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for answer in answers
        ]
