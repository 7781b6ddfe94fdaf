"""Hops: calls of a loop in the threads of a pool."""

import asyncio
import gc
import itertools
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

import mmmedia.hops as hops_module
from mmmedia.hops import Errand, Hops, hops, waiting


def test_calls_return_and_raise_as_they_would_here() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            ours = hops(pool, 2)
            assert ours is hops(pool, 2)
            results = await asyncio.gather(*(ours.call(pow, number, 2) for number in range(1000)))
            assert results == [number**2 for number in range(1000)]
            with pytest.raises(ZeroDivisionError):
                await ours.call(divmod, 1, 0)
            with pytest.raises(RuntimeError, match="StopIteration"):
                await ours.call(next, iter(()))

    asyncio.run(main())
    assert waiting() == 0


def test_calls_that_take_long_get_all_the_threads_of_the_pool() -> None:
    everyone = threading.Barrier(8)

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            ours = hops(pool, 8)
            async with asyncio.timeout(20):
                await asyncio.gather(*(ours.call(everyone.wait, 20) for _ in range(8)))

    asyncio.run(main())


def test_calls_that_are_quick_again_get_as_many_threads_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hops_module, "_PATIENCE", 0.1)
    everyone = threading.Barrier(8)
    lock = threading.Lock()
    inside, at_once = 0, []

    def quick() -> None:
        nonlocal inside
        with lock:
            inside += 1
            at_once.append(inside)
        time.sleep(0.0003)
        with lock:
            inside -= 1

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            ours = Hops(pool, 8)
            ours._few = 2
            slow = [ours.call(everyone.wait, 20) for _ in range(8)]
            await asyncio.gather(*slow, *(ours.call(quick) for _ in range(300)))

    asyncio.run(main())
    assert max(at_once[-150:]) <= 2


def test_a_cancelled_call_is_not_begun_and_others_are() -> None:
    begun: list[int] = []
    release = threading.Event()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            ours = Hops(pool, 1)
            blocking = ours.call(release.wait, 20)
            calls = [ours.call(begun.append, number) for number in range(10)]
            for call in calls[::2]:
                call.cancel()
            release.set()
            await asyncio.gather(blocking, *calls, return_exceptions=True)

    asyncio.run(main())
    assert begun == [1, 3, 5, 7, 9]


def test_a_result_waits_neither_for_the_calls_behind_it_nor_for_those_under_way() -> None:
    """Also where the loop comes for results in rounds, as calls wait in line."""
    received = threading.Event()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            ours = Hops(pool, 1)
            first = ours.call(int, "7")
            others = [ours.call(received.wait, 20) for _ in range(5)]
            assert ours._collects
            assert await first == 7
            received.set()
            assert await asyncio.gather(*others) == [True] * 5

    asyncio.run(main())


def test_errands_are_left_to_the_thread_that_is_out_on_one() -> None:
    """And a result is handed over when its errand is done; an error of that takes its place."""
    is_out, others_wait = threading.Event(), threading.Event()
    by: list[int] = []

    def first() -> None:
        is_out.set()
        others_wait.wait(20)
        by.append(threading.get_ident())

    def second() -> None:
        by.append(threading.get_ident())

    def third() -> None:
        by.append(threading.get_ident())
        raise ValueError("no room")

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            ours = Hops(pool, 2)
            ours._few = 2
            calls = [ours.call(Errand, 1, first)]
            await asyncio.to_thread(is_out.wait, 20)
            calls += [ours.call(Errand, 2, second), ours.call(Errand, 3, third)]
            assert await ours.call(int, "7") == 7  # that thread has left both of them, and gone on
            assert not any(call.done() for call in calls)
            others_wait.set()
            assert await asyncio.gather(*calls[:2]) == [1, 2]
            with pytest.raises(ValueError, match="no room"):
                await calls[2]

    asyncio.run(main())
    assert len(by) == 3
    assert len(set(by)) == 1


def test_where_errands_take_long_threads_help_and_results_do_not_pile_up() -> None:
    together = threading.Barrier(4)
    numbers = itertools.count()

    def errand() -> None:
        if next(numbers) < 4:  # one is out, three find as many waiting for it as there may be
            together.wait(20)

    async def main() -> None:
        with ThreadPoolExecutor(6) as pool:
            ours = Hops(pool, 6)
            ours._few = 2
            ours._threads = -4  # so that six begin at once
            calls = [ours.call(lambda: Errand(None, errand)) for _ in range(6)]
            async with asyncio.timeout(30):
                await asyncio.gather(*calls)

    asyncio.run(main())
    assert next(numbers) == 6


def test_a_loop_that_ends_before_its_calls_harms_nobody() -> None:
    release = threading.Event()

    async def leave() -> None:
        hops(pool, 1).call(release.wait, 20)

    async def stay() -> int:
        return await hops(pool, 1).call(int, "7")

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(leave())
        release.set()
        assert asyncio.run(stay()) == 7


def test_a_pool_that_is_shut_down_says_so() -> None:
    async def main() -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shutdown"):
            hops(pool, 1).call(int)

    asyncio.run(main())


def test_nothing_of_a_call_is_kept() -> None:
    class Thing:
        pass

    async def main() -> "weakref.ref[Thing]":
        thing = Thing()
        found = weakref.ref(thing)
        assert await hops(pool, 1).call(lambda given: given, thing) is thing
        return found

    with ThreadPoolExecutor(1) as pool:
        found = asyncio.run(main())
        gc.collect()
        assert found() is None
