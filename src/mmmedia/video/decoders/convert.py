"""Decoded frames to RGB rows, byte for byte as the reference does it."""

import io
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders import opencv
from mmmedia.video.decoders.colours import UNSPECIFIED, is_converted, is_mapped
from mmmedia.video.decoders.fit import store
from mmmedia.video.decoders.packets.index import SITING, PacketIndex
from mmmedia.video.decoders.upright import Upright

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels = npt.NDArray[np.uint8]
_STEP = Fraction(1, 25)
# Codecs whose decoders say where samples of chroma lie, if the stream does not; of the latter two it can't.
_LEFT = frozenset(["h264", "hevc"])
_ALWAYS_LEFT = frozenset(["mpeg2video", "mpeg4"])
# Formats that FFV1 does not take, and where the same samples go.
_SAME_SAMPLES = {
    "yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p", "yuvj440p": "yuv440p",
    "gbrp": "bgr0", "rgb24": "bgr0", "gbrap": "bgra", "rgba": "bgra",
}  # fmt: skip


class Converter:
    """Turns PyAV frames into rows of the frames array.

    OpenCV lets libswscale convert to BGR with bicubic chroma, whatever the format; straight to RGB, or with
    another filter, odd sizes and more than 8 bits come out otherwise. Wide gamuts PyAV does not map as OpenCV
    does: such frames go through OpenCV, as a film without loss, once all are there. One converter serves one
    thread.

    Args:
        packets: those that the frames come from.
    """

    def __init__(self, packets: PacketIndex | None = None) -> None:
        self._siting = None if packets is None else _siting(packets)
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter = VideoReformatter()
        self._bicubic = Interpolation.BICUBIC
        self._film: _Film | None = None

    def __call__(self, frame: "VideoFrame", row: Pixels, turn: Upright) -> None:
        """Fill `row`, uint8 RGB of shape (height, width, 3), in the size that it has.

        It is filled by the end of `finish`.
        """
        if not is_converted(int(frame.color_primaries), int(frame.color_trc), int(frame.colorspace)):
            frame.colorspace = frame.color_primaries = frame.color_trc = UNSPECIFIED
        if is_mapped(int(frame.color_primaries), int(frame.color_trc)):
            self._film = self._film or _Film(frame, self._siting)
            self._film.add(frame, row, turn)
            return
        bgr = self._reformatter.reformat(frame, format="bgr24", interpolation=self._bicubic, threads=1)
        plane = bgr.planes[0]
        shape, strides = (bgr.height, bgr.width, 3), (plane.line_size, 3, 1)
        pixels: Pixels = np.ndarray(shape, np.uint8, buffer=memoryview(plane), strides=strides)
        store(pixels, row, turn)

    def finish(self) -> None:
        """Fill the rows that have not been filled yet.

        Raises:
            InvalidMediaError: (a `ValueError`) OpenCV can't convert them.
        """
        if self._film is not None:
            self._film.develop()


def _siting(packets: PacketIndex) -> str | None:
    if packets.codec in _ALWAYS_LEFT:
        return "left"
    return packets.siting or ("left" if packets.codec in _LEFT else None)


class _Film:
    """Frames on their way through OpenCV."""

    def __init__(self, frame: "VideoFrame", siting: str | None) -> None:
        import av

        self._buffer = io.BytesIO()
        self._out = av.open(self._buffer, "w", format="matroska")
        name = frame.format.name
        stream: Any = self._out.add_stream("ffv1", rate=25)
        self._format = _SAME_SAMPLES.get(name) or re.sub("be$", "le", name)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, self._format
        if siting:
            stream.options = {SITING: siting}
        context = stream.codec_context
        context.time_base = _STEP
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        self._stream = stream
        self._rows: list[tuple[Pixels, Upright]] = []

    def add(self, frame: "VideoFrame", row: Pixels, turn: Upright) -> None:
        from av.error import FFmpegError
        from av.video.reformatter import ColorRange

        if frame.format.name != self._format:
            full = ColorRange.JPEG
            frame = frame.reformat(format=self._format, src_color_range=full, dst_color_range=full)
        frame.pts, frame.time_base = len(self._rows), _STEP
        try:
            self._out.mux(self._stream.encode(frame))
        except FFmpegError as error:
            raise InvalidMediaError(f"The video's colours can't be converted: {error}.") from error
        self._rows.append((row, turn))

    def develop(self) -> None:
        self._out.mux(self._stream.encode(None))
        self._out.close()
        capture = opencv.open_capture(containers.Admitted(self._buffer.getvalue(), "clip"), threads=1)
        for row, turn in self._rows:
            ok, picture = capture.read()
            if not ok:
                raise InvalidMediaError("The video's colours can't be converted.")
            store(np.asarray(picture, np.uint8), row, turn)
        self._rows.clear()
