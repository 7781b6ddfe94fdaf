"""Real processes on one cache directory: they share it, are killed in it, and fork with it open."""

import fcntl
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support import cache_worker
from support.cache_worker import BUDGET, body, open_cache, url


def start(*arguments: object, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, cache_worker.__file__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def charged(directory: Path) -> int:
    return sum(max(4096, file.stat().st_size) for file in directory.iterdir())


@pytest.mark.parametrize(
    "environment",
    [{}, {"WITHOUT_ATTRIBUTES": "1"}],
    ids=["shared account", "own accounts"],
)
def test_processes_hammer_one_directory(tmp_path: Path, environment: dict[str, str]) -> None:
    """None fails, none gets a wrong byte, some hit, and the budget of ten entries holds at the end."""
    workers = [start("hammer", tmp_path, seed, 400, **environment) for seed in range(2)]
    for worker in workers:
        output, errors = worker.communicate(timeout=60)
        assert (worker.returncode, errors) == (0, "")
        assert int(output) > 0
    assert 0 < charged(tmp_path) <= BUDGET
    assert open_cache(str(tmp_path)).check() == []


@pytest.mark.parametrize("call", ["write", "setxattr", "utime", "replace", "scandir", "unlink"])
def test_a_writer_killed_at_any_step_leaves_nothing_behind(tmp_path: Path, call: str) -> None:
    """Neither a temp file, nor half an entry, nor an account that lets the directory outgrow its budget."""
    cache = open_cache(str(tmp_path))
    for number in range(20, 35):  # so many that there is something to evict
        cache.path(url(number)).write_bytes(body(number))
    victim = start("die", tmp_path, call, 7)
    victim.communicate(timeout=60)
    assert victim.returncode == -signal.SIGKILL
    assert cache.get(url(7)) in (None, body(7))
    for number in range(10, 24):
        assert cache.put(url(number), body(number))
    assert not list(tmp_path.glob(".mmmedia-*"))
    assert charged(tmp_path) <= BUDGET
    cache.evict()
    assert cache.check() == []


def test_writers_killed_at_random_moments(tmp_path: Path) -> None:
    """Whatever they were doing, the rest goes on with right bytes and within budget."""
    cache = open_cache(str(tmp_path))
    chance = random.Random(5)
    for seed in range(4):
        victim = start("hammer", tmp_path, seed, 10**9)
        for _ in range(chance.randrange(100, 400)):
            number = chance.randrange(40)
            data = cache.get(url(number))
            assert data in (None, body(number))
            cache.put(url(number), body(number))
        assert victim.poll() is None
        victim.kill()
        victim.communicate(timeout=60)
    cache.put(url(0), body(0))
    cache.evict()
    assert cache.check() == []


def test_a_forked_child_can_use_the_cache(tmp_path: Path) -> None:
    """Though other threads of its parent held the locks when it was forked."""
    worker = start("fork", tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    output, errors = worker.communicate(timeout=100)
    assert (output.strip(), errors) == ("0", "")
    cache = open_cache(str(tmp_path))
    cache.evict()
    assert cache.check() == []


@pytest.mark.parametrize("lock", ["directory", "counters"])
def test_a_child_forked_in_the_midst_of_a_lock_can_use_the_cache(tmp_path: Path, lock: str) -> None:
    """Also while its parent goes on holding the directory against all other processes."""
    worker = start("fork_midst", tmp_path, lock, PYTHONWARNINGS="ignore::DeprecationWarning")
    output, errors = worker.communicate(timeout=60)
    assert (output.strip(), errors) == ("0", "")
    assert open_cache(str(tmp_path)).get(url(1)) == body(1)


def test_a_child_does_not_hold_what_its_killed_parent_held(tmp_path: Path) -> None:
    """It has a copy of the descriptor by which the parent had locked the directory."""
    worker = start("orphan", tmp_path, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert worker.stdin
    assert worker.stdout
    try:
        assert worker.stdout.readline() == "child\n"
        directory = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        worker.kill()
        worker.wait(timeout=60)
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(directory)
    finally:
        worker.communicate(timeout=60)  # which ends the child
