"""`MemoryCache`: what was costly to make, in memory, made once however many ask for it at the same time."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from mmmedia.work.fork import afresh_in_child

Unit = Literal["entries", "bytes"]


class Sized(Protocol):
    """What says how many bytes it holds."""

    @property
    def nbytes(self) -> int:
        """The number of them."""


V = TypeVar("V", bound=Sized)


@dataclass(frozen=True)
class MemoryCacheStats:
    """Counters since the cache was made, and its size.

    Attributes:
        hits: look-ups that found an entry, or joined who was making it and succeeded.
        misses: look-ups after which the caller had to make it.
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
    """The caller that was to make an entry gave up before it did."""


@dataclass
class _Flight(Generic[V]):
    future: "Future[V]" = field(default_factory=Future)
    waiters: int = 0


class MemoryCache(Generic[V]):
    """Values that have `nbytes`, by key; the least recently used leave first. Thread-safe.

    An error is never stored. A copy, also one in another process, is empty, and so it is in a forked child.

    Args:
        capacity: how much it holds; `None` for any number.
        unit: what `capacity` counts: "entries", or "bytes" of the values.
        largest: the largest value that is stored, in `unit`; `None`: as much as `capacity`.

    Attributes:
        hits, misses, evictions, bytes: as in `MemoryCacheStats`, which has all of one moment.
    """

    def __init__(self, capacity: int | None, *, unit: Unit = "entries", largest: int | None = None) -> None:
        self.capacity, self.unit, self.largest = capacity, unit, largest
        self.hits = self.misses = self.evictions = 0
        self._begin_afresh()
        afresh_in_child(self._begin_afresh)

    def _begin_afresh(self) -> None:
        """Be empty; in a forked child, where nobody makes what was being made."""
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, V] = OrderedDict()
        self._flights: dict[Hashable, _Flight[V]] = {}
        self.bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), self.capacity, unit=self.unit), ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(capacity={self.capacity}, unit={self.unit!r}, {self.stats()})"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        with self._lock:
            return key in self._entries

    def stats(self) -> MemoryCacheStats:
        """Return the counters, all of one moment."""
        with self._lock:
            return MemoryCacheStats(self.hits, self.misses, self.evictions, len(self._entries), self.bytes)

    def get(self, key: Hashable) -> V | None:
        """Return the entry of a key and count a hit, or `None` and count a miss."""
        with self._lock:
            value = self._look_up(key)
            self.misses += value is None
            return value

    def put(self, key: Hashable, value: V) -> None:
        """Store a value; one that is not to change any more."""
        with self._lock:
            self._store(key, value)

    def clear(self) -> None:
        """Drop all entries; the counters go on. What is being made is not stored when it is done."""
        with self._lock:
            self._entries.clear()
            self._flights.clear()
            self.bytes = 0

    def resize(self, capacity: int, *, largest: int | None = None) -> None:
        """Have another capacity, and drop what is too much for it."""
        if (capacity, largest) != (self.capacity, self.largest):
            with self._lock:
                self.capacity, self.largest = capacity, largest
                self._evict()

    def reserve(self, key: Hashable) -> "Reservation[V]":
        """Return the reservation of a key: its entry, or the promise of one.

        If it says so, the caller is the one to make it, and must `fulfil`, `fail` or `abandon` it, before
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
            self.misses += 1
            self._flights[key] = flight = _Flight()
            return Reservation(self, key, flight.future, is_leader=True)

    def _land(self, key: Hashable, future: "Future[V]", value: V | None) -> bool:
        """End a flight, and store its value if it has one; return whether others have that too."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None or flight.future is not future:
                return True  # the cache was cleared meanwhile, and others may have waited
            del self._flights[key]
            if value is None:
                return False
            self.hits += flight.waiters
            self._store(key, value)
            return flight.waiters > 0 or self._entries.get(key) is value

    def _look_up(self, key: Hashable) -> V | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
            self.hits += 1
        return value

    def _store(self, key: Hashable, value: V) -> None:
        self._remove(key)
        largest = self.capacity if self.largest is None else self.largest
        if largest is not None and (value.nbytes if self.unit == "bytes" else 1) > largest:
            return
        self._entries[key] = value
        self.bytes += value.nbytes
        self._evict()

    def _evict(self) -> None:
        while self.capacity is not None and self._weight() > self.capacity:
            self._remove(next(iter(self._entries)))
            self.evictions += 1

    def _weight(self) -> int:
        return self.bytes if self.unit == "bytes" else len(self._entries)

    def _remove(self, key: Hashable) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self.bytes -= value.nbytes


@dataclass(frozen=True, eq=False)
class Reservation(Generic[V]):
    """A key that somebody makes an entry for, or that has one.

    As a context it is for the leader: an exception goes to all who wait; if the leader is cancelled, they
    try again.

    Attributes:
        cache: where the value goes.
        key: its key.
        future: what it will be; of a reservation that was abandoned, the exception `Abandoned`.
        is_leader: whether the holder is the one to make it.
    """

    cache: MemoryCache[V]
    key: Hashable
    future: "Future[V]"
    is_leader: bool

    def fulfil(self, value: V) -> bool:
        """Store the value and give it to all who wait; return whether anybody else has it, or will."""
        is_shared = self.cache._land(self.key, self.future, value)
        self.future.set_result(value)
        return is_shared

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
