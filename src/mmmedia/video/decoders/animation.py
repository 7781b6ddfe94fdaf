"""Animated PNG and WebP, and a JPEG by itself, as videos, read by Pillow: FFmpeg does not take them."""

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidMediaError
from mmmedia.image import flatten_alpha
from mmmedia.video.decoders.fit import Size, fit, fitted_size
from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.samplers import VideoSourceMetadata

Frames = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Players show a frame of no length for a tenth of a second.
_SHORTEST = 0.1
# FFmpeg's rate for JPEGs one behind the other.
_ONE_OF_MANY = 1 / 25


@dataclass(frozen=True)
class Animation:
    """An animated picture: its file, size in pixels, and how long each frame is shown, in seconds."""

    data: bytes
    height: int
    width: int
    durations: Sequence[float]

    @property
    def metadata(self) -> VideoSourceMetadata:
        """Frames, frames a second on the average, and seconds."""
        seconds = sum(self.durations)
        return VideoSourceMetadata(len(self.durations), len(self.durations) / seconds, seconds)

    @property
    def times(self) -> Sequence[float]:
        """When each frame is shown, in seconds from the first."""
        return [0.0, *itertools.accumulate(self.durations[:-1])]

    def read_frames(self, wanted: Sequence[int], size: Size | None = None) -> tuple[Frames, list[int]]:
        """Return the wanted frames, uint8 RGB over white (n, height, width, 3), and the number of each.

        Args:
            wanted: their numbers.
            size: of the frames, as of `fit.size_for`.

        Raises:
            InvalidMediaError: (a `ValueError`) the picture is damaged before the first of them.
            LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
        """
        from PIL import Image

        targets = sorted({number for number in wanted if 0 <= number < len(self.durations)})
        fitted = fitted_size((self.height, self.width), size, len(targets))
        frames = np.empty((len(targets), *fitted, 3), np.uint8)
        valid: list[int] = []
        deadline = Deadline()
        try:
            with Image.open(io.BytesIO(self.data), formats=("PNG", "WEBP", "JPEG")) as image:
                for number in range(targets[-1] + 1 if targets else 0):
                    deadline.check()
                    image.seek(number)
                    image.load()
                    if number == targets[len(valid)]:
                        frames[len(valid)] = fit(np.asarray(flatten_alpha(image).convert("RGB")), fitted)
                        valid.append(number)
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            struct.error,
            Image.DecompressionBombError,
        ) as error:
            if not valid:
                raise InvalidMediaError("The animation is damaged: no frame can be read.") from error
        return frames[: len(valid)], valid


def animation(data: bytes) -> Animation | None:
    """Return what an animated PNG or WebP is, or a single JPEG; None for everything else.

    Nothing is decoded for it. Any other picture that stands still is no video; a JPEG is a stream of one,
    which FFmpeg does not recognise.
    """
    try:
        if data.startswith(_JPEG):
            return _jpeg(data)
        if data.startswith(_PNG):
            return _png(data)
        if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
            return _webp(data)
    except (struct.error, IndexError):
        pass
    return None


def _png(data: bytes) -> Animation | None:
    """By the frame control chunks (PNG, third edition, 11.3.5)."""
    durations = []
    animated, name = False, b""
    width, height = struct.unpack_from(">II", data, 16)
    for name, start, size in _png_chunks(data):
        if name == b"acTL":
            animated = True
        elif name == b"IDAT" and not animated:
            return None
        elif name == b"fcTL" and size >= 26:
            numerator, denominator = struct.unpack_from(">HH", data, start + 20)
            durations.append(numerator / (denominator or 100) or _SHORTEST)
    if durations and name == b"fcTL":  # cut short: nothing of that frame is there
        durations.pop()
    return Animation(data, height, width, durations) if durations else None


def _jpeg(data: bytes) -> Animation | None:
    """By the segments of a JPEG behind which nothing stands (ITU-T T.81, B.1)."""
    at, height, width = 2, 0, 0
    while data[at] == 0xFF and data[at + 1] != 0xDA:
        kind, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
        at += 2 + length
    end = data.find(b"\xff\xd9", at)
    if not height or end < 0 or data[end + 2 :].strip(b"\0"):
        return None
    return Animation(data, height, width, [_ONE_OF_MANY])


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = len(_PNG)
    while at + 8 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return
        yield data[at + 4 : at + 8], at + 8, size
        at += 12 + size


def _webp(data: bytes) -> Animation | None:
    """By the chunks of frames (WebP container specification)."""
    if not data[20] & 2:
        return None
    width, height = 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    durations = []
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + size > len(data):
            break
        if data[at : at + 4] == b"ANMF" and size >= 16:
            durations.append(int.from_bytes(data[at + 20 : at + 23], "little") / 1000 or _SHORTEST)
        at += 8 + size + size % 2
    if at < len(data):  # cut short, which Pillow refuses: of what is there, a file
        data = data[:4] + (at - 8).to_bytes(4, "little") + data[8:at]
    return Animation(data, height, width, durations) if durations else None
