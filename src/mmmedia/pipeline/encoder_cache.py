"""`EncoderCache`: what encoders returned, by content, so that nothing is encoded twice."""

import asyncio
import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

from mmmedia.errors import InvalidArgumentError

MAX_ALIASES = 16  # names that one entry is known by; the oldest gives way

Unit = Literal["entries", "bytes"]


class _Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


V = TypeVar("V", bound=_Sized)


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


@dataclass(frozen=True)
class EncoderCacheStats:
    """Counters since the cache was made, and its size.

    Attributes:
        hits: look-ups that found an entry, or joined an encode that was under way and succeeded.
        misses: look-ups after which the caller had to encode.
        evictions: entries removed to stay within the capacity.
        entries: how many there are.
        bytes: what they hold together.
    """

    hits: int
    misses: int
    evictions: int
    entries: int
    bytes: int


class Abandoned(Exception):  # noqa: N818  no failure: whoever waits tries again
    """The caller that was to encode gave up before it did."""


@dataclass
class _Flight(Generic[V]):
    future: "Future[V]" = field(default_factory=Future)
    waiters: int = 0


class EncoderCache(Generic[V]):
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
    EncoderCacheStats(hits=1, misses=2, evictions=1, entries=1, bytes=16)
    """

    def __init__(self, capacity: int, *, unit: Unit = "entries") -> None:
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise InvalidArgumentError(
                f"The capacity of an encoder cache must be a positive integer, not {capacity!r}; to encode "
                "without a cache, give none."
            )
        if unit not in ("entries", "bytes"):
            raise InvalidArgumentError(f"Unknown unit {unit!r}: expected 'entries' or 'bytes'.")
        self.capacity = capacity
        self.unit = unit
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, V] = OrderedDict()
        self._keys_by_alias: dict[Hashable, Hashable] = {}
        self._aliases: dict[Hashable, list[Hashable]] = {}
        self._flights: dict[Hashable, _Flight[V]] = {}
        self._hits = self._misses = self._evictions = self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), self.capacity, unit=self.unit), ()

    def __repr__(self) -> str:
        return f"EncoderCache(capacity={self.capacity}, unit={self.unit!r}, {self.stats()})"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._entries

    @property
    def hits(self) -> int:
        """Look-ups that found an entry, or joined an encode under way that succeeded."""
        return self.stats().hits

    @property
    def misses(self) -> int:
        """Look-ups after which the caller had to encode."""
        return self.stats().misses

    @property
    def evictions(self) -> int:
        """Entries removed to stay within the capacity."""
        return self.stats().evictions

    @property
    def bytes(self) -> int:
        """What the entries hold together."""
        return self.stats().bytes

    def stats(self) -> EncoderCacheStats:
        """Return the counters, all of one moment."""
        with self._lock:
            return EncoderCacheStats(
                self._hits, self._misses, self._evictions, len(self._entries), self._bytes
            )

    def get(self, key: Hashable) -> V | None:
        """Return the entry of a key and count a hit, or `None` and count a miss."""
        with self._lock:
            value = self._look_up(key)
            self._misses += value is None
            return value

    def put(self, key: Hashable, value: V) -> None:
        """Store a value that has `nbytes`; one that is not to change any more."""
        with self._lock:
            self._store(key, value)

    def clear(self) -> None:
        """Drop all entries; the counters go on. What is being encoded is not stored when it is done."""
        with self._lock:
            self._entries.clear()
            self._keys_by_alias.clear()
            self._aliases.clear()
            self._flights.clear()
            self._bytes = 0

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

    def reserve(self, key: Hashable) -> "Reservation[V]":
        """Return the reservation of a key: its entry, or the promise of one. For encoding several at once.

        If it says so, the caller is the one to encode, and must `fulfil`, `fail` or `abandon` it, before
        waiting for the future of any other.
        """
        with self._lock:
            value = self._look_up(key)
            if value is not None:
                found: Future[V] = Future()
                found.set_result(value)
                return Reservation(self, key, found, is_leader=False)
            flight = self._flights.get(key)
            if flight is not None:
                flight.waiters += 1
                return Reservation(self, key, flight.future, is_leader=False)
            self._misses += 1
            self._flights[key] = flight = _Flight()
            return Reservation(self, key, flight.future, is_leader=True)

    def alias(self, name: Hashable, key: Hashable) -> None:
        """Let an entry be found by another name as well, for as long as it is stored."""
        with self._lock:
            if key not in self._entries:
                return
            old = self._keys_by_alias.get(name)
            if old is not None:
                self._aliases[old].remove(name)
            names = self._aliases.setdefault(key, [])
            names.append(name)
            self._keys_by_alias[name] = key
            if len(names) > MAX_ALIASES:
                del self._keys_by_alias[names.pop(0)]

    def get_by_alias(self, name: Hashable) -> V | None:
        """Return the entry that has this name and count a hit; `None`, uncounted, if there is none."""
        with self._lock:
            key = self._keys_by_alias.get(name)
            return None if key is None else self._look_up(key)

    def _land(self, key: Hashable, future: "Future[V]", value: V | None) -> None:
        """End a flight, and store its value if it has one."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None or flight.future is not future:
                return  # the cache was cleared meanwhile
            del self._flights[key]
            if value is not None:
                self._hits += flight.waiters
                self._store(key, value)

    def _look_up(self, key: Hashable) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
            self._hits += 1
        return value

    def _store(self, key: Hashable, value: V) -> None:
        self._remove(key, keep_aliases=True)
        self._entries[key] = value
        self._bytes += value.nbytes
        if self._weight(value) > self.capacity:
            self._remove(key)
        while (self._bytes if self.unit == "bytes" else len(self._entries)) > self.capacity:
            self._remove(next(iter(self._entries)))
            self._evictions += 1

    def _weight(self, value: V) -> int:
        return value.nbytes if self.unit == "bytes" else 1

    def _remove(self, key: Hashable, *, keep_aliases: bool = False) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= value.nbytes
        if not keep_aliases:
            for name in self._aliases.pop(key, ()):
                del self._keys_by_alias[name]


@dataclass(frozen=True, eq=False)
class Reservation(Generic[V]):
    """A key that somebody encodes, or that has been encoded.

    As a context it is for the leader: an exception goes to all who wait; if the leader is cancelled, they
    try again.

    Attributes:
        cache: where the value goes.
        key: its key.
        future: what it will be; of a reservation that was abandoned, the exception `Abandoned`.
        is_leader: whether the holder is the one to encode.
    """

    cache: EncoderCache[V]
    key: Hashable
    future: "Future[V]"
    is_leader: bool

    def fulfil(self, value: V) -> None:
        """Store the value and give it to all who wait."""
        self.cache._land(self.key, self.future, value)
        self.future.set_result(value)

    def fail(self, error: Exception) -> None:
        """Give an error to all who wait; nothing is stored. Nothing happens after `fulfil`."""
        if self.future.done():
            return
        self.cache._land(self.key, self.future, None)
        self.future.set_exception(error)

    def abandon(self) -> None:
        """Give the key back; one of those who wait takes over. Nothing happens after `fulfil` or `fail`."""
        self.fail(Abandoned())

    def __enter__(self) -> "Reservation[V]":
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self.abandon()
