"""The pools of the process."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from mmmedia.work.executors import ProcessPool
from support.forking import holds_in_child


def test_there_is_one_pool_and_it_has_as_many_threads_as_asked_for() -> None:
    pool = ProcessPool("mmmedia-test", lambda: 3)
    with ThreadPoolExecutor(8) as threads:
        found = {*threads.map(lambda _: pool.executor(), range(50))}
    assert len(found) == 1
    everyone = threading.Barrier(3)
    assert sorted(pool.executor().map(lambda _: everyone.wait(20), range(3))) == [0, 1, 2]


def test_one_that_was_shut_down_is_made_anew() -> None:
    pool = ProcessPool("mmmedia-test", lambda: 1)
    first = pool.executor()
    first.shutdown()
    assert pool.executor() is not first
    assert pool.executor().submit(int, "7").result(20) == 7


def test_a_child_has_a_pool_of_its_own_whoever_held_the_lock() -> None:
    pool = ProcessPool("mmmedia-test", lambda: 1)
    parents = pool.executor()
    parents.submit(int).result(20)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with pool._lock:
            held.set()
            release.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(20)
    try:
        assert holds_in_child(
            lambda: pool.executor() is not parents and pool.executor().submit(int, "7").result(20) == 7
        )
    finally:
        release.set()
        holder.join()


def test_a_child_ends_whatever_its_parents_pool_was_doing() -> None:
    """A lock of that pool is held when the process forks, and nobody lets go of it in the child."""
    script = """
import os
from mmmedia.work.executors import ProcessPool
pool = ProcessPool("mmmedia-test", lambda: 1)
executor = pool.executor()
executor.submit(int).result(20)
executor._shutdown_lock.acquire()
if not (child := os.fork()):
    raise SystemExit(7)
executor._shutdown_lock.release()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 0
