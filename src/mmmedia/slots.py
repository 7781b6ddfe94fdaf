"""So many at a time, first come, first served, on one event loop.

`asyncio.Semaphore` looks through all who wait whenever one leaves: where thousands wait, that is most of the
loop's work. Here who leaves hands its slot to the next.
"""

import asyncio
from collections import deque


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
        self._line: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self.free:
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came at the same time
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
