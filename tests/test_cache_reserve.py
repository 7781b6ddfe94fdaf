"""A large budget: processes take of it in advance, and publish without the account while that lasts."""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import mmmedia.cache as cache_module
from mmmedia.cache import MediaCache

BUDGET = 2**28
RESERVE = BUDGET // 4096
"""64 KiB: what a process has of such a budget at a time."""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="files without names, attributes")


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


def open_cache(directory: Path) -> MediaCache:
    """One that shares no memory with any other, as in a process of its own."""
    return MediaCache(directory, max_bytes=BUDGET, ttl_secs=3600)


def counted(directory: Path) -> tuple[int, int]:
    sizes = [max(4096, file.stat().st_size) for file in directory.iterdir()]
    return sum(sizes), len(sizes)


def accounted(cache: MediaCache) -> tuple[int, int]:
    stats = cache.stats
    return stats.bytes, stats.entries


@LINUX
def test_most_puts_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_cache(tmp_path)
    for number in range(20):
        cache.put(url(number), b"x")
    taken: list[int] = []
    flock: Any = fcntl.flock

    def counting(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX:
            taken.append(file)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", counting)
    for number in range(100, 200):
        assert cache.put(url(number), b"x")
    assert len(taken) <= 100 // (RESERVE // 4096) + 2
    assert accounted(cache) == counted(tmp_path) == (120 * 4096, 120)


def test_one_process_counts_exactly_at_any_moment(tmp_path: Path) -> None:
    """Whatever comes between: replaced entries, large ones, discarded ones, a scan."""
    cache = open_cache(tmp_path)
    for number in range(60):
        cache.put(url(number % 40), bytes(1 + number * 997 % 9000))
        if number % 7 == 0:
            cache.put(url(1000 + number), bytes(2 * RESERVE))
        if number % 11 == 0:
            cache.discard(url(number // 2))
        if number % 13 == 0:
            cache.evict()
        if number % 5 == 0:
            assert accounted(cache) == counted(tmp_path)
    assert accounted(cache) == counted(tmp_path)


@given(steps=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_processes_never_count_too_little(steps: list[tuple[int, int]]) -> None:
    """By more than a reserve each; and a scan, once all have settled, finds what they know together."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        caches = [open_cache(directory) for _ in range(3)]
        for which, what in steps:
            if what == 0:
                caches[which].evict()
            elif what == 1:
                caches[which].discard(url(which))
            else:
                caches[which].put(url(len(os.listdir(name)) * 50 + what), bytes(what * 900))  # noqa: PTH208
            with caches[0]._shared.locked() as file:
                account = cache_module._Account.loads(cache_module._get_attribute(file) or b"")
            if account is not None:
                assert account.size >= counted(directory)[0] - len(caches) * RESERVE
        for cache in caches:
            cache._shared.settle()
        assert accounted(caches[0])[0] >= counted(directory)[0]
        caches[0].evict()
        assert accounted(caches[1]) == counted(directory)


def test_the_budget_holds_with_reserves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has in advance, it has; others, who may have counted meanwhile, leave room for it."""
    monkeypatch.setattr(cache_module, "_RESERVE", 64)
    monkeypatch.setattr(cache_module, "_MIN_RESERVE", 1)
    budget = 2**22
    one, other = (MediaCache(tmp_path, max_bytes=budget, ttl_secs=3600) for _ in range(2))
    for number in range(8):
        one.put(url(number), b"small")
    left = one._shared._reserve.left
    assert left >= 4096
    other.evict()
    other.put(url(100), bytes(other._limit - counted(tmp_path)[0]))
    for number in range(left // 4096):
        one.put(url(200 + number), b"small")
    assert one._shared._reserve.left < left
    assert other._limit < counted(tmp_path)[0] <= budget
    one.put(url(300), b"small")
    assert counted(tmp_path)[0] <= budget


@LINUX
def test_a_process_that_ends_leaves_an_exact_account(tmp_path: Path) -> None:
    code = (
        "import sys; from mmmedia.cache import MediaCache\n"
        f"cache = MediaCache(sys.argv[1], max_bytes={BUDGET}, ttl_secs=3600)\n"
        "for number in range(50): cache.put(f'https://example.org/{number}', b'x')\n"
        "assert cache._shared._reserve.entries\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
    assert accounted(open_cache(tmp_path)) == counted(tmp_path) == (50 * 4096, 50)


@LINUX
def test_a_forked_child_has_no_part_in_its_parents_reserve(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    for number in range(20):
        cache.put(url(number), b"x")
    assert cache._shared._reserve.left
    child = os.fork()
    if not child:
        is_empty = cache._shared._reserve == cache_module._Reserve()
        os._exit(0 if is_empty and cache.put(url(100), b"x") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.put(url(101), b"x")
    assert accounted(cache)[0] >= 22 * 4096
    cache.evict()
    assert accounted(cache) == (22 * 4096, 22)


# -- dates and sums ---------------------------------------------------------------------------------------


@LINUX
def test_entries_are_dated_by_the_caches_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own date will do, unless the clock is another or the files lie elsewhere."""
    now = [time.time()]
    cache = MediaCache(tmp_path, max_bytes=BUDGET, ttl_secs=3600, clock=lambda: now[0])
    assert cache.get(url(1)) is None  # finds out where it is
    dated: list[int] = []
    utime: Any = os.utime
    monkeypatch.setattr(os, "utime", lambda file, ns: (dated.append(ns[1]), utime(file, ns=ns)))

    cache.put(url(1), b"x")
    assert dated == ([] if cache._shared.is_local else dated)
    now[0] += 1000
    cache.put(url(2), b"x")
    cache._shared.is_local = False
    now[0] -= 1000
    cache.put(url(3), b"x")
    written = [cache.path(url(number)).stat().st_mtime - now[0] for number in (1, 2, 3)]
    assert written == pytest.approx([0, 1000, 0], abs=1)
    assert len(dated) >= 2


@given(data=st.binary(max_size=200), repeats=st.sampled_from([1, 25, 26, 327, 328, 1000]))
def test_sums_of_small_files_are_those_of_zlib(data: bytes, repeats: int) -> None:
    assert cache_module._crc32(data * repeats) == zlib.crc32(data * repeats)
