"""Revalidation: an expired entry is confirmed by its server without being sent again; in both halves."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from mmmedia.cache import entry_name
from mmmedia.connections import HTTPConnection, global_http_connection
from mmmedia.media.connector import MediaConnector
from support.plain import Plain
from support.server import Behaviour, Request, Server, head, raw, redirect, reply

BODY = b"content" * 1000


def _sync(url: str, connector: MediaConnector | None = None) -> bytes:
    return (connector or MediaConnector()).load_from_url(url, Plain())


def _async(url: str, connector: MediaConnector | None = None) -> bytes:
    return asyncio.run((connector or MediaConnector()).load_from_url_async(url, Plain()))


Load = Callable[..., bytes]


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Load:
    return request.param


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory, and servers are asked about what expired in it."""
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    monkeypatch.setenv("VLLM_MEDIA_CACHE_REVALIDATE", "1")
    return tmp_path


class Resource:
    """A file on a server that knows its version: 304 to who has it; counts the bytes of bodies sent."""

    def __init__(self, body: bytes = BODY, **headers: str) -> None:
        self.body, self.headers = body, headers or {"ETag": '"1"'}
        self.sent = self.confirmed = 0
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: Request) -> None:
        self.asked.append({name: value for name, value in request.headers.items() if name.startswith("If-")})
        has = (request.headers.get("If-None-Match"), request.headers.get("If-Modified-Since"))
        if has == (self.headers.get("ETag"), self.headers.get("Last-Modified")) and any(has):
            self.confirmed += 1
            request.send(head(304, dict(self.headers)))
        else:
            self.sent += len(self.body)
            reply(self.body, headers=dict(self.headers))(request)


def expire(directory: Path, hours: float = 30.0) -> None:
    """Let the downloads of all entries lie further back: 24 hours are their life, 48 at most."""
    for file in directory.iterdir():
        os.utime(file, (time.time(), time.time() - hours * 3600))


DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"ETag": '"1"'}, {"If-None-Match": '"1"'}),
        ({"ETag": 'W/"1"'}, {"If-None-Match": 'W/"1"'}),
        ({"Last-Modified": DATE}, {"If-Modified-Since": DATE}),
        ({"ETag": '"1"', "Last-Modified": DATE}, {"If-None-Match": '"1"', "If-Modified-Since": DATE}),
    ],
)
def test_a_confirmed_entry_lives_again_and_no_body_is_sent(
    load: Load, server: Server, cached: Path, headers: dict[str, str], asked: dict[str, str]
) -> None:
    url = server.route("/a.jpg", resource := Resource(**headers))
    assert load(url) == BODY
    expire(cached)
    assert load(url) == BODY
    assert load(url) == BODY
    assert (resource.sent, resource.confirmed, resource.asked) == (len(BODY), 1, [{}, asked])


def test_a_changed_file_replaces_the_entry(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)
    resource.body, resource.headers = b"new", {"ETag": '"2"'}
    assert load(url) == b"new"
    assert load(url) == b"new"
    expire(cached)
    assert load(url) == b"new"
    assert (resource.confirmed, resource.asked) == (
        1,
        [{}, {"If-None-Match": '"1"'}, {"If-None-Match": '"2"'}],
    )


def test_a_file_without_version_is_downloaded_again(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", reply(BODY))
    load(url)
    expire(cached)
    assert load(url) == BODY
    assert server.count("/a.jpg") == 2
    assert not any(name.startswith("If-") for request in server.requests for name in request.headers)


def test_it_is_off_unless_set(
    load: Load, server: Server, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_MEDIA_CACHE_REVALIDATE")
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)
    load(url)
    assert (resource.sent, resource.asked) == (2 * len(BODY), [{}, {}])


def test_what_nobody_confirmed_for_long_is_gone(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached, hours=49)
    assert load(url) == BODY
    assert resource.asked == [{}, {}]


def test_a_damaged_entry_is_not_asked_about(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    entry = cached / entry_name(url)
    entry.write_bytes(BODY[:-1] + b"?")
    expire(cached)
    assert load(url) == BODY
    assert resource.asked == [{}, {}]


def test_an_entry_larger_than_todays_limit_is_not_served(
    load: Load, server: Server, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.route("/a.jpg", resource := Resource(b"x" * 1100000))
    load(url)
    expire(cached)
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    with pytest.raises(ValueError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"):
        load(url)
    assert resource.confirmed == 0


def test_bad_bytes_do_not_replace_the_entry(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)
    resource.body, resource.headers = b"bad", {"ETag": '"2"'}
    with pytest.raises(ValueError, match="undecodable"):
        load(url)
    resource.body, resource.headers = BODY, {"ETag": '"1"'}
    assert load(url) == BODY
    assert resource.confirmed == 1


def test_versions_are_of_the_url_and_not_of_where_it_redirects(
    load: Load, server: Server, cached: Path
) -> None:
    server.route("/b.jpg", resource := Resource())
    url = server.route("/a.jpg", redirect("/b.jpg"))
    load(url)
    expire(cached)
    assert load(url) == BODY
    assert resource.asked == [{}, {}]


def test_conditions_do_not_follow_a_redirect(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", Resource())
    load(url)
    expire(cached)
    server.route("/a.jpg", redirect("/b.jpg"))
    server.route("/b.jpg", elsewhere := Resource(b"elsewhere"))
    assert load(url) == b"elsewhere"
    assert elsewhere.asked == [{}]


@pytest.mark.parametrize("etag", ['"a\x01b"', '"ü"', '"' + "a" * 600 + '"'])
def test_strange_versions_are_not_kept(load: Load, server: Server, cached: Path, etag: str) -> None:
    url = server.route("/a.jpg", resource := Resource(ETag=etag))
    assert load(url) == BODY
    expire(cached)
    assert load(url) == BODY
    assert resource.asked == [{}, {}]


def test_a_304_that_nobody_asked_for_is_an_error(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", reply(status=304))
    with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError), match="304"):
        load(url)
    assert not list(cached.iterdir())


def test_conditions_of_the_callers_own_are_no_empty_body(server: Server) -> None:
    """`get_bytes` with such headers has nothing to return for a 304."""
    url = server.route("/a.jpg", Resource())
    connection, condition = HTTPConnection(), {"If-None-Match": '"1"'}
    with pytest.raises(requests.HTTPError, match="304"):
        connection.get_bytes(url, extra_headers=condition)
    with pytest.raises(aiohttp.ClientResponseError, match="304"):
        asyncio.run(connection.async_get_bytes(url, extra_headers=condition))


def test_a_304_with_a_body_does_not_poison_the_next_answer(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)
    smuggled = head(200, {"Content-Length": 5}) + b"wrong"
    server.route("/a.jpg", lambda request: request.send(head(304, {}) + smuggled))
    assert load(url) == BODY
    assert load(server.route("/b.jpg", reply(b"right"))) == b"right"
    assert resource.sent == len(BODY)


def test_a_server_that_fails_is_tried_again_with_the_same_question(
    load: Load, server: Server, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmmedia import connections

    monkeypatch.setattr(
        connections.RetryPlan, "wait_seconds", lambda self, attempt, *_, **__: 0.0 if attempt < 2 else None
    )
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)
    failures = [raw(b""), reply(status=503), resource]

    def behave(request: Request) -> None:
        behaviour: Behaviour = failures.pop(0)
        behaviour(request)

    server.route("/a.jpg", behave)
    assert load(url) == BODY
    assert resource.asked == [{}, {"If-None-Match": '"1"'}]


def test_an_entry_that_vanishes_meanwhile_is_written_again(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    load(url)
    expire(cached)

    def behave(request: Request) -> None:
        for file in cached.iterdir():
            file.unlink()
        resource(request)

    server.route("/a.jpg", behave)
    assert load(url) == BODY
    assert load(url) == BODY
    assert (resource.confirmed, server.count("/a.jpg")) == (1, 2)


def test_many_at_once_ask_once(server: Server, cached: Path) -> None:
    url = server.route("/a.jpg", resource := Resource())
    _sync(url)
    expire(cached)

    async def many() -> list[bytes]:
        return await asyncio.gather(*(MediaConnector().load_from_url_async(url, Plain()) for _ in range(20)))

    assert asyncio.run(many()) == [BODY] * 20
    assert (resource.sent, resource.confirmed) == (len(BODY), 1)


# Who can't ask.


class Own:
    """A connection with no more than the two methods."""

    def __init__(self) -> None:
        self.calls = 0

    def get_bytes(self, url: str, *, timeout: float | None = None, allow_redirects: bool = True) -> bytes:
        self.calls += 1
        return BODY

    async def async_get_bytes(
        self, url: str, *, timeout: float | None = None, allow_redirects: bool = True
    ) -> bytes:
        return self.get_bytes(url, timeout=timeout, allow_redirects=allow_redirects)


class Signing(HTTPConnection):
    """A connection that signs its URLs."""

    calls = 0

    def get_bytes(self, url: str, **kwargs: Any) -> bytes:
        self.calls += 1
        return super().get_bytes(url + "?signed", **kwargs)

    async def async_get_bytes(self, url: str, **kwargs: Any) -> bytes:
        self.calls += 1
        return await super().async_get_bytes(url + "?signed", **kwargs)


@pytest.mark.parametrize("kind", [Own, Signing])
def test_connections_that_fetch_in_their_own_way_go_on_doing_so(
    load: Load, server: Server, cached: Path, kind: type[Any]
) -> None:
    url = server.route("/a.jpg", resource := Resource())
    connection = kind()
    for _ in range(2):
        assert load(url, MediaConnector(connection=connection)) == BODY
        expire(cached)
    assert connection.calls == 2
    assert all(asked == {} for asked in resource.asked)


def test_connectors_that_store_in_their_own_way_go_on_doing_so(
    load: Load, server: Server, cached: Path
) -> None:
    kept: dict[str, bytes] = {}

    class Keeping(MediaConnector):
        def _get_cached_bytes(self, url: str) -> bytes | None:
            return kept.get(url)

        def _put_cached_bytes(self, url: str, data: bytes) -> None:
            kept[url] = data

    url = server.route("/a.jpg", Resource())
    assert load(url, Keeping()) == BODY
    assert kept == {url: BODY}
    assert not list(cached.iterdir())


def test_the_shared_connection_is_asked_directly(server: Server) -> None:
    url = server.route("/a.jpg", Resource(**{"ETag": '"1"', "Last-Modified": DATE}))
    first = global_http_connection.get_if_changed(url)
    assert first == (BODY, '"1"', DATE)
    unchanged = asyncio.run(global_http_connection.async_get_if_changed(url, etag='"1"', last_modified=DATE))
    assert unchanged == (None, '"1"', DATE)
