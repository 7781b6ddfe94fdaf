"""Sources that count, and what is behind them."""

import asyncio
import functools
import random
import threading
from collections.abc import Sequence

from mmmedia.sources import Source


@functools.lru_cache(maxsize=128)
def content(number: int, size: int, version: int = 1) -> bytes:
    """Bytes that no other number, and no other version, has."""
    return random.Random(number * 1000 + version).randbytes(size)


class CountingSource(Source):
    """A source of known bytes; it notes what is asked of it."""

    def __init__(self, data: bytes, validator: str = '"v1"', name: str = "a source") -> None:
        self.data, self.size, self.validator, self.name = data, len(data), validator, name
        self.asked: list[tuple[int, int]] = []
        self.reads = 0
        self.is_closed = False
        self.may_go = threading.Event()
        self.may_go.set()
        self.has_begun = threading.Event()

    def _note(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.reads += 1
        self.asked.extend(ranges)
        return [self.data[start:stop] for start, stop in ranges]

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.has_begun.set()
        assert self.may_go.wait(30)
        return self._note(ranges)

    async def aread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.has_begun.set()
        while not self.may_go.is_set():
            await asyncio.sleep(0.001)
        return self._note(ranges)

    def close(self) -> None:
        self.is_closed = True

    @property
    def bytes_asked(self) -> int:
        return sum(stop - start for start, stop in self.asked)
