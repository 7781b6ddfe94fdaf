"""Which containers a decoder may be shown: recognised by their first bytes, before FFmpeg sees any.

FFmpeg follows what it reads: a playlist, a concat script or an SDP text makes it open files and sockets
that the bytes name. So every path on which FFmpeg opens a stranger's bytes passes here first: `identify`
judges the first bytes, `admit` also what tables claim that FFmpeg would take memory for, and FFmpeg itself is
held to `FORMAT_WHITELIST`, to in-memory reading, and to no protocol at all.
"""

from mmmedia.containers.claims import Admitted, admit, recognisable
from mmmedia.containers.mp4_boxes import Buffer, boxes
from mmmedia.containers.pyav import (
    AV_OPTIONS,
    FORMAT_WHITELIST,
    PATIENCE,
    moving_pictures,
    open_av,
    video_stream,
)
from mmmedia.containers.signatures import described, identify
from mmmedia.containers.truncation import missing_bytes

__all__ = [
    "AV_OPTIONS",
    "FORMAT_WHITELIST",
    "PATIENCE",
    "Admitted",
    "Buffer",
    "admit",
    "boxes",
    "described",
    "identify",
    "missing_bytes",
    "moving_pictures",
    "open_av",
    "recognisable",
    "video_stream",
]
