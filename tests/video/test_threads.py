"""Threads that are used again, and what OpenCV would lose otherwise."""

import gc
import os
import sys
import threading
import time
import weakref

import cv2
import numpy as np
import pytest

from mmmedia.video.decoders import opencv, threads as threads_module
from mmmedia.video.decoders.threads import IDLE, Threads
from support.clips import clip
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


# -- the strings that OpenCV makes ------------------------------------------------------------------------

CPYTHON = pytest.mark.skipif(not opencv._COUNTS_REFERENCES, reason="references are not counted")


@CPYTHON
def test_reading_a_video_loses_no_memory() -> None:
    """OpenCV makes a string for each call, which nobody would let go of: here some thirty for a clip."""
    data = clip(frames=60, width=64, height=48)

    def read() -> None:
        capture = opencv.open_capture(data)
        while capture.grab():
            pass

    for _ in range(5):
        read()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(50):
        read()
    gc.collect()
    assert sys.getallocatedblocks() - before < 150


@CPYTHON
def test_a_string_is_let_go_of_only_if_it_was_lost() -> None:
    def fresh() -> str:
        return "".join(("re", "ad"))

    kept = [fresh() for _ in range(5)]
    last = opencv._LostString()
    for text in kept[:1] * 3:  # the same each time, so somebody keeps it
        last.replace_by(text)
    del last, text
    assert opencv._references(kept) == opencv._OWN_REFERENCES

    nobodys = opencv._LostString()
    for _ in range(3):  # new each time, and let go of by who made it
        nobodys.replace_by(fresh())
    assert opencv._references(nobodys._held) == opencv._OWN_REFERENCES


def test_a_replaced_capture_makes_its_own_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[opencv._Stream] = []

    class Fake:
        def __init__(self, stream: opencv._Stream, *_: object) -> None:
            streams.append(stream)

    monkeypatch.setattr(cv2, "VideoCapture", Fake)
    opencv._open(b"content", 0, [])
    names = ["".join(("re", "ad")) for _ in range(3)]
    assert [getattr(streams[0], name)(2) for name in names] == [b"co", b"nt", b"en"]
    assert opencv._references(names) == opencv._OWN_REFERENCES


def test_what_is_read_is_what_is_there() -> None:
    stream = opencv._Stream(b"0123456789")
    assert (stream.seek(4), stream.read(3), stream.tell()) == (4, b"456", 7)
    assert stream.seek(-(1 << 40)) == 10
    assert np.array_equal(np.frombuffer(stream.getvalue(), np.uint8), np.arange(48, 58, dtype=np.uint8))
