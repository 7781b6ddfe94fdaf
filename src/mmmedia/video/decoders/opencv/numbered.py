"""A capture that numbers its frames as a player shows them."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mmmedia.video.decoders.fit import Size, fit, size_for
from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.decoders.opencv.capture import Capture, frame_size
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.shown import Shown
from mmmedia.video.decoders.upright import Upright

_MAX_FAILED_GRABS = 10_000


class ClockError(Exception):
    """The decoder's times are not those of the packets."""


class Numbered:
    """A capture whose n-th grab is for the n-th frame that is shown; it fails where that one is lost.

    OpenCV's own grab also fails where no frame is lost, and succeeds for the one behind a lost frame.

    Args:
        capture: positioned before its first frame.
        total: how many frames are shown.
        clock: tells the number of a frame by its time; None: the n-th that comes is the n-th.
        upright: what to do to pictures.
        patience: after so many failures in a row nothing more comes. A grab fails at the end, at packets that
            can't be decoded, and after 4096 packets of other streams.
        size: of the pictures that are retrieved, as of `fit.size_for`; None: their own.

    Attributes:
        came: whether any frame came.
    """

    def __init__(
        self,
        capture: Capture,
        total: int,
        clock: "Times | Steps | Places | None",
        upright: Upright | None = None,
        patience: int = _MAX_FAILED_GRABS,
        size: Size | None = None,
    ) -> None:
        self._capture = capture
        self._total = total
        self._upright = upright
        self._patience = min(patience, _MAX_FAILED_GRABS)
        self._size = size
        self._next = 0  # the number that the next grab is for
        self._behind = 0  # one behind that of the newest frame
        self._waiting: int | None = None  # the number of a frame that is grabbed and has not been asked for
        self._passed_over = False  # whether some did not come before those behind them
        self.came = False
        self._ended = False
        self._deadline: Deadline | None = None  # made by the thread that reads
        self._clock = clock

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
        if ok and picture is not None and self._size is not None:
            picture = fit(picture, size_for(self._own_size, self._size))
        return ok, picture

    def read(self, *args: Any) -> tuple[bool, Any]:
        """Advance to the next frame, and return it."""
        return self.retrieve(*args) if self.grab() else (False, None)

    def get(self, propId: int, /) -> float:  # noqa: N803 - OpenCV's name
        """Return a property of the stream."""
        import cv2

        if propId in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH):
            height, width = size_for(self._own_size, self._size)
            return height if propId == cv2.CAP_PROP_FRAME_HEIGHT else width
        return self._capture.get(propId)

    @property
    def _own_size(self) -> tuple[int, int]:
        """Height and width of the pictures, upright."""
        own = frame_size(self._capture)
        return self._upright.size(*own) if self._upright is not None else own

    def set(self, propId: int, value: float, /) -> bool:  # noqa: N803 - OpenCV's name
        """Go ahead to a frame, the only property that is set; say whether that can be."""
        import cv2

        if propId != cv2.CAP_PROP_POS_FRAMES:
            return False
        is_ahead = self._next <= value < self._total
        if is_ahead:
            self._next = int(value)
        return is_ahead

    def prove(self) -> None:
        """Where frames were passed over, grab all that follow: whether they are lost only the rest can tell.

        Raises:
            ClockError: they come later.
        """
        while self._passed_over and not self._ended:
            self._grab_next()

    def _advance(self, least: int) -> int | None:
        """Grab until there is a frame of at least that number; None where there is none."""
        while not self._ended and self._behind < self._total:
            number = self._grab_next()
            if number is not None and number >= least:
                return number
        return None

    def _grab_next(self) -> int | None:
        """Grab until a frame comes, and return its number; None where it is not shown, or none comes."""
        import cv2

        self._deadline = self._deadline or Deadline()
        for _ in range(self._patience):
            self._deadline.check()
            if self._capture.grab():
                break
        else:
            self._ended = True
            return None
        self.came = True
        number: int | None = self._behind
        if self._clock is not None:
            number = self._clock.number(self._capture.get(cv2.CAP_PROP_POS_MSEC), self._behind)
        if number is None or number < self._behind:
            return None
        self._passed_over |= number > self._behind
        self._behind = number + 1
        return number


class Times:
    """Tells the number of a frame of the file itself, by the stream's clock.

    Args:
        shown: when each frame is shown, in ticks, ascending.
        packets: the times of all packets, be they shown or not.
        start: when the stream begins.
        tick: how long one is, in seconds.
    """

    def __init__(self, shown: list[int], packets: Iterable[int], start: int, tick: Fraction) -> None:
        self._pts = shown
        self._numbers: dict[int, list[int]] = defaultdict(list)
        for number, time in enumerate(shown):
            self._numbers[time].append(number)
        self._all = set(packets)
        self._start = start
        self._ticks_a_millisecond = float(1 / tick) / 1000

    def number(self, milliseconds: float, behind: int) -> int | None:
        """Return the number of the frame of that time, at least `behind`; None where it is not shown.

        Raises:
            ClockError: no packet has that time, or one that should have come before.
        """
        time = self._start + round(milliseconds * self._ticks_a_millisecond)
        if behind < len(self._pts) and self._pts[behind] == time:
            return behind
        numbers = self._numbers.get(time, ())
        following = next((number for number in numbers if number >= behind), None)
        # Of no packet; or of one that should have come before, so that times tell another order.
        if time not in self._all or (numbers and following is None):
            raise ClockError
        return following


class Steps:
    """Numbers frames as they come, and notices a lost one by the time of the packet with which each came.

    So it is in AVI, which does not tell when a frame is shown. The last frames may come behind all packets.

    Args:
        packets: when each packet that shows a frame is decoded, in milliseconds, ascending.
    """

    def __init__(self, packets: Sequence[float]) -> None:
        self._packets = packets
        self._late: int | None = None  # with which packet the first frame comes
        self._tolerance = min(np.diff(packets), default=1.0) / 4

    def number(self, milliseconds: float, behind: int) -> int | None:
        """Return `behind`, as nothing was lost.

        Raises:
            ClockError: frames are missing before this one.
        """
        if self._late is None:
            self._late = int(np.argmin(np.abs(np.asarray(self._packets) - milliseconds)))
        expected = behind + self._late
        if expected < len(self._packets) and abs(self._packets[expected] - milliseconds) > self._tolerance:
            raise ClockError
        return behind


class Places:
    """Tells the number of a frame of a clip that holds all packets, by its place.

    Args:
        places: the place of each frame that is shown, in order.
        place: from OpenCV's time of a frame, in milliseconds, to its place.
    """

    def __init__(self, places: Sequence[int], place: Callable[[float], int]) -> None:
        self._numbers = {each: number for number, each in enumerate(places)}
        self._place = place

    def number(self, milliseconds: float, behind: int) -> int | None:  # noqa: ARG002 - places are unique
        """Return the number of the frame of that time; None where it is not shown."""
        return self._numbers.get(self._place(milliseconds))


def times(index: PacketIndex, shown: Shown) -> Times | Steps | None:
    """Return what tells frames of the file by their times; None where these can't."""
    if index.start_time is None:
        return None
    if shown.pts is not None:
        return Times(shown.pts.tolist(), index.pts.tolist(), index.start_time, index.time_base)
    clock = index.dts[shown.packets]
    if index.container != "avi" or shown.positions is None or (np.diff(clock) <= 0).any():
        return None
    return Steps(((clock - index.start_time) * float(1000 * index.time_base)).tolist())
