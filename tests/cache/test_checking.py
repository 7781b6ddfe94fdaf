"""`check()`: what is wrong with a directory."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache, files
from support.caches import BLOCK, LINUX, URL, Clock, fill, url


def test_check_finds_all_well_where_it_is(either_cache: MediaCache, clock: Clock) -> None:
    assert either_cache.check() == []
    fill(either_cache, clock, range(12))
    either_cache.put(URL, b"a photo", etag='"v1"')
    clock.now += 150
    assert either_cache.check() == []


@LINUX
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: os.truncate(path, 0), "is empty"),
        (lambda path: os.truncate(path, 3), "has 3 bytes and not 7, which were stored"),
        (lambda path: path.write_bytes(b"A photo"), "has other bytes than were stored"),
        (
            lambda path: os.truncate(path, 10 * BLOCK + 1),
            f"is longer than the budget: {10 * BLOCK + 1} bytes",
        ),
    ],
    ids=["emptied", "truncated", "one byte", "lengthened"],
)
def test_check_finds_a_damaged_entry(
    cache: MediaCache, damage: Callable[[Path], object], problem: str
) -> None:
    cache.put(URL, b"a photo")
    damage(cache.path(URL))
    assert f"{cache.path(URL).name} {problem}" in cache.check()
    cache.discard(URL)


def test_check_compares_files_and_account(either_cache: MediaCache, clock: Clock) -> None:
    fill(either_cache, clock, range(3))
    either_cache.path(url(1)).unlink()
    assert either_cache.check() == ["the account says 3 entries of 12288 bytes, there are 2 of 8192"]
    either_cache.evict()
    assert either_cache.check() == []
    smaller = either_cache.with_limits(BLOCK, 100)
    assert smaller.check() == ["the entries take 8192 bytes of a budget of 4096"]


@LINUX
def test_check_is_no_use_of_an_entry(cache: MediaCache) -> None:
    cache.put(URL, b"a photo")
    before = cache.path(URL).stat()
    assert cache.check() == []
    assert cache.path(URL).stat().st_atime_ns == before.st_atime_ns


def test_check_finds_what_a_dead_writer_left(cache: MediaCache) -> None:
    cache.put(URL, b"a photo")
    abandoned = cache.directory / ".mmmedia-0123456789abcdef.tmp"
    abandoned.touch()
    _, file = files.create_temp(str(cache.directory))
    assert cache.check() == [f"{abandoned.name} was left by a writer that is no more"]
    os.close(file)
    cache.evict()


def test_check_raises_nothing_whatever_it_meets(
    cache: MediaCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here: entries vanish while it reads them, one can't be opened, the directory is none."""
    fill(cache, clock, range(3))
    plain_lstat, plain_open = os.lstat, os.open

    def vanishing(path: str) -> os.stat_result:
        status = plain_lstat(path)
        cache.path(url(1)).unlink(missing_ok=True)
        return status

    def refusing(path: str, *arguments: int) -> int:
        if str(path) == str(cache.path(url(2))):
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain_open(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", vanishing)
        patch.setattr(os, "open", refusing)
        assert f"{cache.path(url(2)).name} can't be read: Permission denied" in cache.check()
    cache.evict()
    assert MediaCache(cache.path(url(0)), max_bytes=BLOCK, ttl_secs=100).check() == [
        f"the directory can't be read: [Errno 20] Not a directory: '{cache.path(url(0))}'"
    ]
