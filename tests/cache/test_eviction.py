"""The budget: what goes first, and how seldom the directory is listed."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache
from support.caches import (
    BLOCK,
    LINUX,
    URL,
    Clock,
    counted_anew,
    fill,
    present,
    url,
)


def test_the_least_recently_used_goes_first(either_cache: MediaCache, clock: Clock) -> None:
    fill(either_cache, clock, range(10))
    clock.now += 1
    either_cache.get(url(0))
    fill(either_cache, clock, range(10, 12))
    assert present(either_cache, range(12)) == [0, *range(3, 12)]
    assert either_cache.stats.evictions == 2
    assert (either_cache.stats.bytes, either_cache.stats.entries) == (10 * BLOCK, 10)


def test_expired_entries_go_before_any_fresh_one(cache: MediaCache, clock: Clock) -> None:
    fill(cache, clock, range(5))
    clock.now += 97
    fill(cache, clock, range(5, 6))
    cache.get(url(4))
    clock.now += 1
    cache.evict()
    assert present(cache, range(6)) == [4, 5]
    assert (cache.stats.expiries, cache.stats.evictions) == (4, 0)


def test_each_entry_counts_at_least_a_block(cache: MediaCache) -> None:
    cache.put(url(0), b"1")
    cache.put(url(1), bytes(BLOCK))
    cache.put(url(2), bytes(BLOCK + 1))
    assert cache.stats.bytes == 3 * BLOCK + 1


def test_a_large_entry_evicts_as_many_as_it_needs(cache: MediaCache, clock: Clock) -> None:
    fill(cache, clock, range(10))
    clock.now += 1
    assert cache.put(URL, bytes(4 * BLOCK + 1))
    assert present(cache, range(10)) == list(range(5, 10))


def test_empty_and_oversized_data_are_not_stored(cache: MediaCache) -> None:
    assert not cache.put(URL, b"")
    assert not cache.put(URL, bytes(10 * BLOCK + 1))
    assert not cache.path(URL).exists()
    assert cache.put(URL, bytes(10 * BLOCK))
    assert not cache.put(URL, b"")
    assert cache.get(URL) == bytes(10 * BLOCK)


def test_the_entry_just_written_stays_whatever_its_times(tmp_path: Path, clock: Clock) -> None:
    cache = MediaCache(tmp_path, max_bytes=3 * BLOCK, ttl_secs=100, clock=clock)
    fill(cache, clock, range(3))
    clock.now -= 50
    assert cache.put(URL, b"newest, though the clock says otherwise")
    assert cache.path(URL).exists()
    tiny = MediaCache(tmp_path / "tiny", max_bytes=100, ttl_secs=100, clock=clock)
    fill(tiny, clock, range(2))
    assert present(tiny, range(2)) == [1]


def test_an_entry_can_be_excluded_from_eviction(cache: MediaCache, clock: Clock) -> None:
    fill(cache, clock, range(3))
    smaller = MediaCache(cache.directory, max_bytes=BLOCK, ttl_secs=100, clock=clock)
    smaller.evict(exclude=smaller.path(url(0)))
    assert present(smaller, range(3)) == [0]


def test_what_can_not_be_removed_stays_counted_and_others_go(
    cache: MediaCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of another user in a directory with the sticky bit; and another process removes one, too."""
    fill(cache, clock, range(10))
    plain_unlink = os.unlink

    def unlink(path: str) -> None:
        if path == str(cache.path(url(0))):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        plain_unlink(path)
        if path == str(cache.path(url(1))):
            raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink)
        fill(cache, clock, range(10, 12))
        assert present(cache, range(12)) == [0, *range(3, 12)]
        assert cache.check() == []


def test_eviction_of_many_makes_room_for_more_than_one(tmp_path: Path, clock: Clock) -> None:
    """Otherwise a full cache would be scanned for every put."""
    cache = MediaCache(tmp_path, max_bytes=100 * BLOCK, ttl_secs=1e6, clock=clock)
    fill(cache, clock, range(101))
    assert present(cache, range(101)) == list(range(5, 101))


def test_puts_seldom_list_the_directory(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand puts below and a thousand above the budget list far fewer names than entries x puts."""
    cache = MediaCache(tmp_path, max_bytes=1000 * BLOCK, ttl_secs=1e6, clock=clock)
    seen = 0
    plain_scandir = os.scandir

    @contextlib.contextmanager
    def counting(path: str) -> Iterator[list[os.DirEntry[str]]]:
        nonlocal seen
        with plain_scandir(path) as items:
            found = list(items)
        seen += len(found)
        yield found

    monkeypatch.setattr(os, "scandir", counting)
    fill(cache, clock, range(1000))
    assert seen < 8 * 1000
    seen = 0
    fill(cache, clock, range(1000, 2000))
    assert seen < 50 * 1000
    # A new process knows what the others knew, without a look of its own.
    seen = 0
    another = MediaCache(tmp_path, max_bytes=1000 * BLOCK, ttl_secs=1e6, clock=clock)
    another.put(URL, b"a photo")
    assert another.stats.entries == len(present(cache, range(2000))) + 1
    assert seen == 0


def test_entries_that_others_wrote_are_found_in_time(cache: MediaCache, clock: Clock) -> None:
    """vLLM keeps no account; its entries must not make the directory grow without bound."""
    fill(cache, clock, range(2))
    for number in range(100, 150):
        foreign = cache.path(url(number))
        foreign.write_bytes(b"by vLLM")
        os.utime(foreign, (clock.now, clock.now))
    fill(cache, clock, range(2, 5))
    assert counted_anew(cache) == (10 * BLOCK, 10)


@pytest.mark.parametrize("account", [b"", b"nonsense", b"-1 -1 -1", b"1 2", b"\xff", b"1 1 1 1"])
def test_an_account_that_makes_no_sense_is_made_anew(cache: MediaCache, clock: Clock, account: bytes) -> None:
    fill(cache, clock, range(10))
    os.setxattr(cache.directory, "user.mmmedia", account)
    assert (cache.stats.bytes, cache.stats.entries) == (10 * BLOCK, 10)
    os.setxattr(cache.directory, "user.mmmedia", account)
    fill(cache, clock, range(10, 11))
    assert counted_anew(cache) == (10 * BLOCK, 10)


@LINUX
def test_caches_of_one_directory_count_exactly_at_any_moment(tmp_path: Path) -> None:
    """Whatever they do in turn: new entries, replaced ones, large ones, discarded ones, a scan."""
    caches = [MediaCache(tmp_path, max_bytes=100 * BLOCK, ttl_secs=1e6) for _ in range(3)]
    for number in range(200):
        cache = caches[number % 3]
        cache.put(url(number % 40), bytes(1 + number * 997 % 9000))
        if number % 7 == 0:
            cache.put(url(1000 + number), bytes(20 * BLOCK))
        if number % 11 == 0:
            cache.discard(url(number // 2))
        if number % 13 == 0:
            cache.evict()
        assert caches[number % 2].check() == []


def test_discard_forgets(cache: MediaCache) -> None:
    cache.put(URL, b"does not decode")
    cache.discard(URL)
    assert cache.get(URL) is None
    assert (cache.stats.bytes, cache.stats.entries) == (0, 0)
    cache.discard(URL)


def test_what_has_expired_by_its_file_time_is_gone_after_the_next_put(
    cache: MediaCache, clock: Clock
) -> None:
    """Whoever set that time, and with few entries at once."""
    for number in range(5):
        cache.put(f"http://example.org/{number}", b"x")
    old = cache.path("http://example.org/3")
    os.utime(old, (0, 0))
    cache.put("http://example.org/new", b"x")
    assert not old.exists()
    assert cache.stats.entries == 5
