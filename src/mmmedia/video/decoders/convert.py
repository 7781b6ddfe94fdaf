"""Decoded frames to RGB rows, byte for byte as the reference does it."""

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders import opencv
from mmmedia.video.decoders.upright import Upright

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels = npt.NDArray[np.uint8]

# Primaries and transfers by FFmpeg's numbers that OpenCV's libswscale leaves as they are: BT.709, none told,
# BT.470 BG, BT.601 and SMPTE 240.
_PLAIN_PRIMARIES = frozenset([0, 1, 2])
_PLAIN_TRANSFERS = frozenset([0, 1, 2])
_STEP = Fraction(1, 25)


class Converter:
    """Turns PyAV frames into rows of the frames array.

    OpenCV lets libswscale convert to BGR with bicubic chroma, whatever the format; straight to RGB, or with
    another filter, odd sizes and more than 8 bits come out otherwise. Other primaries and transfers than the
    usual PyAV does not map as OpenCV does: such a frame goes through OpenCV. One converter serves one thread.
    """

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._bicubic = Interpolation.BICUBIC

    def __call__(self, frame: "VideoFrame", row: Pixels, turn: Upright) -> None:
        """Fill `row`, uint8 RGB of shape (height, width, 3), which must be the frame's size upright."""
        import cv2

        pixels = None if _is_plain(frame) else _by_opencv(frame)
        if pixels is None:
            bgr = self._reformatter.reformat(frame, format="bgr24", interpolation=self._bicubic, threads=1)
            plane = bgr.planes[0]
            shape, strides = (bgr.height, bgr.width, 3), (plane.line_size, 3, 1)
            pixels = np.ndarray(shape, np.uint8, buffer=memoryview(plane), strides=strides)
        if turn == Upright():
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=row)
        else:
            row[...] = turn(pixels)[..., ::-1]


def _is_plain(frame: "VideoFrame") -> bool:
    return int(frame.color_primaries) in _PLAIN_PRIMARIES and int(frame.color_trc) in _PLAIN_TRANSFERS


def _by_opencv(frame: "VideoFrame") -> Pixels | None:
    """Let OpenCV convert a frame, as a film of one picture without loss; None where it can't be made one."""
    import av

    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as out:
            stream: Any = out.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
            context = stream.codec_context
            context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
            context.colorspace, context.color_range = frame.colorspace, frame.color_range
            context.time_base = _STEP
            frame.pts, frame.time_base = 0, _STEP
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    except (av.FFmpegError, ValueError, TypeError):
        return None
    capture = opencv.open_capture(buffer.getvalue(), threads=1)
    found: tuple[bool, Any] = capture.read()
    return found[1] if found[0] else None
