"""Which streams the fast path may decode: where its equality with the reference has been established.

Pure functions of the packet index and of what OpenCV says of the same file. Every refusal has a reason,
one of a fixed set of short phrases, so that they can be counted.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders import bitstreams
from mmmedia.video.decoders.bitstreams import Structure
from mmmedia.video.decoders.index import NO_PTS, NOT_FOUND, PacketIndex


class Reference(NamedTuple):
    """What OpenCV says of a video: frames, size as it returns them, and rotation in degrees."""

    total: int
    width: int
    height: int
    rotation: int


# Formats whose conversion has been shown equal to OpenCV's, whatever their colour tags.
PIXEL_FORMATS = frozenset(
    ["yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "gbrp",
     "yuv420p10le", "yuv422p10le", "yuv444p10le"]
)  # fmt: skip

CONTAINERS = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"])

_CODECS: dict[str, Callable[[PacketIndex], Structure | str]] = {
    "h264": bitstreams.h264,
    "hevc": bitstreams.hevc,
    "vp8": bitstreams.vp8,
    "vp9": bitstreams.vp9,
    "libdav1d": bitstreams.av1,
    "mpeg4": bitstreams.mpeg4,
}


def judge(index: PacketIndex, reference: Reference | None) -> Structure | str:
    """Return the stream's structure if it may be decoded by seeking, else the reason why not.

    Args:
        index: the packets.
        reference: what OpenCV says; None where nothing need equal OpenCV.
    """
    return (
        _container(index) or (reference and _against(index, reference)) or _timestamps(index) or _codec(index)
    )


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
        return "packets not stored verbatim"
    if index.pix_fmt not in PIXEL_FORMATS:
        return "pixel format"
    return None


def _against(index: PacketIndex, reference: Reference) -> str | None:
    if reference.rotation:
        return "rotation"
    if (index.width, index.height) != (reference.width, reference.height):
        return "frame size"
    if index.declared_frames and not (index.declared_frames == len(index) == reference.total):
        return "frame count"
    return None


def _timestamps(index: PacketIndex) -> str | None:
    if index.corrupt.any():
        return "corrupt packets"
    if index.discard.any():
        return "hidden frames"
    if (index.pts == NO_PTS).any() or (index.dts == NO_PTS).any():
        return "missing timestamps"
    if len(np.unique(index.pts)) != len(index):
        return "duplicate timestamps"
    if (np.diff(index.dts) <= 0).any():
        return "timestamps out of order"
    if (index.pts < index.pts[0]).any():
        return "leading pictures at the start"
    return None


def _codec(index: PacketIndex) -> Structure | str:
    analyse = _CODECS.get(index.codec)
    if analyse is None:
        return "codec"
    structure = analyse(index)
    if isinstance(structure, str):
        return structure
    if not structure.access_points[0]:
        return "no key frame at the start"
    shown = index.pts[structure.access_points]
    return "key frames out of order" if (np.diff(shown) <= 0).any() else structure


def access_point_positions(structure: Structure) -> npt.NDArray[np.intp]:
    """The decode positions from which decoding may start."""
    return np.flatnonzero(structure.access_points)
