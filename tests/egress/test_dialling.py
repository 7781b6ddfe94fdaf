"""Connections that go only where the policy admits: both halves, against servers that count what arrives."""

import asyncio
import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, ip_address
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import requests.adapters
import urllib3
import urllib3.connection

from mmmedia.connections import HTTPConnection
from mmmedia.egress import (
    EgressPolicy,
    Journey,
    Reach,
    addresses,
    blocking,
    policy as policy_module,
    resolve as resolving,
)
from mmmedia.egress.blocking import JudgedAdapter, connect
from mmmedia.egress.on_loop import JudgedConnector
from mmmedia.egress.resolve import Answer, async_resolve, resolve
from mmmedia.errors import RefusedURLError
from mmmedia.urls import HTTPURL
from support.certificates import self_signed
from support.server import Server, hang_up, in_turn, reply

OPEN = EgressPolicy()
CLOSED = EgressPolicy(block_private=True)
# Journeys to make one after the other over the same client: a policy, and the URLs of its hops.
Script = list[tuple[EgressPolicy, list[str]]]
Run = Callable[..., list[Any]]


A_HOP = HTTPURL("http", "media.example", 80, "/")


@contextlib.contextmanager
def under_way(journey: Journey) -> Iterator[Journey]:
    """Dial by a journey."""
    token = policy_module.journey_under_way.set(journey)
    try:
        yield journey
    finally:
        policy_module.journey_under_way.reset(token)


def run_blocking(script: Script, *, proxy: str | None = None, ca: str | None = None) -> list[Any]:
    results: list[Any] = []
    with requests.Session() as session:
        session.trust_env = False
        for scheme in ("http://", "https://"):
            session.mount(scheme, JudgedAdapter())
        for policy, urls in script:
            with under_way(Journey(policy)) as trip:
                for url in urls:
                    trip.begin_hop(A_HOP)
                    try:
                        proxies = {"http": proxy} if proxy else {}
                        response = session.get(url, timeout=20, proxies=proxies, verify=ca or True)
                        results.append(response.content)
                    except Exception as error:
                        results.append(error)
    return results


def run_async(script: Script, *, proxy: str | None = None, ca: str | None = None) -> list[Any]:
    async def run() -> list[Any]:
        results: list[Any] = []
        context = ssl.create_default_context(cafile=ca)
        async with aiohttp.ClientSession(connector=JudgedConnector(ssl=context)) as session:
            for policy, urls in script:
                with under_way(Journey(policy)) as trip:
                    for url in urls:
                        trip.begin_hop(A_HOP)
                        try:
                            async with session.get(url, proxy=proxy) as response:
                                results.append(await response.read())
                        except Exception as error:
                            results.append(error)
        return results

    return asyncio.run(run())


@pytest.fixture(params=[run_blocking, run_async], ids=["blocking", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param


class DNS:
    """Names and what they resolve to; a list of lists is one answer per look-up."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if isinstance(answers, Exception):
            raise answers
        if isinstance(answers[0], list):
            answers = answers.pop(0)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in answers
        ]


@pytest.fixture
def dns() -> Iterator[DNS]:
    dns = DNS()
    with pytest.MonkeyPatch.context() as patch:  # undone before a server asked for earlier is stopped
        patch.setattr(socket, "getaddrinfo", dns.getaddrinfo)
        yield dns


@pytest.fixture
def public_loopback(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address of this machine that passes for a public one."""
    table = ((IPv4Network("127.0.0.2/32"), Reach.PUBLIC, "public"), *addresses._SPECIAL_IPV4)
    monkeypatch.setattr(addresses, "_SPECIAL_IPV4", table)
    return "127.0.0.2"


@pytest.fixture
def everywhere() -> Iterator[Server]:
    """A server on all of this machine's IPv4 addresses."""

    class Everywhere(Server):
        def __exit__(self, *_: object) -> None:
            self.host = "127.0.0.1"
            super().__exit__()

    with Everywhere("0.0.0.0") as server:
        server.route("/", reply(b"hello"))
        yield server


def refused(result: object) -> bool:
    return isinstance(result, RefusedURLError)


# -- what is dialled ----------------------------------------------------------------------------------


def test_a_judged_address_is_dialled_and_the_host_header_keeps_the_name(
    run: Run, server: Server, dns: DNS
) -> None:
    server.route("/", reply(b"hello"))
    dns.names["media.example"] = ["127.0.0.1"]
    assert run([(OPEN, [f"http://media.example:{server.port}/"])]) == [b"hello"]
    assert dns.asked == ["media.example"]
    assert server.requests[0].headers["Host"] == f"media.example:{server.port}"


@pytest.mark.parametrize(
    "answers",
    [
        ["169.254.169.254"],
        ["127.0.0.1", "169.254.169.254"],
        ["::ffff:169.254.169.254", "127.0.0.1"],
        ["fe80::1"],
        ["127.0.0.1", "0.0.0.0"],
    ],
    ids=" ".join,
)
def test_one_bad_answer_and_nothing_is_dialled(
    run: Run, server: Server, dns: DNS, answers: list[str]
) -> None:
    dns.names["evil.example"] = answers
    [result] = run([(OPEN, [f"http://evil.example:{server.port}/"])])
    assert refused(result)
    assert "'evil.example'" in str(result)
    assert server.connections == 0


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:127.0.0.1]", "LOCALHOST"],
)
def test_no_spelling_of_a_blocked_address_is_dialled(run: Run, server: Server, host: str) -> None:
    [result] = run([(CLOSED, [f"http://{host}:{server.port}/"])])
    # aiohttp refuses by itself what is no canonical address.
    assert refused(result) or isinstance(result, aiohttp.InvalidURL)
    assert server.connections == 0


def test_a_host_that_the_operator_named_may_be_private(run: Run, server: Server, dns: DNS) -> None:
    server.route("/", reply(b"hello"))
    dns.names["media.example"] = dns.names["other.example"] = ["127.0.0.1"]
    policy = EgressPolicy(block_private=True, allowed_hosts=frozenset({"media.example"}))
    script = [(policy, [f"http://{name}.example:{server.port}/" for name in ("media", "other")])]
    first, second = run(script)
    assert first == b"hello"
    assert refused(second)
    assert server.count() == 1


def test_blocked_ports_are_not_dialled(run: Run, dns: DNS) -> None:
    dns.names["mail.example"] = ["127.0.0.1"]
    results = run([(OPEN, ["http://mail.example:25/", "http://127.0.0.1:6000/"])])
    assert all(map(refused, results))
    assert all("blocked, as in browsers" in str(result) for result in results)


def test_the_next_answer_is_tried_when_one_can_not_be_reached(run: Run, server: Server, dns: DNS) -> None:
    server.route("/", reply(b"hello"))
    dns.names["media.example"] = ["127.0.0.9", "127.0.0.1"]  # the server listens on the second only
    assert run([(OPEN, [f"http://media.example:{server.port}/"])]) == [b"hello"]
    assert dns.asked == ["media.example"]


# -- rebinding, redirects, reuse ----------------------------------------------------------------------


def test_rebinding_has_no_second_look_up_to_win(run: Run, server: Server, dns: DNS) -> None:
    """The second answer, which would be bad, is never asked for."""
    server.route("/", reply(b"hello"))
    dns.names["rebind.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    assert run([(OPEN, [f"http://rebind.example:{server.port}/"])]) == [b"hello"]
    assert len(dns.asked) == 1


def test_a_public_address_redirects_to_no_private_one(
    run: Run, everywhere: Server, dns: DNS, public_loopback: str
) -> None:
    dns.names["public.example"] = [public_loopback]
    dns.names["private.example"] = ["127.0.0.1"]
    public, private = (f"http://{name}.example:{everywhere.port}/" for name in ("public", "private"))
    named = EgressPolicy(allowed_hosts=frozenset({"public.example", "private.example"}))
    script = [(OPEN, [public, private]), (OPEN, [private, public, public]), (named, [public, private])]
    results = run(script)
    assert [refused(result) for result in results] == [False, True, False, False, False, False, True]
    assert everywhere.count() == 5
    assert "must not redirect" in str(results[1])


def test_a_kept_alive_connection_is_judged_for_each_journey(
    run: Run, everywhere: Server, dns: DNS, public_loopback: str
) -> None:
    """One made under a lenient policy does not serve under a strict one."""
    dns.names["media.example"] = ["127.0.0.1"]
    url = f"http://media.example:{everywhere.port}/"
    first, again, strict, lenient = run([(OPEN, [url]), (OPEN, [url]), (CLOSED, [url]), (OPEN, [url])])
    assert first == again == lenient == b"hello"
    assert refused(strict)
    assert everywhere.count() == 3
    # The second journey reused the connection of the first.
    assert len(dns.asked) == 3


def test_where_the_name_has_moved_a_connection_no_longer_admitted_is_replaced(
    run: Run, everywhere: Server, dns: DNS, public_loopback: str
) -> None:
    dns.names["media.example"] = [["127.0.0.1"], [public_loopback]]
    url = f"http://media.example:{everywhere.port}/"
    assert run([(OPEN, [url]), (CLOSED, [url])]) == [b"hello", b"hello"]
    assert everywhere.connections == 2


def test_a_redirect_over_a_kept_alive_connection_is_judged(
    run: Run, everywhere: Server, dns: DNS, public_loopback: str
) -> None:
    dns.names["public.example"] = [public_loopback]
    dns.names["private.example"] = ["127.0.0.1"]
    public, private = (f"http://{name}.example:{everywhere.port}/" for name in ("public", "private"))
    results = run([(OPEN, [public]), (OPEN, [private]), (OPEN, [public, private])])
    assert [refused(result) for result in results] == [False, False, False, True]
    assert everywhere.count() == 3


def test_without_a_journey_the_settings_hold(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    monkeypatch.setitem(run.__globals__, "under_way", contextlib.nullcontext)
    [result] = run([(OPEN, [server.url("/")])])
    assert refused(result)
    assert server.connections == 0


# -- DNS ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None,
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure"),
        UnicodeError("label too long"),
        OSError("?"),
    ],
    ids=["NXDOMAIN", "try again", "no name", "broken"],
)
def test_a_name_that_does_not_resolve_fails_as_its_library_does(run: Run, dns: DNS, answer: object) -> None:
    dns.names["gone.example"] = answer
    [result] = run([(OPEN, ["http://gone.example/"])])
    assert isinstance(result, requests.ConnectionError | aiohttp.ClientConnectorError)


def test_a_name_without_an_internet_address_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_UNIX, 1, 0, "", ("/run/x",))])
    with pytest.raises(socket.gaierror, match="has no address"):
        resolve("media.example", 80)


def test_literal_addresses_ask_nobody(dns: DNS) -> None:
    v4 = Answer(socket.AF_INET, socket.IPPROTO_TCP, ("127.0.0.1", 80), ip_address("127.0.0.1"))
    v6 = Answer(socket.AF_INET6, socket.IPPROTO_TCP, ("::1", 80, 0, 0), ip_address("::1"))
    assert resolve("127.1", 80) == [v4]
    assert asyncio.run(async_resolve("::1", 80)) == [v6]
    assert dns.asked == []


def test_a_resolver_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocking look-ups can't be interrupted; the deadline holds all the same."""
    release = threading.Event()

    def slow(*_: object, **__: object) -> list[Any]:
        release.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with requests.Session() as session:
        session.trust_env = False
        session.mount("http://", JudgedAdapter())
        started = time.monotonic()
        with pytest.raises(requests.ConnectTimeout):
            session.get("http://slow.example/", timeout=0.1)
        assert time.monotonic() - started < 15
    release.set()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_resolves_in_threads_of_its_own(dns: DNS) -> None:
    dns.names["media.example"] = ["127.0.0.1"]
    resolve("media.example", 80)
    child = os.fork()
    if child == 0:
        try:
            os._exit(len(resolve("media.example", 80, timeout=20)) - 1)
        finally:
            os._exit(9)
    assert os.waitpid(child, 0)[1] == 0


# -- connecting ---------------------------------------------------------------------------------------


def answer_at(port: int, address: str = "127.0.0.1") -> Answer:
    return Answer(socket.AF_INET, socket.IPPROTO_TCP, (address, port), ip_address(address))


def test_connect_gives_the_last_failure_and_leaks_nothing(server: Server) -> None:
    with pytest.raises(OSError, match="no address"):
        connect([], 1)
    with pytest.raises(ConnectionRefusedError):
        connect([answer_at(server.port, "127.0.0.9"), answer_at(server.port, "127.0.0.8")], 5)
    with pytest.raises(TimeoutError):
        connect([answer_at(server.port)], -1)
    with pytest.raises(TypeError):
        connect([answer_at(server.port)], 5, options=[("no", "option", "at all")])  # type: ignore[list-item]


def test_connect_applies_options_and_source_address(server: Server) -> None:
    option = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock, answer = connect([answer_at(server.port)], None, [option], ("127.0.0.3", 0))
    with sock:
        assert sock.getsockname()[0] == "127.0.0.3"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert answer.address == ip_address("127.0.0.1")


# -- proxies ------------------------------------------------------------------------------------------


def test_the_operator_s_proxy_is_not_judged(run: Run, server: Server, dns: DNS) -> None:
    server.route("http://media.example/", reply(b"by proxy"))
    dns.names["proxy.example"] = ["127.0.0.1"]
    proxy = f"http://proxy.example:{server.port}"
    url = "http://media.example/"
    assert run([(CLOSED, [url]), (CLOSED, [url])], proxy=proxy) == [b"by proxy", b"by proxy"]
    assert set(dns.asked) == {"proxy.example"}


# -- TLS ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for media.example, in one file."""
    return self_signed(tmp_path_factory.mktemp("certificate"), "media.example")


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[tuple[int, list[str | None]]]:
    """The port of a TLS server, and the names that it was asked for by SNI."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            with (
                contextlib.suppress(OSError),
                connection,
                context.wrap_socket(connection, server_side=True) as tls,
            ):
                if tls.recv(65536):
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
            if names[-1:] == ["stop.example"]:
                return

    thread = threading.Thread(target=serve)
    thread.start()
    port = listener.getsockname()[1]
    yield port, names
    trusting = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", port)) as last, contextlib.suppress(OSError):
        trusting.wrap_socket(last, server_hostname="stop.example").close()
    thread.join(20)
    listener.close()


def test_sni_and_certificate_go_by_the_name(
    run: Run, tls_server: tuple[int, list[str | None]], certificate: Path, dns: DNS
) -> None:
    port, names = tls_server
    dns.names["media.example"] = dns.names["other.example"] = ["127.0.0.1"]
    urls = [f"https://media.example:{port}/", f"https://other.example:{port}/"]
    right, wrong = run([(OPEN, urls)], ca=str(certificate))
    assert right == b"hello"
    assert isinstance(wrong, requests.exceptions.SSLError | aiohttp.ClientConnectorCertificateError)
    assert names == ["media.example", "other.example"]


# -- what the clients below do ------------------------------------------------------------------------


def test_a_connection_closed_by_the_server_is_dialled_again(run: Run, server: Server) -> None:
    server.route("/", in_turn(reply(b"first"), hang_up, reply(b"second")))
    results = run([(OPEN, [server.url("/")] * 3)])
    assert results[0] == b"first"
    assert b"second" in results


# Each is a hook that a later version of a library might have no more, or call no more.
CALLED_NO_MORE = [
    (blocking.JudgedHTTPConnection, "connect"),
    (blocking.JudgedHTTPConnection, "request"),
    (blocking.JudgedHTTPConnection, "send"),
    (blocking.JudgedAdapter, "init_poolmanager"),
    (blocking.JudgedHTTPPool, "ConnectionCls"),
    (JudgedConnector, "connect"),
]
MISSING = [
    (urllib3.HTTPConnectionPool, "ConnectionCls"),
    (urllib3.connection.HTTPConnection, "connect"),
    (http.client.HTTPConnection, "send"),
    (requests.adapters.HTTPAdapter, "get_connection_with_tls_context"),
    (aiohttp.BaseConnector, "connect"),
]


def fetch_by(half: str, url: str) -> object:
    """Return what `get_bytes` of one half, on clients of its own, returns or raises."""
    connection = HTTPConnection(reuse_client=False)
    try:
        if half == "blocking":
            return connection.get_bytes(url, timeout=20)
        return asyncio.run(connection.async_get_bytes(url, timeout=20))
    except Exception as error:
        return error


@pytest.fixture
def only_public(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")


@pytest.mark.usefixtures("only_public")
@pytest.mark.parametrize("host", ["127.0.0.1", "inside.example"])
@pytest.mark.parametrize("half", ["blocking", "async"])
@pytest.mark.parametrize("hook", CALLED_NO_MORE, ids=lambda hook: ".".join((hook[0].__name__, hook[1])))
def test_a_hook_that_is_called_no_more_leaves_nothing_unjudged(
    server: Server, dns: DNS, hook: tuple[type, str], half: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns.names["inside.example"] = dns.names["127.0.0.1"] = ["127.0.0.1"]
    monkeypatch.delattr(*hook)
    assert refused(fetch_by(half, f"http://{host}:{server.port}/"))
    assert server.count() == 0


@pytest.mark.usefixtures("only_public")
@pytest.mark.parametrize("half", ["blocking", "async"])
@pytest.mark.parametrize("hook", MISSING, ids=lambda hook: ".".join((hook[0].__name__, hook[1])))
def test_a_version_without_a_hook_is_refused(
    server: Server, dns: DNS, hook: tuple[type, str], half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns.names["inside.example"] = ["127.0.0.1"]
    monkeypatch.delattr(*hook)
    assert refused(fetch_by(half, f"http://inside.example:{server.port}/"))
    assert server.connections == 0


@pytest.mark.usefixtures("only_public")
def test_no_private_method_of_a_library_holds_the_policy(
    server: Server, dns: DNS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are renamed, as in a new version, and still no private address is reached."""
    dns.names["inside.example"] = dns.names["127.0.0.1"] = ["127.0.0.1"]
    new_conn = urllib3.connection.HTTPConnection._new_conn
    monkeypatch.setattr(urllib3.connection.HTTPConnection, "_dial", new_conn, raising=False)
    monkeypatch.delattr(urllib3.connection.HTTPConnection, "_new_conn")

    def connect(self: Any) -> None:
        self.sock = self._dial()

    async def resolve_host(self: Any, host: str, port: int, **_: Any) -> list[dict[str, Any]]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 6, "flags": 0}]

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "connect", connect)
    monkeypatch.setattr(aiohttp.TCPConnector, "_resolve_host", resolve_host)
    for half in ("blocking", "async"):
        for host in ("127.0.0.1", "inside.example"):
            assert refused(fetch_by(half, f"http://{host}:{server.port}/"))
    assert server.connections == 0


@pytest.mark.parametrize("hook", ["connect", "send", "request"])
def test_under_tls_nothing_is_said_to_a_peer_that_was_not_judged(
    tls_server: tuple[int, list[str | None]],
    dns: DNS,
    hook: str,
    only_public: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, names = tls_server
    dns.names["media.example"] = ["127.0.0.1"]
    monkeypatch.delattr(blocking.JudgedHTTPConnection, hook)
    for half in ("blocking", "async"):
        assert refused(fetch_by(half, f"https://media.example:{port}/"))
    assert names == []


def test_cancelling_a_dial_leaves_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def slow(host: str, port: int, *_: object, **__: object) -> list[Any]:
        release.wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def fetch() -> None:
        async with aiohttp.ClientSession(connector=JudgedConnector()) as session:
            task = asyncio.ensure_future(session.get(f"http://slow.example:{server.port}/"))
            await asyncio.sleep(0)
            while not resolving._pool._executor:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    asyncio.run(fetch())
    release.set()
    assert server.connections == 0
