"""What goes wrong around a cache that processes share: kills, full disks, wrong clocks, meddling hands.

Real processes fetch, for a bounded time. Whatever happens to the
directory, nobody gets a wrong byte, no file or descriptor is left behind, and the budget holds. The same
is done to whole entries, fetched through the connector from a real server, and to partial ones, of sources
that are read in pieces. `cache/test_processes.py` and `cache/test_blocks.py` do the like one level below.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from mmmedia.cache import MediaCache, get_media_cache
from support import fault_worker
from support.environment import importing
from support.fault_worker import body
from support.server import Behaviour, Server, reply

NOBODY = 65534


class Kind(NamedTuple):
    """What is kept: whole entries, or partial ones."""

    name: str
    budget: int
    largest: int
    """What one entry takes at most."""
    urls: int
    """How many there are to fetch, more than fit the budget."""
    fsize: int
    """A limit on the size of files that some of them are within."""


WHOLE = Kind("whole", 1 << 20, 9100, 600, 4000)
BLOCKS = Kind("blocks", 4 << 20, fault_worker.LARGEST_SOURCE + 2 * (1 << 16), 60, 100_000)


@pytest.fixture(params=[WHOLE, BLOCKS], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


class _Bodies(dict[str, Behaviour]):
    """Whatever the path, its body."""

    def get(self, path: str, default: object = None) -> Behaviour:  # type: ignore[override]
        return reply(body(int(path[1:].partition(".")[0])))


@pytest.fixture
def bodies(server: Server) -> Server:
    """A server of bodies that tell their number."""
    server._routes = _Bodies()
    return server


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


class Workers:
    """Processes that fetch."""

    def __init__(
        self, server: Server, directory: Path, kind: Kind, urls: int = 0, **environment: object
    ) -> None:
        self.arguments = [sys.executable, fault_worker.__file__, server.origin, str(urls or kind.urls)]
        self.behind = 0
        """How many bytes of sources they fetched in all, and did not find in the cache."""
        self.environment = {
            **os.environ,
            **importing(),
            "VLLM_MEDIA_CACHE": str(directory),
            "VLLM_MEDIA_CACHE_MAX_SIZE_MB": str(kind.budget >> 20),
            **({"FAULT_BLOCKS": "1"} if kind is BLOCKS else {}),
            **{name: str(value) for name, value in environment.items()},
        }

    def start(self, seed: int, seconds: float) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self.arguments, str(seed), str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def finish(self, worker: "subprocess.Popen[str]", *, warns: bool = False) -> int:
        """Wait for one, which must have nothing to complain of; returns how much it fetched."""
        output, errors = worker.communicate(timeout=100)
        assert worker.returncode == 0, errors
        assert warns or not errors, errors
        result = json.loads(output)
        assert result["leaked"] <= 2, "descriptors"
        self.behind += result["behind"]
        return int(result["fetched"])


def entries(directory: Path) -> dict[Path, int]:
    """Regular files that are entries, by what they count."""
    found = {}
    for path in directory.iterdir() if directory.exists() else ():
        if path.name.endswith(".tmp"):
            continue
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            is_partial = path.name.startswith(".")
            found[path] = max(4096, status.st_blocks * 512 if is_partial else status.st_size)
    return found


def settle(directory: Path, *, max_bytes: int, meddled: bool = False) -> None:
    """What must hold when all is over; entries that somebody meddled with may be as damaged as they are."""
    cache = get_media_cache(directory, max_bytes, 24 * 3600.0)
    assert cache is not None
    cache.evict()
    names = {path.name for path in directory.iterdir()} if meddled else set()
    assert [problem for problem in cache.check() if problem.split()[0] not in names] == []
    # Counted in another way, lest `check` be wrong; of sparse files the system may change its mind.
    total = sum(entries(directory).values())
    assert cache.stats.entries == len(entries(directory))
    assert abs(cache.stats.bytes - total) <= (1 << 16) * sum(
        path.name.startswith(".") for path in entries(directory)
    )


# Hands that meddle with an entry.


def _truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def _overwrite(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(chance.randrange(path.stat().st_size))
        file.write(b"?")


def _append(path: Path, chance: random.Random) -> None:
    with path.open("ab") as file:
        file.write(b"?")


def _unlink(path: Path, chance: random.Random) -> None:
    path.unlink()


def _link(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def _fifo(path: Path, chance: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _label(path: Path, chance: random.Random) -> None:
    try:
        os.setxattr(path, "user.mmmedia", chance.choice((b"", b"[]", b"[1, 2]", b"\xff", b'[5, 5, "", ""]')))
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise  # else a file system without attributes


def _unlabelled(path: Path, chance: random.Random) -> None:
    """As vLLM would have written it, and damaged: only decoding tells."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")


def _times(path: Path, chance: random.Random) -> None:
    moment = chance.choice((0, time.time() + 10**6, time.time() - 10**5))
    os.utime(path, (moment, moment))


Meddling = Callable[[Path, random.Random], None]
MEDDLING: list[Meddling] = [
    _truncate, _overwrite, _append, _unlink, _link, _fifo, _folder, _label, _unlabelled, _times
]  # fmt: skip


def meddle(directory: Path, chance: random.Random, number: int = 5) -> None:
    paths = sorted(entries(directory))
    for path in chance.sample(paths, min(number, len(paths))):
        # Somebody may be faster.
        with contextlib.suppress(FileNotFoundError, FileExistsError, ValueError):
            chance.choice(MEDDLING)(path, chance)


def under_fire(
    server: Server, directory: Path, kind: Kind, *, processes: int, urls: int, seconds: float, seed: int,
    meddles: bool,
) -> int:  # fmt: skip
    """Let processes fetch, kill some at any moment, meddle; returns how much was fetched."""
    chance = random.Random(seed)
    workers = Workers(server, directory, kind, urls)
    end = time.monotonic() + seconds
    running = [workers.start(number, seconds) for number in range(processes)]
    seeds = iter(range(100, 10**6))
    # Those that are spared show that the rest goes on.
    spared = running[0]
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, chance.uniform(0.2, 0.7)))
        victim = chance.choice(running[1:])
        victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=60)
        running[running.index(victim)] = workers.start(next(seeds), max(0.0, end - time.monotonic()))
        if meddles:
            meddle(directory, chance)
            MediaCache(directory, max_bytes=kind.budget, ttl_secs=3600).check()
        # Eviction runs in who puts, under the directory's lock: no more than what is on its way beyond.
        assert sum(entries(directory).values()) <= kind.budget + processes * 2 * kind.largest
    assert spared is running[0]
    return sum(workers.finish(worker, warns=meddles) for worker in running)


@pytest.mark.parametrize("meddles", [False, True], ids=["killed", "killed and meddled with"])
def test_processes_under_fire(bodies: Server, directory: Path, kind: Kind, meddles: bool) -> None:
    """3 processes, more URLs than fit the budget, some seconds."""
    fetched = under_fire(
        bodies, directory, kind, processes=3, urls=kind.urls, seconds=3, seed=1, meddles=meddles
    )
    assert fetched > 100
    settle(directory, max_bytes=kind.budget, meddled=meddles)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_thousand_urls_by_four_processes_for_a_minute(
    bodies: Server, directory: Path, kind: Kind
) -> None:
    seconds = float(os.environ.get("FAULT_SECONDS", "60"))
    under_fire(bodies, directory, kind, processes=4, urls=10_000, seconds=seconds, seed=2, meddles=True)
    settle(directory, max_bytes=kind.budget, meddled=True)


@pytest.mark.parametrize("meddling", MEDDLING, ids=lambda meddling: meddling.__name__.strip("_"))
def test_each_way_to_meddle_ends_in_the_right_bytes(
    bodies: Server, directory: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch, meddling: Meddling
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(directory))
    fetch = fault_worker.read_pieces if kind is BLOCKS else fault_worker.fetch
    chance = random.Random(3)
    numbers = list(range(1, 21))
    fetch(bodies.origin, numbers, chance)
    for path in sorted(entries(directory)):
        meddling(path, chance)
    for _ in range(2):
        fetch(bodies.origin, numbers, chance)
    for path in directory.iterdir():
        if path.is_dir():
            path.rmdir()
    fetch(bodies.origin, numbers, chance)
    assert len(entries(directory)) == 20
    settle(directory, max_bytes=5120 << 20, meddled=kind is BLOCKS)


def test_a_directory_that_is_taken_away_again_and_again(bodies: Server, directory: Path, kind: Kind) -> None:
    workers = Workers(bodies, directory, kind)
    running = [workers.start(number, 2) for number in range(2)]
    while any(worker.poll() is None for worker in running):
        time.sleep(0.1)
        shutil.rmtree(directory, ignore_errors=True)
    assert all(workers.finish(worker, warns=True) >= 60 for worker in running)


def test_a_full_disk_costs_the_cache_and_nothing_else(bodies: Server, directory: Path, kind: Kind) -> None:
    """RLIMIT_FSIZE: of bodies up to 9000 bytes only those up to 4000 can be written, of sources a block."""
    workers = Workers(bodies, directory, kind, FAULT_FSIZE=kind.fsize)
    running = [workers.start(number, 1) for number in range(2)]
    assert all(workers.finish(worker, warns=True) >= 60 for worker in running)
    kept = {path: path.stat().st_size for path in entries(directory)}
    assert kept
    assert max(kept.values()) <= kind.fsize
    settle(directory, max_bytes=kind.budget)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_directory_that_can_not_be_written_costs_a_warning(bodies: Server, kind: Kind, mode: int) -> None:
    """Nor does one that can't even be read."""
    # Not below `tmp_path`, into which another user can't even look.
    directory = Path(tempfile.mkdtemp())
    directory.chmod(mode)
    become = {"FAULT_USER": NOBODY} if os.getuid() == 0 else {}
    workers = Workers(bodies, directory, kind, 50, **become)
    try:
        worker = workers.start(0, 0)
        output, errors = worker.communicate(timeout=100)
        directory.chmod(0o755)
        assert worker.returncode == 0, errors
        assert json.loads(output)["leaked"] <= 2
        assert errors.count("No media cache") == 1
        assert not list(directory.iterdir())
    finally:
        shutil.rmtree(directory)


@pytest.mark.parametrize("offset", [-10 * 24 * 3600, 10 * 24 * 3600], ids=["set back", "ahead"])
def test_a_clock_that_is_wrong_makes_no_entry_immortal(
    bodies: Server, directory: Path, kind: Kind, offset: int
) -> None:
    """What a process of another time wrote is fetched anew, and served to those of its own."""
    wrong = Workers(bodies, directory, kind, 30, FAULT_CLOCK=offset)
    right = Workers(bodies, directory, kind, 30)
    counts = []
    for workers in (wrong, wrong, right, right):
        before = bodies.count() + workers.behind
        workers.finish(workers.start(0, 0))
        counts.append(bodies.count() + workers.behind - before)
    first, again, corrected, at_last = counts
    assert first > 10
    assert (again, at_last) == (0, 0)
    assert corrected == first
    settle(directory, max_bytes=kind.budget)
