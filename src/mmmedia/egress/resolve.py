"""Look-ups of names, each made once: what is judged is what is then dialled.

There is no second look-up that DNS rebinding could win.
"""

import asyncio
import socket
from concurrent.futures import TimeoutError as FutureTimeoutError
from ipaddress import IPv4Address, ip_address
from typing import Any, NamedTuple

from mmmedia.egress.addresses import Address, literal_address
from mmmedia.work.executors import ProcessPool

DNS_THREADS = 32
"""Look-ups at a time, in threads of their own: a stranger's slow name server must not hold up other work."""

_pool = ProcessPool("mmmedia-dns", lambda: DNS_THREADS)


class Answer(NamedTuple):
    """One address of a host, and what it takes to dial it."""

    family: int
    proto: int
    sockaddr: tuple[Any, ...]
    address: Address


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


def resolve(host: str, port: int, timeout: float | None = None) -> list[Answer]:
    """Resolve a host, once; one that is an address asks nobody.

    Raises:
        socket.gaierror: (an `OSError`) it has no address.
        TimeoutError: the resolver took longer than `timeout` seconds.
    """
    if literal := _literal_answer(host, port):
        return literal
    pending = _pool.executor().submit(_look_up, host, port)
    try:
        return pending.result(timeout)
    except FutureTimeoutError:
        pending.cancel()
        raise TimeoutError(f"resolving {host!r} took more than {timeout:g} s") from None


async def async_resolve(host: str, port: int) -> list[Answer]:
    """Resolve a host, once; see `resolve`.

    Raises:
        socket.gaierror: (an `OSError`) it has no address.
    """
    if literal := _literal_answer(host, port):
        return literal
    return await asyncio.get_running_loop().run_in_executor(_pool.executor(), _look_up, host, port)
