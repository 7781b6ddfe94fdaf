"""Time limits: the same as `asyncio.timeout`, with one timer for many."""

import asyncio
import selectors
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.time_limits import TimeLimits

T = TypeVar("T")


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop on which waiting takes no time: its clock is set forward instead."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = selectors.DefaultSelector()
        select = selector.select

        def skip(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        selector.select = skip  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(main)


class Reference:
    """The limits of asyncio, entered without `async`."""

    def within(self, seconds: float) -> AbstractContextManager[object]:
        return _Entered(seconds)


class _Entered:
    def __init__(self, seconds: float) -> None:
        self.timeout = asyncio.timeout(seconds)

    def __enter__(self) -> None:
        step(self.timeout.__aenter__())

    def __exit__(self, *error: Any) -> None:
        step(self.timeout.__aexit__(*error))


def step(never_waits: Coroutine[Any, Any, object]) -> None:
    with pytest.raises(StopIteration):
        never_waits.send(None)


Task = tuple[int, int, int, int, int | None, bool]
tasks = st.lists(
    st.tuples(
        st.integers(0, 5),  # begins at
        st.integers(0, 6),  # outer limit
        st.integers(0, 6),  # inner limit
        st.integers(0, 6),  # works for, so often
        st.none() | st.integers(0, 12),  # is cancelled at
        st.booleans(),  # goes on when it is late
    ),
    min_size=1,
    max_size=8,
)


async def outcomes(limits: Any, program: list[Task]) -> list[tuple[str, float, int]]:
    """Run tasks; say of each how and when it ended, and whether it was still being cancelled."""
    told: list[tuple[str, float, int]] = [("", 0.0, 0)] * len(program)
    loop = asyncio.get_running_loop()

    # The last digits differ, so that no two things happen at one time, of which the order would be chance.
    async def work(who: int, outer: int, inner: int, seconds: int, goes_on: bool) -> None:
        how = "done"
        try:
            with limits.within(outer * 10 + 1):
                try:
                    with limits.within(inner * 10 + 2):
                        await asyncio.sleep(seconds * 10 + 5)
                except TimeoutError:
                    how = "inner late"
                    if goes_on:
                        await asyncio.sleep(seconds * 10 + 5)
                        how += ", went on"
        except TimeoutError:
            how += ", outer late"
        except asyncio.CancelledError:
            how += ", cancelled"
        task = asyncio.current_task()
        assert task is not None
        told[who] = how, loop.time(), task.cancelling()

    async def begin(who: int, task: Task) -> None:
        start, outer, inner, seconds, cancelled_at, goes_on = task
        await asyncio.sleep(start * 10)
        working = loop.create_task(work(who, outer, inner, seconds, goes_on))
        if cancelled_at is not None:
            loop.call_at(cancelled_at * 10 + 8, working.cancel)
        await asyncio.wait([working])

    await asyncio.gather(*(begin(who, task) for who, task in enumerate(program)))
    return told


@given(tasks)
@settings(max_examples=300, deadline=None)
def test_as_by_asyncio(program: list[Task]) -> None:
    assert run(outcomes(TimeLimits(), program)) == run(outcomes(Reference(), program))


def test_many_share_a_timer_which_ends_with_them() -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        limits = TimeLimits()

        async def work(seconds: float) -> None:
            with limits.within(30.0):
                await asyncio.sleep(seconds)

        quick = [asyncio.create_task(work(1.0)) for _ in range(1000)]
        slow = asyncio.create_task(work(99.0))
        await asyncio.sleep(0)
        # A timer for each sleep, and one for all limits.
        assert len(loop._scheduled) == 1001 + 1
        await asyncio.gather(*quick)
        (running,) = limits.running.values()
        assert len(running) == 1  # those that are over are not kept
        with pytest.raises(TimeoutError):
            await slow
        assert loop.time() == 30
        assert not limits.running
        await work(1.0)
        await asyncio.sleep(30)
        assert not limits.running

    run(main())


def test_outside_of_a_task_there_is_nothing_to_end() -> None:
    with pytest.raises(RuntimeError), TimeLimits().within(1.0):
        pass


def test_who_is_cancelled_by_somebody_else_at_the_same_time_is_not_told_that_it_is_late() -> None:
    async def main() -> None:
        async def work() -> None:
            with TimeLimits().within(10.0):
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        asyncio.get_running_loop().call_at(10.0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
