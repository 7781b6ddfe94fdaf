"""`BlockCacheSource`: a source whose pieces are kept in the cache, and fetched once."""

import asyncio
import contextlib
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

from mmmedia.cache.partial import BLOCK_BYTES, Plan, blocks_of, spans_of
from mmmedia.cache.partial_entry import PartialEntry, become_whole, opened_entry
from mmmedia.cache.store import MediaCache
from mmmedia.errors import InvalidMediaError
from mmmedia.sources.base import Ranges, Source, SourceInFront, check_ranges

_PATIENCE_SECONDS = 30.0  # for others who fetch the same blocks; after that they are fetched here as well
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.05


class _Fetch(NamedTuple):
    """Read ranges of the source behind."""

    ranges: list[tuple[int, int]]


class _Pause(NamedTuple):
    """Wait for others."""

    seconds: float


_Steps = Generator[_Fetch | _Pause, list[bytes] | None, list[bytes]]


class BlockCacheSource(SourceInFront):
    """A source in front of another, whose blocks it keeps in the cache and takes from there.

    What is missing is fetched in whole blocks. Who reads the same blocks at the same time, in other threads,
    tasks or processes, waits for them and fetches nothing. A source without a validator is not kept, as
    nothing says that its bytes are still the same.

    Args:
        inner: where the bytes come from. `close` closes it.
        cache: where they are kept, in a partial entry beside the whole ones.
        key: what the source goes by there: its URL, as `MediaCache.put` has it.
    """

    def __init__(self, inner: Source, cache: MediaCache, key: str) -> None:
        super().__init__(inner)
        self._cache = cache
        self._plan = Plan(key, inner.size, inner.validator)

    def become_whole(self) -> bool:
        """Put a whole entry in the place of the partial one, if all blocks are there; return whether so."""
        return become_whole(self._cache, self._plan)

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return the bytes of ranges; errors as of the source behind.

        Raises:
            InvalidArgumentError: (a `ValueError`) a range that the source does not have.
        """
        steps = self._steps(ranges)
        answer: list[bytes] | None = None
        with contextlib.closing(steps):
            while True:
                try:
                    step = steps.send(answer)
                except StopIteration as end:
                    return _result(end)
                answer = None
                if isinstance(step, _Fetch):
                    answer = self._inner.read(step.ranges)
                else:
                    time.sleep(step.seconds)

    async def aread(self, ranges: Ranges) -> list[bytes]:
        """Return the bytes of ranges; see `read`. Disks are read in a thread."""
        steps = self._steps(ranges)
        answer: list[bytes] | None = None
        try:
            while True:
                step = await _in_thread(steps, answer)
                answer = None
                if isinstance(step, list):
                    return step
                if isinstance(step, _Fetch):
                    answer = await self._inner.aread(step.ranges)
                else:
                    await asyncio.sleep(step.seconds)
        finally:
            # A thread that is still at work on them, as this was cancelled, closes them itself.
            with contextlib.suppress(ValueError):
                steps.close()

    def _steps(self, ranges: Ranges) -> _Steps:
        """Yield what is to be done meanwhile, and return the bytes of the ranges."""
        check_ranges(ranges, self.size)
        with opened_entry(self._cache, self._plan) as entry:
            if entry is None:
                fetched = yield _Fetch(list(ranges))
                assert fetched is not None
                return fetched
            blocks = yield from self._gather(entry, blocks_of(ranges))
        return [_cut(blocks, start, stop) for start, stop in ranges]

    def _gather(
        self, entry: PartialEntry, wanted: list[int]
    ) -> Generator[_Fetch | _Pause, list[bytes] | None, dict[int, bytes]]:
        """Return blocks: those that are there, those that are missing, and those that others fetch."""
        blocks = entry.read(wanted, is_first=True)
        missing = [block for block in wanted if block not in blocks]
        end, pause = time.monotonic() + _PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
        while missing:
            mine = entry.file.claim(missing)
            try:
                # Another may have fetched them between the look and the claim.
                blocks |= entry.read(mine)
                if not mine and time.monotonic() >= end:
                    mine = missing
                if spans := spans_of([block for block in mine if block not in blocks]):
                    fetched = yield _Fetch([self._range_of(span) for span in spans])
                    fresh = dict(self._cut_up(spans, fetched or []))
                    entry.write(fresh)
                    blocks |= fresh
            finally:
                entry.file.release()
            missing = [block for block in missing if block not in blocks]
            if missing and not mine:
                yield _Pause(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                blocks |= entry.read(missing)
                missing = [block for block in missing if block not in blocks]
        return blocks

    def _range_of(self, span: tuple[int, int]) -> tuple[int, int]:
        return span[0] * BLOCK_BYTES, min(span[1] * BLOCK_BYTES, self.size)

    def _cut_up(self, spans: list[tuple[int, int]], fetched: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
        for span, data in zip(spans, fetched, strict=True):
            start, stop = self._range_of(span)
            if len(data) != stop - start:
                raise InvalidMediaError(f"{self.name!r} gave {len(data)} of {stop - start} bytes.")
            for block in range(*span):
                at = block * BLOCK_BYTES - start
                yield block, data[at : at + BLOCK_BYTES]


def _cut(blocks: Mapping[int, bytes], start: int, stop: int) -> bytes:
    """Return the bytes of a range out of the blocks in which it lies."""
    pieces = []
    for block in blocks_of([(start, stop)]):
        at = block * BLOCK_BYTES
        pieces.append(memoryview(blocks[block])[max(start - at, 0) : stop - at])
    return b"".join(pieces)


def _result(end: StopIteration) -> list[bytes]:
    result: list[bytes] = end.value
    return result


async def _in_thread(steps: _Steps, answer: list[bytes] | None) -> _Fetch | _Pause | list[bytes]:
    """Take one step in a thread; return what is to be done, or at the end the result.

    Where this is cancelled meanwhile, the thread closes the steps when it is through with its own.
    """
    is_given_up = False

    def take() -> _Fetch | _Pause | list[bytes]:
        try:
            return steps.send(answer)
        except StopIteration as end:  # which no future can hold
            return _result(end)
        finally:
            if is_given_up:
                steps.close()

    try:
        return await asyncio.to_thread(take)
    except asyncio.CancelledError:
        is_given_up = True
        raise
