"""The encoder cache: least recently used, counted, each key encoded once whoever asks."""

import asyncio
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mmmedia.errors import InvalidArgumentError
from mmmedia.pipeline import EncoderCache
from mmmedia.pipeline.encoder_cache import MAX_ALIASES, Abandoned


def value(size=8):
    return np.zeros(size, np.uint8)


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, None, "8"])
def test_a_capacity_that_is_no_positive_integer_is_refused(capacity):
    with pytest.raises(
        InvalidArgumentError, match="capacity of an encoder cache must be a positive integer, not"
    ):
        EncoderCache(capacity)


def test_an_unknown_unit_is_refused():
    with pytest.raises(InvalidArgumentError, match="Unknown unit 'tokens': expected 'entries' or 'bytes'"):
        EncoderCache(1, unit="tokens")


def test_the_least_recently_used_entry_leaves_first():
    cache = EncoderCache(2)
    for key in "ab":
        cache.put(key, value())
    assert cache.get("a") is not None
    cache.put("c", value())
    assert [key in cache for key in "abc"] == [True, False, True]
    assert (cache.hits, cache.misses, cache.evictions, cache.bytes, len(cache)) == (1, 0, 1, 16, 2)
    assert cache.get("b") is None
    assert cache.misses == 1
    assert "EncoderCache(capacity=2, unit='entries'" in repr(cache)


def test_bytes_are_counted_and_what_is_too_large_is_not_stored():
    cache = EncoderCache(100, unit="bytes")
    cache.put("a", value(60))
    cache.put("b", value(40))
    assert cache.bytes == 100
    assert cache.get_or_encode("huge", lambda: value(101)).nbytes == 101
    assert sorted(key for key in ("a", "b", "huge") if key in cache) == ["a", "b"]
    assert cache.evictions == 0
    cache.put("b", value(30))  # replaced, not added
    assert (cache.bytes, len(cache)) == (90, 2)
    cache.put("b", value(101))
    assert (cache.bytes, "b" in cache) == (60, False)
    cache.put("c", value(50))
    assert (cache.bytes, "a" in cache, cache.evictions) == (50, False, 1)


def test_aliases_live_as_long_as_their_entry():
    cache = EncoderCache(1)
    cache.alias("name", "a")
    assert cache.get_by_alias("name") is None
    a = value()
    cache.put("a", a)
    cache.alias("name", "a")
    cache.alias("name", "a")
    assert cache.get_by_alias("name") is a
    assert (cache.hits, cache.misses) == (1, 0)
    cache.put("b", value())
    assert cache.get_by_alias("name") is None
    cache.alias("name", "b")
    cache.put("a", a)
    assert cache.get_by_alias("name") is None
    cache.alias("name", "a")
    cache.clear()
    assert cache.get_by_alias("name") is None


def test_the_oldest_of_too_many_aliases_is_forgotten():
    cache = EncoderCache(1)
    a = value()
    cache.put("a", a)
    for number in range(MAX_ALIASES + 1):
        cache.alias(number, "a")
    assert cache.get_by_alias(0) is None
    assert cache.get_by_alias(1) is cache.get_by_alias(MAX_ALIASES) is a


def test_a_name_may_move_to_another_entry():
    cache = EncoderCache(2)
    cache.put("a", value(1))
    cache.put("b", value(2))
    cache.alias("name", "a")
    cache.alias("name", "b")
    assert cache.get_by_alias("name").nbytes == 2
    cache.get("b")
    cache.put("c", value())  # a leaves; its former name must stay
    assert cache.get_by_alias("name").nbytes == 2


class Encodes:
    """Counts calls; each waits until it may go on."""

    def __init__(self, result=None, error=None):
        self.calls = 0
        self.started = threading.Event()
        self.go_on = threading.Event()
        self.result = value() if result is None else result
        self.error = error

    def __call__(self):
        self.calls += 1
        self.started.set()
        assert self.go_on.wait(30)
        if self.error:
            raise self.error
        return self.result


def all_waiting(cache, key, number):
    """Return once so many wait for the key."""
    while cache._flights[key].waiters < number:
        pass


def test_threads_that_ask_at_the_same_time_encode_once():
    cache, encode = EncoderCache(4), Encodes()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.get_or_encode, "a", encode) for _ in range(8)]
        assert encode.started.wait(30)
        all_waiting(cache, "a", 7)
        encode.go_on.set()
        assert all(future.result() is encode.result for future in futures)
    assert encode.calls == 1
    assert (cache.hits, cache.misses) == (7, 1)


def test_an_error_reaches_all_who_wait_and_is_not_stored():
    cache, encode = EncoderCache(4), Encodes(error=OSError("out of order"))
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(cache.get_or_encode, "a", encode) for _ in range(4)]
        assert encode.started.wait(30)
        all_waiting(cache, "a", 3)
        encode.go_on.set()
        assert all(str(future.exception()) == "out of order" for future in futures)
    assert encode.calls == 1
    assert "a" not in cache
    assert cache.get_or_encode("a", value).nbytes == 8
    assert (cache.hits, cache.misses) == (0, 2)


def test_coroutines_and_threads_share_one_encode():
    cache, encode = EncoderCache(4), Encodes()

    async def run():
        thread = asyncio.create_task(asyncio.to_thread(cache.get_or_encode, "a", encode))
        await asyncio.to_thread(encode.started.wait, 30)
        tasks = [asyncio.create_task(cache.get_or_encode_async("a", encode)) for _ in range(5)]
        await asyncio.to_thread(all_waiting, cache, "a", 5)
        tasks[0].cancel()  # one who waits no more does not disturb the rest
        await asyncio.sleep(0)
        encode.go_on.set()
        results = await asyncio.gather(thread, *tasks, return_exceptions=True)
        assert isinstance(results.pop(1), asyncio.CancelledError)
        assert all(result is encode.result for result in results)

    asyncio.run(run())
    assert encode.calls == 1


def test_a_coroutine_function_is_awaited_and_a_function_runs_in_a_thread():
    cache = EncoderCache(4)

    async def run():
        async def encode():
            await asyncio.sleep(0)
            return value(3)

        loop_thread = threading.get_ident()
        threads = []
        assert (await cache.get_or_encode_async("a", encode)).nbytes == 3
        await cache.get_or_encode_async("b", lambda: threads.append(threading.get_ident()) or value())
        assert threads != [loop_thread]
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_encode_async("c", lambda: 1 / 0)

    asyncio.run(run())
    assert [key in cache for key in "abc"] == [True, True, False]


def test_when_the_one_who_encodes_is_cancelled_another_takes_over():
    cache = EncoderCache(4)

    async def run():
        calls = []

        async def encode():
            calls.append(len(calls))
            if len(calls) == 1:
                await asyncio.Event().wait()
            return value()

        leader = asyncio.create_task(cache.get_or_encode_async("a", encode))
        await asyncio.sleep(0)
        follower = asyncio.create_task(cache.get_or_encode_async("a", encode))
        await asyncio.sleep(0)
        leader.cancel()
        assert (await follower).nbytes == 8
        assert calls == [0, 1]
        assert leader.cancelled()

    asyncio.run(run())
    assert (cache.hits, cache.misses) == (0, 2)


def test_a_thread_takes_over_what_was_abandoned():
    cache = EncoderCache(4)
    reservation = cache.reserve("a")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(cache.get_or_encode, "a", value)
        all_waiting(cache, "a", 1)
        reservation.abandon()
        assert future.result().nbytes == 8
    reservation.abandon()  # nothing happens any more
    reservation.fail(ValueError())
    assert isinstance(reservation.future.exception(), Abandoned)


def test_a_reservation_left_without_a_result_is_abandoned():
    cache = EncoderCache(4)
    with cache.reserve("a") as reservation:
        assert reservation.is_leader
    assert isinstance(reservation.future.exception(), Abandoned)
    assert cache.reserve("a").is_leader


def test_what_was_being_encoded_when_the_cache_was_cleared_is_not_stored():
    cache, encode = EncoderCache(4), Encodes()
    cache.put("b", value())
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(cache.get_or_encode, "a", encode)
        assert encode.started.wait(30)
        cache.clear()
        encode.go_on.set()
        assert future.result() is encode.result
    assert (len(cache), cache.bytes, "a" in cache) == (0, 0, False)
    assert cache.misses == 1


@pytest.mark.parametrize(("capacity", "unit"), [(5, "entries"), (500, "bytes")])
def test_the_capacity_holds_under_eight_threads(capacity, unit):
    """And no thread is ever given the value of another key."""
    cache = EncoderCache(capacity, unit=unit)
    failures = []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(400):
            key = chance.randrange(12)
            found = cache.get_or_encode(key, lambda key=key: value(20 + 10 * key))
            cache.alias(f"name {key}", key)
            named = cache.get_by_alias(f"name {chance.randrange(12)}")
            stats = cache.stats()
            size = stats.bytes if unit == "bytes" else stats.entries
            if found.nbytes != 20 + 10 * key or size > capacity or (named is not None and named.nbytes < 20):
                failures.append((key, found.nbytes, stats))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert failures == []
    assert cache.evictions > 0
    assert cache._flights == {}


class CacheAgainstModel(RuleBasedStateMachine):
    """What the cache holds is what a plain list of (key, size), oldest first, says it holds."""

    keys = st.integers(0, 5)
    sizes = st.integers(1, 12)

    @initialize(capacity=st.integers(1, 30), unit=st.sampled_from(["entries", "bytes"]))
    def start(self, capacity, unit):
        self.cache, self.model, self.capacity, self.unit = (
            EncoderCache(capacity, unit=unit),
            [],
            capacity,
            unit,
        )

    def weight(self):
        return sum(size for _, size in self.model) if self.unit == "bytes" else len(self.model)

    @rule(key=keys, size=sizes)
    def put(self, key, size):
        self.cache.put(key, value(size))
        self.model = [entry for entry in self.model if entry[0] != key]
        if self.unit == "entries" or size <= self.capacity:
            self.model.append((key, size))
        while self.weight() > self.capacity:
            self.model.pop(0)

    @rule(key=keys)
    def get(self, key):
        expected = dict(self.model).get(key)
        found = self.cache.get(key)
        assert (None if found is None else found.nbytes) == expected
        if expected is not None:
            self.model = [entry for entry in self.model if entry[0] != key] + [(key, expected)]

    @invariant()
    def agrees(self):
        if hasattr(self, "cache"):
            assert [(key, item.nbytes) for key, item in self.cache._entries.items()] == self.model
            assert self.cache.bytes == sum(size for _, size in self.model)


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
