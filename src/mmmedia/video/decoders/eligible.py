"""Which streams may be decoded by seeking: where equality with the reference has been established.

Pure functions of the packet index and of what OpenCV says of the same file. Every refusal has a reason, one
of a fixed set of short phrases, so that they can be counted.
"""

from typing import NamedTuple

import numpy as np

from mmmedia.video.decoders.bitstreams.analyse import analyse
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, Structure
from mmmedia.video.decoders.packets.index import NO_PTS, NOT_FOUND, PacketIndex


class Reference(NamedTuple):
    """What OpenCV says of a video: frames, size in pixels as it returns them, and rotation in degrees."""

    total: int
    width: int
    height: int
    rotation: int


# Formats whose conversion has been shown equal to OpenCV's, whatever their colour tags.
PIXEL_FORMATS = frozenset(
    [
        "yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "gbrp",
        "yuv420p10le", "yuv422p10le", "yuv444p10le",
    ]
)  # fmt: skip

# Containers that store packets as they are, with a timestamp each.
CONTAINERS = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"])


def judge(index: PacketIndex, reference: Reference | None) -> Structure:
    """Return the stream's structure if it may be decoded by seeking.

    Args:
        index: the packets.
        reference: what OpenCV says; None where nothing need equal OpenCV.

    Raises:
        CannotSeekError: it may not, for the reason given.
    """
    reason = _container(index) or (_against(index, reference) if reference else None) or _timestamps(index)
    if reason:
        raise CannotSeekError(reason)
    structure = analyse(index)
    if not structure.access_points[0]:
        raise CannotSeekError("no key frame at the start")
    if (np.diff(index.pts[structure.access_points]) <= 0).any():
        raise CannotSeekError("key frames out of order")
    return structure


def _container(index: PacketIndex) -> str | None:
    if index.container not in CONTAINERS:
        return "container"
    if index.attached_picture:
        return "attached picture"
    if not len(index):
        return "no packets"
    if index.side_data:
        return "parameters change midway"
    if (index.offset == NOT_FOUND).any():
        return "packets not stored as they are"
    if index.pix_fmt not in PIXEL_FORMATS:
        return "pixel format"
    return None


def _against(index: PacketIndex, reference: Reference) -> str | None:
    if reference.rotation:
        return "rotation"
    if (index.width, index.height) != (reference.width, reference.height):
        return "frame size"
    # OpenCV stops at a count that the container declares; one that it estimates decides nothing.
    if index.declared_frames and not index.declared_frames == len(index) == reference.total:
        return "frame count"
    return None


def _timestamps(index: PacketIndex) -> str | None:
    if index.corrupt.any():
        return "corrupt packets"
    if index.discard.any():
        return "hidden frames"
    if (index.pts == NO_PTS).any():
        return "missing timestamps"
    if len(np.unique(index.pts)) != len(index):
        return "duplicate timestamps"
    if (np.diff(index.dts[index.dts != NO_PTS]) <= 0).any():
        return "decoding timestamps out of order"
    if (index.pts < index.pts[0]).any():
        return "leading pictures at the start"
    return None
