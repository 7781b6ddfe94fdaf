"""Calls of a loop in the threads of a pool."""

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmmedia.work.calls import Calls, calls_of_loop, number_waiting
from support.waiting import wait_until


def test_calls_return_and_raise_as_they_would_here() -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            ours = calls_of_loop(pool)
            assert ours is calls_of_loop(pool)
            results = await asyncio.gather(*(ours.call(pow, number, 2) for number in range(1000)))
            assert results == [number**2 for number in range(1000)]
            with pytest.raises(ZeroDivisionError):
                await ours.call(divmod, 1, 0)
            with pytest.raises(RuntimeError, match="StopIteration"):
                await ours.call(next, iter(()))

    asyncio.run(main())
    assert number_waiting() == 0


def test_calls_that_take_long_get_all_the_threads_of_the_pool() -> None:
    everyone = threading.Barrier(8)

    async def main() -> None:
        with ThreadPoolExecutor(8) as pool:
            ours = calls_of_loop(pool)
            async with asyncio.timeout(20):
                await asyncio.gather(*(ours.call(everyone.wait, 20) for _ in range(8)))

    asyncio.run(main())


def test_a_cancelled_call_is_not_begun_and_others_are() -> None:
    begun: list[int] = []
    release = threading.Event()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            ours = Calls(pool, 1)
            blocking = ours.call(release.wait, 20)
            calls = [ours.call(begun.append, number) for number in range(10)]
            for call in calls[::2]:
                call.cancel()
            release.set()
            await asyncio.gather(blocking, *calls, return_exceptions=True)

    asyncio.run(main())
    assert begun == [1, 3, 5, 7, 9]


def test_a_result_waits_neither_for_the_calls_behind_it_nor_for_those_under_way() -> None:
    received = threading.Event()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            ours = Calls(pool, 1)
            first = ours.call(int, "7")
            others = [ours.call(received.wait, 20) for _ in range(5)]
            assert await first == 7
            received.set()
            assert await asyncio.gather(*others) == [True] * 5

    asyncio.run(main())


def test_a_loop_that_ends_before_its_calls_harms_nobody() -> None:
    release = threading.Event()

    async def leave() -> None:
        calls_of_loop(pool).call(release.wait, 20)

    async def stay() -> int:
        return await calls_of_loop(pool).call(int, "7")

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(leave())
        release.set()
        assert asyncio.run(stay()) == 7


def test_a_pool_that_is_shut_down_says_so() -> None:
    async def main() -> None:
        pool = ThreadPoolExecutor(1)
        pool.shutdown()
        with pytest.raises(RuntimeError, match="shutdown"):
            calls_of_loop(pool).call(int)

    asyncio.run(main())


def test_nothing_of_a_call_is_kept() -> None:
    class Thing:
        pass

    async def main() -> "weakref.ref[Thing]":
        thing = Thing()
        found = weakref.ref(thing)
        assert await calls_of_loop(pool).call(lambda given: given, thing) is thing
        return found

    with ThreadPoolExecutor(1) as pool:
        found = asyncio.run(main())
        gc.collect()
        wait_until(lambda: found() is None)  # the worker may be on its way out of the call


def test_results_that_came_while_the_loop_was_busy_are_handed_over_together() -> None:
    """The loop is woken once for all of them."""
    done = threading.Event()
    wakes: list[object] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        with ThreadPoolExecutor(1) as pool:
            ours = Calls(pool, 1)
            loop.call_soon_threadsafe = lambda call, *args: (wakes.append(call), wake(call, *args))[1]  # type: ignore[method-assign,assignment]
            calls = [ours.call(int, "7") for _ in range(50)]
            ours.resolve(None, done.set)
            done.wait(20)  # the loop stands still meanwhile
            assert await asyncio.gather(*calls) == [7] * 50

    asyncio.run(main())
    assert len(wakes) == 1
