"""HTTP: retries, redirects, limits, sessions; each rule in the sync and in the async half."""

import asyncio
import copy
import gc
import gzip
import http.client
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import requests
from hypothesis import given, settings, strategies as st

from mmmedia import envs
from mmmedia.connections import (
    FetchPolicy,
    HTTPConnection,
    MediaRequestDownloadBudget,
    MediaRequestDownloadSizeExceededError,
    RetryPlan,
    fetch_policy,
    global_http_connection,
    http_status,
    is_transient,
    retry_after_seconds,
    status_of,
)
from mmmedia.egress import resolve as resolving
from mmmedia.errors import (
    InvalidMediaError,
    InvalidURLError,
    LimitExceededError,
    PartError,
    RefusedURLError,
)
from mmmedia.urls import domain_list, parse_http_url
from support.certificates import self_signed
from support.fetching import fetched_by
from support.server import (
    Behaviour,
    Request,
    Server,
    chunked,
    cut,
    drip,
    drip_head,
    endless,
    hang_up,
    head,
    in_turn,
    interim,
    raw,
    redirect,
    reply,
    stall,
    stall_in_body,
    zipped,
)
from support.waiting import take_no_time

BODY = bytes(range(256)) * 40


def sync_fetch(url: str, **kwargs: Any) -> bytes:
    return global_http_connection.get_bytes(url, **kwargs)


def async_fetch(url: str, **kwargs: Any) -> bytes:
    return asyncio.run(global_http_connection.async_get_bytes(url, **kwargs))


@pytest.fixture(params=[sync_fetch, async_fetch], ids=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """`get_bytes`, in one half and in the other."""
    return request.param


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    return take_no_time(monkeypatch)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")


# Bodies.


@pytest.mark.parametrize(
    "behaviour",
    [
        reply(BODY),
        chunked([BODY[:100], BODY[100:]]),
        zipped(BODY),
        reply(zlib.compress(BODY), headers={"Content-Encoding": "deflate"}),
        reply(zlib.compress(BODY, wbits=-15), headers={"Content-Encoding": "Deflate"}),
        reply(gzip.compress(BODY[:100]) + gzip.compress(BODY[100:]), headers={"Content-Encoding": "x-gzip"}),
        reply(gzip.compress(BODY) + b"\0" * 20, headers={"Content-Encoding": "gzip"}),
        reply(BODY, headers={"Content-Encoding": "identity"}),
        chunked([bytes([byte]) for byte in gzip.compress(BODY)], headers={"Content-Encoding": "gzip"}),
        raw(head(200, {}) + BODY),
        interim(3, reply(BODY)),
        interim(2, reply(BODY), status=100),
        reply(BODY, 203),
        drip(BODY[:10], 0.001),
    ],
)
def test_a_body_arrives_whole_however_it_is_sent(
    server: Server, fetch: Callable[..., bytes], behaviour: Behaviour
) -> None:
    assert fetch(server.route("/a", behaviour)) in (BODY, BODY[:10])


@pytest.mark.parametrize("status", [200, 204])
def test_an_empty_body_is_empty(server: Server, fetch: Callable[..., bytes], status: int) -> None:
    assert fetch(server.route("/a", reply(status=status))) == b""


def test_the_request_says_who_asks_and_what_it_can_read(server: Server, fetch: Callable[..., bytes]) -> None:
    fetch(server.route("/a", reply(BODY)), extra_headers={"x-token": "7", "accept": "image/*"})
    headers = server.requests[0].headers
    assert headers["User-Agent"].startswith("mmmedia/")
    assert headers["Accept-Encoding"] == "gzip, deflate"
    assert (headers["X-Token"], headers["Accept"]) == ("7", "image/*")


def test_both_halves_request_the_same_target(server: Server) -> None:
    server.route("/%7Ea/b%20ü", reply(BODY))
    for fetch in (sync_fetch, async_fetch):
        with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError)):
            fetch(server.url("/%7ea/x/../b ü?q=[1]|%zz"))
    first, second = server.requests
    assert first.target == second.target
    assert first.headers["Host"] == second.headers["Host"]


def test_userinfo_is_sent_as_basic_credentials(server: Server, fetch: Callable[..., bytes]) -> None:
    fetch(server.route("/a", reply(BODY)).replace("http://", "http://me:secret@"))
    assert server.requests[0].headers["Authorization"] == "Basic bWU6c2VjcmV0"


# Limits.


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    "behaviour",
    [
        reply(b"x" * (1024 * 1024 + 1)),
        stall(head(200, {"Content-Length": 1024 * 1024 + 1})),  # refused before any byte of the body
        stall(head(200, {"Content-Length": 10**30})),
        endless(),
        zipped(bytes(1024 * 1024 + 1)),
        zipped(bytes(100_000_000)),
        reply(zlib.compress(bytes(100_000_000)), headers={"Content-Encoding": "deflate"}),
        endless(gzip.compress(b""), headers={"Content-Encoding": "gzip"}),
    ],
)
def test_more_than_the_download_limit_is_refused_at_once(
    server: Server, fetch: Callable[..., bytes], behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    # aiohttp itself takes a length of 31 digits for none.
    with pytest.raises((LimitExceededError, aiohttp.ClientResponseError), match=r"MAX_MEDIA_DOWNLOAD|400"):
        fetch(server.route("/a", behaviour), timeout=20)
    assert server.count() == 1


@pytest.mark.parametrize("limit", ["0", "-1", "1"])
def test_the_download_limit_admits_what_it_says_and_zero_admits_all(
    server: Server, fetch: Callable[..., bytes], limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", limit)
    size = 1024 * 1024 + (limit != "1")
    assert len(fetch(server.route("/a", zipped(bytes(size))))) == size


@pytest.mark.parametrize(
    "encoding",
    ["br", "zstd", "gzip, gzip", "identity, Brotli, BR", "compress", "gzip, deflate", "aws-chunked,zstd"],
)
def test_encodings_that_were_not_asked_for_are_refused(
    server: Server, fetch: Callable[..., bytes], encoding: str
) -> None:
    with pytest.raises(InvalidMediaError, match="Content-Encoding"):
        fetch(server.route("/a", reply(BODY, headers={"Content-Encoding": encoding})))
    assert server.count() == 1


def test_a_body_that_is_not_the_gzip_it_claims_is_an_error(
    server: Server, fetch: Callable[..., bytes]
) -> None:
    with pytest.raises(InvalidMediaError, match="is not gzip"):
        fetch(server.route("/a", reply(BODY, headers={"Content-Encoding": "gzip"})))


# Retries.


@pytest.mark.parametrize(
    "failure",
    [
        reply(status=500),
        reply(status=503),
        reply(status=429),
        reply(status=408),
        cut(BODY, 100),
        cut(BODY, 0),
        chunked([BODY], end=False),
        cut(gzip.compress(BODY), 30, headers={"Content-Encoding": "gzip"}),
        raw(head(200, {"Content-Encoding": "gzip"}) + gzip.compress(BODY)[:-9]),
        redirect("/b"),
    ],
)
def test_what_may_heal_is_tried_again(
    server: Server, fetch: Callable[..., bytes], waits: list[float], failure: Behaviour
) -> None:
    server.route("/b", reply(status=502))
    assert fetch(server.route("/a", in_turn(failure, reply(BODY))), timeout=20) == BODY
    assert server.count("/a") == 2
    assert len(waits) == 1
    assert 0.5 < waits[0] < 1.5


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("failure", [hang_up, raw(b"HTTP/1.1 200 OK\r\nContent-Le"), raw(b"HTT")])
def test_a_head_that_is_missing_or_cut_short_is_asked_for_again(
    server: Server, fetch: Callable[..., bytes], failure: Behaviour
) -> None:
    # aiohttp has one more try of its own, for kept connections that the server had closed.
    assert fetch(server.route("/a", in_turn(failure, reply(BODY))), timeout=20) == BODY
    assert server.count("/a") == 2


@pytest.mark.parametrize("status", [206, 300, 304, 400, 401, 403, 404, 410, 451])
def test_other_statuses_are_final(
    server: Server, fetch: Callable[..., bytes], waits: list[float], status: int
) -> None:
    with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError), match=str(status)) as caught:
        fetch(server.route("/a", reply(b"", status=status)))
    assert status_of(caught.value) == status
    assert (server.count(), waits) == (1, [])


def test_the_last_error_reaches_the_caller_after_all_attempts(
    server: Server, fetch: Callable[..., bytes], waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError), match="500") as caught:
        fetch(server.route("/a", reply(status=500)) + "?token=secret")
    assert "secret" not in str(caught.value)
    assert server.count() == 3
    assert [round(wait / 4**attempt) for attempt, wait in enumerate(waits)] == [1, 1]
    assert "secret" not in caplog.text
    assert caplog.text.count("Attempt") == 2


@pytest.mark.parametrize(("asked", "waited"), [("0", 0), ("7", 7), ("3600", 1), ("soon", 1)])
def test_retry_after_is_obeyed_within_reason(
    server: Server, fetch: Callable[..., bytes], waits: list[float], asked: str, waited: int
) -> None:
    server.route("/a", in_turn(reply(status=429, headers={"Retry-After": asked}), reply(BODY)))
    assert fetch(server.url("/a")) == BODY
    assert [round(wait) for wait in waits if wait] == [waited] * bool(waited)


def test_no_connection_is_tried_again(fetch: Callable[..., bytes], waits: list[float]) -> None:
    with Server() as gone:
        url = gone.url("/a")
    with pytest.raises((requests.ConnectionError, aiohttp.ClientConnectorError)):
        fetch(url)
    assert len(waits) == 2


def test_names_that_nobody_knows_are_tried_again(fetch: Callable[..., bytes], waits: list[float]) -> None:
    with pytest.raises((requests.ConnectionError, aiohttp.ClientConnectorError)):
        fetch("http://nobody.invalid/")
    assert len(waits) == 2


@pytest.mark.parametrize(
    "behaviour",
    [stall(), stall(b"HTTP/1.1 200 OK\r\n"), stall_in_body(BODY, 10), drip(BODY, 0.01), drip_head(0.01),
     stall(b"HTTP/1.1 100 Continue\r\n\r\n" * 3)],
)  # fmt: skip
@pytest.mark.usefixtures("one_attempt")
def test_the_timeout_is_wall_time_from_the_first_byte_to_the_last(
    server: Server, fetch: Callable[..., bytes], behaviour: Behaviour
) -> None:
    with pytest.raises((requests.Timeout, TimeoutError)) as caught:
        fetch(server.route("/a", behaviour), timeout=0.15)
    assert str(caught.value)


def test_a_timeout_is_tried_again_with_more_patience(
    server: Server, fetch: Callable[..., bytes], waits: list[float]
) -> None:
    server.route("/a", in_turn(stall(), reply(BODY)))
    assert fetch(server.url("/a"), timeout=0.3) == BODY
    assert len(waits) == 1


@pytest.mark.usefixtures("one_attempt")
def test_interim_responses_without_end_are_an_error(server: Server, fetch: Callable[..., bytes]) -> None:
    server.route("/a", interim(10**6, reply(BODY), status=103))
    with pytest.raises((requests.RequestException, aiohttp.ClientError, TimeoutError)):
        fetch(server.url("/a"), timeout=0.5)


@pytest.mark.parametrize("number", [1, 300])
def test_huge_headers_are_an_error_and_final(
    server: Server, fetch: Callable[..., bytes], waits: list[float], number: int
) -> None:
    huge = {f"X-{index}": "a" * (70_000 // number) for index in range(number)}
    with pytest.raises((requests.RequestException, aiohttp.ClientError)):
        fetch(server.route("/a", reply(BODY, headers=huge)))
    assert (server.count(), waits) == (1, [])


def test_cancelling_stops_a_transfer_at_once(server: Server) -> None:
    server.route("/a", stall_in_body(BODY, 10))

    async def cancel() -> None:
        task = asyncio.create_task(global_http_connection.async_get_bytes(server.url("/a")))
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert server.count() == 1


@given(
    timeout=st.one_of(st.none(), st.floats(0.001, 1e5)),
    attempts=st.integers(1, 1000),
    attempt=st.integers(0, 999),
    elapsed=st.floats(0, 1e6),
    jitter=st.floats(0.75, 1.25),
    asked=st.one_of(st.none(), st.floats(0, 1e9)),
)
@settings(deadline=None)
def test_the_whole_of_attempts_and_waits_is_bounded(
    timeout: float | None, attempts: int, attempt: int, elapsed: float, jitter: float, asked: float | None
) -> None:
    plan = RetryPlan(timeout, attempts)
    assert 0 < plan.attempt_seconds(attempt, elapsed) <= max(plan.total_seconds - elapsed, 0.001)
    wait = plan.wait_seconds(attempt, elapsed, jitter=jitter, retry_after=asked)
    if wait is None:
        assert attempt + 1 >= attempts or elapsed + max(4.0 ** min(attempt, 32), 30) * 1.25 >= 600
    else:
        assert wait >= 0
        assert elapsed + wait < plan.total_seconds


def test_retry_after_is_read_in_both_its_forms() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert retry_after_seconds("Thu, 01 Jan 2026 00:00:09 GMT", now) == 9
    assert retry_after_seconds("Thu, 01 Jan 2026 00:00:09 -0000", now) == 9
    assert retry_after_seconds("Thu, 01 Jan 2025 00:00:09 GMT", now) == 0
    assert (
        retry_after_seconds("", now)
        is retry_after_seconds(None, now)
        is retry_after_seconds("²", now)
        is None
    )


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.SSLError(Exception("x")),
        requests.exceptions.ConnectionError(http.client.LineTooLong("header")),
        requests.exceptions.ConnectionError(RefusedURLError("no")),
        requests.exceptions.InvalidURL(),
        aiohttp.InvalidURL("x"),
        ValueError(),
        OSError(),
    ],
)
def test_what_another_attempt_cannot_change_is_final(error: Exception) -> None:
    if isinstance(error, requests.exceptions.SSLError):
        import ssl

        assert is_transient(error)
        error.__cause__ = ssl.SSLCertVerificationError()
    assert not is_transient(error)


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Server, fetch: Callable[..., bytes], status: int) -> None:
    server.route("/dir/b", reply(BODY))
    assert fetch(server.route("/dir/a", redirect("b", status))) == BODY


def test_ten_hops_are_followed_and_the_eleventh_is_refused(
    server: Server, fetch: Callable[..., bytes]
) -> None:
    for number in range(11):
        server.route(f"/{number}", redirect(f"/{number + 1}"))
    server.route("/10", reply(BODY))
    assert fetch(server.url("/0")) == BODY
    server.route("/loop", redirect("/loop"))
    with pytest.raises(RefusedURLError, match="More than 10 redirects"):
        fetch(server.url("/loop"))
    assert server.count("/loop") == 11


def test_without_allow_redirects_a_redirect_is_refused(server: Server, fetch: Callable[..., bytes]) -> None:
    with pytest.raises(RefusedURLError, match="ALLOW_REDIRECTS"):
        fetch(server.route("/a", redirect("/b")), allow_redirects=False)
    assert server.count() == 1


@pytest.mark.parametrize(
    "location",
    [None, "", "file:///etc/passwd", "gopher://h/", "data:,x", "ftp://h/", "//\udcff/", "http://h:0/"],
)
def test_a_redirect_off_http_is_refused_without_a_further_attempt(
    server: Server, fetch: Callable[..., bytes], location: str | None
) -> None:
    with pytest.raises(ValueError, match=r"Location|Refused|Invalid HTTP URL"):
        fetch(server.route("/a", redirect(location)))
    assert server.count() == 1


def test_a_redirect_with_an_endless_body_is_followed_without_reading_it(
    server: Server, fetch: Callable[..., bytes]
) -> None:
    server.route("/b", reply(BODY))
    server.route("/a", endless(headers={"Location": "/b"}))

    def endless_redirect(request: Request) -> None:
        request.send(head(302, {"Location": "/b", "Transfer-Encoding": "chunked"}))
        while not request.server.stopping.is_set():
            request.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

    assert fetch(server.route("/a", endless_redirect), timeout=20) == BODY


def test_every_hop_is_held_to_the_policy(server: Server, fetch: Callable[..., bytes]) -> None:
    policy = FetchPolicy(domain_list(["127.0.0.1"]))
    with Server() as other:
        goal = other.route("/b", reply(BODY)).replace("127.0.0.1", "localhost")
        server.route("/a", redirect(goal))
        assert fetch(server.url("/a")) == BODY
        with fetch_policy(policy), pytest.raises(RefusedURLError, match="allowed domains"):
            fetch(server.url("/a"))
        with fetch_policy(policy), pytest.raises(RefusedURLError, match="allowed domains"):
            fetch(goal)
        assert other.count() == 1


def test_credentials_and_cookies_stay_with_their_origin(server: Server, fetch: Callable[..., bytes]) -> None:
    secrets = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Api-Key": "c", "Accept-Language": "de"}
    with Server() as other:
        other.route("/c", redirect(server.route("/d", reply(BODY))))
        server.route("/b", redirect(other.url("/c"), headers={"Set-Cookie": "session=1; Path=/"}))
        server.route("/a", redirect("/b", headers={"Set-Cookie": "session=1; Path=/"}))
        fetch(server.url("/a"), extra_headers=secrets)
        fetch(server.url("/d"))
        (same,) = [request for request in server.requests if request.path == "/b"]
        (across,) = other.requests
    back, later = [request for request in server.requests if request.path == "/d"]
    assert {name: same.headers.get(name) for name in secrets} == secrets
    for request in (across, back):
        assert not {"Authorization", "Cookie", "X-Api-Key"} & set(request.headers)
        assert request.headers["Accept-Language"] == "de"
    assert "Cookie" not in later.headers


# Clients.


def test_proxies_of_the_environment_are_asked(
    server: Server, fetch: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def proxy(request: Request) -> None:
        seen.append(request.target)
        reply(BODY)(request)

    server._routes = _Everything(proxy)  # type: ignore[assignment]
    monkeypatch.setenv("http_proxy", server.origin.removeprefix("http://"))
    assert fetch("http://example.invalid/a") == BODY
    assert seen == ["http://example.invalid/a"]
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fetch(server.url("/direct"))
    assert seen[1] == "/direct"


class _Everything(dict[str, Behaviour]):
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    def get(self, key: str, default: Any = None) -> Behaviour:
        return self.behaviour


def test_netrc_credentials_are_sent_to_nobody(
    server: Server, fetch: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(server.route("/a", reply(BODY)))
    assert "Authorization" not in server.requests[0].headers


def test_each_loop_has_a_session_that_is_closed_with_it(server: Server) -> None:
    connection = HTTPConnection()
    server.route("/a", reply(BODY))
    sessions = []

    async def fetch() -> None:
        assert await connection.async_get_bytes(server.url("/a")) == BODY
        assert await connection.async_get_bytes(server.url("/a")) == BODY
        sessions.append(await connection.get_async_client())
        assert await connection.get_async_client() is sessions[-1]

    for _ in range(2):
        asyncio.run(fetch())
    threads = [threading.Thread(target=asyncio.run, args=(fetch(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(fetch())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert server.connections == 5
    assert len({id(session) for session in sessions}) == 5
    assert all(session.closed for session in sessions)
    sessions.clear()
    gc.collect()  # an unclosed session or transport would warn here, and warnings are errors


@pytest.mark.filterwarnings("ignore:unclosed (transport|event loop|<socket):ResourceWarning")
def test_the_session_of_a_loop_closed_by_hand_is_closed_at_the_next_use(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    connection = HTTPConnection()
    server.route("/a", reply(BODY))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(connection.async_get_bytes(server.url("/a")))
    sessions = [loop.run_until_complete(connection.get_async_client())]
    loop.close()
    assert not sessions[0].closed

    async def use() -> None:
        await connection.async_get_bytes(server.url("/a"))
        assert sessions[0].closed
        assert len(connection._clients._clients) == 1  # type: ignore[union-attr]

    asyncio.run(use())
    again = asyncio.new_event_loop()
    sessions.append(again.run_until_complete(connection.get_async_client()))
    again.close()
    connection.close()
    assert sessions[1].closed
    assert not connection._clients._clients  # type: ignore[union-attr]
    sessions.clear()
    gc.collect()
    assert not caplog.records  # aiohttp logs what is unclosed


def test_a_connection_can_be_closed_and_used_again(server: Server) -> None:
    connection = HTTPConnection()
    server.route("/a", reply(BODY))

    async def use() -> None:
        await connection.aclose()
        for _ in range(2):
            assert await connection.async_get_bytes(server.url("/a")) == BODY
            session = await connection.get_async_client()
            await connection.aclose()
            assert session.closed

    asyncio.run(use())
    for _ in range(2):
        assert connection.get_bytes(server.url("/a")) == BODY
        connection.close()
    assert server.connections == 4


@pytest.mark.parametrize(
    "way",
    [
        "asyncio.run(fetch())",
        "asyncio.run(fetch()); asyncio.run(fetch())",
        "loop.run_until_complete(fetch()); loop.close()",
        "loop.run_until_complete(fetch())",
        "in_thread()",
        "asyncio.run(fetch()); fork()",
        "loop.run_until_complete(fetch()); fork()",
        "connection.reuse_client = False; asyncio.run(fetch())",
    ],
)
def test_however_a_loop_ends_the_interpreter_ends_in_silence(server: Server, way: str) -> None:
    code = f"""
import asyncio, os, sys, threading
from mmmedia.connections import global_http_connection as connection

def fetch():
    return connection.async_get_bytes({server.route("/a", reply(BODY))!r})

def fork():
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
    else:
        asyncio.run(fetch())

def in_thread():
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(fetch(), loop).result()

loop = asyncio.new_event_loop()
{way}
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_three_thousand_requests_without_reuse_leave_nothing_behind(server: Server) -> None:
    connection = HTTPConnection(reuse_client=False)
    url = server.route("/a", reply(BODY))

    async def fetch() -> None:
        loop = asyncio.get_running_loop()
        close = loop.close
        for _ in range(30):
            await asyncio.gather(*(connection.async_get_bytes(url) for _ in range(100)))
        assert loop.close == close
        sessions = [each for each in gc.get_objects() if type(each) is aiohttp.ClientSession]
        assert not [session for session in sessions if session._loop is loop]

    asyncio.run(fetch())
    assert server.count() == 3000


def test_closing_a_loop_that_runs_is_still_refused(server: Server) -> None:
    async def close() -> None:
        await global_http_connection.get_async_client()
        with pytest.raises(RuntimeError, match="running"):
            asyncio.get_running_loop().close()

    asyncio.run(close())


def test_without_reuse_every_request_has_a_client_of_its_own(server: Server) -> None:
    connection = HTTPConnection(reuse_client=False)
    server.route("/a", reply(BODY))
    assert connection.get_bytes(server.url("/a")) == connection.get_bytes(server.url("/a")) == BODY

    async def fetch() -> None:
        assert await connection.async_get_bytes(server.url("/a")) == BODY
        assert await connection.async_get_bytes(server.url("/a")) == BODY

    asyncio.run(fetch())
    gc.collect()
    assert server.connections == 4
    assert connection.get_sync_client() is not connection.get_sync_client()


def test_the_sync_half_keeps_its_connections(server: Server) -> None:
    connection = HTTPConnection()
    server.route("/a", reply(BODY))
    for _ in range(3):
        connection.get_bytes(server.url("/a"))
    assert server.connections == 1
    server.route("/b", redirect("/a"))
    with connection.get_sync_client() as session:  # for who wants requests itself
        assert session.get(server.url("/b")).content == BODY
        assert session.get(server.url("/b"), allow_redirects=False).status_code == 302


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_talk_on_its_parents_connections(server: Server) -> None:
    connection = HTTPConnection()
    url = server.route("/a", reply(BODY))

    async def fetch() -> None:
        await connection.async_get_bytes(url)
        in_child(lambda: connection.get_bytes(url) == BODY)
        assert await connection.async_get_bytes(url) == BODY

    connection.get_bytes(url)
    asyncio.run(fetch())
    assert server.connections == 3
    in_child(lambda: asyncio.run(connection.async_get_bytes(url)) == BODY)
    connection.get_bytes(url)
    assert server.connections == 4


def in_child(check: Callable[[], bool]) -> None:
    """Check in a forked child, which must not hang."""
    child = os.fork()
    if not child:
        signal.alarm(30)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("lock", ["connection", "clients", "dns"])
def test_a_child_that_was_forked_in_the_midst_of_a_lock_works(server: Server, lock: str) -> None:
    connection = HTTPConnection()
    url = server.route("/a", reply(BODY)).replace("127.0.0.1", "localhost")
    asyncio.run(connection.async_get_bytes(url))  # has made what there is to lock
    locks = {
        "connection": connection._lock,
        "clients": connection._clients._lock,  # type: ignore[union-attr]
        "dns": resolving._pool._lock,
    }
    with locks[lock]:
        in_child(lambda: connection.get_bytes(url) == BODY)
        in_child(lambda: asyncio.run(connection.async_get_bytes(url)) == BODY)


def test_equal_policies_are_equal_after_a_thousand_other_lists() -> None:
    def policy() -> FetchPolicy:
        return FetchPolicy(domain_list(["Example.org", "*.cdn.example"]))

    before = policy()
    for number in range(1000):
        assert FetchPolicy(domain_list([f"{number}.example"])) != before
    after = policy()
    assert after == before
    assert after.domains == before.domains
    assert {before: 1}[after] == hash(after) - hash(before) + 1
    assert {parse_http_url("http://a/b"): 1}[parse_http_url("HTTP://A/b")] == 1


def test_what_was_read_already_is_fetched(server: Server, fetch: Callable[..., bytes]) -> None:
    assert fetch(parse_http_url(server.route("/a", reply(BODY)))) == BODY


def test_settings_are_read_once_a_fetch(
    server: Server, fetch: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.route("/a", reply(BODY))
    settings = envs.fetch_settings()._replace(attempts=1, max_download_bytes=len(BODY) - 1)
    policy = FetchPolicy(settings=settings)
    with fetch_policy(policy), pytest.raises(LimitExceededError):
        fetch(url)
    policy = FetchPolicy(settings=settings._replace(max_download_bytes=len(BODY)))
    for name in ("MAX_MEDIA_DOWNLOAD_SIZE_MB", "MEDIA_FETCH_MAX_RETRIES", "MEDIA_EGRESS_BLOCK_PRIVATE"):
        monkeypatch.setenv(f"VLLM_{name}", "unreadable")
    with fetch_policy(policy):
        assert fetch(url) == BODY


# The other methods.


def test_text_and_json_are_read(server: Server) -> None:
    connection = global_http_connection
    text = server.route("/text", reply("ü".encode()))
    data = server.route("/json", reply(b'\xef\xbb\xbf{"a": 1}'))
    assert connection.get_text(text) == asyncio.run(connection.async_get_text(text)) == "ü"
    assert connection.get_json(data) == asyncio.run(connection.async_get_json(data)) == {"a": 1}
    for body in (b"\xff", b"{", b"[" * 100_000):
        server.route("/bad", reply(body))
        with pytest.raises(InvalidMediaError, match="is not"):
            connection.get_json(server.url("/bad"))


@pytest.fixture(params=["sync", "async"])
def download(request: pytest.FixtureRequest) -> Callable[..., Path]:
    """`download_file`, in one half and in the other."""
    if request.param == "sync":
        return global_http_connection.download_file
    return lambda *args, **kwargs: asyncio.run(global_http_connection.async_download_file(*args, **kwargs))


def test_no_moment_has_another_umask(
    server: Server, download: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def umask(mask: int) -> int:
        raise AssertionError(mask)

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", umask)
            path = download(server.route("/a", reply(BODY)), tmp_path / "a.bin")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_is_downloaded_whole(
    server: Server, download: Callable[..., Path], tmp_path: Path, waits: list[float]
) -> None:
    server.route("/a", in_turn(cut(BODY * 20, len(BODY) * 15), reply(BODY * 10)))
    path = download(server.url("/a"), tmp_path / "a.bin", timeout=20, chunk_size=64)
    assert path == tmp_path / "a.bin"
    assert path.read_bytes() == BODY * 10
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444 & ~os.umask(os.umask(0o022))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("one_attempt")
def test_a_failed_download_leaves_nothing_and_keeps_what_was_there(
    server: Server, download: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"before")
    with pytest.raises((requests.RequestException, aiohttp.ClientError)):
        download(server.route("/a", cut(BODY, 100)), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_response_is_handed_over_whatever_its_status(server: Server) -> None:
    server.route("/a", redirect("/b"))
    server.route("/b", reply(BODY, 418, {"X-Pot": "tea"}))
    response = global_http_connection.get_response(server.url("/a"), timeout=20)
    assert (response.status_code, response.content, response.headers["X-Pot"]) == (418, BODY, "tea")
    response = global_http_connection.get_response(server.url("/a"), allow_redirects=False)
    assert response.status_code == 302
    server.route("/c", zipped(BODY))
    with global_http_connection.get_response(server.url("/c"), stream=True) as response:
        assert b"".join(response.iter_content(100)) == BODY
    assert global_http_connection.get_response(server.url("/c"), extra_headers={"X-A": "b"}).content == BODY
    assert server.requests[-1].headers["X-A"] == "b"


def test_an_async_response_is_handed_over_whatever_its_status(server: Server) -> None:
    server.route("/a", redirect("/b"))
    server.route("/b", zipped(BODY))

    async def read() -> None:
        async with global_http_connection.get_async_response(server.url("/a"), timeout=20) as response:
            assert await response.read() == BODY
        async with await global_http_connection.get_async_response(server.url("/a")) as response:
            assert await response.read() == BODY
        async with global_http_connection.get_async_response(
            server.url("/a"), allow_redirects=False
        ) as response:
            assert response.status == 302

    asyncio.run(read())
    assert server.connections == 1


def test_a_response_that_redirects_off_http_or_never_comes_is_an_error(server: Server) -> None:
    connection = HTTPConnection()
    server.route("/a", redirect("file:///etc/passwd"))

    async def follow(path: str) -> None:
        await connection.get_async_response(server.url(path), timeout=20)

    with pytest.raises(RefusedURLError):
        connection.get_response(server.url("/a"))
    with pytest.raises(RefusedURLError):
        asyncio.run(follow("/a"))
    server.route("/b", hang_up)
    with pytest.raises(requests.ConnectionError):
        connection.get_response(server.url("/b"))
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(follow("/b"))
    server.route("/c", reply(b"", headers={"Content-Length": 10**12}))
    with pytest.raises(LimitExceededError):
        connection.get_response(server.url("/c"))
    connection.close()


@pytest.mark.parametrize("url", ["ftp://h/", "file:///etc/passwd", "data:,", "a.png"])
def test_other_urls_are_refused(fetch: Callable[..., bytes], url: str) -> None:
    with pytest.raises(InvalidURLError, match="Invalid HTTP URL"):
        fetch(url)


def test_nothing_is_logged_about_a_fetch_that_succeeds(
    server: Server, fetch: Callable[..., bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mmmedia")
    fetch(server.route("/a", reply(BODY)))
    assert not [record for record in caplog.records if record.name.startswith("mmmedia")]


def test_an_engine_can_tell_whose_fault_an_error_is(server: Server, fetch: Callable[..., bytes]) -> None:
    def answer(url: str, **kwargs: Any) -> int:
        with pytest.raises(Exception) as caught:
            fetch(url, **kwargs)
        return http_status(caught.value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
        assert answer(server.url("/missing")) == 422
        assert answer(server.route("/a", reply(status=500))) == 503
        assert answer(server.route("/a", reply(status=429))) == 503
        assert answer(server.route("/a", stall()), timeout=0.1) == 503
        assert answer(server.route("/a", cut(BODY, 1))) == 503
        assert answer("http://nobody.invalid/") == 503
        assert answer("http://a:0/") == answer("http://169.254.169.254/") == 400
        assert answer(server.route("/a", reply(b"", headers={"Content-Length": 10**12}))) == 422
    assert http_status(InvalidMediaError("x")) == 422
    assert http_status(MemoryError()) == 500
    part = PartError.around(TimeoutError("too slow"), 0, 0, "image_url")
    part.__cause__ = TimeoutError("too slow")
    assert http_status(part) == 503


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a self-signed certificate for localhost, in one file."""
    return self_signed(tmp_path_factory.mktemp("certificate"), "localhost")


@pytest.fixture
def secure(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that speaks TLS, and that is trusted."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with Server(certificate=certificate) as server:
        yield server


def test_https_is_fetched_where_the_certificate_is_for_that_name(
    secure: Server, fetch: Callable[..., bytes]
) -> None:
    secure.route("/b", reply(BODY))
    url = secure.route("/a", redirect("/b"))
    assert fetch(url.replace("127.0.0.1", "localhost"), timeout=20) == BODY


def test_another_name_and_an_unknown_issuer_are_final(
    secure: Server, fetch: Callable[..., bytes], waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = secure.route("/a", reply(BODY))
    certificate_errors = (requests.exceptions.SSLError, aiohttp.ClientConnectorCertificateError)
    with pytest.raises(certificate_errors, match="127"):
        fetch(url, timeout=20)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(certificate_errors, match="self-signed"):
        fetch(url.replace("127.0.0.1", "localhost"), timeout=20)
    assert waits == []
    assert secure.count() == 0


@pytest.mark.usefixtures("one_attempt")
@pytest.mark.parametrize("behaviour", [stall(), drip(BODY, 0.01), drip_head(0.01)])
def test_the_deadline_holds_under_tls_too(
    secure: Server, fetch: Callable[..., bytes], behaviour: Behaviour
) -> None:
    url = secure.route("/a", behaviour).replace("127.0.0.1", "localhost")
    with pytest.raises((requests.Timeout, TimeoutError)):
        fetch(url, timeout=0.3)


@pytest.mark.usefixtures("one_attempt")
def test_a_handshake_that_stalls_is_given_up(fetch: Callable[..., bytes]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises((requests.Timeout, TimeoutError)):
        fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.2)


# What is sent, byte for byte.

SIGNED = [
    "/a%2fb/c%2Fd",
    "/%3a%3A:",
    "/[x]/a[0]",
    "/a?X-Amz-Signature=%2f%2F&k[0]=[x]&e=%zz&c=a+b%20c",
    "/a%20b;v=1,2!$&'()*@~_-.",
    "/a?b=c?d=/../e|f",
    "/%C3%BC/%c3%bc/%E9",
    "//a//b/",
    "/a%25b%252f",
    "/%2e%2e/a",
]


@pytest.mark.parametrize("target", SIGNED)
def test_a_signed_url_is_sent_as_it_was_written(
    server: Server, fetch: Callable[..., bytes], target: str
) -> None:
    server.route(target.partition("?")[0], reply(BODY))
    assert fetch(server.url(target)) == BODY
    server.route("/redirect", redirect(target if not target.startswith("//") else server.url(target)))
    assert fetch(server.url("/redirect")) == BODY
    assert [request.target for request in server.requests] == [target, "/redirect", target]
    assert {request.headers["Host"] for request in server.requests} == {f"127.0.0.1:{server.port}"}


RAW = [
    *[f"/caf{letter}/{letter}.png?q={letter}".encode() for letter in "éøüß漢🐈À\u00a0ÿ\u2028"],
    *[f"/caf{letter}".encode("latin-1") for letter in "éøüßÀÿ\u00a0æ¿\u0085"],
    b"/\xe9?\xe9=\xff", b"relative/\xc3\xbc", b"./\xfc/../\xfc", b"b?q=\xfc", "/mixed é".encode() + b"\xe9",
    b"/\xf0\x9f\x90", b"/\xed\xa0\x80", b"/a\xe9%2f%3a[x]", b"/%C3%BC\xc3\xbc", "/a b/ü c".encode(),
]  # fmt: skip


@pytest.mark.parametrize("location", RAW)
def test_raw_bytes_in_a_location_are_followed_by_both_halves_alike(server: Server, location: bytes) -> None:
    def behave(request: Request) -> None:
        request.send(b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location)

    server.route("/dir/a", behave)
    targets = []
    for fetch in (sync_fetch, async_fetch):
        with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError), match="404"):
            fetch(server.url("/dir/a"))
        targets.append(server.requests[-1].target)
    try:
        text = location.decode()
    except UnicodeDecodeError:
        text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in location)
    wanted = "".join(character if "!" <= character <= "~" else quote(character) for character in text)
    if not wanted.startswith("/"):
        wanted = "/dir/" + wanted.replace("./%FC/../", "")
    assert targets == [wanted, wanted]


# Copies.


class Tagged(HTTPConnection):
    """As an engine may have one of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__(reuse_client=False)
        self.tag = tag


COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "pickle 2": lambda thing: pickle.loads(pickle.dumps(thing, 2)),
    "cloudpickle": lambda thing: pickle.loads(pytest.importorskip("cloudpickle").dumps(thing)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_of_a_connection_can_be_used(server: Server, way: str) -> None:
    url = server.route("/a", reply(BODY))
    used = Tagged("mine")
    kept = HTTPConnection()
    for connection in (used, kept):
        connection.get_bytes(url)
        asyncio.run(connection.async_get_bytes(url))
        made = COPIES[way](connection)
        assert made is not connection
        assert made.reuse_client is connection.reuse_client
        assert made._lock is not connection._lock
        assert made.get_bytes(url) == asyncio.run(made.async_get_bytes(url)) == BODY
        made.close()
        connection.close()
    assert COPIES[way](used).tag == "mine"
    assert COPIES[way](global_http_connection) is global_http_connection


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_connection_travels_to_another_process(server: Server, method: str) -> None:
    url = server.route("/a", reply(BODY))
    connection = HTTPConnection()
    connection.get_bytes(url)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        for each in (connection, global_http_connection):
            assert pool.submit(fetched_by, each, url).result(60) == 2 * BODY
    connection.close()


def test_a_host_that_dns_does_not_know_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a type that callers catch, and that may heal; a proxy's name is not taken for the server's."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    with pytest.raises(requests.ConnectionError, match=r"^Cannot resolve the host 'no-such") as raised:
        HTTPConnection().get_bytes("http://no-such.example/a.png")
    assert is_transient(raised.value)
    monkeypatch.setenv("http_proxy", "http://proxy.example:8080")
    with pytest.raises(requests.RequestException) as raised:
        HTTPConnection().get_bytes("http://no-such.example/a.png")
    assert "Cannot resolve the host" not in str(raised.value)
    assert "proxy.example" in str(raised.value)


def test_the_session_of_the_running_loop_can_be_looked_at(server: Server) -> None:
    """Tests of engines close it that way; the next fetch makes another."""
    connection = HTTPConnection()
    server.route("/a", reply(BODY))

    async def use() -> None:
        assert connection._async_client is None
        await connection.async_get_bytes(server.url("/a"))
        session = connection._async_client
        assert session is await connection.get_async_client()
        await session.close()
        assert await connection.async_get_bytes(server.url("/a")) == BODY
        assert connection._async_client is not session

    asyncio.run(use())


def test_sessions_of_loops_that_were_never_closed_are_closed_in_the_end(server: Server) -> None:
    """Of one that stands still, and of one that runs in another thread."""
    connection = HTTPConnection()
    server.route("/a", reply(BODY))
    still, running = asyncio.new_event_loop(), asyncio.new_event_loop()
    thread = threading.Thread(target=running.run_forever)
    thread.start()

    async def use() -> aiohttp.ClientSession:
        await connection.async_get_bytes(server.url("/a"))
        return await connection.get_async_client()

    sessions = [
        still.run_until_complete(use()),
        asyncio.run_coroutine_threadsafe(use(), running).result(60),
    ]
    assert connection._clients is not None
    connection._clients.abandon()
    assert all(session.closed for session in sessions)
    assert not connection._clients._clients
    running.call_soon_threadsafe(running.stop)
    thread.join()
    for loop in (still, running):
        loop.close()


def test_what_comes_out_of_gzip_is_paid_for(server: Server) -> None:
    server.route("/a", zipped(BODY))
    budget = MediaRequestDownloadBudget(len(BODY) - 1)
    with pytest.raises(MediaRequestDownloadSizeExceededError):
        HTTPConnection().get_bytes(server.url("/a"), request_budget=budget)
    budget = MediaRequestDownloadBudget(len(BODY))
    assert HTTPConnection().get_bytes(server.url("/a"), request_budget=budget) == BODY
    assert budget.used == len(BODY)
