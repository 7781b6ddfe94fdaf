"""Connections of aiohttp that go only where the egress policy admits.

A host is resolved once, every answer is judged, and a judged address is dialled; Host, SNI and certificate
checks keep the name. All hangs on what aiohttp documents: the resolver judges what a name resolves to, the
maker of sockets judges each address before it is dialled, and `connect` judges the peer of each connection,
also of a kept-alive one, before a request is sent on it. Should a later version have one of them no more,
nothing is sent.
"""

import socket
import weakref
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from mmmedia.egress.addresses import literal_address
from mmmedia.egress.policy import Journey, current_journey, journey_under_way
from mmmedia.egress.resolve import async_resolve
from mmmedia.errors import RefusedURLError

_host: ContextVar[str | None] = ContextVar("mmmedia_host", default="")
"""The host that is being connected to; `None` for a proxy, which is the operator's choice."""


class _RefusedDialError(RefusedURLError, OSError):
    """A refusal that aiohttp reports as it does any address that can't be connected to."""


class _Resolver(AbstractResolver):
    """Asks for names once, and judges all the answers."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # the base class's
    ) -> list[ResolveResult]:
        answers = await async_resolve(host, port)
        if _host.get() is not None:
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

    async def close(self) -> None:
        pass


def _judged_socket(where: tuple[Any, ...]) -> socket.socket:
    """Make the socket for an address, which is judged before."""
    family, kind, proto, _, (address, port, *_) = where
    host = _host.get()
    if host is not None:
        try:
            current_journey().check_dial(host or address, port, [ip_address(address)])
        except RefusedURLError as error:
            raise _RefusedDialError(str(error), reason=error.reason) from None
    return socket.socket(family, kind, proto)


class JudgedConnector(aiohttp.TCPConnector):
    """A connector that dials judged addresses and reuses what is still admitted.

    Raises:
        RefusedURLError: (a `ValueError`) when made: this version has not what addresses are judged by.
    """

    def __init__(self, **kwargs: Any) -> None:
        if not hasattr(aiohttp.TCPConnector, "connect"):
            raise RefusedURLError(
                "Refused to connect: this aiohttp has no TCPConnector.connect, by which mmmedia judges "
                "addresses.",
                reason="address",
            )
        super().__init__(resolver=_Resolver(), use_dns_cache=False, socket_factory=_judged_socket, **kwargs)
        self._admitted: weakref.WeakSet[Any] = weakref.WeakSet()
        """The connections that a request had before."""

    def __del__(self, *_: object) -> None:
        """Say nothing, and leave sockets alone: who keeps it closes it, and a forked child must not."""

    async def connect(
        self,
        req: Any,
        traces: Any,
        timeout: Any,  # noqa: ASYNC109  # the base class's
    ) -> aiohttp.connector.Connection:
        """Give a connection for a request, kept alive or new.

        Raises:
            RefusedURLError: (a `ValueError`) it would lead where the policy does not admit.
            aiohttp.ClientConnectionError: it can't be made.
        """
        journey = journey_under_way.get() or current_journey()
        under_way = journey_under_way.set(journey)
        host = None if req.proxy is not None else req.url.raw_host or ""
        token = _host.set(host)
        try:
            while True:
                connection = await super().connect(req, traces, timeout)
                if host is None or self._is_admitted(connection, host, journey):
                    return connection
        except aiohttp.ClientConnectorError as error:
            refusal = error.os_error
            if isinstance(refusal, _RefusedDialError):
                raise RefusedURLError(str(refusal), reason=refusal.reason) from None
            raise
        finally:
            _host.reset(token)
            journey_under_way.reset(under_way)

    def _is_admitted(self, connection: aiohttp.connector.Connection, host: str, journey: Journey) -> bool:
        """Say whether a connection may be used, after closing one that may not.

        Raises:
            RefusedURLError: (a `ValueError`) it may not, and another would be no better: it is new.
        """
        peer = connection.transport and connection.transport.get_extra_info("peername")
        try:
            journey.arrive(host, literal_address(peer[0]) if peer else None)
        except RefusedURLError:
            is_new = connection.protocol not in self._admitted
            connection.close()
            if is_new:
                raise
            return False
        self._admitted.add(connection.protocol)
        return True
