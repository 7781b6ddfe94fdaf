"""Which streams may be decoded by parts: where their packets and headers say what each part is.

Pure functions of the packet index. Every refusal has a reason, one of a fixed set of short phrases, so that
they can be counted.
"""

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.annex_b import with_lengths
from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.colours import are_converted
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields
from mmmedia.video.decoders.bitstreams.structure import INTERLACED, ORDER, CannotSeekError, Structure
from mmmedia.video.decoders.clips import NO_COLOURS
from mmmedia.video.decoders.packets.index import NOT_FOUND, PacketIndex
from mmmedia.video.decoders.shown import Shown


def judge(index: PacketIndex, shown: Shown) -> tuple[PacketIndex, Structure, npt.NDArray[np.intp]]:
    """Return a stream's packets and structure, and the decode position of each frame that is shown.

    Args:
        index: the packets.
        shown: the frames that count.

    Raises:
        CannotSeekError: it may not be decoded by parts, for the reason given.
    """
    if len(index) and not index.discard[-1] and len(index) - 1 not in shown.packets:
        index = index.upto(len(index) - 1)  # cut short, or what ends a sequence: no frame comes of it
    reason = _packets(index)
    if reason:
        raise CannotSeekError(reason)
    if index.codec == "hevc" and may_hold_fields(index):  # that of others their structure tells
        raise CannotSeekError(INTERLACED)
    index = with_lengths(index)
    if not are_converted(index):
        raise CannotSeekError("colours")
    structure = analyse(index)
    access = np.flatnonzero(structure.access_points)
    if not len(access):
        raise CannotSeekError("no key frame at the start")
    if (np.diff(structure.ranks[access]) <= 0).any():
        raise CannotSeekError("key frames out of order")
    positions = shown.packets[np.argsort(structure.ranks[shown.packets])]
    if shown.positions is None:
        # Frames are told by counting them, which one that does not come sets off.
        if any(each is not None and each.any() for each in (structure.undecodable, structure.lacking)):
            raise CannotSeekError(ORDER)
    elif (shown.positions != positions).any():
        raise CannotSeekError(ORDER)
    if len(positions) != shown.total:
        raise CannotSeekError("frame count")
    return index, structure, positions


def _packets(index: PacketIndex) -> str | None:
    if not len(index):
        return "no packets"
    if index.side_data:
        return "parameters change midway"
    if (index.offset == NOT_FOUND).any():
        return "packets not stored as they are"
    if index.corrupt.any():
        return "corrupt packets"
    if index.codec in NO_COLOURS and index.container != "avi":
        return "codec"
    return None
