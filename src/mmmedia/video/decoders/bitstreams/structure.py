"""What the packets of a stream are to each other, and why a stream is refused."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.bitstreams.bits import Bools, Ints
from mmmedia.video.decoders.bitstreams.stand_ins import H264References
from mmmedia.video.decoders.packets.index import PacketIndex, is_timed, segments

PARAMETERS_CHANGE = "parameters change midway"
DAMAGED = "damaged or unusual headers"
ORDER = "display order differs from timestamps"
HIDDEN = "invisible frames"
INTERLACED = "interlaced"
UNSUPPORTED = "unusual coding tools"


class CannotSeekError(Exception):
    """The stream may not be decoded by parts; the argument is the reason."""


@dataclass(frozen=True)
class Structure:
    """What the packets of a stream are to each other, by decode position.

    Attributes:
        access_points: decoding may begin here, and all that is shown from here on comes out right.
        disposable: no other packet needs this one.
        ranks: the place of each packet in display order.
        alone: of the access points, those that must be the first that a decoder gets; None: none.
        hidden: never shown, but referred to; None: nothing.
        undecodable: what can't be decoded when decoding began at the access point before it; None: nothing.
        counts: for HEVC with clean random access pictures, the order count of each picture, and the number
            by which counts are taken modulo from such a picture on, where it is spliced in; None: else.
        references: for H.264, what refers to what, by which more can be spared.
        extradata: the codec's configuration with what that takes; None: the container's.
        lacking: for HEVC, which pictures refer to one that is not there, as some do behind a damaged header:
            what would be left out may be what let it go; None: not known.
    """

    access_points: Bools
    disposable: Bools
    ranks: Ints
    alone: Bools | None = None
    hidden: Bools | None = None
    undecodable: Bools | None = None
    counts: tuple[Ints, int] | None = None
    references: H264References | None = None
    extradata: bytes | None = None
    lacking: Bools | None = None

    def may_follow(self, start: int, stop: int, following: int) -> bool:
        """Return whether a stretch that begins at `following` may stand behind one from `start` to `stop`.

        FFmpeg loses a picture that is spliced in behind one of the same order count, not shown yet.
        """
        if self.counts is None:
            return True
        counts, many = self.counts
        before = counts[start:stop] - counts[start] + counts[start] % many
        return bool((before != counts[following] % many).all())


def ranks_by_time(index: PacketIndex) -> Ints | None:
    """Return the place of each packet by its time; None where the times are missing, or guesses as in AVI."""
    if not is_timed(index):
        return None
    return places(np.lexsort((index.pts, segments(index))))


def places(order: npt.NDArray[np.intp]) -> Ints:
    """Return the place of each in an order that lists them all."""
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def ranks_in_decode_order(index: PacketIndex, shown: Bools | None = None) -> Ints:
    """Return the places of packets that are shown as they come, as those of most codecs are.

    Raises:
        CannotSeekError: their times say otherwise.
    """
    by_time = ranks_by_time(index)
    if by_time is not None and (np.diff(by_time if shown is None else by_time[shown]) <= 0).any():
        raise CannotSeekError(ORDER)
    return np.arange(len(index))


def ranks_of_b_frames(index: PacketIndex, bi: Bools) -> Ints:
    """Return the places where B-frames are shown at once, and any other when the next such has come (MPEG).

    Raises:
        CannotSeekError: their times say otherwise.
    """
    numbers = np.arange(len(bi))
    references = numbers[~bi]
    # A reference is shown just before the next one, behind the B-frames in between.
    following = np.append(references[1:], len(bi))
    keys = 2.0 * numbers
    keys[references] = 2.0 * following - 1
    ranks = places(np.argsort(keys, kind="stable"))
    by_time = ranks_by_time(index)
    if by_time is not None and (by_time != ranks).any():
        raise CannotSeekError(ORDER)
    return ranks
