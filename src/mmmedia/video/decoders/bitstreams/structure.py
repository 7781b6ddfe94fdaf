"""What the packets of a stream are to each other, and why a stream is refused."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import Bools
from mmmedia.video.decoders.bitstreams.stand_ins import H264References

if TYPE_CHECKING:
    from mmmedia.video.decoders.packets.index import PacketIndex

PARAMETERS_CHANGE = "parameters change midway"
DAMAGED = "damaged or unusual headers"
ORDER = "display order differs from timestamps"
HIDDEN = "invisible frames"
INTERLACED = "interlaced"
UNSUPPORTED = "unusual coding tools"


class CannotSeekError(Exception):
    """The stream may not be decoded by seeking; the argument is the reason."""


@dataclass(frozen=True)
class Structure:
    """By decode position: may decoding start here, and can this be left out unless it is wanted.

    For H.264 also what refers to what, by which more can be spared, and the parameter sets that takes.
    """

    access_points: Bools
    disposable: Bools
    references: H264References | None = None
    extradata: bytes | None = None


def check_decode_order(index: "PacketIndex") -> None:
    """These codecs show packets in the order in which they come."""
    if (np.diff(index.pts) <= 0).any():
        raise CannotSeekError(ORDER)
