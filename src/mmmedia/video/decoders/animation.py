"""Animated PNG and WebP as videos, read by Pillow: FFmpeg is not shown pictures."""

import io
import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidMediaError
from mmmedia.image import flatten_alpha
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.samplers import VideoSourceMetadata

Frames = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"
# Players show a frame of no length for a tenth of a second.
_SHORTEST = 0.1


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

    def read_frames(self, wanted: Sequence[int]) -> tuple[Frames, list[int]]:
        """Return the wanted frames, uint8 RGB over white (n, height, width, 3), and the number of each.

        Raises:
            InvalidMediaError: (a `ValueError`) the picture is damaged before the first of them.
            LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
        """
        from PIL import Image

        targets = sorted({number for number in wanted if 0 <= number < len(self.durations)})
        check_size(self.height, self.width, len(targets))
        frames = np.empty((len(targets), self.height, self.width, 3), np.uint8)
        valid: list[int] = []
        deadline = Deadline()
        try:
            with Image.open(io.BytesIO(self.data), formats=("PNG", "WEBP")) as image:
                for number in range(targets[-1] + 1 if targets else 0):
                    deadline.check()
                    image.seek(number)
                    image.load()
                    if number == targets[len(valid)]:
                        frames[len(valid)] = np.asarray(flatten_alpha(image).convert("RGB"))
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
    """Return what an animated PNG or WebP is; None for everything else, a picture that stands still included.

    Nothing is decoded for it.
    """
    try:
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
    animated = False
    width, height = struct.unpack_from(">II", data, 16)
    for name, start, size in _png_chunks(data):
        if name == b"acTL":
            animated = True
        elif name == b"IDAT" and not animated:
            return None
        elif name == b"fcTL" and size >= 26:
            numerator, denominator = struct.unpack_from(">HH", data, start + 20)
            durations.append(numerator / (denominator or 100) or _SHORTEST)
    return Animation(data, height, width, durations) if durations else None


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
