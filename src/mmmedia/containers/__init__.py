"""Which containers a decoder may be shown: recognised by their first bytes, before FFmpeg sees any.

FFmpeg follows what it reads: a playlist, a concat script or an SDP text makes it open files and sockets
that the bytes name. So every path on which FFmpeg opens a stranger's bytes passes here first: `identify`
judges the first bytes, `admit` also what tables claim that FFmpeg would take memory for, and FFmpeg itself is
held to `FORMAT_WHITELIST`, to in-memory reading, and to no protocol at all.
"""

from mmmedia.containers.claims import Admitted as Admitted, admit as admit
from mmmedia.containers.mp4_boxes import Buffer as Buffer, boxes as boxes
from mmmedia.containers.pyav import (
    AV_OPTIONS as AV_OPTIONS,
    FORMAT_WHITELIST as FORMAT_WHITELIST,
    open_av as open_av,
    video_stream as video_stream,
)
from mmmedia.containers.signatures import identify as identify
from mmmedia.containers.truncation import missing_bytes as missing_bytes
