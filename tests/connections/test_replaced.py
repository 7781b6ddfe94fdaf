"""`get_bytes` by way of a `get_response` that somebody put in its place."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import pytest
import requests

from mmmedia.connections import (
    HTTPConnection,
    HTTPResponseSizeExceededError,
    MediaDownloadSizeExceededError,
    MediaRequestDownloadBudget,
    MediaRequestDownloadSizeExceededError,
)
from support.server import Server, reply

URL = "http://example.invalid/cat.png"


class Response:
    """What engines' tests put there: no more than `get_bytes` needs of either library."""

    def __init__(self, *chunks: bytes | Exception, **headers: str) -> None:
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.chunks, self.content = chunks, self
        self.read = 0

    def raise_for_status(self) -> None:
        pass

    def iter_content(self, chunk_size: int) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            self.read += len(chunk)
            yield chunk

    async def iter_chunked(self, chunk_size: int) -> AsyncIterator[bytes]:
        for chunk in self.iter_content(chunk_size):
            yield chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class Replaced(HTTPConnection):
    """Answers with what it was made with."""

    def __init__(self, *responses: Response) -> None:
        super().__init__()
        self.responses, self.asked = list(responses), list[dict[str, Any]]()

    def get_response(self, url: Any, **options: Any) -> Any:
        self.asked.append(options)
        return self.responses.pop(0)

    async def get_async_response(self, url: Any, **options: Any) -> Any:  # type: ignore[override]
        return self.get_response(url, **options)


@pytest.fixture(params=["sync", "async"])
def fetch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    waits: list[float] = []

    real_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.extend([seconds] if seconds else [])
        await real_sleep(0)

    monkeypatch.setattr("mmmedia.connections.blocking.time.sleep", waits.append)
    monkeypatch.setattr("mmmedia.connections.on_loop.asyncio.sleep", sleep)

    def get(connection: HTTPConnection, **options: Any) -> bytes:
        if request.param == "sync":
            return connection.get_bytes(URL, **options)
        return asyncio.run(connection.async_get_bytes(URL, **options))  # type: ignore[arg-type]

    get.waits = waits  # type: ignore[attr-defined]
    return get


def test_it_is_asked(fetch: Any) -> None:
    connection = Replaced(Response(b"a", b"bc"))
    assert fetch(connection, timeout=3, allow_redirects=False) == b"abc"
    assert connection.asked[0]["allow_redirects"] is False
    assert connection.asked[0]["timeout"] == pytest.approx(3)


def test_limits(fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much passes; more is refused while it comes, or by its announcement; the lower limit is named."""
    assert fetch(Replaced(Response(b"a", b"bc")), max_bytes=3) == b"abc"
    response = Response(b"ab", b"cd", b"ef")
    with pytest.raises(HTTPResponseSizeExceededError):
        fetch(Replaced(response), max_bytes=3)
    assert response.read == 4
    response = Response(b"ab", Content_Length="4")
    with pytest.raises(HTTPResponseSizeExceededError):
        fetch(Replaced(response), max_bytes=3)
    assert response.read == 0
    assert fetch(Replaced(Response(b"ab", Content_Length="many")), max_bytes=3) == b"ab"
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    with pytest.raises(MediaDownloadSizeExceededError):
        fetch(Replaced(Response(b"ab", Content_Length=str((1 << 20) + 1))), max_bytes=2 << 20)


def test_progress_is_told(fetch: Any) -> None:
    told: list[tuple[int, int | None]] = []
    fetch(Replaced(Response(b"a", b"bc", Content_Length="3")), on_progress=lambda *now: told.append(now))
    assert told == [(1, 3), (3, 3)]


def test_a_retry_is_that_of_any_fetch(fetch: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, waits as long as the server asks for, and is made in the time of a later attempt."""
    late = requests.HTTPError("503", response=requests.Response())
    late.response.status_code, late.response.headers["Retry-After"] = 503, "7"
    connection = Replaced(Response(late), Response(TimeoutError()), Response(b"abc"))
    assert fetch(connection, timeout=1) == b"abc"
    assert fetch.waits[0] == 7
    assert 3 <= fetch.waits[1] <= 5
    assert [asked["timeout"] for asked in connection.asked] == [1, 4, 16]
    assert ["of 3 for" in record.message for record in caplog.records] == [True, True]


def test_attempts_that_fail_are_paid_for(fetch: Any) -> None:
    budget = MediaRequestDownloadBudget(100)
    connection = Replaced(Response(b"abc", requests.ConnectionError("reset")), Response(b"abcdef"))
    assert fetch(connection, request_budget=budget, timeout=1) == b"abcdef"
    assert budget.used == 9
    assert [0.75 <= seconds <= 1.25 for seconds in fetch.waits] == [True]
    assert connection.asked[1]["timeout"] == pytest.approx(4)
    with pytest.raises(MediaRequestDownloadSizeExceededError):
        fetch(Replaced(Response(bytes(60), bytes(60))), request_budget=budget)


def test_the_last_error_is_raised(fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "2")
    errors = [requests.ConnectionError("first"), requests.ConnectionError("second")]
    with pytest.raises(requests.ConnectionError, match="second"):
        fetch(Replaced(*map(Response, errors)))
    with pytest.raises(KeyError):
        fetch(Replaced(Response(KeyError("a bug"))))


def test_who_calls_ours_keeps_to_its_rules(server: Server) -> None:
    """A header more, and everything else as ever."""

    class Signed(HTTPConnection):
        def get_response(self, url: Any, **options: Any) -> Any:
            return super().get_response(url, extra_headers={"X-Signed": "1"}, **options)

    server.route("/cat", reply(b"cat"))
    assert Signed().get_bytes(server.url("/cat")) == b"cat"
    assert server.requests[-1].headers["X-Signed"] == "1"
    with pytest.raises(ValueError, match="169"):
        Signed().get_bytes("http://169.254.169.254/latest")
