"""Wall-clock deadlines for blocking HTTP.

requests counts its timeout anew for every packet, so that a server that sends one byte a second is never
late. Under `deadline` the sockets of `TimedAdapter` count what is left of the whole: connecting, the TLS
handshake, headers and body together.
"""

import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import BadStatusLine, HTTPResponse, RemoteDisconnected, parse_headers
from typing import IO, Any, ClassVar, cast

from mmmedia.connections.environment import trust
from mmmedia.egress.addresses import Address
from mmmedia.egress.blocking import (
    JudgedAdapter,
    JudgedHTTPConnection,
    JudgedHTTPPool,
    JudgedHTTPSConnection,
    JudgedHTTPSPool,
    JudgedSSLSocket,
)

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


class _TimedSSL(_Timed, JudgedSSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        if (left := time_left()) is not None:
            self.settimeout(left)
        super().do_handshake(block)


def timed(sock: socket.socket) -> socket.socket:
    """Return the same connection as a socket that obeys the deadline of the thread that uses it."""
    timeout = sock.gettimeout()
    sock = _Timed(sock.family, sock.type, sock.proto, fileno=sock.detach())
    sock.settimeout(timeout)
    return sock


_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3}(?: [^\r\n]*)?\r?\n")
_HEADER_LINE = re.compile(
    rb"(?:content-length:[ \t]*[0-9]+[ \t]*"  # of others a value is anything, and may go on in the next line
    rb"|(?!content-length:)[!#-'*+.^-z|~0-9-]+:[^\0\r\n]*|[ \t][^\0\r\n]*)?\r?\n",
    re.IGNORECASE,
)


class _HeadReader:
    """Reads a head as what it is; http.client takes the first odd line, or a sudden end, for its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._is_first = file, True
        self.close = file.close

    def readline(self, limit: int) -> bytes:
        line = self._file.readline(limit)
        if self._is_first and not line.startswith(b"HTTP/"[: len(line)]):
            raise BadStatusLine(repr(line[:64]))
        if not line.endswith(b"\n") and len(line) < limit:
            raise RemoteDisconnected("Remote end closed connection without a whole response head")
        if len(line) < limit and not (_STATUS_LINE if self._is_first else _HEADER_LINE).fullmatch(line):
            raise BadStatusLine(repr(line[:64]))
        self._is_first = line in (b"\r\n", b"\n")  # an interim response may end here
        return line


class FinalResponse(HTTPResponse):
    """Skips interim responses (1xx), for as long as there is time, and refuses a head that is cut short."""

    def begin(self) -> None:
        """Read the head."""
        file: Any = self.fp
        self.fp = cast("Any", _HeadReader(file))
        try:
            super().begin()
            lengths = self.headers.get_all("Content-Length", [])
            if len(lengths) > 1 or (lengths and "Transfer-Encoding" in self.headers):
                raise BadStatusLine("several lengths")
        finally:
            if self.fp is not None:
                self.fp = file

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]  # typeshed omits it
            if not 100 <= status < 200 or status == 101:
                return version, status, reason
            parse_headers(self.fp)


class _TimedConnection(JudgedHTTPConnection):
    """Dials within what is left of the deadline."""

    response_class = FinalResponse

    def dial(self) -> tuple[socket.socket, Address]:
        if (left := time_left()) is not None:
            self.timeout = left
        sock, address = super().dial()
        return timed(sock), address

    def connect(self) -> None:
        if self.proxy is not None and (left := time_left()) is not None:
            self.timeout = left
        super().connect()
        if type(self.sock) is socket.socket:  # to a proxy
            self.sock = timed(self.sock)


class _TimedTLSConnection(_TimedConnection, JudgedHTTPSConnection):
    ssl_socket = _TimedSSL


class _TimedHTTPPool(JudgedHTTPPool):
    ConnectionCls = _TimedConnection


class _TimedHTTPSPool(JudgedHTTPSPool):
    ConnectionCls = _TimedTLSConnection


class TimedAdapter(JudgedAdapter):
    """What requests sends through, on timed and judged connections, to whom the environment has us trust."""

    pools: ClassVar = {"http": _TimedHTTPPool, "https": _TimedHTTPSPool}

    # As the base class calls them, unless the caller has certificates of its own.
    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:  # noqa: D102
        host, how = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] == "https" and verify is True and not cert:
            how["ssl_context"] = trust(_TimedSSL)
        return host, how

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:  # noqa: D102
        if proxy.startswith("https:") and proxy not in self.proxy_manager:
            kwargs |= {"ssl_context": trust(_TimedSSL), "proxy_ssl_context": trust(_TimedSSL)}
        return super().proxy_manager_for(proxy, **kwargs)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: D102
        if verify is not True or cert:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
