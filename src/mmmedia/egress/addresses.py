"""Addresses: what each is, by tables, and which of them a host is.

Python's `ipaddress` does not suffice. Its `is_global` says yes to multicast, to addresses that cloud hosts
serve credentials on, and to most ways of writing an IPv4 address inside an IPv6 one.
"""

import enum
import functools
import re
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

Address = IPv4Address | IPv6Address


class Reach(enum.IntEnum):
    """How far an address is out of bounds; the greater, the further."""

    PUBLIC = 0
    """Globally routable."""
    PRIVATE = 1
    """Of this host or network, or routed nowhere: reached unless only public addresses may be."""
    NEVER = 2
    """Not reached, whatever the settings."""


class Judgement(NamedTuple):
    """What an address is: how far out of bounds, and why, in words."""

    reach: Reach
    kind: str


_V4 = tuple[tuple[IPv4Network, Reach, str], ...]
_V6 = tuple[tuple[IPv6Network, Reach, str], ...]

# The first match counts. From the IANA IPv4 Special-Purpose Address Registry (RFC 6890), stricter where that
# has a hole for a protocol (192.0.0.9, 192.0.0.10), and with what the clouds put elsewhere.
_SPECIAL_IPV4: _V4 = tuple(
    (IPv4Network(network), reach, kind)
    for network, reach, kind in (
        ("100.100.100.200/32", Reach.NEVER, "cloud metadata"),  # Alibaba Cloud
        ("168.63.129.16/32", Reach.NEVER, "cloud metadata"),  # Azure's host agent
        ("192.0.0.192/32", Reach.NEVER, "cloud metadata"),  # Oracle Cloud
        ("0.0.0.0/8", Reach.NEVER, "unspecified"),  # RFC 1122, 3.2.1.3; Linux connects 0.0.0.0 to itself
        ("169.254.0.0/16", Reach.NEVER, "link-local"),  # RFC 3927; metadata of most clouds
        ("224.0.0.0/4", Reach.NEVER, "multicast"),  # RFC 5771
        ("255.255.255.255/32", Reach.NEVER, "broadcast"),  # RFC 8190
        ("240.0.0.0/4", Reach.NEVER, "reserved"),  # RFC 1112
        ("10.0.0.0/8", Reach.PRIVATE, "private"),  # RFC 1918
        ("100.64.0.0/10", Reach.PRIVATE, "shared"),  # RFC 6598
        ("127.0.0.0/8", Reach.PRIVATE, "loopback"),  # RFC 1122
        ("172.16.0.0/12", Reach.PRIVATE, "private"),  # RFC 1918
        ("192.0.0.0/24", Reach.PRIVATE, "protocol assignment"),  # RFC 6890
        ("192.0.2.0/24", Reach.PRIVATE, "documentation"),  # RFC 5737
        ("192.88.99.0/24", Reach.PRIVATE, "6to4 relay"),  # RFC 7526, deprecated
        ("192.168.0.0/16", Reach.PRIVATE, "private"),  # RFC 1918
        ("198.18.0.0/15", Reach.PRIVATE, "benchmarking"),  # RFC 2544
        ("198.51.100.0/24", Reach.PRIVATE, "documentation"),  # RFC 5737
        ("203.0.113.0/24", Reach.PRIVATE, "documentation"),  # RFC 5737
        ("0.0.0.0/0", Reach.PUBLIC, "public"),
    )
)

# From the IANA IPv6 Special-Purpose Address Registry and, for the last line, the IPv6 Address Space: what is
# not handed out as global unicast (2000::/3) is reserved. Networks of which it says "by its IPv4" are judged
# by what `embedded_ipv4` finds in them.
_SPECIAL_IPV6: _V6 = tuple(
    (IPv6Network(network), reach, kind)
    for network, reach, kind in (
        ("::/128", Reach.NEVER, "unspecified"),  # RFC 4291
        ("::1/128", Reach.PRIVATE, "loopback"),  # RFC 4291
        ("::/96", Reach.PUBLIC, "by its IPv4"),  # compatible, RFC 4291
        ("::ffff:0:0/96", Reach.PUBLIC, "by its IPv4"),  # mapped, RFC 4291
        ("::ffff:0:0:0/96", Reach.PUBLIC, "by its IPv4"),  # translated, RFC 2765
        ("64:ff9b::/96", Reach.PUBLIC, "by its IPv4"),  # NAT64, RFC 6052
        ("64:ff9b:1::/48", Reach.PRIVATE, "local NAT64"),  # RFC 8215
        ("2001::/32", Reach.PUBLIC, "by its IPv4"),  # Teredo, RFC 4380
        ("2001::/23", Reach.PRIVATE, "protocol assignment"),  # RFC 2928
        ("2001:db8::/32", Reach.PRIVATE, "documentation"),  # RFC 3849
        ("2002::/16", Reach.PUBLIC, "by its IPv4"),  # 6to4, RFC 3056
        ("3fff::/20", Reach.PRIVATE, "documentation"),  # RFC 9637
        ("2000::/3", Reach.PUBLIC, "public"),  # RFC 4291
        ("fd00:ec2::/32", Reach.NEVER, "cloud metadata"),  # AWS: metadata, pod identity, DNS, time
        ("fd20:ce::254/128", Reach.NEVER, "cloud metadata"),  # Google Cloud
        ("fd00:42::42/128", Reach.NEVER, "cloud metadata"),  # Scaleway
        ("fc00::/7", Reach.PRIVATE, "unique local"),  # RFC 4193
        ("fe80::/10", Reach.NEVER, "link-local"),  # RFC 4291
        ("fec0::/10", Reach.PRIVATE, "site-local"),  # RFC 3879, deprecated
        ("ff00::/8", Reach.NEVER, "multicast"),  # RFC 4291
        ("::/0", Reach.NEVER, "reserved"),  # also 100::/64, discard (RFC 6666), and 5f00::/16 (RFC 9602)
    )
)

_INET_ATON = re.compile(r"[0-9a-fx]+(\.[0-9a-fx]+){0,3}", re.ASCII | re.IGNORECASE)
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
_IPV4_AT_THE_END = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
_THIS_NETWORK = IPv4Network("0.0.0.0/8")

# https://fetch.spec.whatwg.org/#port-blocking
BLOCKED_PORTS = frozenset(
    {0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103,
     104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514,
     515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723,
     2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080}
)  # fmt: skip
"""Ports on which browsers speak no HTTP, as what listens there might take it for its own protocol."""


@functools.lru_cache(maxsize=1024)  # asked at each use of a connection
def judge(address: Address) -> Judgement:
    """Say what an address is; one that holds an IPv4 address is as bad as what it reaches.

    >>> judge(ip_address("8.8.8.8")).kind, judge(ip_address("::ffff:169.254.169.254")).kind
    ('public', 'link-local')
    >>> judge(ip_address("2002:7f00:1::")).reach
    <Reach.PRIVATE: 1>
    """
    own = _look_up(address)
    if isinstance(address, IPv4Address):
        return own
    return max([own, *map(_look_up, embedded_ipv4(address))], key=lambda found: found.reach)


def _look_up(address: Address) -> Judgement:
    table: _V4 | _V6 = _SPECIAL_IPV4 if isinstance(address, IPv4Address) else _SPECIAL_IPV6
    return next(Judgement(reach, kind) for network, reach, kind in table if address in network)


def embedded_ipv4(address: IPv6Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that packets to an IPv6 address may end at.

    >>> embedded_ipv4(IPv6Address("64:ff9b::10.0.0.1"))
    [IPv4Address('10.0.0.1')]
    >>> embedded_ipv4(IPv6Address("2606:4700::1111"))
    []
    """
    bits = int(address)
    if bits <= 1:  # the unspecified and the loopback address, which are not compatible ones
        return []
    found = []
    if any(address in network for network in _IPV4_AT_THE_END):
        found.append(IPv4Address(bits & 0xFFFFFFFF))
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)  # its server and its client
    if bits >> 32 & 0xFCFFFFFF == 0x00005EFE:  # ISATAP (RFC 5214) below any prefix
        found.append(IPv4Address(bits & 0xFFFFFFFF))
    if address in _LOCAL_NAT64:
        # RFC 6052, 2.2: where the IPv4 address lies depends on the length of a prefix that only the network
        # knows, and the rest is ignored. It may be any; those that can't be an address are not it.
        octets = address.packed
        layouts = (octets[6:8] + octets[9:11], octets[7:8] + octets[9:12], octets[9:13], octets[12:16])
        candidates = [IPv4Address(layout) for layout in layouts]
        found.extend([each for each in candidates if each not in _THIS_NETWORK] or candidates[-1:])
    return found


def normal_host(host: str) -> str:
    """Return a host as lists of hosts hold it: small letters, no brackets, no final dot.

    >>> normal_host("Example.ORG."), normal_host("[::1]")
    ('example.org', '::1')
    """
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")


@functools.lru_cache(maxsize=1024)
def literal_address(host: str) -> Address | None:
    """Return the address that a host is, in any spelling that a resolver takes without asking anyone.

    >>> literal_address("127.1"), literal_address("0x7f000001"), literal_address("[::1]")
    (IPv4Address('127.0.0.1'), IPv4Address('127.0.0.1'), IPv6Address('::1'))
    >>> literal_address("example.org") is None
    True
    """
    text = normal_host(host)
    try:
        return ip_address(text)
    except ValueError:
        pass
    if not _INET_ATON.fullmatch(text):
        return None
    try:
        return IPv4Address(socket.inet_aton(text))
    except OSError:
        return None
