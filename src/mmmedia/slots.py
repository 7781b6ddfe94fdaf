"""So many at a time, first come, first served, on one event loop.

`asyncio.Semaphore` looks through all who wait whenever one leaves: where thousands wait, that is most of the
loop's work. Here who leaves hands its slot to the next. And what waits need not be a task yet, which takes
dozens of objects that the garbage collector looks at again and again: it may be a `Departure`.
"""

import asyncio
import weakref
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
        """Know that its turn will never come, or that its task will never end."""


class _Turn:
    """A slot that a departure was given for its task."""

    __slots__ = ("_is_taken", "_slots")

    def __init__(self, slots: "Slots") -> None:
        self._slots = slots
        self._is_taken = False

    def take(self, slots: "Slots") -> bool:
        """Return true once, to the first who asks for one of these slots."""
        if self._is_taken or self._slots is not slots:
            return False
        self._is_taken = True
        return True

    def end(self) -> None:
        """Give the slot back, if the task has not taken it."""
        self._slots._begun.pop(self, None)
        if self.take(self._slots):
            self._slots._leave()


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
        self._begun: dict[_Turn, Departure] = {}
        _alive[id(self)] = self

    def depart(self, departure: Departure) -> None:
        """Let a departure begin when its turn comes; its task then has a slot for when it first enters."""
        if self.free:
            self.free -= 1
            if not self._hand_to(departure):
                self._leave()
        else:
            self._line.append(departure)

    def close(self) -> None:
        """Know that the loop is being closed: nobody's turn comes any more, and what has begun never ends."""
        line, self._line = self._line, deque()
        begun, self._begun = self._begun, {}
        for departure in [*line, *begun.values()]:
            if not isinstance(departure, asyncio.Future):
                departure.abandon()

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
        has_begun = departure.begin(turn.end)
        if has_begun:
            self._begun[turn] = departure
        return has_begun


_alive: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()


def waiting() -> int:
    """Return how many wait for a slot, on all loops."""
    # By references, of which the list is made at once: other threads may be adding to it.
    return sum(len(slots._line) for ref in _alive.valuerefs() if (slots := ref()) is not None)
