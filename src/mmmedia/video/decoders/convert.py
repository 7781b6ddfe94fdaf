"""Decoded frames to RGB rows, byte for byte as the reference does it."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders.upright import Upright

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Converter:
    """Turns PyAV frames into rows of the frames array.

    OpenCV lets libswscale convert to BGR with bicubic chroma, whatever the format; straight to RGB, or with
    another filter, odd sizes and more than 8 bits come out otherwise. One converter serves one thread.
    """

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._bicubic = Interpolation.BICUBIC

    def __call__(self, frame: "VideoFrame", row: npt.NDArray[np.uint8], turn: Upright) -> None:
        """Fill `row`, uint8 RGB of shape (height, width, 3), which must be the frame's size upright."""
        import cv2

        bgr = self._reformatter.reformat(frame, format="bgr24", interpolation=self._bicubic, threads=1)
        plane = bgr.planes[0]
        shape, strides = (bgr.height, bgr.width, 3), (plane.line_size, 3, 1)
        pixels: npt.NDArray[np.uint8] = np.ndarray(shape, np.uint8, buffer=memoryview(plane), strides=strides)
        if turn == Upright():
            cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=row)
        else:
            row[...] = turn(pixels)[..., ::-1]
