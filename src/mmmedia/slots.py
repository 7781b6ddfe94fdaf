"""At most so many at a time, first come, first served, on one event loop.

`asyncio.Semaphore` looks through all who wait whenever one leaves: where thousands wait, that is most of the
loop's work. Here who leaves hands its slot to the next. And what waits need not be a task yet, which takes
dozens of objects that the garbage collector looks at again and again: it may be a `Departure`.

Few slots are open at first. A server nearby answers faster than the loop can ask, and more requests under way
than that takes only cost it: connections to make, and objects that live longer. More are opened as soon as
the loop has nothing to do but to wait for servers, or as these take long.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Protocol

from mmmedia.metrics import register_gauge

_FIRST = 8
"""Slots that are open at first."""
_GROWTH = 4
"""Times as many slots are open after more were opened."""
_TICK = 0.001
"""Seconds between looks at how the loop keeps up; a look that comes later still by as much is late."""
_CALM = 3
"""Looks in time, one after the other, of a loop that has little to do."""
_LONG = 8
"""Looks that an average task outlasts whose server takes long, whatever else the loop has to do."""


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


class _Pace:
    """Says when more slots help."""

    __slots__ = ("_calm", "_looks", "ended")

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Forget what was seen."""
        self._looks = self._calm = self.ended = 0

    def look(self, lag: float, number: int) -> bool:
        """Say whether more slots would help; who gives back a slot adds one to `ended`.

        Args:
            lag: seconds by which this look is late.
            number: slots that are open, all of them taken.

        >>> def eight_looks(lag, ended):
        ...     pace = _Pace()
        ...     for _ in range(8):
        ...         pace.ended += ended
        ...         yield pace.look(lag, number=8)
        >>> [*eight_looks(lag=0.0, ended=4)].index(True)  # the loop has time left
        2
        >>> [*eight_looks(lag=0.01, ended=0)].index(True)  # it has none, but its servers take long
        7
        >>> any(eight_looks(lag=0.01, ended=4))  # it is busy with what they answer
        False
        """
        self._looks += 1
        self._calm = self._calm + 1 if lag < _TICK else 0
        if self._calm < _CALM and self._looks < _LONG:
            return False
        helps = self._calm >= _CALM or self.ended < number
        self.start()
        return helps


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
        self._number = number
        self._open = self.free = min(number, _FIRST)
        self._pace = _Pace()
        self._is_watched = False
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
            self._wait(departure)

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
        self._wait(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # its turn came at the same time
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _wait(self, one: "asyncio.Future[None] | Departure") -> None:
        """Get in line, and see to it that slots are opened if that helps."""
        self._line.append(one)
        if not self._is_watched and self._open < self._number:
            self._pace.start()
            self._look_later(asyncio.get_running_loop())

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_watched = True
        due = loop.time() + _TICK
        loop.call_at(due, self._look, loop, due)

    def _look(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._is_watched = False
        if self._line and self._pace.look(loop.time() - due, self._open):
            before, self._open = self._open, min(_GROWTH * self._open, self._number)
            for _ in range(self._open - before):
                self._give()
        if self._line and self._open < self._number:
            self._look_later(loop)

    def _leave(self) -> None:
        self._pace.ended += 1
        self._give()
        if self.free == self._open > _FIRST:  # nobody is left
            self._open = self.free = _FIRST

    def _give(self) -> None:
        """Give a slot to the next who waits."""
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


register_gauge("mmmedia_pool_queue_length", waiting, "downloads")
