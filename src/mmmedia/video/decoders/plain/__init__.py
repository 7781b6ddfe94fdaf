"""A quick look at a short file: whether its container holds nothing unusual, so that its claims are true.

Finding that out for sure takes FFmpeg, which looks into the first pictures of some codecs for it, as long as
many a short clip takes to be decoded.
"""

import struct
from typing import TYPE_CHECKING

from mmmedia.video.decoders.bitstreams.bits import HeaderEndError
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.plain.avi import plain_avi
from mmmedia.video.decoders.plain.h264 import has_sets_within
from mmmedia.video.decoders.plain.matroska import plain_matroska
from mmmedia.video.decoders.plain.mp4 import plain_mp4
from mmmedia.video.decoders.plain.video import PlainVideo

if TYPE_CHECKING:
    from mmmedia import containers

__all__ = ["PlainVideo", "plain_video", "stays_plain"]

_READERS = {"mov": plain_mp4, "matroska": plain_matroska, "avi": plain_avi}


def plain_video(admitted: "containers.Admitted[bytes]") -> PlainVideo | None:
    """Return what a file holds if it is plain, else None; FFmpeg is not asked.

    Plain is one track of pictures, upright and not fields, of colours that OpenCV converts, whole, each
    packet of which shows a picture, all about as long as the other. `stays_plain` says the rest.
    """
    reader = _READERS.get(admitted.name)
    try:
        return reader(admitted.data) if reader is not None else None
    except (struct.error, IndexError, KeyError, ValueError, CannotSeekError, HeaderEndError):
        return None


def stays_plain(data: bytes, plain: PlainVideo) -> bool:
    """Return whether nothing among the packets makes it another, as a sequence parameter set might."""
    return plain.codec != "h264" or not has_sets_within(data)
