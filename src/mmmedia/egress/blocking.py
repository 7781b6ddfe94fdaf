"""Connections of urllib3, and so of requests, that go only where the egress policy admits.

A host is resolved once, every answer is judged, and a judged address is dialled; Host, SNI and certificate
checks keep the name. All hangs on public methods: `connect` dials, `request` lets go of a kept-alive
connection that is admitted no more, and `send` judges the peer before a byte of a request leaves, whoever
connected. Under TLS the socket judges it before the handshake. Should a later version have one of them no
more, nothing is sent.
"""

import socket
import ssl
import sys
import time
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any, ClassVar

import requests.adapters
import urllib3
import urllib3.connection
import urllib3.util
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs, ssl_wrap_socket

from mmmedia.egress.addresses import Address
from mmmedia.egress.policy import current_journey
from mmmedia.egress.resolve import Answer, resolve
from mmmedia.errors import RefusedURLError


def require_hooks(*hooks: tuple[object, str]) -> None:
    """Check that a library has what addresses are judged by: owners, and names of what is overridden in them.

    Raises:
        RefusedURLError: (a `ValueError`) it has not, so that nothing is to be requested through it.
    """
    for owner, name in hooks:
        if not hasattr(owner, name):
            shown = getattr(owner, "__qualname__", type(owner).__qualname__)
            raise RefusedURLError(
                f"Refused to connect: this version has no {shown}.{name}, by which mmmedia judges addresses.",
                reason="address",
            )


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


def _address_of(sock: socket.socket) -> Address:
    """Return what a socket is connected to, an `OSError` if it is connected to nothing."""
    return ip_address(sock.getpeername()[0])


_to_proxy: ContextVar[bool] = ContextVar("mmmedia_to_proxy", default=False)
"""Whether what is being connected to is a proxy, which is the operator's choice."""


class JudgedSSLSocket(ssl.SSLSocket):
    """Says nothing, not even the name that it wants, to a peer that is not admitted."""

    def do_handshake(self, block: bool = False) -> None:
        """Judge the peer, and shake hands.

        Raises:
            RefusedURLError: (a `ValueError`) it may not be reached.
        """
        if not _to_proxy.get():
            address = _address_of(self)
            current_journey().arrive(str(self.server_hostname or address), address)
        super().do_handshake(block)


class JudgedHTTPConnection(urllib3.connection.HTTPConnection):
    """A connection that dials judged addresses and sends to them only; a proxy is the operator's choice."""

    _dialled: tuple[socket.socket, Address] | None = None
    """The socket that was dialled, and where to."""

    def dial(self) -> tuple[socket.socket, Address]:
        """Look up the host, judge it, and connect; also returns the address.

        Raises:
            RefusedURLError: (a `ValueError`) it may not be reached.
            NewConnectionError: it can't be resolved or reached.
            ConnectTimeoutError: not within `timeout`.
        """
        timeout = self.timeout if isinstance(self.timeout, int | float) else socket.getdefaulttimeout()
        started = time.monotonic()
        try:
            answers = resolve(self.host, self.port, timeout)
            current_journey().check_dial(self.host, self.port, [answer.address for answer in answers])
            left = None if timeout is None else max(timeout - (time.monotonic() - started), 1e-3)
            sock, answer = connect(answers, left, list(self.socket_options or []), self.source_address)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connecting to {self.host} timed out: {error}.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        sock.settimeout(timeout)
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock, answer.address

    def secure(self, sock: socket.socket) -> socket.socket:
        """Return the socket on which HTTP is spoken."""
        return sock

    def connect(self) -> None:
        """Connect, and shake hands where that is to be done; errors as of `dial`."""
        if self.proxy is not None:
            token = _to_proxy.set(True)
            try:
                super().connect()
            finally:
                _to_proxy.reset(token)
            return
        sock, address = self.dial()
        try:
            self.sock = self.secure(sock)
        except BaseException:
            sock.close()
            raise
        self._dialled = self.sock, address

    def _admit(self) -> None:
        """Raise `RefusedURLError` unless what this is connected to may be reached, by the policy of now."""
        if self._dialled is not None and self._dialled[0] is self.sock:
            address = self._dialled[1]
        else:
            address = _address_of(self.sock)
        current_journey().arrive(self.host, address)

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Send a request; over a new connection if the one there is may not be used any more.

        The URL is sent as it was judged: by now urllib3 has rewritten it.
        """
        if self.proxy is None and self.sock is not None:
            try:
                self._admit()
            except (RefusedURLError, OSError):
                self.close()  # it is dialled, and judged, anew
        if (judged := current_journey().url) is not None:
            url = judged.target if url.startswith("/") else str(judged)
        super().request(method, url, *args, **kwargs)

    def send(self, data: Any) -> None:
        """Send bytes, to an admitted peer.

        Raises:
            RefusedURLError: (a `ValueError`) it is none.
        """
        if self.proxy is None:
            if self.sock is None:
                self.connect()
            try:
                self._admit()
            except BaseException:
                self.close()
                raise
        super().send(data)


class JudgedHTTPSConnection(JudgedHTTPConnection, urllib3.connection.HTTPSConnection):
    """The same under TLS."""

    ssl_socket: ClassVar[type[ssl.SSLSocket]] = JudgedSSLSocket
    """What is made of the socket that is dialled, where no TLS context is given."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.ssl_context is None:
            self.ssl_context = create_urllib3_context()
            self.ssl_context.sslsocket_class = self.ssl_socket

    def secure(self, sock: socket.socket) -> socket.socket:
        """Shake hands; the certificate is to be for the host.

        Raises:
            ssl.SSLError: the handshake failed, or the certificate is not good.
        """
        context: Any = self.ssl_context
        mode = resolve_cert_reqs(self.cert_reqs)
        if mode == ssl.CERT_NONE:
            context.check_hostname = False
        context.verify_mode = mode
        secured = ssl_wrap_socket(
            sock,
            keyfile=self.key_file,
            certfile=self.cert_file,
            key_password=self.key_password,
            ca_certs=self.ca_certs,
            ca_cert_dir=self.ca_cert_dir,
            ca_cert_data=self.ca_cert_data,
            server_hostname=self.server_hostname or self.host,
            ssl_context=context,
        )
        self.is_verified = mode == ssl.CERT_REQUIRED
        return secured


class JudgedHTTPPool(urllib3.HTTPConnectionPool):
    """Connections to one host, judged."""

    ConnectionCls = JudgedHTTPConnection


class JudgedHTTPSPool(urllib3.HTTPSConnectionPool):
    """The same under TLS."""

    ConnectionCls = JudgedHTTPSConnection


class JudgedAdapter(requests.adapters.HTTPAdapter):
    """What requests sends through, on judged connections.

    Raises:
        RefusedURLError: (a `ValueError`) when made: these versions have not what addresses are judged by.
    """

    pools: ClassVar[dict[str, type[urllib3.HTTPConnectionPool]]] = {
        "http": JudgedHTTPPool,
        "https": JudgedHTTPSPool,
    }

    def __init__(self, **kwargs: Any) -> None:
        require_hooks(
            *((urllib3.connection.HTTPConnection, name) for name in ("connect", "request", "send")),
            (urllib3.connection.HTTPSConnection, "connect"),
            (urllib3.HTTPConnectionPool, "ConnectionCls"),
            (requests.adapters.HTTPAdapter, "get_connection_with_tls_context"),
        )
        super().__init__(**kwargs)

    # As the base class calls them, with one thing added.
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = self.pools
        return manager

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return the pool for a request.

        Raises:
            RefusedURLError: (a `ValueError`) it is not one of ours.
        """
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        if not isinstance(pool, tuple(self.pools.values())):
            raise RefusedURLError(
                f"Refused to connect: {type(pool).__qualname__} of this version does not judge addresses.",
                reason="address",
            )
        return pool
