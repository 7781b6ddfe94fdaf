"""Threads that are used again, and what OpenCV would lose otherwise."""

import gc
import os
import threading
import time
import weakref

import pytest

from mmmedia.work import threads as threads_module
from mmmedia.work.threads import IDLE, Threads
from support.waiting import wait_until


def run(threads: Threads) -> threading.Thread:
    """Return the thread in which a call is made, once that is over."""
    made_in: list[threading.Thread] = []
    threads.start(lambda: made_in.append(threading.current_thread()), "busy")
    wait_until(lambda: bool(made_in) and made_in[0].name == IDLE and threads._idle)
    return made_in[0]


def test_one_thread_makes_one_call_after_another() -> None:
    threads = Threads()
    first = run(threads)
    assert first.daemon
    assert [run(threads) for _ in range(5)] == [first] * 5


def test_calls_at_the_same_time_have_threads_of_their_own() -> None:
    threads, everyone = Threads(), threading.Barrier(5)
    for _ in range(4):
        threads.start(everyone.wait, "busy")
    everyone.wait(20)
    wait_until(lambda: len(threads._idle) == 4)


def test_only_so_many_wait_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "_MOST", 2)
    threads, everyone = Threads(), threading.Barrier(6)
    before = threading.active_count()
    for _ in range(5):
        threads.start(everyone.wait, "busy")
    everyone.wait(20)
    wait_until(lambda: threading.active_count() <= before + 2)
    assert len(threads._idle) == 2


def test_who_waits_for_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "_SECONDS", 0.01)
    threads, done = Threads(), []
    for number in range(300):  # some just as one is about to end
        threads.start(lambda number=number: done.append(number), "busy")
        time.sleep(0.0001 * (number % 150))
    wait_until(lambda: len(done) == 300)
    wait_until(lambda: not threads._idle)
    assert sorted(done) == list(range(300))


def test_nothing_of_a_call_is_kept() -> None:
    class Call:
        def __call__(self) -> None:
            pass

    call = Call()
    found = weakref.ref(call)
    threads = Threads()
    threads.start(call, "busy")
    wait_until(lambda: bool(threads._idle))
    del call
    gc.collect()
    wait_until(lambda: found() is None)


def test_a_forked_child_has_threads_of_its_own() -> None:
    threads = Threads()
    run(threads)
    child = os.fork()
    if not child:
        done = threading.Event()
        threads.start(done.set, "busy")
        os._exit(0 if done.wait(20) else 1)
    assert os.waitpid(child, 0)[1] == 0
