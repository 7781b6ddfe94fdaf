"""The one fork hook."""

import gc
import os
import threading
import time

from mmmedia.work import fork
from support.forking import holds_in_child


class _Keeper:
    def __init__(self) -> None:
        self.process = os.getpid()

    def begin(self) -> None:
        self.process = os.getpid()


def test_a_forked_child_begins_afresh():
    keeper = _Keeper()
    fork.afresh_in_child(keeper.begin)
    assert holds_in_child(lambda: keeper.process == os.getpid())
    assert keeper.process == os.getpid()


def test_what_is_registered_by_a_method_is_not_kept_alive():
    keepers = [_Keeper() for _ in range(200)]
    before = len(fork._beginnings)
    for keeper in keepers:
        fork.afresh_in_child(keeper.begin)
    del keeper, keepers
    gc.collect()
    assert len(fork._beginnings) <= before


def test_a_fork_waits_for_locks_that_no_child_can_replace(monkeypatch):
    lock, held, done = threading.Lock(), threading.Event(), threading.Event()
    monkeypatch.setattr(fork, "_held_over_forks", [])
    fork.none_while_held(lock)

    def hold() -> None:
        with lock:
            held.set()
            time.sleep(0.05)
            done.set()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    assert holds_in_child(lambda: done.is_set() and not lock.locked())
    thread.join()
    assert not lock.locked()


def test_what_a_parent_has_in_cycles_is_not_freed_in_its_child() -> None:
    """A decoder among it would wait for threads that are not there."""

    class Waiting:
        def __init__(self) -> None:
            self.itself, self.process = self, os.getpid()

        def __del__(self) -> None:
            if os.getpid() != self.process:
                os._exit(3)

    gc.disable()
    try:
        Waiting()
        assert holds_in_child(lambda: gc.collect() >= 0)
    finally:
        gc.enable()
        gc.collect()
