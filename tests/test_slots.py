"""Slots: so many at a time, in order, and none is lost."""

import asyncio
from collections import Counter

from hypothesis import given, settings, strategies as st

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


@settings(max_examples=200, deadline=None)
@given(
    number=st.integers(1, 3),
    turns=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    cancels=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 12)), max_size=12),
)
def test_cancelled_tasks_never_lose_or_multiply_a_slot(
    number: int, turns: list[int], cancels: list[tuple[int, int]]
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
        tasks = [asyncio.create_task(hold(slots, rounds)) for rounds in turns]
        for turn in range(13):
            for who, when in cancels:
                if when == turn and who < len(tasks):
                    tasks[who].cancel()
            await asyncio.sleep(0)
        await asyncio.wait(tasks, timeout=10)
        assert all(task.done() for task in tasks)
        assert slots.free == number

    asyncio.run(main())
    assert inside["now"] == 0
    assert inside["most"] <= number
