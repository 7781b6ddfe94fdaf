"""MediaCache: what an entry is, how long it lives, what goes first, and that nothing hurts."""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import resource
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmmedia.cache import MediaCache, entry_name, files, get_media_cache

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="extended attributes")
BLOCK = 4096
URL = "https://example.org/a/cat.jpg?size=2"


class Clock:
    def __init__(self, now: float = 1_700_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[MediaCache]:
    """A cache in which all is well at the end."""
    cache = MediaCache(tmp_path / "cache", max_bytes=10 * BLOCK, ttl_secs=100, clock=clock)
    yield cache
    assert cache.check() == []


@pytest.fixture(params=["shared account", "own account"])
def either_cache(
    request: pytest.FixtureRequest, cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> MediaCache:
    """A cache on a file system with extended attributes, and on one without."""
    if request.param == "own account":
        forbid_attributes(monkeypatch)
    return cache


def forbid_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "getxattr", unsupported)
    monkeypatch.setattr(os, "setxattr", unsupported)


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


def fill(cache: MediaCache, clock: Clock, numbers: range) -> None:
    for number in numbers:
        clock.now += 1
        assert cache.put(url(number), b"%d" % number)


def present(cache: MediaCache, numbers: range) -> list[int]:
    return [number for number in numbers if cache.path(url(number)).exists()]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def counted_anew(cache: MediaCache) -> tuple[int, int]:
    sizes = [max(BLOCK, file.stat().st_size) for file in cache.directory.iterdir()]
    return sum(sizes), len(sizes)


# -- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "suffix"),
    [
        ("https://e.org/cat.jpg", ".jpg"),
        ("https://e.org/cat.JPG?x=.png#.gif", ".JPG"),
        ("https://e.org/archive.tar.gz", ".gz"),
        ("https://e.org/model.safetensors", ""),
        ("https://e.org/frames.mpegurl123", ".mpegurl123"),
        ("https://e.org/", ""),
        ("https://e.org", ""),
        ("https://e.org/.jpg", ""),
        ("https://e.org/cat.", ""),
        ("https://e.org/cat.j%70g", ""),
        ("https://e.org/cat.jp\x00", ""),
        ("https://e.org/cat.\uff4a\uff50\uff47", ""),
        ("https://e.org/cat.jpg/..", ""),
        ("https://e.org/a.b/..%2f..%2fetc", ""),
        ("https://[::1/cat.jpg", ""),
        ("\udcff.jpg", ".jpg"),
    ],
)
def test_an_entry_is_named_by_hash_and_plain_suffix(cache: MediaCache, address: str, suffix: str) -> None:
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
    assert cache.path(address) == cache.directory / (digest[:20] + suffix)


def test_a_directory_filled_by_vllm_is_served_and_accounted(cache: MediaCache, clock: Clock) -> None:
    cache.directory.mkdir()
    for number in range(3):
        entry = cache.directory / f"{hashlib.sha256(url(number).encode()).hexdigest()[:20]}.jpg"
        entry.write_bytes(b"picture %d" % number)
        os.utime(entry, (clock.now, clock.now))
    assert [cache.get(url(number)) for number in range(3)] == [b"picture 0", b"picture 1", b"picture 2"]
    assert (cache.stats.bytes, cache.stats.entries) == (3 * BLOCK, 3)


# -- life and use -------------------------------------------------------------------------------------


def test_what_was_put_is_got(either_cache: MediaCache) -> None:
    assert either_cache.get(URL) is None
    assert either_cache.put(URL, b"a photo")
    assert either_cache.get(URL) == b"a photo"
    assert either_cache.put(URL, b"another")
    assert either_cache.get(URL) == b"another"
    stats = either_cache.stats
    assert (stats.hits, stats.misses, stats.puts) == (2, 1, 2)
    assert (stats.bytes, stats.entries) == (BLOCK, 1)
    assert [file.name for file in either_cache.directory.iterdir()] == [either_cache.path(URL).name]


def test_life_runs_from_the_download_however_hot_the_entry(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo")
    for _ in range(9):
        clock.now += 11
        assert cache.get(URL) == b"a photo"
    clock.now += 1
    assert cache.get(URL) is None
    assert not cache.path(URL).exists()
    assert (cache.stats.expiries, cache.stats.hits, cache.stats.misses) == (1, 9, 1)
    assert (cache.stats.bytes, cache.stats.entries) == (0, 0)


def test_a_put_starts_a_new_life(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"old")
    clock.now += 90
    cache.put(URL, b"new")
    clock.now += 90
    assert cache.get(URL) == b"new"


def test_file_times_are_download_and_last_use(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo")
    downloaded = clock.now
    clock.now += 7
    cache.get(URL)
    status = cache.path(URL).stat()
    assert (status.st_mtime, status.st_atime) == (downloaded, downloaded + 7)


def test_an_entry_of_another_user_is_a_hit_though_its_times_can_not_be_set(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(URL, b"a photo")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert cache.get(URL) == b"a photo"


def test_no_life_means_no_hit(tmp_path: Path, clock: Clock) -> None:
    cache = MediaCache(tmp_path, max_bytes=BLOCK, ttl_secs=0, clock=clock)
    cache.put(URL, b"a photo")
    assert cache.get(URL) is None


def test_a_clock_set_back_makes_no_entry_immortal(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo")
    clock.now -= 3600
    assert cache.get(URL) is None
    assert cache.put(URL, b"again")
    assert cache.get(URL) == b"again"


def test_a_clock_a_little_behind_another_machine_s_still_hits(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo")
    clock.now -= 2
    assert cache.get(URL) == b"a photo"


def test_a_use_in_the_future_does_not_count(cache: MediaCache, clock: Clock) -> None:
    fill(cache, clock, range(10))
    status = cache.path(url(0)).stat()
    os.utime(cache.path(url(0)), (clock.now + 1e6, status.st_mtime))
    fill(cache, clock, range(10, 11))
    assert present(cache, range(11)) == list(range(1, 11))


# -- budget -------------------------------------------------------------------------------------------


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


# -- damage -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: os.truncate(path, 3), id="truncated"),
        pytest.param(lambda path: os.truncate(path, 0), id="emptied"),
        pytest.param(lambda path: os.truncate(path, 1000), id="lengthened"),
        pytest.param(lambda path: path.write_bytes(b"A photo"), id="one byte"),
    ],
)
def test_a_damaged_entry_is_a_miss_and_gone(
    cache: MediaCache, clock: Clock, damage: Callable[[Path], object]
) -> None:
    cache.put(URL, b"a photo")
    damage(cache.path(URL))
    os.utime(cache.path(URL), (clock.now, clock.now))
    assert cache.get(URL) is None
    assert not cache.path(URL).exists()
    assert (cache.stats.misses, cache.stats.corruptions, cache.stats.entries) == (1, 1, 0)


def test_a_damaged_entry_that_was_replaced_meanwhile_is_left_alone(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is dropped is the file that was read, not the one that another process just put in its place."""
    cache.put(URL, b"a photo")
    cache.path(URL).write_bytes(b"A photo")
    plain_read = os.read

    def read_late(file: int, size: int) -> bytes:
        monkeypatch.setattr(os, "read", plain_read)
        data = plain_read(file, size)
        MediaCache(cache.directory, max_bytes=BLOCK, ttl_secs=100, clock=cache._clock).put(URL, b"fresh")
        return data

    os.utime(cache.path(URL), (cache._clock(), cache._clock()))
    monkeypatch.setattr(os, "read", read_late)
    assert cache.get(URL) is None
    assert cache.get(URL) == b"fresh"


@pytest.mark.parametrize("label", [b"", b"[]", b"1 2", b"1\n2\n3", b"a\nb\nc\nd", b"\xff\n\n\n"])
def test_a_label_of_another_make_is_as_good_as_none(cache: MediaCache, label: bytes) -> None:
    cache.put(URL, b"a photo")
    os.setxattr(cache.path(URL), "user.mmmedia", label)
    assert cache.get(URL) == b"a photo"


def test_an_entry_beyond_the_limit_is_not_read_and_not_removed(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, bytes(1000))
    assert cache.get(URL, max_size=999) is None
    assert cache.get(URL, max_size=1000) == bytes(1000)
    os.truncate(cache.path(URL), 2**40)  # a sparse file: reading it would take all memory
    os.utime(cache.path(URL), (clock.now, clock.now))
    assert cache.get(URL) is None
    assert cache.check()[2:] == [f"{cache.path(URL).name} is longer than the budget: {2**40} bytes"]
    cache.discard(URL)


def test_foreign_files_are_neither_served_nor_removed(cache: MediaCache, clock: Clock) -> None:
    cache.directory.mkdir()
    names = [
        "README",
        "a" * 20 + ".tar.gz",
        "A" * 20 + ".jpg",
        "a" * 64,
        "tmpabc123",
        ".mmmedia-x.tmp",
        "b" * 20 + ".",
    ]
    for name in names:
        (cache.directory / name).write_bytes(bytes(20 * BLOCK))
        os.utime(cache.directory / name, (0, 0))
    (cache.directory / ("c" * 20)).mkdir()
    fill(cache, clock, range(12))
    cache.evict()
    assert all((cache.directory / name).exists() for name in [*names, "c" * 20])
    assert cache.stats.entries == 10
    assert cache.check() == ["c" * 20 + " is no regular file"]
    (cache.directory / ("c" * 20)).rmdir()


def plant_link(path: Path) -> None:
    target = path.parent.parent / "secret"
    target.write_bytes(b"secret")
    path.symlink_to(target)


@pytest.mark.parametrize(
    "plant",
    [plant_link, lambda path: path.symlink_to("nowhere"), os.mkfifo],
    ids=["link", "dangling link", "fifo"],
)
def test_what_is_no_regular_file_is_a_miss_and_replaced(
    cache: MediaCache, plant: Callable[[Path], object]
) -> None:
    cache.directory.mkdir()
    plant(cache.path(URL))
    assert cache.get(URL) is None
    assert cache.get_stale(URL) is None
    assert not cache.refresh(URL)
    cache.evict()
    assert cache.put(URL, b"a photo")
    assert cache.get(URL) == b"a photo"
    assert not cache.path(URL).is_symlink()
    secret = cache.directory.parent / "secret"
    assert not secret.exists() or secret.read_bytes() == b"secret"


def test_a_directory_in_an_entry_s_place_is_a_miss(
    cache: MediaCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.path(URL).mkdir(parents=True)
    assert cache.get(URL) is None
    assert not cache.put(URL, b"a photo")
    assert "could not be stored" in caplog.text
    cache.discard(URL)
    assert [file.name for file in cache.directory.iterdir()] == [cache.path(URL).name]
    cache.path(URL).rmdir()
    cache.evict()


def test_an_unreadable_entry_is_a_miss(cache: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(URL, b"a photo")

    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", broken)
        assert cache.get(URL) is None
        assert cache.check() == [f"{cache.path(URL).name} can't be read: Input/output error"]


def test_short_reads_and_writes_are_continued(cache: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_read, plain_write = os.read, os.write
    monkeypatch.setattr(os, "read", lambda file, size: plain_read(file, min(size, 1000)))
    monkeypatch.setattr(os, "write", lambda file, data: plain_write(file, data[:1000]))
    data = os.urandom(3500)
    assert cache.put(URL, data)
    assert cache.get(URL) == data


# -- trouble with the directory -----------------------------------------------------------------------


def test_a_vanished_directory_is_a_miss_and_made_again(cache: MediaCache) -> None:
    cache.put(URL, b"a photo")
    for file in cache.directory.iterdir():
        file.unlink()
    cache.directory.rmdir()
    assert cache.get(URL) is None
    cache.evict()
    cache.discard(URL)
    assert cache.stats.entries == 0
    assert cache.put(URL, b"again")
    assert cache.get(URL) == b"again"
    assert cache.stats.entries == 1


def test_a_file_that_vanishes_while_scanned_is_none(
    cache: MediaCache, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(cache, clock, range(3))
    plain_scandir = os.scandir

    @contextlib.contextmanager
    def late(path: str) -> Iterator[list[os.DirEntry[str]]]:
        with plain_scandir(path) as items:
            found = list(items)
        cache.path(url(1)).unlink(missing_ok=True)
        yield found

    monkeypatch.setattr(os, "scandir", late)
    cache.evict()
    assert cache.stats.entries == 2


def test_a_directory_that_can_not_be_made_costs_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache = MediaCache(tmp_path / "file" / "cache", max_bytes=BLOCK, ttl_secs=100)
    assert not cache.put(URL, b"a photo")
    assert cache.get(URL) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(cache.directory) in caplog.text


def test_full_disk_leaves_nothing_and_warns_once(
    cache: MediaCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(url(0), b"a photo")

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert not cache.put(URL, b"a photo")
        assert not cache.put(URL, b"a photo")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text
    assert "example.org" not in caplog.text
    assert [file.name for file in cache.directory.iterdir()] == [cache.path(url(0)).name]
    assert cache.put(URL, b"a photo")


def test_a_limit_on_file_size_leaves_nothing(cache: MediaCache, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        assert not cache.put(URL, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be stored" in caplog.text
    assert list(cache.directory.iterdir()) == []


def test_an_interrupted_put_leaves_nothing(cache: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.put(url(0), b"a photo")

    def interrupted(file: int, data: bytes) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.put(URL, b"a photo")
    assert len(list(cache.directory.iterdir())) == 1


def test_no_descriptor_is_left_open(either_cache: MediaCache, clock: Clock) -> None:
    before = descriptors()
    fill(either_cache, clock, range(20))
    either_cache.path(url(15)).write_bytes(b"")
    for number in range(20):
        either_cache.get(url(number))
    clock.now += 1000
    for number in range(20):
        either_cache.get(url(number))
    assert either_cache.stats.entries == 0
    assert descriptors() == before


# -- temp files ---------------------------------------------------------------------------------------


def test_an_abandoned_temp_file_is_swept_and_a_living_one_is_not(cache: MediaCache) -> None:
    cache.put(URL, b"a photo")
    abandoned = cache.directory / ".mmmedia-0123456789abcdef.tmp"
    abandoned.write_bytes(b"half a pho")
    living, file = files.create_temp(str(cache.directory))
    try:
        cache.evict()
        assert not abandoned.exists()
        assert Path(living).exists()
    finally:
        os.close(file)
    cache.evict()
    assert not Path(living).exists()
    assert cache.get(URL) == b"a photo"


def test_without_file_locks_age_tells_what_is_abandoned(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert cache.put(URL, b"a photo")
    old = cache.directory / ".mmmedia-0123456789abcdef.tmp"
    new = cache.directory / ".mmmedia-fedcba9876543210.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    cache.evict()
    assert (old.exists(), new.exists()) == (False, True)


def test_a_temp_file_swept_before_it_was_locked_is_made_again(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_lock = files.lock
    swept: list[Path] = []

    def sweep_first(file: int) -> bool:
        for temp in cache.directory.glob(".mmmedia-*.tmp"):
            if not swept:
                swept.append(temp)
                temp.unlink()
        return plain_lock(file)

    monkeypatch.setattr(files, "lock", sweep_first)
    cache.directory.mkdir()
    assert cache.put(URL, b"a photo")
    assert swept
    assert cache.get(URL) == b"a photo"


def test_what_is_planted_as_temp_file_does_no_harm(cache: MediaCache) -> None:
    cache.directory.mkdir()
    target = cache.directory.parent / "secret"
    target.write_bytes(b"secret")
    (cache.directory / ".mmmedia-0123456789abcdef.tmp").symlink_to(target)
    os.mkfifo(cache.directory / ".mmmedia-0123456789abcdee.tmp")
    (cache.directory / ".mmmedia-0123456789abcded.tmp").mkdir()
    assert cache.put(URL, b"a photo")
    cache.evict()
    assert target.read_bytes() == b"secret"


def test_a_stuck_lock_delays_but_does_not_hang(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "_LOCK_PATIENCE_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    cache.put(url(0), b"a photo")
    holder = os.open(cache.directory, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert cache.put(URL, b"a photo")
        assert cache.get(URL) == b"a photo"
    finally:
        os.close(holder)
    assert "can't be locked" in caplog.text


# -- revalidation -------------------------------------------------------------------------------------


def test_an_expired_entry_with_validators_can_be_confirmed(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo", etag='"v1"', last_modified="Mon, 20 Jul 2026 08:00:00 GMT")
    assert cache.get_stale(URL) is None  # fresh
    clock.now += 150
    assert cache.get(URL) is None
    stale = cache.get_stale(URL)
    assert stale is not None
    assert (stale.data, stale.etag) == (b"a photo", '"v1"')
    assert stale.last_modified == "Mon, 20 Jul 2026 08:00:00 GMT"
    assert cache.refresh(URL)
    assert cache.get(URL) == b"a photo"
    assert cache.get_stale(URL) is None


def test_a_stale_entry_is_not_kept_for_ever(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo", etag='"v1"')
    clock.now += 200
    assert cache.get_stale(URL) is None
    assert not cache.path(URL).exists()
    assert not cache.refresh(URL)


def test_stale_entries_make_room_before_fresh_ones(cache: MediaCache, clock: Clock) -> None:
    for number in range(5):
        clock.now += 1
        cache.put(url(number), b"a photo", etag='"v1"')
    clock.now += 100
    cache.evict()
    assert present(cache, range(5)) == list(range(5))  # there is room
    fill(cache, clock, range(5, 13))
    assert present(cache, range(13)) == [3, 4, *range(5, 13)]


def test_a_damaged_stale_entry_is_dropped(cache: MediaCache, clock: Clock) -> None:
    cache.put(URL, b"a photo", etag='"v1"')
    cache.path(URL).write_bytes(b"another")
    os.utime(cache.path(URL), (clock.now, clock.now))
    clock.now += 150
    assert cache.get_stale(URL) is None
    assert not cache.path(URL).exists()


def test_validators_too_long_for_an_attribute_are_left_out(cache: MediaCache, clock: Clock) -> None:
    assert cache.put(URL, b"a photo", etag="x" * 100_000)
    assert cache.get(URL) == b"a photo"
    clock.now += 150
    assert cache.get_stale(URL) is None


def test_times_that_can_not_be_set_refresh_nothing(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put(URL, b"a photo", etag='"v1"')

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    assert not cache.refresh(URL)


# -- threads, and the cache of a process --------------------------------------------------------------


def test_threads_share_one_cache(either_cache: MediaCache) -> None:
    """Eight threads on three budgets' worth of URLs: right bytes or none, and exact accounts at the end."""
    wrong = []

    def work(seed: int) -> None:
        for step in range(60):
            number = (seed * 7 + step * 11) % 30
            data = either_cache.get(url(number))
            if data is None:
                either_cache.put(url(number), b"%d" % number * 1000)
            elif data != b"%d" % number * 1000:
                wrong.append((number, data))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stats = either_cache.stats
    assert stats.hits + stats.misses == 8 * 60
    assert either_cache.check() == []


def test_one_process_has_one_cache_per_directory(tmp_path: Path) -> None:
    first = get_media_cache(tmp_path / "cache", 10 * BLOCK, 100)
    again = get_media_cache(str(tmp_path / "cache"), 10 * BLOCK, 100)
    smaller = get_media_cache(tmp_path / "cache", BLOCK, 100)
    assert first is not None
    assert first is again
    assert smaller is not None
    assert smaller.max_bytes == BLOCK
    first.put(URL, b"a photo")
    assert smaller.get(URL) == b"a photo"
    assert (first.stats.hits, first.stats.puts) == (smaller.stats.hits, smaller.stats.puts) == (1, 1)


def test_a_directory_out_of_reach_is_one_warning_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    for _ in range(3):
        assert get_media_cache(tmp_path / "file", BLOCK, 100) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "VLLM_MEDIA_CACHE" in caplog.text
    (tmp_path / "file").unlink()
    assert get_media_cache(tmp_path / "file", BLOCK, 100) is not None


def test_a_directory_that_can_not_be_written_is_no_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    assert get_media_cache(tmp_path, BLOCK, 100) is None
    assert "not writable" in caplog.text


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = MediaCache("cache", max_bytes=BLOCK, ttl_secs=100)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.put(URL, b"a photo")
    assert (tmp_path / "cache" / cache.path(URL).name).read_bytes() == b"a photo"
    assert repr(cache) == f"MediaCache('{tmp_path}/cache', max_bytes=4096, ttl_secs=100)"


# -- against a model ----------------------------------------------------------------------------------


class CacheMachine(RuleBasedStateMachine):
    """The cache against a dictionary of (data, downloaded, used)."""

    numbers = st.integers(0, 7)
    budget, life = 4 * BLOCK, 50

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.cache = MediaCache(
            self.temporary.name, max_bytes=self.budget, ttl_secs=self.life, clock=self.clock
        )
        self.model: dict[int, tuple[bytes, float, float]] = {}

    def teardown(self) -> None:
        self.temporary.cleanup()

    def is_fresh(self, number: int) -> bool:
        return number in self.model and self.clock.now - self.model[number][1] < self.life

    def drop_expired(self) -> None:
        self.model = {number: entry for number, entry in self.model.items() if self.is_fresh(number)}

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(number=numbers, size=st.integers(0, 5 * BLOCK))
    def put(self, number: int, size: int) -> None:
        self.clock.now += 1
        data = bytes([number]) * size
        assert self.cache.put(url(number), data) == (0 < size <= self.budget)
        if 0 < size <= self.budget:
            self.model[number] = (data, self.clock.now, self.clock.now)
            self.cache.evict(exclude=self.cache.path(url(number)))
            self.drop_expired()
            while sum(max(BLOCK, len(entry[0])) for entry in self.model.values()) > self.budget:
                others = [other for other in self.model if other != number]
                del self.model[min(others, key=lambda other: self.model[other][2])]

    @rule(number=numbers)
    def get(self, number: int) -> None:
        self.clock.now += 1
        data = self.cache.get(url(number))
        if self.is_fresh(number):
            stored, downloaded, _ = self.model[number]
            assert data == stored
            self.model[number] = (stored, downloaded, self.clock.now)
        else:
            assert data is None
            self.model.pop(number, None)

    @rule(number=numbers)
    def discard(self, number: int) -> None:
        self.cache.discard(url(number))
        self.model.pop(number, None)

    @rule(number=numbers)
    def vanish(self, number: int) -> None:
        self.cache.path(url(number)).unlink(missing_ok=True)
        self.model.pop(number, None)
        self.cache.evict()
        self.drop_expired()

    @rule()
    def start_another_process(self) -> None:
        self.cache = MediaCache(
            self.temporary.name, max_bytes=self.budget, ttl_secs=self.life, clock=self.clock
        )

    @rule()
    @precondition(lambda self: self.model)
    def evict(self) -> None:
        self.cache.evict()
        self.drop_expired()

    @invariant()
    def same_files(self) -> None:
        expected = {self.cache.path(url(number)).name for number in self.model}
        assert {file.name for file in self.cache.directory.iterdir()} == expected

    @invariant()
    def same_account(self) -> None:
        stats = self.cache.stats
        sizes = [max(BLOCK, len(entry[0])) for entry in self.model.values()]
        assert (stats.bytes, stats.entries) == (sum(sizes), len(sizes))

    @invariant()
    def all_is_well(self) -> None:
        assert self.cache.check() == []


TestCacheAgainstModel = CacheMachine.TestCase
TestCacheAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


# -- check --------------------------------------------------------------------------------------------


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


@settings(deadline=None, max_examples=200)
@given(st.text("ab./?#", max_size=10))
def test_the_suffix_is_that_of_the_path(rest: str) -> None:
    """However it is found, it is what `PurePosixPath` calls the suffix."""
    url = f"http://h/{rest}"
    suffix = PurePosixPath(urlsplit(url).path).suffix
    assert entry_name(url)[20:] == (suffix if len(suffix) > 1 else "")
