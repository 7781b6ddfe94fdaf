"""The network as the environment describes it: proxies, as curl reads them, and certificates."""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmmedia.connections import HTTPConnection, environment, environment_proxy, http_status
from mmmedia.connections.environment import trust
from mmmedia.errors import InvalidSettingError
from mmmedia.urls import parse_http_url
from support.certificates import self_signed
from support.server import Request, Server, reply

BODY = b"hello"
VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
             "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def sync_fetch(url: str) -> bytes:
    return HTTPConnection().get_bytes(url, timeout=20)


def async_fetch(url: str) -> bytes:
    return asyncio.run(HTTPConnection().async_get_bytes(url, timeout=20))


Fetch = Callable[[str], bytes]


@pytest.fixture(params=[sync_fetch, async_fetch], ids=["sync", "async"])
def fetch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """One attempt of `get_bytes`, in one half and in the other."""
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    return request.param


# Proxies. P stands for one that listens.

HTTP, HTTPS = "http://media.example/a", "https://media.example/a"
DECISIONS: list[tuple[dict[str, str], str, bool]] = [
    ({"http_proxy": "P"}, HTTP, True),
    ({"HTTP_PROXY": "P"}, HTTP, False),
    ({"http_proxy": "P"}, HTTPS, False),
    ({"https_proxy": "P"}, HTTPS, True),
    ({"HTTPS_PROXY": "P"}, HTTPS, True),
    ({"HTTPS_PROXY": "P"}, HTTP, False),
    ({"all_proxy": "P"}, HTTP, True),
    ({"ALL_PROXY": "P"}, HTTPS, True),
    ({"http_proxy": "", "ALL_PROXY": "P"}, HTTP, True),
    ({"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "P"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "*"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "a,*"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "", "NO_PROXY": "media.example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "other.example", "NO_PROXY": "*"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "localhost, Media.Example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": ".example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": ".media.example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "dia.example"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "*.example"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "media.example."}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "a b\tmedia.example"}, HTTP, False),
    ({"http_proxy": "P", "no_proxy": "media.example:80"}, HTTP, True),
    ({"http_proxy": "P", "no_proxy": "media.example"}, "http://media.example:8080/", False),
    ({"http_proxy": "P", "no_proxy": "10.0.0.0/8"}, "http://10.1.2.3/", False),
    ({"http_proxy": "P", "no_proxy": "10.0.0.0/8"}, "http://11.1.2.3/", True),
    ({"http_proxy": "P", "no_proxy": "192.168.0.0/16,172.16.0.0/12"}, "http://172.31.0.1/", False),
    ({"http_proxy": "P", "no_proxy": "10.1.2.3"}, "http://10.1.2.3/", False),
    ({"http_proxy": "P", "no_proxy": "10.1.2.3/"}, "http://10.1.2.3/", False),
    ({"http_proxy": "P", "no_proxy": "10.1.2.3/0"}, "http://10.1.2.4/", True),
    ({"http_proxy": "P", "no_proxy": "10.1.2.3/33"}, "http://10.1.2.3/", True),
    ({"http_proxy": "P", "no_proxy": "10.1.2.3:80"}, "http://10.1.2.3/", True),
    ({"http_proxy": "P", "no_proxy": ".2.3"}, "http://10.1.2.3/", True),
    ({"http_proxy": "P", "no_proxy": "127.0.0.1"}, "http://127.1:9/", False),
    ({"http_proxy": "P", "no_proxy": "::1"}, "http://[::1]:9/", False),
    ({"http_proxy": "P", "no_proxy": "[::1]"}, "http://[::1]:9/", True),
]
"""An environment, a URL, and whether curl 7.88 asks the proxy."""
NOT_AS_CURL_7_88 = [({"http_proxy": "P", "no_proxy": "fe80::/10,fd00::/8"}, "http://[fd12::1]/", False)]
"""curl documents IPv6 networks; 7.88.1 takes them for no match."""


@pytest.mark.parametrize(("settings", "url", "proxied"), [*DECISIONS, *NOT_AS_CURL_7_88])
def test_the_environment_is_read_as_curl_reads_it(
    settings: dict[str, str], url: str, proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in settings.items():
        monkeypatch.setenv(variable, "http://127.0.0.1:9" if value == "P" else value)
    assert environment_proxy(parse_http_url(url)) == ("http://127.0.0.1:9" if proxied else None)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize(("settings", "url", "proxied"), DECISIONS)
def test_curl_decides_so(settings: dict[str, str], url: str, proxied: bool) -> None:
    """The proxy is on loopback; all else leads nowhere, and is given up at once."""
    with Server() as proxy:
        given = {variable: proxy.origin if value == "P" else value for variable, value in settings.items()}
        subprocess.run(
            ["curl", "-s", "--connect-timeout", "0.2", "--max-time", "2",
             "--resolve", "media.example:80:127.0.0.9", "--resolve", "media.example:443:127.0.0.9",
             "--resolve", "media.example:8080:127.0.0.9", url],
            env={"PATH": os.environ["PATH"], **given}, capture_output=True, check=False,
        )  # fmt: skip
        assert (proxy.connections > 0) is proxied


def test_proxies_are_asked_for_what_was_written(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as proxy:
        target = "http://media.example/%2f%3a[x]?q=%2F|"
        proxy.route("http://media.example/%2f%3a[x]", reply(BODY))
        monkeypatch.setenv("all_proxy", proxy.origin.replace("//", "//me:s%20t@"))
        assert fetch(target) == BODY
        (request,) = proxy.requests
        assert request.target == target
        assert request.headers["Host"] == "media.example"
        assert request.headers["Proxy-Authorization"] == "Basic bWU6cyB0"


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("proxy.example", "http://proxy.example:1080"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("HTTP://Proxy.Example:3128/path", "http://proxy.example:3128"),
        ("http://me:x@y@[::1]:3128", "http://me:x@y@[::1]:3128"),
        ("https://proxy.example", "https://proxy.example:443"),
    ],
)
def test_a_proxy_is_named_as_curl_has_it(value: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", value)
    assert environment_proxy(parse_http_url(HTTPS)) == proxy


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("kind", ["socks4", "socks4a", "socks5", "socks5h", "SOCKS5", "ftp"])
def test_socks_is_named_as_what_is_not_supported(
    fetch: Fetch, variable: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server() as proxy, Server() as server:
        monkeypatch.setenv(variable, f"{kind}://me:secret@127.0.0.1:{proxy.port}")
        url = server.route("/a", reply(BODY))
        with pytest.raises(InvalidSettingError, match=rf"^{variable} names .*'{kind.lower()}'") as caught:
            fetch(url)
        assert "secret" not in str(caught.value)
        assert http_status(caught.value) == 500
        assert (proxy.connections, server.connections) == (0, 0)
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        assert fetch(url) == BODY


@pytest.mark.parametrize("value", ["http://:80", "http://h:port", "http://[::1", "http://h:99999"])
def test_what_is_no_proxy_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(InvalidSettingError, match=r"^http_proxy"):
        environment_proxy(parse_http_url(HTTP))


def test_http_proxy_in_capitals_is_said_to_be_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment._warn_of_http_proxy.cache_clear()
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for _ in range(3):
        assert environment_proxy(parse_http_url(HTTP)) is None
    assert caplog.text.count("HTTP_PROXY is ignored") == 1


def test_proxies_may_be_read_as_in_the_first_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")
    assert environment_proxy(parse_http_url(HTTP)) == "http://127.0.0.1:9"
    assert environment_proxy(parse_http_url(HTTPS)) is None
    monkeypatch.setenv("NO_PROXY", "media.example:80")
    assert environment_proxy(parse_http_url(HTTP)) is None


# Certificates.


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of a certificate for localhost, its key with it, and whatever else variables may name."""
    directory = tmp_path_factory.mktemp("certificates")
    self_signed(directory, "localhost")
    (directory / "empty.pem").write_bytes(b"")
    (directory / "no.pem").write_text("no certificate\n")
    for name in ("full", "bare", "odd"):
        (directory / name).mkdir()
    shutil.copy(directory / "good.pem", directory / "full" / "company.crt")
    (directory / "full" / "README").write_text("ours\n")
    (directory / "odd" / "README").write_text("none here\n")
    return directory


@pytest.fixture
def secure(certificates: Path) -> Iterator[str]:
    """A URL that is trusted by who trusts `good.pem`."""
    with Server(certificate=certificates / "both.pem") as server:
        yield server.route("/a", reply(BODY)).replace("127.0.0.1", "localhost")


BUNDLES = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]


@pytest.mark.parametrize("variable", BUNDLES)
@pytest.mark.parametrize("what", ["good.pem", "both.pem", "full"])
def test_a_file_or_a_directory_of_certificates_is_trusted(
    fetch: Fetch, secure: str, certificates: Path, variable: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(certificates / what))
    assert fetch(secure) == BODY


@pytest.mark.parametrize("variable", BUNDLES)
@pytest.mark.parametrize("what", ["stale.pem", "empty.pem", "no.pem", "bare", "odd"])
def test_what_gives_no_certificates_is_named_and_plain_http_is_not_touched(
    fetch: Fetch,
    secure: str,
    server: Server,
    certificates: Path,
    variable: str,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, str(certificates / what))
    with pytest.raises(InvalidSettingError, match=rf"^{variable}=.*{what}") as caught:
        fetch(secure)
    assert http_status(caught.value) == 500
    assert fetch(server.route("/a", reply(BODY))) == BODY


def test_an_empty_variable_is_none_and_nothing_unknown_is_trusted(
    fetch: Fetch, secure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in BUNDLES:
        monkeypatch.setenv(variable, "")
    with pytest.raises(Exception, match="self-signed") as caught:
        fetch(secure)
    assert http_status(caught.value) == 422
    assert len(trust().get_ca_certs()) > 20  # those of the system, or certifi's


def test_the_first_variable_counts_and_the_last_two_together(
    secure: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "good.pem"))
    for variable in BUNDLES[1:]:
        monkeypatch.setenv(variable, str(certificates / "stale.pem"))
    assert len(trust().get_ca_certs()) == 1
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.setenv("CURL_CA_BUNDLE", "")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
    with pytest.raises(InvalidSettingError, match="SSL_CERT_DIR"):
        trust()
    monkeypatch.setenv("SSL_CERT_DIR", f"{certificates / 'full'}:{certificates}")
    assert len(trust().get_ca_certs()) == 1


def test_certificates_are_read_once_until_they_change(
    secure: str, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    shutil.copy(certificates / "good.pem", bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    assert trust() is trust()
    assert trust(ssl.SSLSocket) is trust()
    before = trust()
    os.utime(bundle, ns=(1, 1))
    assert trust() is not before
    bundle.unlink()
    with pytest.raises(InvalidSettingError, match="SSL_CERT_FILE"):
        trust()


def test_a_session_takes_the_certificates_of_its_user(
    secure: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPConnection().get_sync_client() as session:
        assert session.get(secure, verify=str(certificates / "good.pem")).content == BODY
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
        assert session.get(secure).content == BODY


def test_a_proxy_may_speak_tls(fetch: Fetch, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(certificate=certificates / "both.pem") as proxy:
        proxy.route("http://media.example/a", reply(BODY))
        monkeypatch.setenv("http_proxy", proxy.origin.replace("127.0.0.1", "localhost"))
        with pytest.raises(Exception, match="self-signed"):
            fetch("http://media.example/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
        assert fetch("http://media.example/a") == BODY
        assert proxy.count() == 1


def test_https_goes_through_a_proxy_that_is_not_judged(
    fetch: Fetch, secure: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy is on a private address, as proxies of offices are, and tunnels."""
    asked: list[str] = []

    def tunnel(request: Request) -> None:
        asked.append(request.target)
        assert request.headers["Proxy-Authorization"] == "Basic bWU6c2VjcmV0"
        request.send(b"HTTP/1.1 200 OK\r\n\r\n")
        port = int(request.target.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as upstream:

            def carry(source: socket.socket, goal: socket.socket) -> None:
                with contextlib.suppress(OSError):  # one side is gone
                    while data := source.recv(65536):
                        goal.sendall(data)
                    goal.shutdown(socket.SHUT_WR)

            thread = threading.Thread(target=carry, args=(upstream, request.connection))
            thread.start()
            carry(request.connection, upstream)
            thread.join()
        request.hang_up()

    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    with Server() as proxy:
        port = secure.split(":")[2].partition("/")[0]
        proxy.route(f"localhost:{port}", tunnel)
        monkeypatch.setenv("https_proxy", proxy.origin.replace("//", "//me:secret@"))
        assert fetch(secure) == BODY
    assert asked == [f"localhost:{port}"]
