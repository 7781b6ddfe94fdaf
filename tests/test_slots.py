"""Slots: so many at a time, in order, and none is lost."""

import asyncio
import contextvars
import functools
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings, strategies as st

from mmmedia import slots as slots_module
from mmmedia.slots import Slots


def test_first_come_first_served() -> None:
    entered = []

    async def hold(slots: Slots, number: int) -> None:
        async with slots:
            entered.append(number)
            await asyncio.sleep(0)

    async def main() -> int:
        slots = Slots(3)
        await asyncio.gather(*(hold(slots, number) for number in range(100)))
        return slots.free

    assert asyncio.run(main()) == 3
    assert entered == sorted(entered)


class Leaving:
    """A departure whose task holds a slot of `slots` for some rounds, twice; or which nobody wants."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]], is_wanted: bool = True) -> None:
        self.context = contextvars.copy_context()
        self.work, self.is_wanted = work, is_wanted
        self.task: asyncio.Task[None] | None = None
        self.is_abandoned = False

    def begin(self, when_ended: Callable[[], object]) -> bool:
        if not self.is_wanted:
            return False
        self.task = asyncio.get_running_loop().create_task(self.work(), context=self.context)
        self.task.add_done_callback(lambda _: when_ended())
        return True

    def abandon(self) -> None:
        self.is_abandoned = True


def test_departures_begin_in_order_and_only_with_a_slot() -> None:
    begun: list[int] = []

    async def main() -> None:
        slots = Slots(2)

        async def hold(number: int) -> None:
            begun.append(number)
            async with slots:
                assert slots.free == 0
                await asyncio.sleep(0)

        leaving = [Leaving(functools.partial(hold, number), number % 3 != 0) for number in range(20)]
        for departure in leaving:
            slots.depart(departure)
        assert [departure.task is not None for departure in leaving[:5]] == [False, True, True, False, False]
        while slots.free < 2:
            await asyncio.sleep(0)

    asyncio.run(main())
    assert begun == [number for number in range(20) if number % 3]


def test_a_departure_has_its_slot_once_and_gives_back_what_it_has_not_taken() -> None:
    async def main() -> None:
        slots = Slots(1)
        inside = []

        async def hold_twice() -> None:
            for _ in range(2):
                async with slots:
                    inside.append(slots.free)

        async def fail() -> None:
            raise ValueError

        twice, failing = Leaving(hold_twice), Leaving(fail)
        never_started = Leaving(hold_twice)
        for departure in (never_started, failing, twice):
            slots.depart(departure)
        assert never_started.task is not None
        never_started.task.cancel()  # before its first step: nothing of it ever runs
        while twice.task is None or not twice.task.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert failing.task is not None
        assert isinstance(failing.task.exception(), ValueError)
        assert (inside, slots.free) == ([0, 0], 1)

    asyncio.run(main())


def test_when_the_loop_is_closed_departures_know_that_nothing_comes_of_them() -> None:
    async def main() -> None:
        slots = Slots(2)

        async def hold() -> None:
            async with slots:
                await asyncio.sleep(0)

        async def stay() -> None:
            async with slots:
                await asyncio.sleep(60)

        quick, long, waiting = Leaving(hold), Leaving(stay), Leaving(stay)
        slots.depart(quick)
        slots.depart(long)
        while quick.task is None or not quick.task.done():
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        slots.depart(Leaving(stay))
        slots.depart(waiting)
        slots.close()
        assert (quick.is_abandoned, long.is_abandoned, waiting.is_abandoned) == (False, True, True)
        assert waiting.task is None

    asyncio.run(main())


async def busy(milliseconds: float) -> None:
    """Keep the loop from keeping up."""
    while True:
        time.sleep(milliseconds / 1e3)  # on purpose
        await asyncio.sleep(0)


@pytest.mark.parametrize("lag", [0, 3])
def test_more_slots_are_opened_while_servers_take_long(lag: int) -> None:
    begun: list[int] = []

    async def main() -> None:
        slots = Slots(100)
        others = asyncio.create_task(busy(lag)) if lag else None
        answer = asyncio.Event()

        async def hold(number: int) -> None:
            async with slots:
                begun.append(number)
                await answer.wait()

        leaving = [Leaving(functools.partial(hold, number)) for number in range(120)]
        for departure in leaving:
            slots.depart(departure)
        await asyncio.sleep(0)
        assert len(begun) == 8  # not all at once
        async with asyncio.timeout(10):
            while len(begun) < 100:
                await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert begun == [*range(100)]
        answer.set()
        async with asyncio.timeout(10):
            while len(begun) < 120 or slots.free != 8:  # as many as at first
                await asyncio.sleep(0.001)
        if others is not None:
            others.cancel()

    asyncio.run(main())


def test_no_more_slots_are_opened_than_a_busy_loop_has_use_for() -> None:
    inside: Counter[str] = Counter()

    async def main() -> None:
        slots = Slots(100)

        async def quick() -> None:
            async with slots:
                inside["now"] += 1
                inside["most"] = max(inside["most"], inside["now"])
                time.sleep(0.0005)  # what asking takes
                await asyncio.sleep(0)  # the server answers at once
                inside["now"] -= 1
                inside["ended"] += 1

        for _ in range(300):
            slots.depart(Leaving(quick))
        async with asyncio.timeout(30):
            while inside["ended"] < 300:
                await asyncio.sleep(0)

    asyncio.run(main())
    assert inside["most"] == 8


@settings(max_examples=200, deadline=None)
@given(
    first=st.integers(1, 3),
    number=st.integers(1, 3),
    turns=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    departs=st.sets(st.integers(0, 11)),
    cancels=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 12)), max_size=12),
)
def test_cancelled_tasks_never_lose_or_multiply_a_slot(
    first: int, number: int, turns: list[int], departs: set[int], cancels: list[tuple[int, int]]
) -> None:
    inside: Counter[str] = Counter()

    async def hold(slots: Slots, rounds: int) -> None:
        async with slots:
            inside["now"] += 1
            inside["most"] = max(inside["most"], inside["now"])
            try:
                for _ in range(rounds):
                    await asyncio.sleep(0)
            finally:
                inside["now"] -= 1

    async def main() -> None:
        slots = Slots(number)
        tasks: list[asyncio.Task[None] | Leaving] = []
        for who, rounds in enumerate(turns):
            if who in departs:
                departure = Leaving(functools.partial(hold, slots, rounds))
                slots.depart(departure)
                tasks.append(departure)
            else:
                tasks.append(asyncio.create_task(hold(slots, rounds)))
        for turn in range(13):
            for who, when in cancels:
                if when == turn and who < len(tasks):
                    cancel(tasks[who])
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            while not (all(is_done(task) for task in tasks) and slots.free == min(first, number)):
                await asyncio.sleep(0)

    def cancel(task: "asyncio.Task[None] | Leaving") -> None:
        if isinstance(task, asyncio.Task):
            task.cancel()
        else:
            task.is_wanted = False
            if task.task is not None:
                task.task.cancel()

    def is_done(task: "asyncio.Task[None] | Leaving") -> bool:
        if isinstance(task, asyncio.Task):
            return task.done()
        return not task.is_wanted if task.task is None else task.task.done()

    with mock.patch.object(slots_module, "_FIRST", first):
        asyncio.run(main())
    assert inside["now"] == 0
    assert inside["most"] <= number
