"""Which addresses may be reached: `EgressPolicy` says it of one, `Journey` holds one fetch to it, hop by hop.

Judged is always the address that is dialled, never the text of a host: `mmmedia.egress.blocking` and
`mmmedia.egress.on_loop` ask here between the one look-up of a name and the connection.
"""

import logging
from contextvars import ContextVar
from dataclasses import dataclass

from mmmedia import envs
from mmmedia.egress.addresses import BLOCKED_PORTS, Address, Reach, judge, literal_address, normal_host
from mmmedia.errors import RefusedURLError
from mmmedia.urls import HTTPURL, DomainList

logger = logging.getLogger(__name__)

_NO_SETTING = "neither VLLM_MEDIA_EGRESS_BLOCK_PRIVATE nor allowed_media_domains changes this"


@dataclass(frozen=True, slots=True)
class EgressPolicy:
    """Which addresses may be reached.

    Attributes:
        block_private: admit only public ones.
        allowed_hosts: hosts that may be private all the same, as `normal_host` writes them. They are
            those that the operator named: an entry `*.example.org` names none, as strangers may own some.
    """

    block_private: bool = False
    allowed_hosts: frozenset[str] = frozenset()

    @classmethod
    def from_env(cls, domains: DomainList | None = None) -> "EgressPolicy":
        """Return the policy of `VLLM_MEDIA_EGRESS_BLOCK_PRIVATE` now, and of `allowed_media_domains`.

        Raises:
            InvalidSettingError: (a `ValueError`) the setting can't be read.
        """
        return cls(envs.VLLM_MEDIA_EGRESS_BLOCK_PRIVATE, domains.names if domains else frozenset())

    def check_port(self, host: str, port: int) -> None:
        """Raise `RefusedURLError` (a `ValueError`) for a port that no media come from."""
        if port in BLOCKED_PORTS:
            raise RefusedURLError(
                f"Refused to connect to {host!r}: port {port} is blocked, as in browsers; {_NO_SETTING}.",
                reason="port",
            )

    def check(self, host: str, address: Address, *, after_public: bool = False) -> Reach:
        """Return how far off an address is that may be reached.

        Args:
            host: the name that it stands for, or itself.
            address: what would be dialled.
            after_public: a public address redirected here.

        Raises:
            RefusedURLError: (a `ValueError`) it may not be reached. The message names host, address and
                setting.

        >>> from ipaddress import ip_address
        >>> EgressPolicy(block_private=True).check("intranet", ip_address("10.1.2.3"))
        Traceback (most recent call last):
            ...
        mmmedia.errors.RefusedURLError: Refused to connect to 'intranet' at 10.1.2.3 (private): \
VLLM_MEDIA_EGRESS_BLOCK_PRIVATE=1 admits only public addresses, and hosts named in allowed_media_domains.
        """
        reach, kind = judge(address)
        if reach is Reach.NEVER:
            why = f"this is never reached; {_NO_SETTING}"
        elif reach is Reach.PRIVATE and after_public:
            why = f"a public address must not redirect there; {_NO_SETTING}"
        elif reach is Reach.PRIVATE and self.block_private and normal_host(host) not in self.allowed_hosts:
            why = (
                "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE=1 admits only public addresses, and hosts named in "
                "allowed_media_domains"
            )
        else:
            return reach
        raise RefusedURLError(
            f"Refused to connect to {host!r} at {address} ({kind}): {why}.", reason="address"
        )


class Journey:
    """One attempt of a fetch: a chain of hops, each judged with regard to the one before.

    What is dialled in a context in which it is the `journey_under_way` is held to its policy.

    Args:
        policy: what it is held to.

    Attributes:
        url: where the hop under way goes, as it is to be sent; `None` for what was not announced.
    """

    __slots__ = ("_from_public", "_reached", "policy", "url")

    def __init__(self, policy: EgressPolicy) -> None:
        self.policy = policy
        self.url: HTTPURL | None = None
        self._from_public = False
        self._reached: Reach | None = None

    def begin_hop(self, url: HTTPURL, *, by_proxy: bool = False) -> None:
        """Begin the next hop, where what was reached last redirects to.

        What needs no look-up is judged here, whatever dials: the port, and a host that is an address. By a
        proxy a name is not judged, as the proxy resolves it.

        Raises:
            RefusedURLError: (a `ValueError`) the port or the address may not be reached.
        """
        self.url = url
        host = url.host
        self._from_public = self._reached is Reach.PUBLIC
        self._reached = None
        if url.port in BLOCKED_PORTS:
            self.policy.check_port(host, url.port)
        address = literal_address(host)
        if by_proxy:
            if address is None:
                logger.debug(
                    "%r is reached through a proxy, which resolves it: its address is not judged", host
                )
            self.arrive(host, address)
        elif address is not None:
            self.policy.check(host, address, after_public=self._from_public)

    def check_dial(self, host: str, port: int, addresses: list[Address]) -> None:
        """Judge what a host resolved to: one bad answer condemns all, as who gives it means no good.

        Raises:
            RefusedURLError: (a `ValueError`) the port or an address may not be reached.
        """
        self.policy.check_port(host, port)
        for address in addresses:
            self.policy.check(host, address, after_public=self._from_public)

    def arrive(self, host: str, address: Address | None) -> None:
        """Judge, and note, what a connection is connected to: perhaps it was made under another policy.

        Raises:
            RefusedURLError: (a `ValueError`) it may not be used.
        """
        if address is None:  # closed already, or a proxy's to know; what follows is held to the stricter rule
            self._reached = Reach.PUBLIC
        else:
            self._reached = self.policy.check(host, address, after_public=self._from_public)


journey_under_way: ContextVar[Journey | None] = ContextVar("mmmedia_journey", default=None)
"""The journey that a context is on: what sends a request sets it, for as long as that takes."""


def current_journey() -> Journey:
    """Return the journey under way, or one of its own to who dials without: the policy of the settings.

    Raises:
        InvalidSettingError: (a `ValueError`) the setting can't be read.
    """
    return journey_under_way.get() or Journey(EgressPolicy.from_env())
