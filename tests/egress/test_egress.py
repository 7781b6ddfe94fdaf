"""Which addresses may be reached: every kind that strangers send, and every way of hiding one."""

import ipaddress
import logging
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given, strategies as st

from mmmedia.egress import (
    BLOCKED_PORTS,
    EgressPolicy,
    Journey,
    Reach,
    current_journey,
    embedded_ipv4,
    judge,
    literal_address,
)
from mmmedia.egress.policy import journey_under_way
from mmmedia.errors import RefusedURLError
from mmmedia.urls import HTTPURL, domain_list

PUBLIC, PRIVATE, NEVER = Reach

ADDRESSES = {
    PUBLIC: """
        1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
        168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
        192.0.1.0 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
        198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
        2001:200:: 2001:4860:4860::8888 2001:db7:: 2001:db9:: 2606:4700:4700::1111 2a00:1450:4001::1
        3ffe:ffff:: 3fff:1000::
        ::8.8.8.8 ::ffff:8.8.8.8 ::ffff:808:808 ::ffff:0:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::
        2001:0:4136:e378:8000:63bf:f7f7:f7f7 2606:4700::5efe:8.8.8.8 2606:4700::200:5efe:808:808
    """,
    PRIVATE: """
        10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.0 127.0.0.1 127.255.255.255 172.16.0.0
        172.31.255.255 192.0.0.0 192.0.0.8 192.0.0.9 192.0.0.10 192.0.0.170 192.0.2.0 192.0.2.255 192.88.99.1
        192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.1 203.0.113.255
        ::1 fc00:: fd12:3456:789a::1 fdff::1 fec0::1 feff::1 2001:db8::1 3fff::1 3fff:fff::1 2001:2::1
        2001:10::1 2001:1ff:ffff::1 64:ff9b:1::8.8.8.8
        ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.1.2.3 ::ffff:0:127.0.0.1
        64:ff9b::127.0.0.1 64:ff9b::c0a8:1 64:ff9b:1::127.0.0.1 2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1
        2001:0:4136:e378:8000:63bf:80ff:fffe 2001:0:a00:1:8000:63bf:f7f7:f7f7
        2606:4700::5efe:127.0.0.1 2606:4700::200:5efe:a00:1 fd00::5efe:8.8.8.8
    """,
    NEVER: """
        0.0.0.0 0.1.2.3 0.255.255.255 100.100.100.200 168.63.129.16 169.254.0.0 169.254.169.254 169.254.170.2
        169.254.255.255 192.0.0.192 224.0.0.0 224.0.0.1 239.255.255.255 240.0.0.0 255.255.255.254
        255.255.255.255
        :: fe80:: fe80::1 febf:ffff::1 fe80::1%eth0 fe80::a9fe:a9fe fd00:ec2::254 fd00:ec2::23 fd20:ce::254
        fd00:42::42 ff00:: ff02::1 ff0e::1 100::1 100::ffff 200::1 5f00::1 4000:: e000:: fe00::1 1::1
        64:ff9b:1::
        ::169.254.169.254 ::0.0.0.2 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe ::ffff:0.0.0.0 ::ffff:0:a9fe:a9fe
        ::ffff:255.255.255.255 64:ff9b::169.254.169.254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::
        2001:0:4136:e378:8000:63bf:5601:5601 2606:4700::5efe:169.254.169.254 fe80::5efe:8.8.8.8
        64:ff9b:1::169.254.169.254 64:ff9b:1:a9fe:a9:fe00:: 64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:0:a9:fea9:fe00:0
        64:ff9b:1:a9fe:a9:fe00:0:1 ::ffff:168.63.129.16 ::ffff:100.100.100.200
    """,
}


@pytest.mark.parametrize(
    ("text", "reach"), [(text, reach) for reach, texts in ADDRESSES.items() for text in texts.split()]
)
def test_an_address_is_what_it_reaches(text: str, reach: Reach) -> None:
    assert judge(ip_address(text)).reach is reach


WELL_KNOWN_PORTS = {
    True: (0, 22, 25, 110, 143, 465, 587, 2049, 4190, 6000, 6667, 6697, 10080),
    False: (80, 443, 3000, 5432, 8000, 8080, 49152),  # databases are not on the list of the browsers
}


@pytest.mark.parametrize(
    ("port", "blocked"), [(port, blocked) for blocked, ports in WELL_KNOWN_PORTS.items() for port in ports]
)
def test_ports_that_browsers_block_are_blocked(port: int, blocked: bool) -> None:
    policy = EgressPolicy(allowed_hosts=frozenset({"mail.example"}))
    if blocked:
        with pytest.raises(RefusedURLError, match=f"'mail.example': port {port} is blocked"):
            policy.check_port("mail.example", port)
    else:
        policy.check_port("mail.example", port)


def test_the_list_of_blocked_ports_does_not_change_by_accident() -> None:
    assert (len(BLOCKED_PORTS), sum(BLOCKED_PORTS)) == (83, 115_595)


# -- properties ---------------------------------------------------------------------------------------

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(0, 2**128 - 1).map(IPv6Address)


@given(V4 | V6 | st.integers(0x20010000 << 96, 0x20020000 << 96).map(IPv6Address))
def test_what_python_calls_private_is_never_public_here(address: IPv4Address | IPv6Address) -> None:
    """`ipaddress` misses much, but what it finds we find: an IPv4 inside an IPv6 aside."""
    bad = not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local
    if bad and not (isinstance(address, IPv6Address) and embedded_ipv4(address)):
        assert judge(address).reach is not PUBLIC


@given(V4 | V6)
def test_what_python_calls_link_local_multicast_or_reserved_is_never_reached(
    address: IPv4Address | IPv6Address,
) -> None:
    bad = address.is_link_local or address.is_multicast or address.is_reserved or address.is_unspecified
    if bad and not address.is_loopback:  # it counts ::1 as reserved
        embedded = isinstance(address, IPv6Address) and embedded_ipv4(address)
        assert judge(address).reach is NEVER or embedded


def rfc6052(prefix: str, length: int, address: IPv4Address, suffix: int = 0) -> IPv6Address:
    """Embed as RFC 6052, 2.2 draws it: around bits 64 to 71, which are zero."""
    octets = bytearray(IPv6Address(prefix).packed)
    place = length // 8
    for octet in address.packed:
        place += place == 8
        octets[place] = octet
        place += 1
    if length < 96:
        octets[place:] = suffix.to_bytes(16 - place, "big")
    return IPv6Address(bytes(octets))


EMBEDDINGS = {
    "compatible": lambda v4: IPv6Address(int(v4)),
    "mapped": lambda v4: IPv6Address(0xFFFF << 32 | int(v4)),
    "translated": lambda v4: IPv6Address(0xFFFF << 48 | int(v4)),
    "nat64": lambda v4: rfc6052("64:ff9b::", 96, v4),
    "nat64 local /48": lambda v4: rfc6052("64:ff9b:1::", 48, v4),
    "nat64 local /56": lambda v4: rfc6052("64:ff9b:1:ab00::", 56, v4),
    "nat64 local /64": lambda v4: rfc6052("64:ff9b:1:abcd::", 64, v4),
    "nat64 local /96": lambda v4: rfc6052("64:ff9b:1:abcd:0:1234::", 96, v4),
    "nat64 local with a suffix": lambda v4: rfc6052("64:ff9b:1::", 48, v4, suffix=12345),
    "6to4": lambda v4: IPv6Address(0x2002 << 112 | int(v4) << 80 | 1),
    "teredo": lambda v4: IPv6Address((0x20010000 << 96) | 0x08080808 << 64 | (int(v4) ^ 0xFFFFFFFF)),
    "isatap": lambda v4: IPv6Address((0x26064700 << 96) | 0x5EFE << 32 | int(v4)),
    "isatap, universal": lambda v4: IPv6Address((0x26064700 << 96) | 0x02005EFE << 32 | int(v4)),
}


@pytest.mark.parametrize("form", EMBEDDINGS)
@given(v4=V4 | st.sampled_from([ip_address(text) for text in ADDRESSES[NEVER].split() if ":" not in text]))
def test_an_ipv4_is_no_better_for_being_wrapped(form: str, v4: IPv4Address) -> None:
    if int(v4) > 1:  # :: and ::1 are not compatible addresses
        wrapped = EMBEDDINGS[form](v4)
        if v4 not in ipaddress.ip_network("0.0.0.0/8") or "local" not in form:
            assert v4 in embedded_ipv4(wrapped)
            assert judge(wrapped).reach >= judge(v4).reach


@given(V4)
def test_forms_that_are_nothing_but_an_ipv4_are_just_as_good(v4: IPv4Address) -> None:
    for form in ("mapped", "translated", "nat64", "6to4", "teredo", "isatap"):
        assert judge(EMBEDDINGS[form](v4)).reach is judge(v4).reach


# -- spellings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.000.000.001", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("::FFFF:7f00:1", "::ffff:127.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("example.org", None),
        ("beef", None),
        ("1.2.3.4.5", None),
        ("1.2.3.4 x", None),
        ("256.256.256.256", None),
        ("", None),
    ],
)
def test_an_address_is_read_in_every_spelling_that_resolvers_take(host: str, address: str | None) -> None:
    assert literal_address(host) == (None if address is None else ip_address(address))


# -- the policy ---------------------------------------------------------------------------------------


def check(text: str, *, block_private: bool, named: bool, after_public: bool = False) -> bool:
    policy = EgressPolicy(block_private, frozenset({"host.example"} if named else ()))
    try:
        policy.check("Host.Example.", ip_address(text), after_public=after_public)
    except RefusedURLError:
        return False
    return True


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("block_private", [False, True])
def test_settings_decide_about_private_addresses_only(block_private: bool, named: bool) -> None:
    answers = {
        reach: {check(text, block_private=block_private, named=named) for text in texts.split()}
        for reach, texts in ADDRESSES.items()
    }
    assert answers == {PUBLIC: {True}, PRIVATE: {named or not block_private}, NEVER: {False}}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("block_private", [False, True])
def test_a_public_address_redirects_to_public_ones_only(block_private: bool, named: bool) -> None:
    def redirected(text: str) -> bool:
        return check(text, block_private=block_private, named=named, after_public=True)

    assert redirected("9.9.9.9")
    assert not redirected("10.0.0.1")
    assert not redirected("169.254.169.254")


def test_the_policy_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    domains = domain_list(["Media.Example", "[::1]", "*.cdn.example"])
    assert EgressPolicy.from_env() == EgressPolicy()
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    policy = EgressPolicy.from_env(domains)
    assert policy == EgressPolicy(True, frozenset({"media.example", "::1"}))
    assert policy.check("media.example", ip_address("10.0.0.1")) is PRIVATE
    assert policy.check("[::1]", ip_address("::1")) is PRIVATE
    with pytest.raises(RefusedURLError):  # of a wildcard strangers may own names
        policy.check("evil.cdn.example", ip_address("10.0.0.1"))


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254"])
def test_a_refusal_names_host_address_and_setting(address: str) -> None:
    with pytest.raises(ValueError, match="VLLM_MEDIA_EGRESS_BLOCK_PRIVATE") as refusal:
        EgressPolicy(block_private=True).check("host.example", ip_address(address))
    assert "'host.example'" in str(refusal.value)
    assert address in str(refusal.value)


# -- journeys -----------------------------------------------------------------------------------------


def test_each_hop_is_judged_with_regard_to_the_one_before() -> None:
    trip = Journey(EgressPolicy())
    for text in ("10.0.0.1", "127.0.0.1", "8.8.8.8", "1.1.1.1"):
        trip.begin_hop(HTTPURL("http", "a.example", 80, "/"))
        trip.check_dial("a.example", 80, [ip_address(text)])
        trip.arrive("a.example", ip_address(text))
    trip.begin_hop(HTTPURL("http", "a.example", 80, "/"))
    with pytest.raises(RefusedURLError, match="must not redirect"):
        trip.check_dial("b.example", 80, [ip_address("10.0.0.1")])
    with pytest.raises(RefusedURLError, match="must not redirect"):
        trip.arrive("b.example", ip_address("10.0.0.1"))


def test_a_second_dial_for_the_same_hop_is_no_redirect() -> None:
    """The client below may dial again after a kept-alive connection turned out to be closed."""
    trip = Journey(EgressPolicy())
    trip.begin_hop(HTTPURL("http", "a.example", 80, "/"))
    trip.arrive("a.example", ip_address("8.8.8.8"))
    trip.check_dial("a.example", 80, [ip_address("10.0.0.1")])


def test_what_closed_before_it_was_looked_at_counts_as_public() -> None:
    trip = Journey(EgressPolicy())
    trip.arrive("a.example", None)
    trip.begin_hop(HTTPURL("http", "a.example", 80, "/"))
    with pytest.raises(RefusedURLError):
        trip.check_dial("b.example", 80, [ip_address("10.0.0.1")])


def test_one_bad_answer_condemns_all() -> None:
    trip = Journey(EgressPolicy())
    with pytest.raises(RefusedURLError, match=r"169\.254\.169\.254"):
        trip.check_dial("a.example", 80, [ip_address("8.8.8.8"), ip_address("169.254.169.254")])
    with pytest.raises(RefusedURLError, match="port 25"):
        trip.check_dial("a.example", 25, [ip_address("8.8.8.8")])


def test_through_a_proxy_literal_addresses_are_judged_and_names_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    trip = Journey(EgressPolicy())
    for host in ("169.254.169.254", "0xa9fea9fe", "[fe80::1]"):
        with pytest.raises(RefusedURLError):
            trip.begin_hop(HTTPURL("http", host, 80, "/"), by_proxy=True)
    with pytest.raises(RefusedURLError):
        trip.begin_hop(HTTPURL("http", "a.example", 25, "/"), by_proxy=True)
    assert not caplog.records
    trip.begin_hop(HTTPURL("http", "a.example", 80, "/"), by_proxy=True)
    assert "'a.example' is reached through a proxy" in caplog.text
    with pytest.raises(RefusedURLError):  # it may have been public
        trip.begin_hop(HTTPURL("http", "10.0.0.1", 80, "/"), by_proxy=True)


def test_who_dials_without_a_journey_is_held_to_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    assert current_journey().policy == EgressPolicy(block_private=True)
    outer = Journey(EgressPolicy())
    token = journey_under_way.set(outer)
    assert current_journey() is outer
    journey_under_way.reset(token)
    assert current_journey() is not outer
