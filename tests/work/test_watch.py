"""The watch over decoders that wait forever, with a video that makes FFmpeg's do so."""

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.video.decoders.limits import Deadline
from mmmedia.work import watch

# 8 KB of HEVC, found by the fuzz session: a slice header is damaged, and a later frame refers to that frame.
STALLS = Path(__file__).parents[1] / "data" / "stalls_hevc.mp4"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(watch, "_stalled", set())


@pytest.mark.parametrize("request_of_it", ['decode="sequential"', 'decode="auto"', 'backend="pyav"'])
def test_a_stall_is_an_error_and_the_next_is_decoded_by_one_thread(request_of_it: str) -> None:
    """In a process of its own, which the thread that is left behind must not keep from ending."""
    script = f"""
        import sys
        from mmmedia.errors import InvalidMediaError, LimitExceededError
        from mmmedia.video import OpenCVVideoBackend
        from mmmedia.work import watch

        watch.STALL_SECONDS = 2
        data = open(sys.argv[1], "rb").read()
        outcomes = []
        for _ in range(3):
            try:
                frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=32, {request_of_it})
                outcomes.append(frames.shape)
            except InvalidMediaError as error:
                outcomes.append("got no further" in str(error))
        print(outcomes)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(STALLS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    # Where there is one core only, FFmpeg has one thread, and nothing to wait for.
    assert ended.stdout.strip() in (
        "[True, (2, 64, 96, 3), (2, 64, 96, 3)]",
        "[(2, 64, 96, 3), (2, 64, 96, 3), (2, 64, 96, 3)]",
    )


def test_what_gets_on_may_take_its_time() -> None:
    def slowly() -> int:
        deadline = Deadline()
        for _ in range(8):
            time.sleep(0.2)
            deadline.check()
        return 7

    assert watch.watched("a", slowly) == 7
    assert watch.may_use_threads("a")


def test_what_stands_still_is_left_behind_and_ends_once_it_can(caplog: pytest.LogCaptureFixture) -> None:
    gate, ended = threading.Event(), threading.Event()

    def stuck() -> None:
        deadline = Deadline()
        gate.wait(20)
        try:
            deadline.check()
        finally:
            ended.set()

    with pytest.raises(InvalidMediaError, match=r"no further for 0\.5 s"):
        watch.watched("a", stuck)
    assert "a is decoded by one thread now" in caplog.text
    assert not watch.may_use_threads("a")
    assert watch.may_use_threads("b")
    gate.set()
    assert ended.wait(20)


def test_the_wall_clock_limit_holds_for_a_call_that_never_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STALL_SECONDS", 60)
    monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "0.3")
    gate = threading.Event()
    with pytest.raises(LimitExceededError, match=r"0\.3 s \(VLLM_VIDEO_DECODE_TIMEOUT_S\)"):
        watch.watched("a", lambda: gate.wait(20))
    assert watch.may_use_threads("a")  # such a limit says nothing of the decoder
    monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "1.2")
    with pytest.raises(LimitExceededError):
        watch.watched("a", lambda: gate.wait(20))
    assert not watch.may_use_threads("a")
    gate.set()


def test_a_thread_that_works_is_not_stalled() -> None:
    """As where OpenCV makes a table of colours on a machine with much else to do."""

    def work() -> int:
        end = time.thread_time() + 1.2
        while time.thread_time() < end:
            pass
        return 7

    assert watch.watched("a", work) == 7
    assert watch.may_use_threads("a")


def test_work_without_end_is_ended_by_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "1.3")
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            pass

    with pytest.raises(LimitExceededError):
        watch.watched("a", work)
    assert watch.may_use_threads("a")
    ended.set()


def test_a_thread_that_has_worked_and_waits_is_stalled() -> None:
    gate = threading.Event()

    def work_and_wait() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass
        gate.wait(20)

    with pytest.raises(InvalidMediaError, match="no further"):
        watch.watched("a", work_and_wait)
    gate.set()


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("its own"), KeyboardInterrupt()])
def test_errors_are_handed_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        watch.watched("a", fail)
    assert watch.may_use_threads("a")


def test_limits_of_the_caller_hold_inside() -> None:
    from mmmedia import envs

    with envs.at_most({"VLLM_MAX_IMAGE_PIXELS": 7}):
        assert watch.watched("a", lambda: envs.VLLM_MAX_IMAGE_PIXELS) == 7
