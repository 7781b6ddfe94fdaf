"""So many at a time, first come, first served, on one event loop.

`asyncio.Semaphore` looks through all who wait whenever one leaves: where thousands wait, that is most of the
loop's work. Here who leaves hands its slot to the next. And what waits need not be a task yet, which takes
dozens of objects that the garbage collector looks at again and again: it may be a `Departure`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Protocol


class Departure(Protocol):
    """What becomes a task when its turn comes.

    Attributes:
        context: the one that the task will run in.
    """

    @property
    def context(self) -> Context: ...  # noqa: D102  # above

    def begin(self, when_ended: Callable[[], object]) -> bool:
        """Make the task, and have `when_ended` called at its end; false if nobody wants it any more."""

    def abandon(self) -> None:
        """Know that the turn will never come."""


class _Turn:
    """A slot that a departure was given for its task."""

    __slots__ = ("_slots",)

    def __init__(self, slots: "Slots") -> None:
        self._slots: Slots | None = slots

    def take(self, slots: "Slots") -> bool:
        if self._slots is not slots:
            return False
        self._slots = None
        return True

    def end(self) -> None:
        """Give the slot back, if the task has not taken it."""
        if (slots := self._slots) is not None:
            self._slots = None
            slots._leave()


_turn: ContextVar[_Turn | None] = ContextVar("mmmedia_turn", default=None)


class Slots:
    """Entered with `async with` by at most `number` tasks at a time; the others wait in line.

    >>> async def hold(slots):
    ...     async with slots:
    ...         return slots.free
    >>> async def main():
    ...     slots = Slots(2)
    ...     return await asyncio.gather(*(hold(slots) for _ in range(3))), slots.free
    >>> asyncio.run(main())
    ([1, 1, 1], 2)
    """

    def __init__(self, number: int) -> None:
        self.free = number
        self._line: deque[asyncio.Future[None] | Departure] = deque()

    def depart(self, departure: Departure) -> None:
        """Let a departure begin when its turn comes; its task has a slot for the first time that it enters."""
        if self.free:
            self.free -= 1
            if not self._hand_to(departure):
                self._leave()
        else:
            self._line.append(departure)

    def close(self) -> None:
        """Know that the loop is being closed: nobody's turn comes any more."""
        line, self._line = self._line, deque()
        for waiting in line:
            if not isinstance(waiting, asyncio.Future):
                waiting.abandon()

    async def __aenter__(self) -> None:
        if (turn := _turn.get()) is not None and turn.take(self):
            return
        if self.free:
            self.free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # its turn came at the same time
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._line:
            following = self._line.popleft()
            if not isinstance(following, asyncio.Future):
                if self._hand_to(following):
                    return
            elif not following.done():
                following.set_result(None)
                return
        self.free += 1

    def _hand_to(self, departure: Departure) -> bool:
        turn = _Turn(self)
        departure.context.run(_turn.set, turn)
        return departure.begin(turn.end)
