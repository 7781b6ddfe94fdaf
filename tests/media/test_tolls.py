"""A download is paid for as it comes, by all who share it, each from its own budget."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from mmmedia.connections import HTTPConnection, MediaRequestDownloadBudget
from mmmedia.connections.budget import Toll
from mmmedia.exceptions import MediaRequestDownloadSizeExceededError, VLLMUnprocessableEntityError
from mmmedia.media import downloads
from mmmedia.media.base import MediaIO
from mmmedia.media.connector import MediaConnector
from support.server import Behaviour, Request, Server, head, reply

HALF = 1 << 16
SIZE = 2 * HALF


class Bytes(MediaIO[bytes]):
    """Loads what it is given."""

    def load_bytes(self, data: bytes) -> bytes:
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:
        raise NotImplementedError

    def load_file(self, filepath: Any) -> bytes:
        raise NotImplementedError


class Budget:
    """An engine's own."""

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit, self.used = limit, 0
        self.reached = threading.Event()

    def charge(self, size: int) -> None:
        if self.used + size > self.limit:
            raise ValueError("an engine's own")
        self.used += size
        if self.used >= HALF:
            self.reached.set()


def in_halves(go_on: threading.Event, sent: list[int]) -> Behaviour:
    """Send the first half, and the second when told to."""

    def behave(request: Request) -> None:
        request.send(head(200, {"Content-Length": SIZE}) + bytes(HALF))
        go_on.wait(20)
        request.send(bytes(HALF))
        sent.append(HALF)

    return behave


def load(url: str, *budgets: Any) -> list[Any]:
    """Load the same at the same time, each under a budget."""

    async def main() -> list[Any]:
        loads = (MediaConnector(download_budget=each).load_from_url_async(url, Bytes()) for each in budgets)
        return await asyncio.gather(*loads, return_exceptions=True)

    return asyncio.run(main())


def test_it_is_paid_for_while_it_comes(server: Server) -> None:
    """Before the second half is there, the first is paid for."""
    go_on, budget = threading.Event(), Budget()
    url = server.route("/a", in_halves(go_on, []))

    def release() -> None:
        assert budget.reached.wait(20)
        assert HALF <= budget.used < SIZE
        go_on.set()

    thread = threading.Thread(target=release)
    thread.start()
    (loaded,) = load(url, budget)
    thread.join()
    assert (len(loaded), budget.used) == (SIZE, SIZE)


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_it_ends_at_the_limit(is_async: bool, server: Server) -> None:
    """The second half is never waited for."""
    go_on, budget = threading.Event(), MediaRequestDownloadBudget(HALF - 1)
    url = server.route("/a", in_halves(go_on, []))
    try:
        if is_async:
            (error,) = load(url, budget)
        else:
            with pytest.raises(ValueError) as caught:
                MediaConnector(download_budget=budget).load_from_url(url, Bytes())
            error = caught.value
    finally:
        go_on.set()
    assert isinstance(error, VLLMUnprocessableEntityError)
    assert "VLLM_MAX_MEDIA_REQUEST" in str(error)
    assert error.parameter == "image_url"
    assert budget.used < HALF


def test_who_shares_it_pays_for_all_of_it(server: Server) -> None:
    """Whoever can't is refused at once, in its own budget's words; the others get it."""
    go_on, sent = threading.Event(), list[int]()
    url = server.route("/a", in_halves(go_on, sent))
    poor, rich, richer = Budget(HALF - 1), Budget(), Budget()

    async def main() -> list[Any]:
        def begin(budget: Budget) -> "asyncio.Task[bytes]":
            return asyncio.ensure_future(
                MediaConnector(download_budget=budget).load_from_url_async(url, Bytes())
            )

        first, second = begin(poor), begin(rich)
        with pytest.raises(ValueError, match="an engine's own"):
            await first
        assert not sent
        while rich.used < HALF:
            await asyncio.sleep(0.001)
        third = begin(richer)
        await asyncio.sleep(0)
        assert richer.used >= HALF  # what had come before it
        go_on.set()
        return [await second, await third]

    assert [len(each) for each in asyncio.run(main())] == [SIZE, SIZE]
    assert (rich.used, richer.used, server.count("/a")) == (SIZE, SIZE, 1)


def test_who_comes_too_late_to_pay_is_refused(server: Server) -> None:
    go_on = threading.Event()
    url = server.route("/a", in_halves(go_on, []))
    rich = Budget()

    async def main() -> bytes:
        first = asyncio.ensure_future(MediaConnector(download_budget=rich).load_from_url_async(url, Bytes()))
        while rich.used < HALF:
            await asyncio.sleep(0.001)
        with pytest.raises(ValueError, match="an engine's own"):
            await MediaConnector(download_budget=Budget(9)).load_from_url_async(url, Bytes())
        go_on.set()
        return await first

    assert len(asyncio.run(main())) == SIZE


def test_threads_pay_too(server: Server) -> None:
    """Who leads downloads on for the others, though it can't pay itself."""
    go_on = threading.Event()
    url = server.route("/a", in_halves(go_on, []))
    budgets = [Budget(SIZE - 1), Budget()]
    results: list[Any] = [None, None]

    def fetch(number: int) -> None:
        try:
            results[number] = MediaConnector(download_budget=budgets[number]).load_from_url(url, Bytes())
        except ValueError as error:
            results[number] = error

    threads = [threading.Thread(target=fetch, args=(number,)) for number in (0, 1)]
    threads[0].start()
    assert budgets[0].reached.wait(20)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert "an engine's own" in str(results[0])
    assert len(results[1]) == SIZE


def test_a_toll_is_joined_once() -> None:
    toll, budget = Toll(), MediaRequestDownloadBudget(100)
    toll.charge(1)  # nobody pays yet
    for _ in range(2):
        toll.join(budget, print)
    toll.charge(10)
    assert budget.used == 11
    refused: list[Exception] = []
    toll.join(MediaRequestDownloadBudget(20), refused.append)
    toll.charge(50)
    assert [type(each) for each in refused] == [MediaRequestDownloadSizeExceededError]
    with pytest.raises(MediaRequestDownloadSizeExceededError):
        toll.charge(50)


class Recorded(HTTPConnection):
    """A connection as for vLLM 0.33."""

    def get_bytes(self, url: Any, **options: Any) -> bytes:
        self.options = options
        if (budget := options.get("request_budget")) is not None:
            budget.charge(3)
        return b"abc"


class OfOld(HTTPConnection):
    """A connection as for vLLM 0.20."""

    def get_bytes(self, url: Any, *, timeout: Any = None, allow_redirects: bool = True) -> bytes:  # type: ignore[override]
        return b"abc"


def test_connections_of_others() -> None:
    """They are told how much they may fetch, if they ask; what they don't charge is charged for them."""

    class Short(Bytes):
        def get_max_bytes(self) -> int:
            return 7

    recorded, budget = Recorded(), Budget()
    assert MediaConnector(connection=recorded).load_from_url("http://example.org/a", Short()) == b"abc"
    assert recorded.options["max_bytes"] == 7
    assert "request_budget" not in recorded.options
    for connection in (recorded, OfOld()):
        connector = MediaConnector(connection=connection, download_budget=budget)
        assert connector.load_from_url("http://example.org/a", Bytes()) == b"abc"
    assert recorded.options["max_bytes"] is None
    assert recorded.options["request_budget"] is budget
    assert budget.used == 6


def test_an_error_of_others_is_left_as_it_is() -> None:
    import aiohttp

    class Refusing(HTTPConnection):
        def get_bytes(self, url: Any, **options: Any) -> bytes:
            raise aiohttp.ClientConnectionError("refused")

    with pytest.raises(aiohttp.ClientConnectionError):
        MediaConnector(connection=Refusing()).load_from_url("http://example.org/a", Bytes())


def test_what_others_fetched_is_refused_by_name(server: Server) -> None:
    """A connection that knows no budgets is charged for afterwards."""
    connector = MediaConnector(connection=OfOld(), download_budget=MediaRequestDownloadBudget(2))
    with pytest.raises(MediaRequestDownloadSizeExceededError, match="too many for one request"):
        connector.load_from_url("http://example.org/a", Bytes())


def test_what_comes_out_of_the_cache_is_paid_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    url = server.route("/a", reply(b"abc"))
    assert MediaConnector().load_from_url(url, Bytes()) == b"abc"
    budget = Budget(5)
    connector = MediaConnector(download_budget=budget)
    assert connector.load_from_url(url, Bytes()) == b"abc"
    assert (budget.used, len(server.requests)) == (3, 1)


def test_a_connection_whose_arguments_can_not_be_told() -> None:
    assert downloads._offered(max, max_bytes=1) == {}
    assert downloads._offered(lambda url, **how: url, max_bytes=1) == {"max_bytes": 1}
    assert downloads._offered(lambda url, max_bytes: url, max_bytes=1, more=2) == {"max_bytes": 1}
