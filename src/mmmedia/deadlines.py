"""Wall-clock deadlines for blocking HTTP.

requests counts its timeout anew for every packet, so that a server that sends one byte a second is never
late. Under `deadline` the sockets of `TimedAdapter` count what is left of the whole: connecting, the TLS
handshake, headers and body together.
"""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse, RemoteDisconnected, parse_headers
from typing import IO, Any, cast

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.util.ssl_

from mmmedia.dialling import JudgedDial, JudgedPool

MAX_INTERIM_RESPONSES = 16

_local = threading.local()


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Bound all that this thread sends and receives inside the block; `None` leaves the socket's timeout."""
    before = getattr(_local, "end", None)
    _local.end = None if seconds is None else time.monotonic() + seconds
    try:
        yield
    finally:
        _local.end = before


def time_left() -> float | None:
    """Return the seconds left to this thread, `None` outside a deadline.

    Raises:
        TimeoutError: nothing is left.
    """
    end = getattr(_local, "end", None)
    if end is None:
        return None
    left: float = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


class _Timed(socket.socket):
    """Counts down the thread's deadline with every call that may block."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        if (left := time_left()) is not None:
            self.settimeout(left)
        return super().recv_into(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        if (left := time_left()) is not None:
            self.settimeout(left)
        return super().sendall(*args, **kwargs)


class _TimedSSL(_Timed, ssl.SSLSocket):
    pass


def timed(sock: socket.socket) -> socket.socket:
    """Return the same connection as a socket that obeys the deadline of the thread that uses it."""
    timeout = sock.gettimeout()
    sock = _Timed(sock.family, sock.type, sock.proto, fileno=sock.detach())
    sock.settimeout(timeout)
    return sock


def timed_ssl_context() -> ssl.SSLContext:
    """Return a TLS context of urllib3's making whose sockets obey the deadline."""
    context = urllib3.util.ssl_.create_urllib3_context()
    context.sslsocket_class = _TimedSSL
    return context


class _HeadReader:
    """Reads lines, and an end in the middle of the head as what it is: http.client takes it for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        if not line.endswith(b"\n") and len(line) < limit:
            raise RemoteDisconnected("Remote end closed connection without a whole response head")
        return line


class FinalResponse(HTTPResponse):
    """Skips interim responses (1xx), up to a number, and refuses a head that is cut short."""

    def begin(self) -> None:
        """Read the head."""
        file: Any = self.fp
        self.fp = cast("Any", _HeadReader(file))
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = file

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MAX_INTERIM_RESPONSES):
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed omits it
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            parse_headers(self.fp)
        raise HTTPException(f"more than {MAX_INTERIM_RESPONSES} interim responses")


class _TimedDial(JudgedDial):
    """Dials within what is left of the deadline, to where the egress policy admits."""

    def _new_conn(self) -> socket.socket:
        if (left := time_left()) is not None:
            self.timeout = left
        return timed(super()._new_conn())


class TimedHTTPConnection(_TimedDial, urllib3.connection.HTTPConnection):
    """One connection, timed and judged."""

    response_class = FinalResponse


class TimedHTTPSConnection(_TimedDial, urllib3.connection.HTTPSConnection):
    """One connection under TLS, timed and judged."""

    response_class = FinalResponse

    def connect(self) -> None:
        """Connect, with sockets that are timed also above TLS."""
        if self.ssl_context is None:
            self.ssl_context = timed_ssl_context()
        super().connect()


class _TimedHTTPPool(JudgedPool, urllib3.HTTPConnectionPool):
    ConnectionCls = TimedHTTPConnection


class _TimedHTTPSPool(JudgedPool, urllib3.HTTPSConnectionPool):
    ConnectionCls = TimedHTTPSConnection


_POOLS = {"http": _TimedHTTPPool, "https": _TimedHTTPSPool}


class TimedAdapter(requests.adapters.HTTPAdapter):
    """What requests sends through, on timed and judged connections."""

    # Both as the base class calls them, with one thing added.
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
