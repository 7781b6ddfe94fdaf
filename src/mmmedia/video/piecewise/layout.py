"""`Layout`: where a file has its packets, and a small file in its place."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class CannotTellError(Exception):
    """The file's index does not say enough, so that all of it is needed; the argument is why."""


@dataclass(frozen=True)
class Layout:
    """What a file's index says of its video.

    Attributes:
        skeleton: a small file with the header of the whole and a place for every packet. The payloads of the
            first are real, those of others zeros.
        offset: where in the source each packet of the video begins, in decode order.
        size: how long each is.
    """

    skeleton: bytes = field(repr=False)
    offset: Ints
    size: Ints


FRONT_PACKETS = 64
FRONT_BYTES = 1 << 20
"""How much of the front is real: FFmpeg looks at some 40 packets to tell the rate."""

LARGEST_HOLE = 1 << 25
"""Zeros that stand for payloads: as many as the largest has bytes."""


def front(offset: Ints, size: Ints) -> int:
    """Return how many packets at the front are to be real."""
    summed = np.cumsum(size[:FRONT_PACKETS])
    return int(max(1, np.searchsorted(summed, FRONT_BYTES, side="right")))
