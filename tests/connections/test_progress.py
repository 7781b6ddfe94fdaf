"""How far a download is, told to who asks: in both halves, by connections and by connectors."""

import asyncio
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmmedia.connections import HTTPConnection, RetryPlan
from mmmedia.media import MediaConnector
from support.plain import Plain
from support.server import Request, Server, head, in_turn, reply

BODY = bytes(range(256)) * 2000
Told = list[tuple[int, int | None]]
Fetch = Callable[..., Any]


def _get(url: str, path: Path, **kwargs: Any) -> bytes:
    return HTTPConnection().get_bytes(url, **kwargs)


def _get_async(url: str, path: Path, **kwargs: Any) -> bytes:
    return asyncio.run(HTTPConnection().async_get_bytes(url, **kwargs))


def _file(url: str, path: Path, **kwargs: Any) -> bytes:
    return HTTPConnection().download_file(url, path, **kwargs).read_bytes()


def _file_async(url: str, path: Path, **kwargs: Any) -> bytes:
    return asyncio.run(HTTPConnection().async_download_file(url, path, **kwargs)).read_bytes()


def _load(url: str, path: Path, **kwargs: Any) -> bytes:
    return MediaConnector(**kwargs).load_from_url(url, Plain())


def _load_async(url: str, path: Path, **kwargs: Any) -> bytes:
    return asyncio.run(MediaConnector(**kwargs).load_from_url_async(url, Plain()))


@pytest.fixture(
    params=[_get, _get_async, _file, _file_async, _load, _load_async],
    ids=lambda function: function.__name__.strip("_"),
)
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return request.param


def _chunked(request: Request) -> None:
    request.send(head(200, {"Transfer-Encoding": "chunked"}))
    for start in range(0, len(BODY), 50_000):
        piece = BODY[start : start + 50_000]
        request.send(b"%x\r\n%s\r\n" % (len(piece), piece))
    request.send(b"0\r\n\r\n")


def _rises(told: Told) -> bool:
    done = [each for each, _ in told]
    return done == sorted(set(done))


def test_it_rises_to_all_there_is(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    told: Told = []
    url = server.route("/a", reply(BODY))
    assert fetch(url, tmp_path / "a", on_progress=lambda *now: told.append(now)) == BODY
    assert _rises(told)
    assert told[-1] == (len(BODY), len(BODY))
    assert {total for _, total in told} == {len(BODY)}
    assert len(told) > 1


def test_what_the_server_does_not_say_is_not_told(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    told: Told = []
    url = server.route("/a", _chunked)
    assert fetch(url, tmp_path / "a", on_progress=lambda *now: told.append(now)) == BODY
    assert _rises(told)
    assert told[-1] == (len(BODY), None)


def test_bytes_are_those_on_the_wire(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    told: Told = []
    packed = gzip.compress(BODY)
    url = server.route("/a", reply(packed, headers={"Content-Encoding": "gzip"}))
    assert fetch(url, tmp_path / "a", on_progress=lambda *now: told.append(now)) == BODY
    assert told[-1] == (len(packed), len(packed))


def test_another_attempt_begins_anew(
    fetch: Fetch, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        RetryPlan,
        "wait_seconds",
        lambda self, attempt, *_, **__: 0.0 if attempt + 1 < self.attempts else None,
    )

    def cut(request: Request) -> None:
        request.send(head(200, {"Content-Length": len(BODY)}) + BODY[:-1])
        while (not told or told[-1][0] < len(BODY) - 1) and not request.server.stopping.is_set():
            request.wait(0.001)
        request.hang_up()

    told: Told = []
    url = server.route("/a", in_turn(cut, reply(BODY)))
    assert fetch(url, tmp_path / "a", on_progress=lambda *now: told.append(now)) == BODY
    anew = next(number for number in range(1, len(told)) if told[number][0] <= told[number - 1][0])
    assert told[anew - 1] == (len(BODY) - 1, len(BODY))
    assert _rises(told[anew:])


def test_what_it_raises_ends_the_download(fetch: Fetch, server: Server, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(*_: object) -> None:
        raise EnoughError

    url = server.route("/a", reply(BODY))
    with pytest.raises(EnoughError):
        fetch(url, tmp_path / "a", on_progress=stop)
    assert server.count() == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("half", ["sync", "async"])
def test_handles_tell_it_too(server: Server, half: str) -> None:
    told: Told = []
    url = server.route("/a", reply(BODY))
    connector = MediaConnector(on_progress=lambda *now: told.append(now))
    if half == "sync":
        connector.open(url, "video")
    else:
        asyncio.run(connector.open_async(url, "video"))
    assert told[-1] == (len(BODY), len(BODY))


def test_who_is_told_and_who_is_not_share_a_download(server: Server) -> None:
    async def main() -> list[bytes]:
        load = [
            MediaConnector(**kwargs).load_from_url_async(url, Plain())
            for kwargs in ({"on_progress": lambda *now: told.append(now)}, {}, {"on_progress": print})
        ]
        return await asyncio.gather(*load)

    told: Told = []
    url = server.route("/a", reply(BODY))
    assert asyncio.run(main()) == [BODY] * 3
    assert server.count() == 1
    assert told[-1] == (len(BODY), len(BODY))
