"""A watch over decoders of several threads, of which damaged videos can make one wait for another forever.

FFmpeg's HEVC decoder does: a frame that fails in its header never reports that it is done, and a frame that
refers to it waits. Nothing can end such a call. So it is made in a thread that can be left behind, and after
the first that had to be, videos of that kind are decoded by one thread, which waits for nobody.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from typing import TypeVar

from mmmedia import envs
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.work.threads import threads

logger = logging.getLogger(__name__)

T = TypeVar("T")

STALL_SECONDS = 30.0
"""How long a decoder may take for a frame while the thread that asks for it does nothing itself."""

# On a crowded machine a table of colours, of 3 s of CPU, takes longer than that: a thread that gets as much
# as this meanwhile is at work, and only the setting limits it. One that waits for another gets none.
_LEAST_WORK = 0.001
# A limit below this says nothing of a decoder that has not come back.
_TELLING = 1.0

_stalled: set[str] = set()


class Pulse:
    """When a call under watch last got a frame further, and whether anybody still waits for it."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.is_awaited = True
        self._thread: int | None = None
        self._before = 0.0

    def begin(self) -> None:
        """Take the thread under way for the one that makes the call."""
        self._thread = threading.get_ident()
        self._before = time.thread_time()

    def worked(self) -> float:
        """Return the seconds of CPU that the thread has had for the call; 0 where that can't be told."""
        if self._thread is None or not hasattr(time, "pthread_getcpuclockid"):
            return 0.0
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread)) - self._before


_pulse: ContextVar[Pulse | None] = ContextVar("mmmedia_pulse", default=None)


def pulse() -> Pulse | None:
    """Return that of the call under way, if it is under watch."""
    return _pulse.get()


def may_use_threads(kind: str) -> bool:
    """Say whether videos of a kind may be decoded by several threads: none of them has stalled so far."""
    return kind not in _stalled


def took_too_long(seconds: float) -> LimitExceededError:
    """Return the error of a video that takes longer than the setting admits."""
    return LimitExceededError(
        f"Decoding the video took longer than {seconds} s (VLLM_VIDEO_DECODE_TIMEOUT_S)."
    )


def stalled() -> list[str]:
    """Return the kinds of video that have stalled a decoder."""
    return sorted(_stalled)


def note_stalled(kinds: Iterable[str]) -> None:
    """Have videos of these kinds decoded by one thread, as they stalled decoders of other processes."""
    _stalled.update(kinds)


def watched(kind: str, call: Callable[[], T]) -> T:
    """Make a call that decodes with several threads, in a thread of its own.

    Args:
        kind: what is decoded, and by what; one stall speaks against all of a kind.
        call: what to call; it marks its progress by `Deadline.check`.

    Raises:
        InvalidMediaError: (a `ValueError`) the decoder stalled.
        LimitExceededError: (a `ValueError`) the setting's time is up, and the call has not come back.
    """
    seconds = envs.VLLM_VIDEO_DECODE_TIMEOUT_S
    end = time.monotonic() + seconds if seconds > 0 else math.inf
    outcome: Future[T] = Future()
    mine, context = Pulse(), copy_context()
    context.run(_pulse.set, mine)

    def run() -> None:
        mine.begin()
        try:
            outcome.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001  # handed to who waits
            outcome.set_exception(error)

    threads.start(run, "mmmedia-watched")
    try:
        is_stalled = not _comes_back(outcome, mine, end)
        if outcome.done():
            return outcome.result()
    finally:
        mine.is_awaited = False
    if is_stalled:
        _stalled.add(kind)
        logger.warning(
            "A video stalled its decoder, which is left behind; %s is decoded by one thread now.", kind
        )
    if time.monotonic() >= end:
        raise took_too_long(seconds)
    raise InvalidMediaError(f"The video is damaged: its decoder got no further for {STALL_SECONDS:g} s.")


def _comes_back(outcome: "Future[T]", mine: Pulse, end: float) -> bool:
    """Wait for a call until it is done, stalls, or the time is up; say whether it may come back yet."""
    looked, worked = mine.last, 0.0
    while True:
        due = max(mine.last, looked) + STALL_SECONDS
        if wait((outcome,), max(min(due, end) - time.monotonic(), 0.01)).done:
            return True
        now = time.monotonic()
        quiet = now - mine.last
        if now < end and quiet < STALL_SECONDS:
            continue
        before, worked = worked, mine.worked()
        is_at_work = worked - before > _LEAST_WORK
        if now >= end:
            return is_at_work or quiet < min(_TELLING, STALL_SECONDS)
        if not is_at_work:
            return False
        looked = now
