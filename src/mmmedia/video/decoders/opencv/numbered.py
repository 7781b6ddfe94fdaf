"""A capture that numbers its frames as a player shows them."""

from collections import defaultdict
from typing import Any

import numpy as np

from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.decoders.opencv.capture import Capture
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.packets.shown import Shown
from mmmedia.video.decoders.upright import Upright

# After so many failures in a row nothing more comes. A grab fails at the end, at packets that can't be
# decoded, and after 4096 packets of other streams.
_MAX_FAILED_GRABS = 10_000


class ClockError(Exception):
    """The decoder's times are not those of the packets."""


class Numbered:
    """A capture whose n-th grab is for the n-th frame that is shown; it fails where that one is lost.

    OpenCV's own grab also fails where no frame is lost, and succeeds for the one behind a lost frame.

    Args:
        capture: positioned before its first frame.
        index: the packets of its stream.
        shown: the frames that count.
        by_clock: tell frames by their times; otherwise the n-th that comes is the n-th, as far as is known.
        upright: what to do to pictures.

    Attributes:
        ended: nothing more comes, though there are more packets.
    """

    def __init__(
        self,
        capture: Capture,
        index: PacketIndex,
        shown: Shown,
        *,
        by_clock: bool,
        upright: Upright | None = None,
    ) -> None:
        self._capture = capture
        self._total = shown.total
        self._upright = upright
        self._next = 0  # the number that the next grab is for
        self._behind = 0  # one behind that of the newest frame
        self._waiting: int | None = None  # the number of a frame that is grabbed and has not been asked for
        self.ended = False
        self._deadline: Deadline | None = None  # made by the thread that reads
        self._times = None
        if by_clock and shown.pts is not None and index.start_time is not None:
            self._times = _Times(index, shown)

    def grab(self) -> bool:
        """Advance to the next frame; say whether it is there."""
        number, self._next = self._next, self._next + 1
        if self._waiting is None:
            self._waiting = self._advance(number)
        if self._waiting != number:
            return False
        self._waiting = None
        return True

    def retrieve(self, *args: Any) -> tuple[bool, Any]:
        """Return the frame grabbed last, as BGR, upright."""
        ok, picture = self._capture.retrieve(*args)
        if ok and picture is not None and self._upright is not None:
            picture = np.ascontiguousarray(self._upright(picture))
        return ok, picture

    def get(self, propId: int, /) -> float:  # noqa: N803 - OpenCV's name
        """Return a property of the stream."""
        import cv2

        sides = {
            cv2.CAP_PROP_FRAME_WIDTH: cv2.CAP_PROP_FRAME_HEIGHT,
            cv2.CAP_PROP_FRAME_HEIGHT: cv2.CAP_PROP_FRAME_WIDTH,
        }
        if self._upright is not None and self._upright.swaps_sides:
            propId = sides.get(propId, propId)  # noqa: N806
        return self._capture.get(propId)

    def _advance(self, least: int) -> int | None:
        """Grab until there is a frame of at least that number; None where there is none."""
        failures = 0
        self._deadline = self._deadline or Deadline()
        while not self.ended and self._behind < self._total:
            self._deadline.check()
            if not self._capture.grab():
                failures += 1
                self.ended = failures >= _MAX_FAILED_GRABS
                continue
            failures = 0
            number = self._behind if self._times is None else self._times.number(self._capture, self._behind)
            if number is None:  # one that is not shown
                continue
            self._behind = number + 1
            if number >= least:
                return number
        return None


class _Times:
    """Tells the number of a frame by its time."""

    def __init__(self, index: PacketIndex, shown: Shown) -> None:
        assert shown.pts is not None
        assert index.start_time is not None
        self._pts: list[int] = shown.pts.tolist()
        self._numbers: dict[int, list[int]] = defaultdict(list)
        for number, time in enumerate(self._pts):
            self._numbers[time].append(number)
        self._all = set(index.pts.tolist())
        self._start = index.start_time
        self._ticks_a_millisecond = float(1 / index.time_base) / 1000

    def number(self, capture: Capture, behind: int) -> int | None:
        """Return the number of the frame just grabbed, at least `behind`; None where it is not shown.

        Raises:
            ClockError: no packet has its time.
        """
        import cv2

        time = self._start + round(capture.get(cv2.CAP_PROP_POS_MSEC) * self._ticks_a_millisecond)
        if behind < len(self._pts) and self._pts[behind] == time:
            return behind
        if time not in self._all:
            raise ClockError
        return next((number for number in self._numbers.get(time, ()) if number >= behind), None)
