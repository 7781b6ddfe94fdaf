"""The cache in memory, as far as the tests of `EncoderCache` and `DecodedCache` don't have it."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmmedia.cache.memory import MemoryCache
from support.forking import holds_in_child
from support.waiting import wait_until


def value(size: int = 8) -> np.ndarray:
    return np.zeros(size, np.uint8)


def test_without_a_capacity_nothing_leaves() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(None)
    for number in range(1000):
        cache.put(number, value())
    assert (cache.stats().entries, cache.stats().bytes, cache.stats().evictions) == (1000, 8000, 0)


def test_the_largest_that_is_kept_may_be_less_than_all() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(100, unit="bytes", largest=25)
    cache.put("a", value(25))
    cache.put("b", value(26))
    assert ("a" in cache, "b" in cache) == (True, False)
    cache.put("a", value(26))
    assert (len(cache), cache.stats().bytes) == (0, 0)


def test_another_capacity_counts_at_once() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(100, unit="bytes", largest=100)
    for key in "abc":
        cache.put(key, value(30))
    cache.get("a")
    cache.resize(60, largest=10)
    assert [key in cache for key in "abc"] == [True, False, True]
    assert cache.stats().evictions == 1
    cache.put("d", value(11))
    assert "d" not in cache


def test_a_copy_is_empty() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(100, unit="bytes")
    cache.put("a", value())
    other = pickle.loads(pickle.dumps(cache))
    assert (len(other), other.capacity, other.unit) == (0, 100, "bytes")


def test_what_is_being_made_while_it_is_cleared_is_not_kept() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(10)
    reservation = cache.reserve("a")
    cache.clear()
    assert reservation.fulfil(value()), "others may have waited for it"
    assert len(cache) == 0


def test_it_says_whether_others_have_what_was_made() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(10, unit="bytes")
    assert cache.reserve("small").fulfil(value(8))
    assert not cache.reserve("large").fulfil(value(11))
    leader, joins = cache.reserve("large"), cache.reserve("large")
    assert leader.fulfil(value(11))
    assert joins.future.result(0).nbytes == 11


def test_a_child_forked_in_the_midst_begins_afresh() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(10)
    cache.put("a", value())
    go_on = threading.Event()

    def slowly() -> np.ndarray:
        with cache.reserve("b") as reservation:
            assert go_on.wait(30)
            reservation.fulfil(value(4))
        return reservation.future.result(0)

    def check() -> bool:
        return len(cache) == 0 and cache.reserve("b").is_leader

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(slowly)
        wait_until(lambda: cache._flights)
        assert holds_in_child(check)
        go_on.set()
        assert making.result(30).nbytes == 4
    assert len(cache) == 2


def test_who_waits_for_one_who_fails_fails_too() -> None:
    cache: MemoryCache[np.ndarray] = MemoryCache(10)
    reservation, waits = cache.reserve("a"), cache.reserve("a")
    assert not waits.is_leader
    reservation.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        waits.future.result(0)
    assert cache.reserve("a").is_leader
