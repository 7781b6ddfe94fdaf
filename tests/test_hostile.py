"""What strangers send, kind by kind: URLs, addresses, DNS answers, redirects, servers; in both halves.

Each case says what must come of it. A server counts what arrives, so that "refused" means that nobody was
asked.
"""

import asyncio
import contextlib
import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from mmmedia import connections
from mmmedia.egress import Reach, addresses
from mmmedia.errors import InvalidMediaError, LimitExceededError, RefusedURLError
from mmmedia.media.connector import MediaConnector
from support.plain import Plain
from support.server import (
    Behaviour,
    Server,
    chunked,
    cut,
    drip,
    drip_head,
    endless,
    hang_up,
    head,
    interim,
    raw,
    redirect,
    reply,
    stall,
    stall_in_body,
)

BODY = b"content" * 100


def _words(text: str) -> list[str]:
    return text.split()


def _sync(connector: MediaConnector, url: str, **kwargs: Any) -> bytes:
    return connector.load_from_url(url, Plain(), **kwargs)


def _async(connector: MediaConnector, url: str, **kwargs: Any) -> bytes:
    return asyncio.run(connector.load_from_url_async(url, Plain(), **kwargs))


Load = Callable[..., bytes]


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Iterator[Load]:
    """`load_from_url`, in one half and in the other, over connections that nobody used before."""
    yield request.param
    connections.global_http_connection.get_sync_client().close()


class Names:
    """A name server: what each name resolves to, one answer list per question, the last for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._lock = threading.Lock()

    def __setitem__(self, name: str, answers: list[str] | list[list[str]]) -> None:
        self.answers[name] = [answers] if all(isinstance(answer, str) for answer in answers) else answers  # type: ignore[list-item, assignment]

    def getaddrinfo(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            self.asked.append(host)
            lists = self.answers.get(host) or ([[host]] if host[:1].isdigit() else None)
            if not lists:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        found = []
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            bare, _, zone = address.partition("%")
            scope = int(zone) if zone else 0
            sockaddr = (bare, port, 0, scope) if family == socket.AF_INET6 else (bare, port)
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", sockaddr))
        return found


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    waited: list[float] = []
    sleep = asyncio.sleep

    async def hurry(seconds: float, result: Any = None) -> None:
        if seconds:
            waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(time, "sleep", waited.append)
    monkeypatch.setattr(asyncio, "sleep", hurry)
    return waited


# Addresses.

NEVER = _words("""
169.254.169.254 169.254.0.1 169.254.255.255 100.100.100.200 168.63.129.16 192.0.0.192 0.0.0.0 0.1.2.3
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 [::] [fe80::1] [febf::1] [ff02::1] [ff0e::1]
[fd00:ec2::254] [100::1] [5f00::1] [::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [::169.254.169.254]
[::ffff:0:169.254.169.254] [64:ff9b::169.254.169.254] [64:ff9b::a9fe:a9fe] [2002:a9fe:a9fe::]
[2001:0:a9fe:a9fe::1] [2001:db8::5efe:169.254.169.254] [::ffff:224.0.0.1] 2852039166 0xa9fea9fe
0251.0376.0251.0376 169.16689662 0 0x0
""")

PRIVATE = _words("""
127.0.0.1 127.255.255.254 127.1 2130706433 0x7f000001 0177.0.0.1 0x7f.1 127.000.000.001 10.0.0.1
10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 100.64.0.1 100.127.255.255 192.0.0.8
192.0.2.1 198.51.100.1 203.0.113.1 198.18.0.1 198.19.255.255 192.88.99.1 [::1] [::ffff:127.0.0.1]
[::ffff:7f00:1] [::127.0.0.1] [::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b:1::7f00:1] [2002:7f00:1::]
[2001:0:7f00:1::1] [2606:4700::5efe:127.0.0.1] [fc00::1] [fd12:3456::1] [fec0::1] [2001:db8::1] [3fff::1]
""")


@pytest.mark.parametrize("host", NEVER)
def test_addresses_that_are_never_reached(load: Load, host: str) -> None:
    with pytest.raises(RefusedURLError, match="Refused to connect"):
        load(MediaConnector(), f"http://{host}/latest/meta-data/", fetch_timeout=2)


@pytest.mark.parametrize("host", PRIVATE)
def test_addresses_that_are_reached_only_where_private_ones_may_be(
    load: Load, server: Server, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    with pytest.raises(RefusedURLError, match="VLLM_MEDIA_EGRESS_BLOCK_PRIVATE"):
        load(MediaConnector(), f"http://{host}:{server.port}/a", fetch_timeout=2)
    assert server.connections == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]"]
)
def test_this_machine_is_reached_unless_that_is_blocked(load: Load, server: Server, host: str) -> None:
    server.route("/a", reply(BODY))
    assert load(MediaConnector(), f"http://{host}:{server.port}/a") == BODY


@pytest.mark.parametrize("port", [1, 7, 22, 25, 53, 110, 143, 389, 465, 587, 993, 2049, 6000, 6667, 10080])
def test_ports_that_browsers_block(load: Load, port: int) -> None:
    with pytest.raises(RefusedURLError, match=f"port {port} is blocked"):
        load(MediaConnector(), f"http://127.0.0.1:{port}/", fetch_timeout=2)


# DNS answers.


@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], ["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["8.8.8.8", "::1"], ["::ffff:10.0.0.1"],
     ["169.254.169.254"], ["fe80::1%1"], ["64:ff9b::10.0.0.1"], ["224.0.0.1"], ["8.8.8.8", "0.0.0.0"]],
)  # fmt: skip
def test_one_bad_answer_condemns_a_name(
    load: Load, server: Server, names: Names, answers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    names["evil.example"] = answers
    with pytest.raises(RefusedURLError, match=r"'evil\.example'"):
        load(MediaConnector(), f"http://evil.example:{server.port}/a", fetch_timeout=2)
    assert server.connections == 0
    assert names.asked == ["evil.example"]


@pytest.mark.parametrize(
    "answer", ["169.254.169.254", "fd00:ec2::254", "0.0.0.0", "ff02::1", "168.63.129.16"]
)
def test_names_of_metadata_servers_are_refused_whatever_the_settings(
    load: Load, names: Names, answer: str
) -> None:
    names["metadata.example"] = [answer]
    connector = MediaConnector(allowed_media_domains=["metadata.example"])
    with pytest.raises(RefusedURLError, match="never reached"):
        load(connector, "http://metadata.example/", fetch_timeout=2)


def test_a_second_lookup_that_would_answer_otherwise_never_comes(
    load: Load, server: Server, names: Names
) -> None:
    server.route("/a", reply(BODY))
    names["rebind.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    assert load(MediaConnector(), f"http://rebind.example:{server.port}/a") == BODY
    assert names.asked == ["rebind.example"]


@pytest.mark.usefixtures("waits")
def test_a_name_that_turns_bad_between_attempts_is_refused(load: Load, server: Server, names: Names) -> None:
    server.route("/a", cut(BODY, 10))
    names["rebind.example"] = [["127.0.0.1"], ["169.254.169.254"]]
    with pytest.raises(RefusedURLError, match=r"169\.254"):
        load(MediaConnector(), f"http://rebind.example:{server.port}/a")
    assert server.count() == 1


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "a.b.LocalHost."])
def test_names_of_this_machine_are_judged_by_what_they_resolve_to(
    load: Load, server: Server, names: Names, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    names[name.lower().rstrip(".")] = ["127.0.0.1"]
    with pytest.raises(RefusedURLError, match="loopback"):
        load(MediaConnector(), f"http://{name}:{server.port}/a", fetch_timeout=2)
    assert server.connections == 0


@pytest.mark.usefixtures("waits")
def test_names_that_do_not_resolve_are_connection_errors(load: Load, names: Names) -> None:
    with pytest.raises((requests.ConnectionError, aiohttp.ClientConnectorError)):
        load(MediaConnector(), "http://nobody.example/", fetch_timeout=2)


def test_a_host_that_the_operator_named_may_be_private_and_others_not(
    load: Load, server: Server, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    names["files.example"] = names["evil.files.example"] = ["127.0.0.1"]
    connector = MediaConnector(allowed_media_domains=["files.example", "*.files.example"])
    server.route("/a", reply(BODY))
    assert load(connector, f"http://Files.Example.:{server.port}/a") == BODY
    with pytest.raises(RefusedURLError, match="only public"):
        load(connector, f"http://evil.files.example:{server.port}/a")


def test_a_kept_connection_is_judged_by_the_policy_of_now(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.route("/a", reply(BODY))
    assert _sync(MediaConnector(), url) == BODY
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    with pytest.raises(RefusedURLError):
        _sync(MediaConnector(), url)

    async def main() -> None:
        monkeypatch.delenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE")
        assert await MediaConnector().load_from_url_async(url, Plain()) == BODY
        monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
        with pytest.raises(RefusedURLError):
            await MediaConnector().load_from_url_async(url, Plain())

    asyncio.run(main())
    assert server.count() == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "files.example"])
def test_cached_bytes_of_a_host_that_is_blocked_by_now_are_not_served(
    load: Load, server: Server, names: Names, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    names["files.example"] = ["127.0.0.1"]
    url = server.route("/a", reply(BODY)).replace("127.0.0.1", host)
    assert load(MediaConnector(), url) == BODY
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    with pytest.raises(RefusedURLError, match="loopback"):
        load(MediaConnector(), url)
    assert load(MediaConnector(allowed_media_domains=[host]), url) == BODY
    assert server.count() == 1
    if host == "files.example":  # nobody knows where it is: not from the cache either
        names.answers.clear()
        monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
        with pytest.raises((requests.ConnectionError, aiohttp.ClientConnectorError)):
            load(MediaConnector(), url)


# URLs. In each, PORT is that of a server that nobody may reach.

REFUSED_URLS = _words("""
http:///h http:h http:// http://@/ http://:PORT/ http://127.0.0.1:0/ http://127.0.0.1:65536/
http://127.0.0.1:/ http://127.0.0.1:PORT:80/ http://127.0.0.1:-1/ http://127.0.0.1:1e3/
http://127%2e0.0.1:PORT/ http://127.0.0.1%00:PORT/ http://127.0.0.1%23@evil%00/
http://localhost%00.good.example:PORT/ http://①②⑦.⓪.⓪.①:PORT/ http://１２７.0.0.1:PORT/ http://127。0。0。1:PORT/
http://[::ffff:127.0.0.1:PORT/ http://[::1%25lo]:PORT/ http://[::1%lo]:PORT/ http://256.0.0.1:PORT/
http://1.2.3.4.5:PORT/ http://0x7g.1:PORT/ http://a..b:PORT/ http://.:PORT/ http://*:PORT/ http://a<b>:PORT/
http+unix://127.0.0.1:PORT/ jar:http://127.0.0.1:PORT/!a gopher://127.0.0.1:PORT/ ftp://127.0.0.1:PORT/a
dict://127.0.0.1:PORT/ ws://127.0.0.1:PORT/ //127.0.0.1:PORT/ 127.0.0.1:PORT/a httpx://127.0.0.1:PORT/
view-source:http://127.0.0.1:PORT/ about:blank blob:http://127.0.0.1:PORT/ javascript:alert(1)
s3://bucket/key
""")  # noqa: RUF001


@pytest.mark.parametrize(
    "url",
    [*REFUSED_URLS, " http://127.0.0.1:PORT/", "\thttp://127.0.0.1:PORT/", "http://127.0.0.1:PORT/a\r\nX: y",
     "http://127.0.0.1:PORT/\n", "http://127.0.0.1\t:PORT/", "http://127.0.0.1:PORT/\0", "ht\ntp://127.0.0.1:PORT/",
     "http://127.0.0.1:PORT/" + "a" * 65536, "http://" + "a" * 70_000 + ".example/", "http://127.0.0.1:PORT/\ud800"],
)  # fmt: skip
def test_urls_that_are_refused_before_anybody_is_asked(load: Load, server: Server, url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|Refused") as caught:
        load(MediaConnector(), url.replace("PORT", str(server.port)), fetch_timeout=2)
    assert len(str(caught.value)) < 600
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    ["http://good.example@127.0.0.1:PORT/", "http://good.example:80@127.0.0.1:PORT/", "http://127.0.0.1:PORT\\@good.example/",
     "http://127.0.0.1:PORT#@good.example/", "http://127.0.0.1:PORT?@good.example/", "http://127.0.0.1:PORT/@good.example",
     "http://good.example.127.0.0.1.nip.example:PORT/", "http://127.0.0.1.good.example.evil.example:PORT/",
     "http://xgood.example:PORT/", "http://good.example.evil.example:PORT/", "http://g%6fod.example:PORT/",
     "http://gооd.example:PORT/", "http://good.example。evil.example:PORT/", "http://good.exampl:PORT/",  # noqa: RUF001
     "http://sub.good.example:PORT/", "http://good-example:PORT/", "http://good.example\\.evil.example:PORT/",
     "http://127.1:PORT/", "http://[::ffff:127.0.0.1]:PORT/"],
)  # fmt: skip
@pytest.mark.usefixtures("waits")
def test_the_domain_list_is_not_talked_round(load: Load, server: Server, names: Names, url: str) -> None:
    for name in ("good.example.127.0.0.1.nip.example", "127.0.0.1.good.example.evil.example", "xgood.example",
                 "good.example.evil.example", "good.exampl", "sub.good.example", "good-example"):  # fmt: skip
        names[name] = ["127.0.0.1"]
    with pytest.raises((ValueError, requests.ConnectionError, aiohttp.ClientConnectorError)) as caught:
        load(MediaConnector(allowed_media_domains=["good.example"]), url.replace("PORT", str(server.port)))
    assert isinstance(caught.value, ValueError) or "good.example\\." in url
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    ["HTTP://GOOD.EXAMPLE:PORT/a", "http://good.example.:PORT/a", "http://user:pw@good.example:PORT/a",
     "http://good.example:PORT/a#@evil", "http://good.example:PORT/a?@evil.example", "http://good.example:PORT/x/../a",
     "http://good.example:0PORT/a"],
)  # fmt: skip
def test_spellings_of_an_allowed_host_reach_it(load: Load, server: Server, names: Names, url: str) -> None:
    names["good.example"] = ["127.0.0.1"]
    server.route("/a", reply(BODY))
    connector = MediaConnector(allowed_media_domains=["Good.Example."])
    assert load(connector, url.replace("PORT", str(server.port))) == BODY
    assert server.requests[0].headers["Host"] == f"good.example:{server.port}"


# Redirects.


@pytest.mark.parametrize(
    "location",
    ["http://169.254.169.254/latest/", "http://[fd00:ec2::254]/", "http://0.0.0.0:PORT/", "http://[::ffff:169.254.169.254]/",
     "//169.254.169.254/", "http://2852039166/", "file:///etc/passwd", "file://localhost/etc/passwd", "gopher://127.0.0.1:PORT/",
     "data:text/plain;base64,AAAA", "ftp://127.0.0.1/", "javascript:alert(1)", "http://127.0.0.1:25/", "http://127.0.0.1:0/",
     "http://", "http:", "", None, "//\udcff\udcfe/", "http://[fe80::1%25eth0]/", "http://127.0.0.1:PORT/\tx",
     "http://a..b/", "http://metadata.example/"],
)  # fmt: skip
def test_redirects_that_are_refused(load: Load, server: Server, names: Names, location: str | None) -> None:
    names["metadata.example"] = ["169.254.169.254"]
    with Server() as goal:
        target = location and location.replace("PORT", str(goal.port))
        with pytest.raises(ValueError, match=r"Redirect|Refused|URL"):
            load(MediaConnector(), server.route("/a", redirect(target)), fetch_timeout=2)
        assert goal.connections == 0
    assert server.count() == 1


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on an address that passes for a public one."""
    entry = (IPv4Network("127.0.0.2/32"), Reach.PUBLIC, "public")
    monkeypatch.setattr(addresses, "_SPECIAL_IPV4", (entry, *addresses._SPECIAL_IPV4))
    with Server("127.0.0.2") as server:
        yield server


@pytest.mark.parametrize("by_name", [False, True])
def test_a_public_server_must_not_redirect_to_a_private_one(
    load: Load, server: Server, public: Server, names: Names, by_name: bool
) -> None:
    names["inside.example"] = ["127.0.0.1"]
    goal = server.route("/secret", reply(BODY))
    public.route("/a", redirect(goal.replace("127.0.0.1", "inside.example") if by_name else goal))
    public.route("/b", redirect(public.route("/c", reply(BODY))))
    with pytest.raises(RefusedURLError, match="public address must not redirect"):
        load(MediaConnector(), public.url("/a"))
    assert server.connections == 0
    assert load(MediaConnector(), public.url("/b")) == BODY
    assert load(MediaConnector(), server.route("/d", redirect("/secret"))) == BODY


def test_a_redirect_after_the_domain_check_is_checked_again(load: Load, server: Server, names: Names) -> None:
    names["good.example"] = names["evil.example"] = ["127.0.0.1"]
    server.route("/secret", reply(BODY))
    server.route("/a", redirect(f"http://evil.example:{server.port}/secret"))
    connector = MediaConnector(allowed_media_domains=["good.example"])
    with pytest.raises(RefusedURLError, match="allowed domains"):
        load(connector, f"http://good.example:{server.port}/a")
    assert server.count("/secret") == 0


def test_loops_and_long_chains_end(load: Load, server: Server) -> None:
    server.route("/a", redirect("/b"))
    server.route("/b", redirect("/a"))
    with pytest.raises(RefusedURLError, match="More than 10 redirects"):
        load(MediaConnector(), server.url("/a"))
    assert server.count() == 11


# Servers.

BOMB = gzip.compress(bytes(64 * 1024 * 1024))
TIMEOUTS = (requests.Timeout, TimeoutError)
FAILURES = (requests.RequestException, aiohttp.ClientError)


@pytest.mark.parametrize(
    ("behaviour", "errors"),
    [
        (stall(), TIMEOUTS),
        (stall(b"HTTP/1.1 200 OK\r\n"), TIMEOUTS),
        (stall_in_body(BODY, 10), TIMEOUTS),
        (drip(BODY, 0.02), TIMEOUTS),
        (drip_head(0.02), TIMEOUTS),
        (hang_up, FAILURES),
        (cut(BODY, 10), FAILURES),
        (chunked([BODY], end=False), FAILURES),
        (raw(head(200, {"Transfer-Encoding": "chunked"}) + b"zz\r\n"), FAILURES),
        (raw(b"\0\1\2 nonsense\r\n\r\n"), FAILURES),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), FAILURES),
        (raw(b"HTTP/1.1 abc OK\r\n\r\n"), FAILURES),
        (endless(), (LimitExceededError,)),
        (raw(head(200, {"Content-Length": 10**12})), (LimitExceededError,)),
        (reply(BOMB, headers={"Content-Encoding": "gzip"}), (LimitExceededError,)),
        (
            reply(zlib.compress(bytes(64 * 1024 * 1024)), headers={"Content-Encoding": "deflate"}),
            (LimitExceededError,),
        ),
        (reply(gzip.compress(BOMB), headers={"Content-Encoding": "gzip, gzip"}), (InvalidMediaError,)),
        (reply(BODY, headers={"Content-Encoding": "br"}), (InvalidMediaError,)),
        (reply(BODY, headers={"Content-Encoding": "zstd"}), (InvalidMediaError,)),
        (reply(BODY, headers={"Content-Encoding": "gzip"}), (InvalidMediaError,)),
        (reply(BODY, 206), FAILURES),
        (reply(BODY, 404), FAILURES),
        (reply(BODY, 304), FAILURES),
        (reply(BODY, headers={"X-Huge": "a" * 200_000}), FAILURES),
        (reply(BODY, headers={f"X-{number}": "a" for number in range(5000)}), FAILURES),
        (interim(10**9, hang_up, status=103), (*FAILURES, *TIMEOUTS)),
        (raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), FAILURES),
    ],
)
def test_servers_that_misbehave(
    load: Load,
    server: Server,
    behaviour: Behaviour,
    errors: tuple[type[Exception], ...],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    timeout = 0.2 if TimeoutError in errors else 5.0
    url = server.route("/a", behaviour)
    with pytest.raises(errors):
        load(MediaConnector(), url, fetch_timeout=timeout)
    assert MediaConnector()._get_cached_bytes(url) is None


@pytest.mark.parametrize(
    "behaviour",
    [
        raw(head(204, {}) + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"),
        raw(head(204, {"Content-Length": 6}) + b"poison"),
    ],
)
def test_a_body_where_none_may_be_does_not_poison_the_next_answer(
    load: Load, server: Server, behaviour: Behaviour
) -> None:
    server.route("/a", behaviour)
    server.route("/b", reply(BODY))
    with contextlib.suppress(aiohttp.ClientResponseError):  # aiohttp may call it a bad answer
        assert load(MediaConnector(), server.url("/a")) == b""
    assert load(MediaConnector(), server.url("/b")) == BODY


def test_a_literal_address_behind_a_proxy_is_judged_all_the_same(
    load: Load, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.origin)
    with pytest.raises(RefusedURLError, match="link-local"):
        load(MediaConnector(), "http://169.254.169.254/latest/")
    assert server.connections == 0


def test_there_are_at_least_120_cases() -> None:
    here = [mark for test in list(globals().values()) for mark in getattr(test, "pytestmark", [])]
    assert sum(len(mark.args[1]) for mark in here if mark.name == "parametrize") >= 120
