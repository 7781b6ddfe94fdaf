"""MediaCache: what an entry is, how long it lives, and that nothing hurts."""

import contextlib
import errno
import hashlib
import os
import resource
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mmmedia.cache import MediaCache
from support.caches import (
    BLOCK,
    URL,
    Clock,
    descriptors,
    fill,
    present,
    url,
)

# -- life and use -----------------------------------------------------------------------------------


def test_a_directory_filled_by_vllm_is_served_and_accounted(cache: MediaCache, clock: Clock) -> None:
    cache.directory.mkdir()
    for number in range(3):
        entry = cache.directory / f"{hashlib.sha256(url(number).encode()).hexdigest()[:20]}.jpg"
        entry.write_bytes(b"picture %d" % number)
        os.utime(entry, (clock.now, clock.now))
    assert [cache.get(url(number)) for number in range(3)] == [b"picture 0", b"picture 1", b"picture 2"]
    assert (cache.stats.bytes, cache.stats.entries) == (3 * BLOCK, 3)


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


# -- damage -----------------------------------------------------------------------------------------


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


# -- trouble with the directory ---------------------------------------------------------------------


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


# -- revalidation -----------------------------------------------------------------------------------


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


# -- threads ----------------------------------------------------------------------------------------


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


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = MediaCache("cache", max_bytes=BLOCK, ttl_secs=100)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    cache.put(URL, b"a photo")
    assert (tmp_path / "cache" / cache.path(URL).name).read_bytes() == b"a photo"
    assert repr(cache) == f"MediaCache('{tmp_path}/cache', max_bytes=4096, ttl_secs=100)"


# -- against a model --------------------------------------------------------------------------------


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
