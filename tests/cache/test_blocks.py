"""Partial entries: blocks of a source that are fetched once, whoever asks, and never believed if damaged."""

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from mmmedia.cache import BlockCacheSource, MediaCache, blocks as blocks_module, partial
from mmmedia.cache.partial import BLOCK_BYTES
from mmmedia.cache.partial_entry import opened_entry
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from support import block_worker
from support.caches import LINUX, Clock, descriptors, forbid_attributes, url
from support.environment import importing
from support.forking import holds_in_child
from support.sources import CountingSource, content

KEY = "https://example.org/lecture.mp4"
SIZE = 10 * BLOCK_BYTES + 1000
DATA = content(0, SIZE)
OVERHEAD = 8192
"""The first page and the table of a small source."""

Read = Callable[[BlockCacheSource, list[tuple[int, int]]], list[bytes]]


def _sync(source: BlockCacheSource, ranges: list[tuple[int, int]]) -> list[bytes]:
    return source.read(ranges)


def _async(source: BlockCacheSource, ranges: list[tuple[int, int]]) -> list[bytes]:
    return asyncio.run(source.aread(ranges))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Read:
    return request.param


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> MediaCache:
    return MediaCache(tmp_path / "cache", max_bytes=100 * BLOCK_BYTES, ttl_secs=100, clock=clock)


@pytest.fixture
def inner() -> CountingSource:
    return CountingSource(DATA)


def part(cache: MediaCache, key: str = KEY) -> Path:
    """The file of the partial entry."""
    return cache.directory / f".mmmedia-{cache.path(key).name[:20]}.part"


def block(number: int, stop: int | None = None) -> tuple[int, int]:
    """The range of a block, or of several."""
    return number * BLOCK_BYTES, min((stop or number + 1) * BLOCK_BYTES, SIZE)


# What is read, and what is fetched for it.


def test_only_what_is_missing_is_fetched(cache: MediaCache, inner: CountingSource, read: Read) -> None:
    ranges = [(10, 20), (BLOCK_BYTES - 1, BLOCK_BYTES + 1), (SIZE - 3, SIZE), (7, 7)]
    for _ in range(2):
        found = read(BlockCacheSource(inner, cache, KEY), ranges)
        assert found == [DATA[start:stop] for start, stop in ranges]
        assert inner.asked == [block(0, 2), block(10)]
    inner.asked.clear()
    assert read(BlockCacheSource(inner, cache, KEY), [(0, SIZE)]) == [DATA]
    assert inner.asked == [block(2, 10)]
    assert cache.check() == []
    stats = cache.stats
    assert (stats.partial_hits, stats.partial_misses, stats.entries) == (1, 2, 1)
    assert stats.block_bytes == 2 * (2 * BLOCK_BYTES + 1000)


def test_it_is_the_source_behind_in_all_else(cache: MediaCache, inner: CountingSource) -> None:
    source = BlockCacheSource(inner, cache, KEY)
    assert (source.size, source.validator, source.name) == (SIZE, '"v1"', "a source")
    assert source.read([]) == []
    source.close()
    assert inner.is_closed


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: tuple(sorted(pair))),
            max_size=4,
        ),
        max_size=5,
    )
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_for_is_right_and_fetched_once(
    tmp_path_factory: pytest.TempPathFactory, requests: list[list[tuple[int, int]]]
) -> None:
    cache = MediaCache(tmp_path_factory.mktemp("blocks"), max_bytes=100 * BLOCK_BYTES, ttl_secs=100)
    inner = CountingSource(DATA)
    for ranges in requests:
        found = BlockCacheSource(inner, cache, KEY).read(ranges)
        assert found == [DATA[start:stop] for start, stop in ranges]
    fetched = [
        number
        for start, stop in inner.asked
        for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
    ]
    assert len(fetched) == len(set(fetched))
    assert cache.check() == []


@pytest.mark.parametrize("bad", [(-1, 3), (5, 4), (0, SIZE + 1)])
def test_a_range_that_is_not_there_is_refused(
    cache: MediaCache, inner: CountingSource, bad: tuple[int, int]
) -> None:
    with pytest.raises(InvalidArgumentError, match="not within a source"):
        BlockCacheSource(inner, cache, KEY).read([bad])


def test_a_source_that_gives_too_little_is_an_error_and_not_kept(cache: MediaCache, read: Read) -> None:
    class Short(CountingSource):
        def _note(self, ranges: Any) -> list[bytes]:
            return [data[:-1] for data in super()._note(ranges)]

    with pytest.raises(InvalidMediaError, match="gave 65535 of 65536 bytes"):
        read(BlockCacheSource(Short(DATA), cache, KEY), [(0, 1)])
    assert read(BlockCacheSource(CountingSource(DATA), cache, KEY), [(0, 1)]) == [DATA[:1]]


def test_a_long_source_costs_what_is_fetched_of_it(cache: MediaCache) -> None:
    """A file of 100 GB, by its length; nothing of that is on the disk."""

    class Long(CountingSource):
        def _note(self, ranges: Any) -> list[bytes]:
            self.asked.extend(ranges)
            return [b"x" * (stop - start) for start, stop in ranges]

    inner = Long(b"")
    inner.size = 100 << 30
    assert 100 * BLOCK_BYTES < (100 << 30) // BLOCK_BYTES * 8, "its table alone is more than the budget"
    assert BlockCacheSource(inner, cache, KEY).read([(5, 6)]) == [b"x"]
    assert not part(cache).exists()
    assert inner.asked == [(5, 6)]
    inner.size = 10 << 30
    assert BlockCacheSource(inner, cache, KEY).read([((10 << 30) - 1, 10 << 30)]) == [b"x"]
    assert part(cache).stat().st_size == 8192 + 8 * (10 << 14) - 4096 + (10 << 30)
    assert cache.stats.bytes == 4096 + 8 * (10 << 14) + BLOCK_BYTES
    assert cache.check() == []


# Whose it is, and for how long.


@pytest.mark.parametrize("other", [CountingSource(DATA, '"v2"'), CountingSource(DATA[:-1])])
def test_another_validator_or_size_discards_it(
    cache: MediaCache, inner: CountingSource, read: Read, other: CountingSource
) -> None:
    other.asked.clear()
    read(BlockCacheSource(inner, cache, KEY), [(0, 1)])
    assert read(BlockCacheSource(other, cache, KEY), [(0, 1)]) == [DATA[:1]]
    assert other.asked == [block(0)]
    assert cache.stats.entries == 1
    read(BlockCacheSource(inner, cache, KEY), [(0, 1)])
    assert inner.asked == [block(0)] * 2
    assert cache.check() == []


@pytest.mark.parametrize("validator", ["", "x" * 3000])
def test_without_a_validator_nothing_is_kept(cache: MediaCache, read: Read, validator: str) -> None:
    inner = CountingSource(DATA, validator)
    for _ in range(2):
        assert read(BlockCacheSource(inner, cache, KEY), [(3, 9)]) == [DATA[3:9]]
    assert inner.asked == [(3, 9)] * 2
    assert not cache.directory.exists()


def test_another_key_is_another_entry_even_in_its_place(cache: MediaCache, inner: CountingSource) -> None:
    BlockCacheSource(inner, cache, KEY).read([(0, 1)])
    part(cache).rename(part(cache, url(1)))
    other = CountingSource(content(1, SIZE))
    assert BlockCacheSource(other, cache, url(1)).read([(0, 1)]) == [other.data[:1]]


def test_a_whole_entry_replaces_it(cache: MediaCache, inner: CountingSource) -> None:
    source = BlockCacheSource(inner, cache, KEY)
    source.read([(0, 1)])
    assert cache.put(KEY, DATA)
    assert not part(cache).exists()
    assert cache.stats.entries == 1
    assert source.read([(0, 1)]) == [DATA[:1]]
    assert not part(cache).exists(), "what is there as a whole is not kept in blocks too"
    assert cache.check() == []
    cache.discard(KEY)
    source.read([(0, 1)])
    assert part(cache).exists()


def test_what_does_not_decode_is_discarded_in_blocks_too(cache: MediaCache, inner: CountingSource) -> None:
    BlockCacheSource(inner, cache, KEY).read([(0, 1)])
    cache.discard(KEY)
    assert not part(cache).exists()
    assert (cache.stats.bytes, cache.check()) == (0, [])


def test_its_life_runs_from_its_beginning(cache: MediaCache, inner: CountingSource, clock: Clock) -> None:
    for number in range(3):
        BlockCacheSource(inner, cache, KEY).read([block(number)])
        clock.now += 40
    assert inner.reads == 3
    BlockCacheSource(inner, cache, KEY).read([block(0)])
    assert inner.reads == 4
    assert cache.stats.expiries == 1
    clock.now += 200
    cache.put(url(1), b"another")
    assert not part(cache).exists(), "swept, as whatever has expired"
    assert cache.check() == []


def test_a_clock_set_back_makes_none_immortal(cache: MediaCache, inner: CountingSource, clock: Clock) -> None:
    BlockCacheSource(inner, cache, KEY).read([(0, 1)])
    clock.now -= 1000
    BlockCacheSource(inner, cache, KEY).read([(0, 1)])
    assert inner.reads == 2


# What it may take.


def test_the_least_recently_used_goes_first_whatever_its_kind(tmp_path: Path, clock: Clock) -> None:
    cache = MediaCache(tmp_path, max_bytes=4 * (OVERHEAD + BLOCK_BYTES), ttl_secs=1000, clock=clock)
    for number in range(4):
        clock.now += 1
        BlockCacheSource(CountingSource(DATA), cache, url(number)).read([(0, 1)])
    clock.now += 1
    BlockCacheSource(CountingSource(DATA), cache, url(0)).read([(0, 1)])  # a use
    clock.now += 1
    cache.put(url(9), bytes(BLOCK_BYTES))
    assert [part(cache, url(number)).exists() for number in range(4)] == [True, False, True, True]
    clock.now += 1
    BlockCacheSource(CountingSource(DATA), cache, url(0)).read([block(1)])
    assert [part(cache, url(number)).exists() for number in range(4)] == [True, False, False, True]
    assert cache.stats.evictions == 2
    assert cache.check() == []


def test_it_grows_no_further_than_the_budget(tmp_path: Path, inner: CountingSource) -> None:
    cache = MediaCache(tmp_path, max_bytes=OVERHEAD + 4 * BLOCK_BYTES, ttl_secs=1000)
    for number in range(8):
        assert BlockCacheSource(inner, cache, KEY).read([block(number)]) == [DATA[slice(*block(number))]]
    assert cache.stats.bytes == OVERHEAD + 4 * BLOCK_BYTES
    inner.asked.clear()
    BlockCacheSource(inner, cache, KEY).read([block(0, 8)])
    assert inner.asked == [block(4, 8)]
    assert cache.check() == []


def test_one_that_is_evicted_while_it_is_read_grows_no_more(cache: MediaCache, inner: CountingSource) -> None:
    inner.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(BlockCacheSource(inner, cache, KEY).read, [(0, 1)])
        assert inner.has_begun.wait(30)
        part(cache).unlink()
        inner.may_go.set()
        assert reading.result(30) == [DATA[:1]]
    cache.evict()
    assert cache.stats.bytes == 0


# Whoever else reads it.


def test_threads_share_what_is_being_fetched(cache: MediaCache, inner: CountingSource) -> None:
    inner.may_go.clear()
    with ThreadPoolExecutor(8) as pool:
        shared = BlockCacheSource(inner, cache, KEY)
        sources = [shared, shared, *(BlockCacheSource(inner, cache, KEY) for _ in range(6))]
        reading = [
            pool.submit(source.read, [(0, 5 * BLOCK_BYTES + number)]) for number, source in enumerate(sources)
        ]
        assert inner.has_begun.wait(30)
        inner.may_go.set()
        assert [each.result(30) for each in reading] == [
            [DATA[: 5 * BLOCK_BYTES + number]] for number in range(8)
        ]
    assert inner.bytes_asked == 6 * BLOCK_BYTES


def test_tasks_share_what_is_being_fetched(cache: MediaCache, inner: CountingSource) -> None:
    inner.may_go.clear()

    async def main() -> list[list[bytes]]:
        tasks = [
            asyncio.create_task(BlockCacheSource(inner, cache, KEY).aread([(number, SIZE)]))
            for number in range(8)
        ]
        assert await asyncio.to_thread(inner.has_begun.wait, 30)
        inner.may_go.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [[DATA[number:]] for number in range(8)]
    assert inner.bytes_asked == SIZE


def test_processes_share_what_is_being_fetched(tmp_path: Path) -> None:
    """Two of them read the same source from its start, at the same time; together they fetch it once."""
    workers = [_start("share", tmp_path, 7, 40) for _ in range(2)]
    asked = []
    for worker in workers:
        assert worker.stdout
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        output, errors = worker.communicate("go\n", timeout=60)
        assert (worker.returncode, errors) == (0, "")
        asked.append(int(output))
    assert sum(asked) == 40 * BLOCK_BYTES
    assert MediaCache(tmp_path, max_bytes=1 << 24, ttl_secs=3600).check() == []


def test_who_fails_or_gives_up_leaves_the_blocks_to_others(cache: MediaCache, inner: CountingSource) -> None:
    class Broken(CountingSource):
        def _note(self, ranges: Any) -> list[bytes]:
            raise ConnectionResetError("gone")

    broken = Broken(DATA)
    with pytest.raises(ConnectionResetError):
        BlockCacheSource(broken, cache, KEY).read([(0, 1)])
    broken.may_go.clear()

    async def main() -> None:
        task = asyncio.create_task(BlockCacheSource(broken, cache, KEY).aread([(0, 1)]))
        await asyncio.to_thread(broken.has_begun.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await BlockCacheSource(inner, cache, KEY).aread([(0, 1)]) == [DATA[:1]]

    before = descriptors()
    asyncio.run(main())
    assert descriptors() == before


def test_a_task_cancelled_while_a_thread_reads_the_disk_leaves_nothing_open(
    cache: MediaCache, inner: CountingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    plain = partial.PartialFile.claim

    def slowly(self: partial.PartialFile, blocks: list[int]) -> list[int]:
        reading.set()
        assert go_on.wait(30)
        return plain(self, blocks)

    async def main() -> None:
        task = asyncio.create_task(BlockCacheSource(inner, cache, KEY).aread([(0, 1)]))
        await asyncio.to_thread(reading.wait, 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go_on.set()

    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(partial.PartialFile, "claim", slowly)
        asyncio.run(main())
    assert descriptors() == before
    assert not inner.asked
    assert BlockCacheSource(inner, cache, KEY).read([(0, 1)]) == [DATA[:1]]


def test_nobody_waits_for_ever(
    cache: MediaCache, inner: CountingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks_module, "_PATIENCE_SECONDS", 0.05)
    stuck = CountingSource(DATA)
    stuck.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(BlockCacheSource(stuck, cache, KEY).read, [(0, 1)])
        assert stuck.has_begun.wait(30)
        assert BlockCacheSource(inner, cache, KEY).read([(0, 1)]) == [DATA[:1]]
        stuck.may_go.set()
        assert reading.result(30) == [DATA[:1]]
    assert cache.check() == []


@pytest.mark.parametrize("error", [None, errno.EINVAL])
def test_without_such_locks_each_fetches_for_itself(
    cache: MediaCache, inner: CountingSource, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    if error is None:
        monkeypatch.setattr(partial, "_SET_LOCK", None)
    else:
        monkeypatch.setattr(partial, "_SET_LOCK", 12345)  # which no kernel knows
    other = CountingSource(DATA)
    inner.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(BlockCacheSource(inner, cache, KEY).read, [(0, 1)])
        assert inner.has_begun.wait(30)
        assert BlockCacheSource(other, cache, KEY).read([(0, 1)]) == [DATA[:1]]
        inner.may_go.set()
        assert reading.result(30) == [DATA[:1]]
    assert (inner.asked, other.asked) == ([block(0)], [block(0)])
    assert cache.check() == []


# What happens to files.


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a block": (lambda path: _overwrite(path, OVERHEAD + 5, b"?!"), "has other bytes in block 0"),
    "a record": (lambda path: _overwrite(path, 4096 + 8, b"?"), "has other bytes in block 1"),
    "a record of nothing": (lambda path: _overwrite(path, 4096 + 8 * 9, b"?"), "has other bytes in block 9"),
    "records exchanged": (
        lambda path: _overwrite(path, 4096, path.read_bytes()[4104:4112]), "has other bytes in block 0",
    ),
    "cut off": (lambda path: os.truncate(path, OVERHEAD + BLOCK_BYTES + 7), "has other bytes in block 1"),
    "cut within its table": (lambda path: os.truncate(path, 4100), ""),
    "cut within its head": (lambda path: os.truncate(path, 100), "does not say what it is of"),
    "emptied": (lambda path: os.truncate(path, 0), "does not say what it is of"),
    "its head": (lambda path: _overwrite(path, 9, b"?"), "does not say what it is of"),
    "lengthened": (lambda path: os.truncate(path, 1 << 30), ""),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_seen_and_made_good(
    cache: MediaCache, inner: CountingSource, read: Read, damage: tuple[Callable[[Path], object], str]
) -> None:
    harm, said = damage
    BlockCacheSource(inner, cache, KEY).read([block(0, 3)])
    status = part(cache).stat()
    harm(part(cache))
    os.utime(part(cache), ns=(status.st_atime_ns, status.st_mtime_ns))  # which runs by another clock
    problems = [problem for problem in cache.check() if problem.startswith(".mmmedia-")]
    assert [problem.partition(" ")[2] for problem in problems] == (
        [said + " than were stored"] if "block" in said else [said] if said else []
    )
    for _ in range(2):
        assert read(BlockCacheSource(inner, cache, KEY), [(0, SIZE)]) == [DATA]
    assert len(inner.asked) <= 4
    assert bool(cache.stats.corruptions) == bool(said)
    cache.evict()
    assert cache.check() == []


@pytest.mark.parametrize(
    "plant",
    [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/hostname")],
    ids=["fifo", "folder", "link"],
)
def test_what_is_no_file_is_not_read(
    cache: MediaCache,
    inner: CountingSource,
    read: Read,
    plant: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.directory.mkdir()
    plant(part(cache))
    if not part(cache).is_symlink():
        assert cache.check() == [f"{part(cache).name} is no regular file"]
    for _ in range(2):
        assert read(BlockCacheSource(inner, cache, KEY), [(0, 1)]) == [DATA[:1]]
    if part(cache).is_dir():  # which is nobody's to remove
        assert len(caplog.records) == 1
        assert inner.asked == [(0, 1)] * 2
        part(cache).rmdir()
    else:
        assert inner.asked == [block(0)]
    cache.evict()
    assert cache.check() == []


@pytest.mark.parametrize("call", ["pwrite", "replace", "utime", "open"])
def test_a_disk_that_fails_costs_the_cache_and_nothing_else(
    cache: MediaCache, inner: CountingSource, read: Read, call: str,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    cache.directory.mkdir()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        for _ in range(2):
            assert BlockCacheSource(inner, cache, KEY).read([(0, 1)]) == [DATA[:1]]
    assert len(caplog.records) == 1
    assert "could not be stored" in caplog.text
    assert read(BlockCacheSource(inner, cache, KEY), [(0, 1)]) == [DATA[:1]]
    cache.evict()
    assert cache.check() == []


def test_blocks_that_do_not_fit_the_disk_are_not_kept(
    cache: MediaCache,
    inner: CountingSource,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = os.pwrite
    BlockCacheSource(inner, cache, KEY).read([(0, 1)])

    def full(file: int, data: bytes, at: int) -> int:
        if at >= OVERHEAD + 3 * BLOCK_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(file, data[: len(data) // 2 + 1], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert BlockCacheSource(inner, cache, KEY).read([(0, SIZE)]) == [DATA]
    assert len(caplog.records) == 1
    inner.asked.clear()
    assert BlockCacheSource(inner, cache, KEY).read([(0, SIZE)]) == [DATA]
    assert inner.asked == [(3 * BLOCK_BYTES, SIZE)]
    cache.evict()
    assert cache.check() == []


@LINUX
def test_where_directories_have_no_attributes_each_counts_for_itself(
    cache: MediaCache, inner: CountingSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_attributes(monkeypatch)
    for number in range(3):
        BlockCacheSource(inner, cache, KEY).read([block(number)])
    assert inner.bytes_asked == 3 * BLOCK_BYTES
    assert cache.stats.bytes == OVERHEAD + 3 * BLOCK_BYTES
    assert cache.check() == []


def test_a_directory_that_is_taken_away_is_made_again(cache: MediaCache, inner: CountingSource) -> None:
    source = BlockCacheSource(inner, cache, KEY)
    for _ in range(2):
        assert source.read([(0, 1)]) == [DATA[:1]]
        part(cache).unlink()
        cache.directory.rmdir()
    assert inner.reads == 2


# Processes.


def _start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, block_worker.__file__, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, **importing(), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment", [{}, {"WITHOUT_ATTRIBUTES": "1"}], ids=["shared account", "own accounts"]
)
def test_processes_hammer_one_directory(tmp_path: Path, environment: dict[str, str]) -> None:
    """None fails, none gets a wrong byte, some hit, and the budget holds at the end."""
    workers = [_start("hammer", tmp_path, seed, 150, **environment) for seed in range(2)]
    for worker in workers:
        output, errors = worker.communicate(timeout=100)
        assert (worker.returncode, errors) == (0, "")
        assert int(output) > 0
    cache = block_worker.open_cache(str(tmp_path))
    assert cache.check() == []
    assert 0 < sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir()) <= block_worker.BUDGET


@pytest.mark.parametrize("step", range(3))
@pytest.mark.parametrize("call", ["pwrite", "utime", "replace", "setxattr", "unlink", "scandir", "pread"])
def test_a_reader_killed_at_any_step_leaves_nothing_behind(tmp_path: Path, call: str, step: int) -> None:
    """Neither a temp file, nor half a block that is believed, nor a claim, nor a wrong account."""
    cache = block_worker.open_cache(str(tmp_path))
    for number in range(20, 28):  # so many that there is something to evict
        block_worker.source(cache, number).read([(0, block_worker.SIZE)])
    victim = _start("die", tmp_path, call, step, 7)
    victim.communicate(timeout=60)
    assert victim.returncode < 0 or step, "never called"
    for number in (7, 20, 27):
        source = block_worker.source(cache, number)
        assert source.read([(0, block_worker.SIZE)]) == [block_worker.body(number)]
    cache.evict()
    assert not list(tmp_path.glob("*.tmp"))
    assert cache.check() == []


def test_a_forked_child_can_read(tmp_path: Path) -> None:
    """Though other threads of its parent were in the middle of reads when it was forked."""
    worker = _start("fork", tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    output, errors = worker.communicate(timeout=100)
    assert (output.strip(), errors) == ("0", "")
    cache = block_worker.open_cache(str(tmp_path))
    cache.evict()
    assert cache.check() == []


def test_a_child_does_not_hold_what_its_killed_parent_claimed(tmp_path: Path) -> None:
    """It has a copy of the descriptor by which the parent had claimed a block."""
    worker = _start("orphan", tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert worker.stdin
    assert worker.stdout
    try:
        assert worker.stdout.readline() == "child\n"
        plan = partial.Plan(url(0), block_worker.SIZE, '"v1"')
        with opened_entry(block_worker.open_cache(str(tmp_path)), plan) as entry:
            assert entry is not None
            assert entry.file.claim([0, 1]) == [1]
            worker.kill()
            worker.wait(timeout=60)
            assert entry.file.claim([0]) == [0]
    finally:
        worker.communicate(timeout=60)  # which ends the child


def test_a_child_forked_in_the_midst_of_a_read_of_its_own_reads_on(
    cache: MediaCache, inner: CountingSource
) -> None:
    """It is without the parent's files, which is as if there were no cache."""
    steps = BlockCacheSource(inner, cache, KEY)._steps([(0, 1)])
    fetch = steps.send(None)
    assert isinstance(fetch, blocks_module._Fetch)

    def check() -> bool:
        try:
            steps.send([DATA[slice(*block(0))]])
        except StopIteration as end:
            return end.value == [DATA[:1]]
        return False

    assert holds_in_child(check)
    steps.close()


def test_readers_killed_at_random_moments(tmp_path: Path) -> None:
    cache = block_worker.open_cache(str(tmp_path))
    chance = random.Random(5)
    for seed in range(3):
        victim = _start("hammer", tmp_path, seed, 10**9)
        for _ in range(chance.randrange(40, 120)):
            block_worker.read_some(cache, chance)
        assert victim.poll() is None
        victim.kill()
        victim.communicate(timeout=60)
    cache.evict()
    assert cache.check() == []


def test_a_damaged_head_is_no_plan(cache: MediaCache, inner: CountingSource) -> None:
    BlockCacheSource(inner, cache, KEY).read([(0, 10)])
    file = os.open(part(cache), os.O_RDWR)
    try:
        plan = partial.plan_in(file)
        assert plan is not None
        assert plan.size == SIZE
        os.pwrite(file, b"\xff", 30)
        assert partial.plan_in(file) is None
    finally:
        os.close(file)
