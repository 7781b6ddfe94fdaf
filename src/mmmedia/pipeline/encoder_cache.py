"""`EncoderCache`: what encoders returned, by content, so that nothing is encoded twice."""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple, TypeVar, cast

from mmmedia.cache.memory import Abandoned, MemoryCache, MemoryCacheStats, Reservation, Sized, Unit
from mmmedia.errors import InvalidArgumentError

MAX_ALIASES = 1 << 14  # other names than keys; the oldest gives way

EncoderCacheStats = MemoryCacheStats
"""Its counters."""

V = TypeVar("V", bound=Sized)

__all__ = ["Abandoned", "CacheKey", "EncoderCache", "EncoderCacheStats", "Reservation"]


class CacheKey(NamedTuple):
    """What an entry is found by.

    Attributes:
        content: hash of the content, from `content_hash`, or a name that stands for it.
        modality: `image`, `video` or `audio`.
        preprocessing: fingerprint of all that decides what the encoder sees of that content.
    """

    content: Hashable
    modality: str
    preprocessing: str


class EncoderCache(MemoryCache[V]):
    """Encoder outputs by key, the least recently used leaving first. Thread-safe; one for each model.

    An error is never stored. Concurrent callers for one key, in threads and in event loops, encode it once.
    A copy, also one in another process, is empty.

    Args:
        capacity: how much it holds.
        unit: what `capacity` counts: "entries", or "bytes" of the outputs. An output greater than the whole
            capacity is not stored.

    Raises:
        InvalidArgumentError: (a `ValueError`) a capacity that is no positive integer, or an unknown unit.

    >>> import numpy as np
    >>> cache = EncoderCache(1)
    >>> first = cache.get_or_encode("a", lambda: np.zeros(4))
    >>> cache.get_or_encode("a", lambda: np.ones(4)) is first
    True
    >>> cache.get_or_encode("b", lambda: np.ones(2)).nbytes
    16
    >>> cache.stats()
    MemoryCacheStats(hits=1, misses=2, evictions=1, entries=1, bytes=16)
    """

    def __init__(self, capacity: int, *, unit: Unit = "entries") -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise InvalidArgumentError(
                f"The capacity of an encoder cache must be a positive integer, not {capacity!r}; to encode "
                "without a cache, give none."
            )
        if unit not in ("entries", "bytes"):
            raise InvalidArgumentError(f"Unknown unit {unit!r}: expected 'entries' or 'bytes'.")
        super().__init__(capacity, unit=unit)

    def _begin_afresh(self) -> None:
        super()._begin_afresh()
        self._keys_by_alias: OrderedDict[Hashable, Hashable] = OrderedDict()

    def get_or_encode(self, key: Hashable, encode: Callable[[], V]) -> V:
        """Return the entry of a key; where there is none, call `encode` and store what it returns.

        Callers that come while it is being encoded wait for the same result, and for the same error.
        """
        while True:
            reservation = self.reserve(key)
            if reservation.is_leader:
                with reservation:
                    reservation.fulfil(encode())
            try:
                return reservation.future.result()
            except Abandoned:
                continue

    async def get_or_encode_async(self, key: Hashable, encode: Callable[[], V | Awaitable[V]]) -> V:
        """Return the entry of a key as `get_or_encode` does, without blocking the event loop.

        `encode` is a coroutine function, or a function, which is called in a thread. If the caller that
        encodes is cancelled, one of those who wait takes over.
        """
        while True:
            reservation = self.reserve(key)
            if reservation.is_leader:
                with reservation:
                    if inspect.iscoroutinefunction(encode):
                        value = await encode()
                    else:
                        value = await asyncio.to_thread(cast("Callable[[], V]", encode))
                    reservation.fulfil(value)
            try:
                # The shield keeps the cancellation of one who waits from the future that all share.
                return await asyncio.shield(asyncio.wrap_future(reservation.future))
            except Abandoned:
                continue

    def alias(self, name: Hashable, key: Hashable) -> None:
        """Let an entry be found by another name as well, while it is stored and few names are newer."""
        with self._lock:
            if key in self._entries:
                self._keys_by_alias[name] = key
                self._keys_by_alias.move_to_end(name)
                if len(self._keys_by_alias) > MAX_ALIASES:
                    self._keys_by_alias.popitem(last=False)

    def get_by_alias(self, name: Hashable) -> V | None:
        """Return the entry that has this name and count a hit; `None`, uncounted, if there is none."""
        with self._lock:
            key = self._keys_by_alias.get(name)
            return None if key is None else self._look_up(key)
