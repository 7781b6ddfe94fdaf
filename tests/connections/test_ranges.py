"""Reading what is behind a URL in pieces, by both halves, from servers that behave and others."""

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mmmedia import envs
from mmmedia.connections import FetchPolicy, HTTPConnection, fetch_policy, http_status
from mmmedia.connections.ranges import (
    FIRST_BYTES,
    LARGEST_PIECE,
    HttpSource,
    Whole,
    aopen_source,
    given,
    open_source,
    validator_of,
)
from mmmedia.errors import LimitExceededError, RefusedURLError, SourceChangedError
from mmmedia.urls import domain_list
from support.server import (
    Behaviour,
    Request,
    Server,
    cut,
    hang_up,
    head,
    in_turn,
    ranged,
    redirect,
    reply,
    slowly,
    stall,
    zipped,
)

BODY = np.random.default_rng(16).bytes(3 * FIRST_BYTES + 1234)
LATER: dict[str, object] = {"Content-Range": "bytes 5-8/9", "ETag": '"1"'}
MODIFIED = "Sat, 28 Nov 2026 08:00:00 GMT"

Ranges = list[tuple[int, int]]
FAR: Ranges = [(700_000, 700_010), (300_000, 400_000), (5, 10)]


class Half:
    """One half, opening and reading a source in its way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self, url: str, *reads: Ranges, between: Callable[[], object] = lambda: None, **how: Any
    ) -> tuple[HttpSource | Whole, list[list[bytes]]]:
        """Open, do something, and read some stretches, one list after the other."""
        how = {"timeout": 10.0, **how}
        connection = HTTPConnection()
        found: list[list[bytes]] = []
        if self.name == "sync":
            source = open_source(connection, url, **how)
            between()
            if isinstance(source, HttpSource):
                found = [source.read(ranges) for ranges in reads]
            connection.close()
            return source, found

        async def run() -> tuple[HttpSource | Whole, list[list[bytes]]]:
            source = await aopen_source(connection, url, **how)
            between()
            if isinstance(source, HttpSource):
                return source, [await source.aread(ranges) for ranges in reads]
            return source, []

        return asyncio.run(run())


@pytest.fixture(params=["sync", "async"])
def half(request: pytest.FixtureRequest) -> Half:
    return Half(request.param)


def asked(server: Server) -> list[str]:
    return [request.headers.get("Range", "whole") for request in server.requests]


def test_the_first_piece_is_asked_for_and_then_what_is_needed(half: Half, server: Server) -> None:
    """Each later request says of what it wants a piece."""
    source, (pieces,) = half(server.route("/a.mp4", ranged(BODY)), FAR)
    assert isinstance(source, HttpSource)
    assert pieces == [BODY[start:stop] for start, stop in FAR]
    assert (source.size, source.validator, source.head) == (len(BODY), '"one"', BODY[:FIRST_BYTES])
    assert asked(server)[0] == f"bytes=0-{FIRST_BYTES - 1}"
    assert sorted(asked(server)[1:]) == ["bytes=300000-399999", "bytes=700000-700009"]
    assert {request.headers.get("If-Range") for request in server.requests[1:]} == {'"one"'}
    assert {request.headers["Accept-Encoding"] for request in server.requests} == {"identity"}
    assert {request.method for request in server.requests} == {"GET"}
    assert (source.fetched, source.pieces) == (FIRST_BYTES + 100_010, 3)


@pytest.mark.parametrize(
    ("behaviour", "requests"),
    [
        (lambda: reply(BODY), 1),
        (lambda: reply(BODY, headers={"ETag": '"one"'}), 1),
        (lambda: ranged(BODY[:1000]), 1),
        (lambda: ranged(BODY[:1000], validators={}), 1),
        (lambda: in_turn(ranged(BODY, validators={}), reply(BODY)), 2),
        (lambda: in_turn(ranged(BODY, validators={"ETag": 'W/"one"'}), reply(BODY)), 2),
        (lambda: in_turn(ranged(BODY, total="*"), reply(BODY)), 2),
        (lambda: in_turn(ranged(BODY, total=7), reply(BODY)), 2),
        (lambda: in_turn(ranged(BODY, headers={"Content-Encoding": "gzip"}), reply(BODY)), 2),
        (lambda: in_turn(reply(status=416), reply(BODY)), 2),
        (lambda: in_turn(reply(BODY, 206), reply(BODY)), 2),
        (lambda: in_turn(reply(BODY[5:9], 206, LATER), reply(BODY)), 2),
        (lambda: zipped(BODY), 1),
        (lambda: ranged(b""), 2),
    ],
    ids=[
        "no pieces", "no pieces but a validator", "small", "small without a validator", "no validator",
        "a weak one", "no total", "a total that lies", "coded", "416", "206 without a range",
        "another range than the first", "gzip nevertheless", "empty",
    ],
)  # fmt: skip
def test_what_gives_no_pieces_is_taken_whole(
    half: Half, server: Server, behaviour: Callable[[], Behaviour], requests: int
) -> None:
    """Where the answer to the first request has all, nothing is asked for twice."""
    found, _ = half(server.route("/a.mp4", behaviour()))
    assert isinstance(found, Whole)
    assert found.data in (BODY, BODY[:1000], b"")
    assert server.count() == requests
    assert asked(server)[1:] == ["whole"] * (requests - 1)


@pytest.mark.parametrize(
    "validators", [{"Last-Modified": MODIFIED}, {"ETag": 'W/"1"', "Last-Modified": MODIFIED}]
)
def test_a_time_is_a_validator_where_there_is_no_strong_one(
    half: Half, server: Server, validators: dict[str, object]
) -> None:
    source, (pieces,) = half(server.route("/a.mp4", ranged(BODY, validators=validators)), FAR)
    assert pieces == [BODY[start:stop] for start, stop in FAR]
    assert source.validator == MODIFIED  # type: ignore[union-attr]
    assert server.requests[-1].headers["If-Range"] == MODIFIED


def test_what_is_long_is_asked_for_in_several_pieces(
    half: Half, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most six of them are under way at a time, and more than one is."""
    monkeypatch.setattr("mmmedia.connections.ranges.LARGEST_PIECE", 20_000)
    lock, under_way, most = threading.Lock(), [0], [0]
    answer = ranged(BODY)

    def behave(request: Request) -> None:
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        request.wait(0.03)
        with lock:
            under_way[0] -= 1
        answer(request)

    _, (pieces,) = half(server.route("/a.mp4", behave), [(300_000, 650_000)])
    assert pieces == [BODY[300_000:650_000]]
    assert server.count() == 1 + 18
    assert 1 < most[0] <= 6
    assert LARGEST_PIECE > FIRST_BYTES


def test_a_server_that_gives_less_than_asked_is_asked_again(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", in_turn(ranged(BODY), ranged(BODY, most=40_000)))
    _, (pieces,) = half(url, [(300_000, 400_000)])
    assert pieces == [BODY[300_000:400_000]]
    assert asked(server)[1:] == [f"bytes={start}-399999" for start in (300_000, 340_000, 380_000)]


@pytest.mark.parametrize(
    "trouble", [reply(status=503), hang_up, cut(BODY, 10)], ids=["503", "hang up", "cut"]
)
def test_each_piece_is_tried_again_by_itself(
    half: Half, server: Server, trouble: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmmedia.connections.retries.RetryPlan.wait_seconds", lambda *_, **__: 0.0)
    url = server.route("/a.mp4", in_turn(ranged(BODY), trouble, ranged(BODY)))
    _, (pieces,) = half(url, [(300_000, 400_000)])
    assert pieces == [BODY[300_000:400_000]]
    assert asked(server)[1:] == ["bytes=300000-399999"] * 2


def test_an_error_of_one_piece_ends_the_reading(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", in_turn(ranged(BODY), reply(status=403)))
    with pytest.raises(Exception, match="403") as caught:
        half(url, FAR)
    assert http_status(caught.value) == 422


def changed(total: int | None = None, etag: str = '"two"') -> Behaviour:
    """A server that answers for another thing, whatever the condition."""

    def behave(request: Request) -> None:
        start, last = map(int, re.findall(r"\d+", request.headers["Range"]))
        where = f"bytes {start}-{last}/{len(BODY) if total is None else total}"
        part = bytes(last + 1 - start)
        request.send(head(206, {"Content-Length": len(part), "Content-Range": where, "ETag": etag}) + part)

    return behave


@pytest.mark.parametrize(
    "later",
    [
        changed(),
        changed(total=len(BODY) + 1, etag='"one"'),
        changed(etag='W/"one"'),
        reply(status=416),
        reply(BODY[:9], 206, {"Content-Range": "bytes 0-8/5", "ETag": '"one"'}),
        reply(BODY[:9], 206, {"ETag": '"one"'}),
        ranged(bytes(len(BODY)), validators={"ETag": '"one"'}, headers={"Content-Encoding": "gzip"}),
    ],
    ids=["validator", "total", "weak", "416", "another range", "no range", "coded"],
)
def test_what_is_of_another_thing_is_never_taken(half: Half, server: Server, later: Behaviour) -> None:
    with pytest.raises(SourceChangedError, match="was changed") as caught:
        half(server.route("/a.mp4", in_turn(ranged(BODY), later)), [(300_000, 300_100)])
    assert caught.value.whole is None
    assert http_status(caught.value) == 503


def test_a_whole_in_the_middle_is_taken_at_its_word(half: Half, server: Server) -> None:
    """If it is the same thing all is there now; if not, it comes with the error."""
    url = server.route("/a.mp4", in_turn(ranged(BODY), reply(BODY, headers={"ETag": '"one"'})))
    source, (pieces, more) = half(url, [(300_000, 300_100)], FAR)
    assert pieces == [BODY[300_000:300_100]]
    assert more == [BODY[start:stop] for start, stop in FAR]
    assert source.whole == BODY  # type: ignore[union-attr]
    assert server.count() == 2
    other = BODY[::-1]
    url = server.route("/b.mp4", in_turn(ranged(BODY), ranged(other, validators={"ETag": '"two"'})))
    with pytest.raises(SourceChangedError) as caught:
        half(url, [(300_000, 300_100)])
    assert caught.value.whole == other


def test_pieces_are_asked_for_where_a_redirect_led(half: Half, server: Server) -> None:
    """Also to another origin, which is told which piece is wanted."""
    with Server() as other:
        target = other.route("/signed?key=1", ranged(BODY)).partition("?")[0]
        other.route("/signed", ranged(BODY))
        url = server.route("/a.mp4", redirect(target + "?key=1"))
        source, (pieces,) = half(url, [(300_000, 300_100)])
        assert pieces == [BODY[300_000:300_100]]
        assert isinstance(source, HttpSource)
        assert server.count() == 1
        assert asked(other) == [f"bytes=0-{FIRST_BYTES - 1}", "bytes=300000-300099"]
        assert other.requests[1].target == "/signed?key=1"
        assert "key=1" not in source.name


def test_the_policy_holds_for_every_piece(half: Half, server: Server) -> None:
    """A later piece that is redirected to a host that is not admitted is refused."""
    url = server.route("/a.mp4", in_turn(ranged(BODY), redirect("http://localhost:1/elsewhere")))
    with fetch_policy(FetchPolicy(domain_list(["127.0.0.1"]))), pytest.raises(RefusedURLError):
        half(url, [(300_000, 300_100)])
    url = server.route("/b.mp4", in_turn(ranged(BODY), redirect("/c.mp4")))
    server.route("/c.mp4", ranged(BODY))
    with pytest.raises(RefusedURLError, match="allow_redirects"):
        half(url, [(300_000, 300_100)], allow_redirects=False)


def test_the_policy_is_that_of_the_opening(server: Server) -> None:
    """Whoever reads later, elsewhere, reads under the same rules."""
    url = server.route("/a.mp4", in_turn(ranged(BODY), redirect("http://localhost:1/elsewhere")))
    connection = HTTPConnection()
    with fetch_policy(FetchPolicy(domain_list(["127.0.0.1"]))):
        source = open_source(connection, url)
    assert isinstance(source, HttpSource)
    with pytest.raises(RefusedURLError):
        source.read([(300_000, 300_100)])
    connection.close()


def test_a_larger_source_than_admitted_is_refused(
    half: Half, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_SOURCE_SIZE_MB", "1")
    large = BODY + bytes(1 << 20)
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_SOURCE_SIZE_MB"):
        half(server.route("/a.mp4", ranged(large)))
    assert isinstance(half(server.route("/b.mp4", ranged(BODY)))[0], HttpSource)


def test_one_piece_may_be_no_longer_than_a_download(
    half: Half, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    large = BODY + bytes(3 << 20)
    url = server.route("/a.mp4", ranged(large))
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"):
        half(url, [(300_000, 300_000 + (2 << 20))])


def test_a_piece_that_never_comes_is_late(
    half: Half, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    url = server.route("/a.mp4", in_turn(ranged(BODY), slowly(0.01, ranged(BODY)), stall()))
    with pytest.raises(Exception, match=r"took more than|timed out|Timeout") as caught:
        half(url, [(300_000, 300_100)], [(400_000, 400_100)], timeout=0.5)
    assert http_status(caught.value) == 503


def test_all_pieces_together_have_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = HTTPConnection()
    source = open_source(connection, server.route("/a.mp4", ranged(BODY)))
    assert isinstance(source, HttpSource)
    source._context = source._context._replace(end=0.0)
    with pytest.raises(TimeoutError, match="in all"):
        source.read([(300_000, 300_100)])
    connection.close()


def test_progress_is_told(half: Half, server: Server) -> None:
    told: list[tuple[int, int]] = []
    connection = HTTPConnection()
    source = open_source(connection, server.route("/a.mp4", ranged(BODY)))
    assert isinstance(source, HttpSource)
    source.on_progress = lambda done, total: told.append((done, total))
    source.read([(300_000, 300_100)])
    connection.close()
    assert told == [(FIRST_BYTES + 100, len(BODY))]


def test_cancelling_stops_all_pieces(server: Server) -> None:
    url = server.route("/a.mp4", in_turn(ranged(BODY), stall()))

    async def run() -> None:
        source = await aopen_source(HTTPConnection(), url)
        assert isinstance(source, HttpSource)
        reading = asyncio.ensure_future(source.aread([(300_000, 300_100), (700_000, 700_100)]))
        await asyncio.to_thread(server.wait_for, 3)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())


def test_what_an_answer_says_is_read_strictly() -> None:
    good = {"Content-Range": "bytes 3-5/10", "ETag": '"a"'}
    assert given(206, good) == (3, 6, 10, '"a"')
    for bad in ("bytes 5-3/10", "bytes 3-10/10", "bytes */10", "items 3-5/10", "bytes 3-5/10, 6-7/10", ""):
        assert given(206, {**good, "Content-Range": bad}) is None
    assert given(200, good) is None
    assert given(206, {**good, "Content-Encoding": "br"}) is None
    assert given(206, {**good, "Content-Encoding": "none"}) == (3, 6, 10, '"a"')
    for bad in ("a", 'W/"a"', '"\x01"', '"é"'):
        assert validator_of({"ETag": bad}) == ""
    assert envs.MMMEDIA_SPARSE_GAP_KB == 0
