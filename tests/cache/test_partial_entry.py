"""Partial entries become whole ones, once all of their blocks are there: never of other bytes."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmmedia.cache import BlockCacheSource, MediaCache, partial
from mmmedia.cache.partial import BLOCK_BYTES
from support import block_worker
from support.caches import Clock
from support.environment import importing
from support.sources import CountingSource, content

KEY = "https://example.org/lecture.mp4"
SIZE = 20 * BLOCK_BYTES + 1000
DATA = content(0, SIZE)


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> MediaCache:
    return MediaCache(tmp_path / "cache", max_bytes=100 * BLOCK_BYTES, ttl_secs=100, clock=clock)


@pytest.fixture
def source(cache: MediaCache) -> BlockCacheSource:
    return BlockCacheSource(CountingSource(DATA), cache, KEY)


def part(cache: MediaCache) -> Path:
    return cache.directory / f".mmmedia-{cache.path(KEY).name[:20]}.part"


def test_all_blocks_are_a_whole_entry(cache: MediaCache, source: BlockCacheSource, clock: Clock) -> None:
    """Of which the life began with the first block; before that, and of nothing, there is none."""
    assert not source.become_whole()
    source.read([(0, SIZE - BLOCK_BYTES)])
    clock.now += 60
    assert not source.become_whole()
    assert cache.get(KEY) is None
    source.read([(SIZE - BLOCK_BYTES, SIZE)])
    assert source.become_whole()
    assert not part(cache).exists()
    assert cache.get(KEY) == DATA
    assert not source.become_whole()
    assert (cache.stats.entries, cache.stats.bytes, cache.stats.puts) == (1, SIZE, 1)
    assert cache.check() == []
    clock.now += 60
    assert cache.get(KEY) is None


def test_damaged_blocks_are_fetched_before(cache: MediaCache, source: BlockCacheSource) -> None:
    source.read([(0, SIZE)])
    with part(cache).open("r+b") as file:
        file.seek(8192 + 17 * BLOCK_BYTES)
        file.write(b"?!")
    assert not source.become_whole()
    assert not list(cache.directory.glob("*.tmp"))
    assert source.read([(0, SIZE)]) == [DATA]
    assert source.become_whole()
    assert cache.get(KEY) == DATA


@pytest.mark.parametrize("how", ["discarded", "stored", "begun anew"])
def test_what_is_forgotten_meanwhile_does_not_come_back(
    cache: MediaCache, source: BlockCacheSource, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Because it did not decode, or as another, or another state of it, was stored."""
    source.read([(0, SIZE)])
    plain = partial.PartialFile.read

    def read(self: partial.PartialFile, blocks: Any) -> Any:
        monkeypatch.setattr(partial.PartialFile, "read", plain)
        if how == "stored":
            cache.put(KEY, b"by another")
        else:
            cache.discard(KEY)
        if how == "begun anew":
            BlockCacheSource(CountingSource(DATA, '"v2"'), cache, KEY).read([(0, 1)])
        return plain(self, blocks)

    monkeypatch.setattr(partial.PartialFile, "read", read)
    assert not source.become_whole()
    assert cache.get(KEY) == (b"by another" if how == "stored" else None)
    assert part(cache).exists() == (how == "begun anew")
    assert not list(cache.directory.glob("*.tmp"))
    assert cache.check() == []


@pytest.mark.parametrize("call", ["write", "replace", "utime", "open"])
def test_a_disk_that_fails_leaves_the_blocks(
    cache: MediaCache, source: BlockCacheSource, call: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    source.read([(0, SIZE)])
    plain = getattr(os, call)

    def full(*arguments: Any, **options: Any) -> Any:
        if call == "open" and not str(arguments[0]).endswith(".tmp"):
            return plain(*arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        assert not source.become_whole()
    assert "could not be stored" in caplog.text
    assert source.become_whole()
    assert cache.get(KEY) == DATA
    cache.evict()
    assert cache.check() == []


def test_what_is_larger_than_the_budget_stays_as_it_is(tmp_path: Path) -> None:
    cache = MediaCache(tmp_path, max_bytes=SIZE - 1, ttl_secs=100)
    source = BlockCacheSource(CountingSource(DATA), cache, KEY)
    source.read([(0, SIZE)])
    assert not source.become_whole()
    assert cache.check() == []


@pytest.mark.parametrize("step", range(2))
@pytest.mark.parametrize("call", ["write", "utime", "replace", "setxattr", "unlink", "pread", "lstat"])
def test_killed_at_any_step_it_is_whole_or_as_it_was(tmp_path: Path, call: str, step: int) -> None:
    """And no temp file stays, no wrong account, no byte of another."""
    cache = block_worker.open_cache(str(tmp_path))
    block_worker.source(cache, 7).read([(0, block_worker.SIZE)])
    victim = subprocess.Popen(
        [sys.executable, block_worker.__file__, "die_whole", str(tmp_path), call, str(step), "7"],
        env={**os.environ, **importing()},
    )
    victim.communicate(timeout=60)
    assert victim.returncode < 0 or step, "never called"
    body = block_worker.body(7)
    assert cache.get(block_worker.url(7)) in (None, body)
    inner = CountingSource(body)
    assert BlockCacheSource(inner, cache, block_worker.url(7)).read([(0, block_worker.SIZE)]) == [body]
    cache.evict()
    assert not list(tmp_path.glob("*.tmp"))
    assert cache.check() == []
