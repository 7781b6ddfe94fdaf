"""Single flight: who asks at the same time shares one download."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from mmmedia.connections import HTTPConnection, on_loop as on_loop_module
from mmmedia.errors import RefusedURLError
from mmmedia.media import connector as connector_module, downloads as downloads_module
from mmmedia.media.connector import MediaConnector
from mmmedia.work.flight import SingleFlight
from support.plain import Plain
from support.server import Behaviour, Request, Server, redirect, reply

BODY = bytes(range(256)) * 20_000  # 5 MB


class Gate:
    """A behaviour that waits until the test opens it."""

    def __init__(self, then: Behaviour) -> None:
        self.then = then
        self.open = threading.Event()

    def __call__(self, request: Request) -> None:
        while not self.open.is_set() and not request.server.stopping.is_set():
            self.open.wait(0.01)
        self.then(request)


@pytest.fixture(autouse=True)
def nothing_stays_in_the_air() -> Iterator[None]:
    yield
    assert len(downloads_module._flights) == 0


@pytest.fixture(autouse=True, params=["decoded alone", "decoded together"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who waits for a download waits for its own decode of it, or for one in common."""
    if request.param == "decoded together":
        monkeypatch.setattr(downloads_module, "decode_key", lambda media_io: type(media_io))
    return str(request.param)


def _under_way() -> list[Any]:
    return list(downloads_module._flights._flights.values())


def _waiting() -> int:
    """How many wait for flights now, besides a leading thread."""
    return sum(flight.waiting for flight in _under_way())


def _begin_all(urls: list[str]) -> "list[asyncio.Task[bytes]]":
    return [asyncio.create_task(MediaConnector().load_from_url_async(url, Plain())) for url in urls]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_200_at_once_share_one_download_and_100_cancellations_change_nothing(server: Server) -> None:
    gate = Gate(reply(BODY))
    url = server.route("/a", gate)

    async def main() -> None:
        tasks = [asyncio.create_task(MediaConnector().load_from_url_async(url, Plain())) for _ in range(200)]
        await _until(lambda: _waiting() == 200)
        for task in tasks[:100]:  # with them the one who leads
            task.cancel()
        await _until(lambda: _waiting() == 100)
        gate.open.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:100])
        assert all(result == BODY for result in results[100:])

    asyncio.run(main())
    assert server.count() == 1


def test_threads_and_loops_share_one_download(server: Server) -> None:
    gate = Gate(reply(BODY))
    url = server.route("/a", gate)

    def blocking() -> bytes:
        return MediaConnector().load_from_url(url, Plain())

    def looping() -> bytes:
        return asyncio.run(MediaConnector().load_from_url_async(url, Plain()))

    for first in (blocking, looping):
        gate.open.clear()
        before = server.count()
        with ThreadPoolExecutor(8) as pool:
            results = [pool.submit(first)]
            server.wait_for(before + 1)
            results += [pool.submit(blocking) for _ in range(3)] + [pool.submit(looping) for _ in range(3)]
            leading = 0 if first is blocking else 1
            asyncio.run(_until(lambda leading=leading: _waiting() == 6 + leading))
            gate.open.set()
            assert all(result.result(20) == BODY for result in results)
        assert server.count() == before + 1


def test_an_error_reaches_all_in_their_own_terms_and_is_not_remembered(server: Server) -> None:
    gate = Gate(reply(status=404))
    url = server.route("/a", gate)

    def blocking() -> bytes:
        with pytest.raises(requests.HTTPError, match="404") as caught:
            MediaConnector().load_from_url(url, Plain())
        assert caught.value.response.status_code == 404
        return b""

    def looping() -> bytes:
        with pytest.raises(aiohttp.ClientResponseError, match="404") as caught:
            asyncio.run(MediaConnector().load_from_url_async(url, Plain()))
        assert caught.value.status == 404
        return b""

    for first, second in ((blocking, looping), (looping, blocking)):
        gate.open.clear()
        before = server.count()
        with ThreadPoolExecutor(4) as pool:
            results = [pool.submit(first)]
            server.wait_for(before + 1)
            results += [pool.submit(second), pool.submit(first)]
            leading = 0 if first is blocking else 1
            asyncio.run(_until(lambda leading=leading: _waiting() == 2 + leading))
            gate.open.set()
            for result in results:
                result.result(20)
        assert server.count() == before + 1
    server.route("/a", reply(b"healed"))
    assert MediaConnector().load_from_url(url, Plain()) == b"healed"


def test_an_error_that_no_future_can_hold_reaches_all_who_wait(server: Server) -> None:
    """A thread leads, by a connection of somebody's own that raises `StopIteration`."""
    opened, leading = threading.Event(), threading.Event()

    class Connection(HTTPConnection):
        def get_bytes(self, url: str, **_: object) -> bytes:
            leading.set()
            opened.wait(20)
            return next(iter([]))

    connection = Connection()
    url = server.url("/a")

    async def main() -> list[object]:
        load = MediaConnector(connection=connection).load_from_url_async
        tasks = [asyncio.create_task(load(url, Plain())) for _ in range(2)]
        await _until(lambda: _waiting() == 2)
        opened.set()
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks, return_exceptions=True)

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(MediaConnector(connection=connection).load_from_url, url, Plain())
        leading.wait(20)
        assert [type(error) for error in asyncio.run(main())] == [RuntimeError] * 2
        assert isinstance(leader.exception(), StopIteration)


def test_when_all_have_gone_the_transfer_stops(server: Server) -> None:
    gate = Gate(reply(BODY))
    url = server.route("/a", gate)

    async def main() -> None:
        tasks = _begin_all([url] * 3)
        await asyncio.to_thread(server.wait_for, 1)
        (flight,) = downloads_module._flights._flights.values()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await _until(flight.task.done)
        assert flight.task.cancelled()

    asyncio.run(main())


def test_a_loop_that_ends_leaves_its_flight_to_who_still_waits(server: Server) -> None:
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)

    async def lead_and_leave() -> None:
        task = asyncio.create_task(MediaConnector().load_from_url_async(url, Plain()))
        await _until(lambda: _waiting() == 3)
        task.cancel()  # the loop ends now, and its download with it

    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(asyncio.run, lead_and_leave())
        server.wait_for(1)
        waiters = [
            pool.submit(MediaConnector().load_from_url, url, Plain()),
            pool.submit(lambda: asyncio.run(MediaConnector().load_from_url_async(url, Plain()))),
        ]
        leader.result(20)
        server.wait_for(2)  # one of the two leads now, and the other
        asyncio.run(_until(lambda: any(flight.is_shared for flight in _under_way())))
        gate.open.set()
        assert [waiter.result(20) for waiter in waiters] == [b"content"] * 2
    assert server.count() == 2


def _behind_slots(
    server: Server, monkeypatch: pytest.MonkeyPatch, *, slots: int, urls: int
) -> tuple[Gate, list[str]]:
    """Return URLs that answer once a gate is open, and the gate, with slots for some of them only."""
    monkeypatch.setattr(on_loop_module, "MAX_CONNECTIONS", slots)
    gate = Gate(reply(b"content"))
    return gate, [server.route(f"/{number}", gate) for number in range(urls)]


def test_a_download_that_nobody_wants_any_more_before_its_turn_comes_is_not_begun(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, urls = _behind_slots(server, monkeypatch, slots=1, urls=4)

    async def main() -> None:
        requests_ = _begin_all(urls)
        await asyncio.to_thread(server.wait_for, 1)
        for unwanted in requests_[1:3]:
            unwanted.cancel()
        await asyncio.wait(requests_[1:3])
        gate.open.set()
        assert await asyncio.gather(requests_[0], requests_[3]) == [b"content"] * 2

    asyncio.run(main())
    assert server.count() == 2


def test_a_download_is_held_to_its_own_policy_whoever_begins_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes as another's ends, in the context of that one."""
    monkeypatch.setattr(on_loop_module, "MAX_CONNECTIONS", 1)
    gate = Gate(reply(b"content"))
    first = server.route("/first", gate)
    second = server.route("/second", redirect(first)).replace("127.0.0.1", "localhost")

    async def main() -> None:
        anywhere = asyncio.create_task(MediaConnector().load_from_url_async(first, Plain()))
        await asyncio.to_thread(server.wait_for, 1)
        here_only = MediaConnector(allowed_media_domains=["localhost"])
        refused = asyncio.create_task(here_only.load_from_url_async(second, Plain()))
        await _until(lambda: len(_under_way()) == 2)
        gate.open.set()
        assert await anywhere == b"content"
        with pytest.raises(RefusedURLError, match="allowed domains"):
            await refused

    asyncio.run(main())


def test_a_loop_that_ends_leaves_also_what_it_has_not_begun_to_who_still_waits(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_loop_module, "MAX_CONNECTIONS", 1)
    gate = Gate(reply(b"content"))
    first, second = server.route("/first", gate), server.route("/second", reply(b"second"))

    async def lead_and_leave() -> None:
        tasks = _begin_all([first, second])
        await _until(lambda: _waiting() == 3)
        for task in tasks:
            task.cancel()

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(asyncio.run, lead_and_leave())
        server.wait_for(1)
        asyncio.run(_until(lambda: len(_under_way()) == 2))
        waiter = pool.submit(MediaConnector().load_from_url, second, Plain())
        leader.result(20)
        assert waiter.result(20) == b"second"
        gate.open.set()


def test_a_download_that_can_not_begin_is_an_error_and_no_flight() -> None:
    """Such as with a connection that only blocks: the next request has the same error, and does not wait."""

    async def main() -> None:
        connector = MediaConnector(connection=object())  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(AttributeError):
                await connector.load_from_url_async("http://127.0.0.1/a", Plain())

    asyncio.run(main())


def test_a_connection_of_somebodys_own_has_no_slots() -> None:
    everyone = 200

    class Own(HTTPConnection):
        inside = 0

        async def async_get_bytes(self, url: str, **_: object) -> bytes:
            self.inside += 1
            await _until(lambda: self.inside == everyone)
            return url.encode()

    async def main() -> None:
        connector = MediaConnector(connection=Own())
        urls = [f"http://127.0.0.1/{number}" for number in range(everyone)]
        found = await asyncio.gather(*(connector.load_from_url_async(url, Plain()) for url in urls))
        assert found == [url.encode() for url in urls]

    asyncio.run(main())


def test_ones_impatience_is_not_the_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)

    async def main() -> None:
        load = MediaConnector().load_from_url_async
        hasty = asyncio.create_task(load(url, Plain(), fetch_timeout=0.2))
        patient = asyncio.create_task(load(url, Plain(), fetch_timeout=20))
        with pytest.raises(TimeoutError):
            await hasty
        # The patient one leads by now; who is hasty waits no longer than before.
        with pytest.raises(TimeoutError):
            await load(url, Plain(), fetch_timeout=0.1)
        with pytest.raises(requests.Timeout):
            await asyncio.to_thread(MediaConnector().load_from_url, url, Plain(), fetch_timeout=0.1)
        gate.open.set()
        assert await patient == b"content"

    asyncio.run(main())
    assert server.count() == 2


def test_a_blocking_fetch_on_a_loops_own_thread_does_not_wait_for_that_loop(server: Server) -> None:
    def answer_the_second(request: Request) -> None:
        request.server.wait_for(2)
        reply(b"content")(request)

    url = server.route("/a", answer_the_second)

    async def main() -> None:
        task = asyncio.create_task(MediaConnector().load_from_url_async(url, Plain()))
        await asyncio.to_thread(server.wait_for, 1)
        assert MediaConnector().load_from_url(url, Plain(), fetch_timeout=20) == b"content"
        assert await task == b"content"

    asyncio.run(main())
    assert server.count() == 2


def test_other_policies_have_flights_of_their_own(server: Server) -> None:
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)

    async def main() -> None:
        open_to_all = asyncio.create_task(MediaConnector().load_from_url_async(url, Plain()))
        await asyncio.to_thread(server.wait_for, 1)
        with pytest.raises(RefusedURLError):
            await MediaConnector(allowed_media_domains=["example.org"]).load_from_url_async(url, Plain())
        listed = MediaConnector(allowed_media_domains=["127.0.0.1"])
        second = asyncio.create_task(listed.load_from_url_async(url, Plain()))
        await asyncio.to_thread(server.wait_for, 2)
        gate.open.set()
        assert await open_to_all == await second == b"content"

    asyncio.run(main())


def test_one_of_those_who_share_stores(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)
    stored: list[bytes] = []
    store = MediaConnector._put_cached_bytes
    monkeypatch.setattr(
        MediaConnector,
        "_put_cached_bytes",
        lambda self, url, data: (stored.append(data), store(self, url, data)),
    )

    async def main() -> None:
        tasks = [asyncio.create_task(MediaConnector().load_from_url_async(url, Plain())) for _ in range(20)]
        await _until(lambda: _waiting() == 20)
        gate.open.set()
        assert set(await asyncio.gather(*tasks)) == {b"content"}
        assert await MediaConnector().load_from_url_async(url, Plain()) == b"content"

    asyncio.run(main())
    assert stored == [b"content"]
    assert server.count() == 1


def test_what_is_small_does_not_wait_until_what_is_large_is_stored(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    small, large = server.route("/small", reply(b"content")), server.route("/large", reply(BODY))
    is_storing, has_small = threading.Event(), threading.Event()

    class Slow(MediaConnector):
        def _put_cached_bytes(self, url: str, data: bytes) -> None:
            if url == large:
                is_storing.set()
                assert has_small.wait(20)
            super()._put_cached_bytes(url, data)

    async def main() -> None:
        load = Slow().load_from_url_async
        first = asyncio.create_task(load(large, Plain()))
        await asyncio.to_thread(is_storing.wait, 20)
        assert await load(small, Plain()) == b"content"
        assert not first.done()
        has_small.set()
        assert await first == BODY

    asyncio.run(main())


def test_each_waits_as_long_as_it_would(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)
    gone: list[float] = []

    async def wait(seconds: float) -> bytes:
        try:
            return await MediaConnector().load_from_url_async(url, Plain(), fetch_timeout=seconds)
        except TimeoutError:
            gone.append(seconds)
            raise

    async def main() -> None:
        leader = asyncio.create_task(wait(20))
        await _until(lambda: _waiting() == 1)
        patient = [asyncio.create_task(wait(seconds)) for seconds in (19, 21)]
        hasty = [asyncio.create_task(wait(seconds)) for seconds in (0.6, 0.2, 0.4, 0.2)]
        await asyncio.wait(hasty)
        assert gone == [0.2, 0.2, 0.4, 0.6]
        assert not leader.done()
        gate.open.set()
        assert await asyncio.gather(leader, *patient) == [b"content"] * 3
        assert [str(task.exception()).split(" for ")[0] for task in hasty] == [
            f"others took more than {seconds} s" for seconds in (0.6, 0.2, 0.4, 0.2)
        ]

    asyncio.run(main())
    assert server.count() == 1


def test_what_is_wrong_with_one_is_nothing_to_the_others(
    server: Server, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)

    class Strange(Plain):
        pass

    def key(media_io: object) -> object:
        if type(media_io) is Strange:
            raise KeyError("strange")
        return type(media_io) if way == "decoded together" else None

    async def main() -> None:
        load = MediaConnector().load_from_url_async
        strange = asyncio.create_task(load(url, Strange()))
        await _until(lambda: _waiting() == 1)
        others = [asyncio.create_task(load(url, Plain())) for _ in range(2)]
        await _until(lambda: _waiting() == 3)
        monkeypatch.setattr(downloads_module, "decode_key", key)
        gate.open.set()
        with pytest.raises(KeyError, match="strange"):
            await strange
        assert await asyncio.gather(*others) == [b"content"] * 2

    asyncio.run(main())
    assert server.count() == 1


def test_a_pool_that_takes_no_more_work_is_an_error_and_no_hang(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(reply(b"content"))
    url = server.route("/a", gate)
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    monkeypatch.setattr(connector_module, "global_thread_pool", closed, raising=False)

    async def main() -> list[object]:
        load = MediaConnector().load_from_url_async
        tasks = [asyncio.create_task(load(url, Plain())) for _ in range(4)]
        await _until(lambda: _waiting() == 4)
        gate.open.set()
        async with asyncio.timeout(20):
            return await asyncio.gather(*tasks, return_exceptions=True)

    assert [str(error) for error in asyncio.run(main())] == ["cannot schedule new futures after shutdown"] * 4


def test_a_leader_that_is_interrupted_leaves_the_flight_to_who_waits() -> None:
    flights: SingleFlight[int] = SingleFlight()
    leading, waiting = threading.Event(), threading.Event()

    def interrupted() -> int:
        leading.set()
        waiting.wait(20)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(flights.fly, "key", interrupted, timeout=None, longest=20)
        leading.wait(20)
        (flight,) = flights._flights.values()
        follower = pool.submit(flights.fly, "key", lambda: 7, timeout=None, longest=20)
        asyncio.run(_until(lambda: flight.waiting == 1))
        waiting.set()
        with pytest.raises(KeyboardInterrupt):
            leader.result(20)
        assert follower.result(20).result == 7
    assert len(flights) == 0


def test_an_interrupted_download_task_fails_over_too() -> None:
    flights: SingleFlight[int] = SingleFlight()

    async def fail() -> int:
        raise KeyError("once")

    async def main() -> None:
        boarded = [flights.board("key", fail, int, timeout=None) for _ in range(3)]
        assert [leads for _, leads in boarded] == [True, False, False]
        (flight,) = {flight for flight, _ in boarded}
        landed = asyncio.Event()
        flight.call_when_landed(landed.set)
        await landed.wait()
        assert type(flight.error) is KeyError
        for _ in boarded:
            flights.leave(flight)

    asyncio.run(main())
    with contextlib.suppress(KeyError):
        flights.fly("key", lambda: {}["x"], timeout=None, longest=1)
    assert len(flights) == 0


def test_a_download_that_can_not_even_be_called_is_an_error_and_no_flight() -> None:
    flights: SingleFlight[int] = SingleFlight()

    def is_no_download() -> Any:
        raise KeyError("no download")

    async def main() -> None:
        with pytest.raises(KeyError, match="no download"):
            flights.board("key", is_no_download, int, timeout=None)

    asyncio.run(main())
    assert len(flights) == 0


def test_a_thread_that_waits_longest_and_gives_up_ends_the_transfer_of_a_loop() -> None:
    """From its own thread, once the loop's own caller has gone."""
    flights: SingleFlight[int] = SingleFlight()
    boarded, cancelled = threading.Event(), threading.Event()

    async def download() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0

    async def main() -> None:
        flight, leads = flights.board("key", download, int, timeout=None)
        assert leads
        boarded.set()
        await _until(lambda: flight.waiting == 2)
        flights.leave(flight)
        assert not cancelled.is_set()
        await _until(cancelled.is_set)

    with ThreadPoolExecutor(1) as pool:
        loop = pool.submit(asyncio.run, main())
        assert boarded.wait(20)
        with pytest.raises(TimeoutError, match="others took more"):
            flights.fly("key", lambda: 7, timeout=None, longest=1)
        loop.result(20)
    assert len(flights) == 0
