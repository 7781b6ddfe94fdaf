"""A watch over decoders of several threads, of which damaged videos can make one wait for another forever.

FFmpeg's HEVC decoder does: a frame that fails in its header never reports that it is done, and a frame that
refers to it waits. Nothing can end such a call. So it is made in a thread that can be left behind, and after
the first that had to be, videos of that kind are decoded by one thread, which waits for nobody.
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from typing import TypeVar

from mmmedia import envs
from mmmedia.errors import InvalidMediaError
from mmmedia.work.threads import threads

logger = logging.getLogger(__name__)

T = TypeVar("T")

STALL_SECONDS = 30.0
"""How long a decoder may take for a frame; it is less where `VLLM_VIDEO_DECODE_TIMEOUT_S` is."""

_stalled: set[str] = set()


class Pulse:
    """When a call under watch last got a frame further, and whether anybody still waits for it."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.is_awaited = True


_pulse: ContextVar[Pulse | None] = ContextVar("mmmedia_pulse", default=None)


def pulse() -> Pulse | None:
    """Return that of the call under way, if it is under watch."""
    return _pulse.get()


def may_use_threads(kind: str) -> bool:
    """Say whether videos of a kind may be decoded by several threads: none of them has stalled so far."""
    return kind not in _stalled


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
    """
    seconds = envs.VLLM_VIDEO_DECODE_TIMEOUT_S
    patience = min(STALL_SECONDS, seconds) if seconds > 0 else STALL_SECONDS
    outcome: Future[T] = Future()
    mine, context = Pulse(), copy_context()
    context.run(_pulse.set, mine)

    def run() -> None:
        try:
            outcome.set_result(context.run(call))
        except BaseException as error:  # noqa: BLE001  # handed to who waits
            outcome.set_exception(error)

    threads.start(run, "mmmedia-watched")
    try:
        while not wait((outcome,), max(mine.last + patience - time.monotonic(), 0.01)).done:
            if time.monotonic() > mine.last + patience:
                break
        else:
            return outcome.result()
    finally:
        mine.is_awaited = False
    _stalled.add(kind)
    logger.warning(
        "A video stalled its decoder, which is left behind; %s is decoded by one thread now.", kind
    )
    raise InvalidMediaError(f"The video is damaged: its decoder got no further for {patience:g} s.")
