"""`Layout`: where a file has its packets, and a small file in its place."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia.sources import Window, coalesced

Ints = npt.NDArray[np.int64]


class CannotTellError(Exception):
    """The file's index does not say enough, so that all of it is needed; the argument is why."""


class Times(NamedTuple):
    """When each packet is shown, in ticks, and whether it is a key frame, in the order of the skeleton."""

    pts: Ints
    key: npt.NDArray[np.bool_]


class Packet(NamedTuple):
    """A packet that was found: which frame it is, when that is shown, and where in the source it stands."""

    number: int
    pts: int
    is_key: bool
    start: int
    stop: int


@dataclass(frozen=True)
class Layout:
    """What a file's index says of its video.

    Attributes:
        skeleton: a small file with the header of the whole and a place for every packet. The payloads of the
            first are real, those of others zeros.
        offset: where in the source each packet of the video begins, in decode order.
        size: how long each is.
        times: what else is known of them, where the skeleton has them in other sizes than the file.
        locate: for pairs of frames, a key frame and a later one, reads and returns the packets from the first
            on until all up to the second are there; None where `offset` and `size` tell.
    """

    skeleton: bytes = field(repr=False)
    offset: Ints
    size: Ints
    times: Times | None = None
    locate: Callable[[Sequence[tuple[int, int]]], list[list[Packet]]] | None = None


class Front:
    """Stretches of a source that a skeleton has as they are, one behind the other.

    Attributes:
        data: all of them.
    """

    def __init__(self, window: Window, offset: Ints, size: Ints) -> None:
        """Read so many packets as are to be real.

        Args:
            window: the source.
            offset: where each packet begins.
            size: how long each is.
        """
        real = front(size)
        ends = offset[:real] + size[:real]
        ranges = coalesced(zip(offset[:real].tolist(), ends.tolist(), strict=True), _BETWEEN)
        window.need(ranges)
        self.data = b"".join(window.piece(*each) for each in ranges)
        self._start, self._stop = np.array(ranges, np.int64).reshape(-1, 2).T
        lengths = self._stop - self._start
        self._place = np.cumsum(lengths) - lengths

    def places(self, offset: Ints, size: Ints) -> Ints:
        """Return where in `data` some stretches begin; -1 for those that are not in it."""
        at = np.maximum(np.searchsorted(self._start, offset, side="right") - 1, 0)
        is_in = (offset >= self._start[at]) & (offset + size <= self._stop[at])
        return np.where(is_in, offset - self._start[at] + self._place[at], -1)


_BETWEEN = 1 << 16  # bytes of sound, most often

FRONT_PACKETS = 64
FRONT_BYTES = 1 << 20
"""How much of the front is real: FFmpeg looks at some 40 packets to tell the rate."""

LARGEST_HOLE = 1 << 25
"""Zeros that stand for payloads: as many as the largest has bytes."""


def front(size: Ints) -> int:
    """Return how many packets at the front are to be real, by the sizes of all."""
    summed = np.cumsum(size[:FRONT_PACKETS])
    return max(1, int(np.searchsorted(summed, FRONT_BYTES, side="right")))
