"""The limits that every decoder keeps: a frame's pixels, the frames array's bytes, the wall clock."""

import math
import time

from mmmedia import envs
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.work.watch import pulse, took_too_long


def check_size(height: int, width: int, count: int) -> None:
    """Judge a frame's area and the bytes of an array of `count` frames, before any is spent.

    Raises:
        LimitExceededError: (a `ValueError`) either is over its setting.
        InvalidMediaError: (a `ValueError`) the frames have no size.
    """
    if height < 1 or width < 1:
        raise InvalidMediaError(f"The video's frames are {width} x {height} pixels.")
    max_pixels, max_bytes = envs.VLLM_MAX_IMAGE_PIXELS, envs.VLLM_MAX_VIDEO_DECODE_BYTES
    if 0 < max_pixels < height * width:
        raise LimitExceededError(
            f"A frame of {width} x {height} pixels is over the limit of {max_pixels} (VLLM_MAX_IMAGE_PIXELS)."
        )
    if 0 < max_bytes < count * height * width * 3:
        raise LimitExceededError(
            f"{count} frames of {width} x {height} pixels take {count * height * width * 3} bytes, over the "
            f"limit of {max_bytes} (VLLM_MAX_VIDEO_DECODE_BYTES); ask for fewer frames or raise it."
        )


class Deadline:
    """The wall-clock limit of one video, kept outside the decoder."""

    def __init__(self) -> None:
        self._seconds = envs.VLLM_VIDEO_DECODE_TIMEOUT_S
        self._end = time.monotonic() + self._seconds if self._seconds > 0 else math.inf
        self._pulse = pulse()

    def check(self) -> None:
        """Raise LimitExceededError, a `ValueError`, once the time is up; to be called at every frame."""
        now = time.monotonic()
        if self._pulse is not None:
            self._pulse.last = now
            if not self._pulse.is_awaited:
                raise InvalidMediaError("Nobody waits for this video any more.")
        if now > self._end:
            raise took_too_long(self._seconds)
