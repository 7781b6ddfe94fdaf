"""What loading returns: tuples that show themselves, in a notebook and in words."""

import base64
import html
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidArgumentError
from mmmedia.options import VideoMetadata
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    import torch
    from PIL import Image

Frames = npt.NDArray[np.uint8]
Waveform = npt.NDArray[np.float32]

_LONGEST_PLAYER_S = 600
"""Seconds of sound that a notebook takes in; it keeps them in its file."""


class Video(tuple[Frames, VideoMetadata]):
    """Frames of a video, and what is known of them: a tuple of both.

    The last expression of a notebook's cell shows itself as a contact sheet, with each frame's number in the
    video and its time.

    Attributes:
        frames: uint8 RGB (n, height, width, 3).
        metadata: a dict, see `VideoMetadata`.
        timestamps: when each frame is shown, in seconds from the first of the video, also where the rate
            varies; empty where nothing tells it.

    >>> import mmmedia
    >>> from mmmedia.cli import scene
    >>> video = mmmedia.load_video(scene.clip(), num_frames=4)
    >>> video
    Video(4 of 192 frames, 512x288, 24 fps, 8 s, 1.8 MB)
    >>> frames, metadata = video
    >>> frames.shape, metadata["frames_indices"], video.timestamps[1]
    ((4, 288, 512, 3), [0, 63, 127, 191], 2.625)
    """

    timestamps: list[float]

    def __new__(  # noqa: D102
        cls, frames: Frames, metadata: VideoMetadata, timestamps: Sequence[float] | None = None
    ) -> "Video":
        video = super().__new__(cls, (frames, metadata))
        if timestamps is None:
            fps = metadata["fps"]
            timestamps = [number / fps for number in metadata["frames_indices"]] if fps > 0 else []
        video.timestamps = list(timestamps)
        return video

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.frames, self.metadata, self.timestamps)

    @property
    def frames(self) -> Frames:
        """The frames, uint8 RGB (n, height, width, 3)."""
        return self[0]

    @property
    def metadata(self) -> VideoMetadata:
        """What is known of them."""
        return self[1]

    @property
    def width(self) -> int:
        """Pixels of a frame from left to right."""
        return int(self.frames.shape[2])

    @property
    def height(self) -> int:
        """Pixels of a frame from top to bottom."""
        return int(self.frames.shape[1])

    @packages_for("A tensor")
    def to_tensor(self) -> "torch.Tensor":
        """Return the frames as a tensor, uint8 (n, 3, height, width); no copy is made."""
        import torch

        frames: Any = self.frames
        tensor = frames if isinstance(frames, torch.Tensor) else torch.from_numpy(frames)
        return tensor.permute(0, 3, 1, 2)

    def hf_metadata(self) -> dict[str, Any]:
        """Return what transformers' ``VideoMetadata(**…)`` takes."""
        metadata = self.metadata
        return {
            "total_num_frames": metadata["total_num_frames"],
            "fps": metadata["fps"],
            "width": self.width,
            "height": self.height,
            "duration": metadata["duration"],
            "video_backend": metadata["video_backend"],
            "frames_indices": metadata["frames_indices"],
        }

    def sheet(self, *, columns: int | None = None, most: int = 48) -> "Image.Image":
        """Return a contact sheet: the frames in a grid, each with its number and time.

        Args:
            columns: how many stand side by side; None: as many as a page has room for.
            most: of more frames so many are shown, evenly spaced.
        """
        from mmmedia.show.sheet import Row, grid_sheet

        frames: Any = self.frames
        row = Row(
            "Video",
            self._words(),
            np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames),
            self.metadata["frames_indices"],
            self.metadata["total_num_frames"],
            self.metadata["fps"],
            self.timestamps or None,
        )
        return grid_sheet(row, columns=columns, most=most)

    def show(self) -> None:
        """Show the contact sheet: below a notebook's cell, else in the system's picture viewer."""
        _show(self, self.sheet)

    def __repr__(self) -> str:
        return f"Video({self._words()})"

    def _words(self) -> str:
        total, metadata = self.metadata["total_num_frames"], self.metadata
        facts = [
            f"{len(self.frames)} of {total} frames",
            f"{self.width}x{self.height}",
            f"{metadata['fps']:.6g} fps" if metadata["fps"] > 0 else "",
            f"{metadata['duration']:.6g} s" if metadata["duration"] > 0 else "",
            _amount(int(self.frames.nbytes)),
        ]
        return ", ".join(filter(None, facts))

    def _repr_html_(self) -> str:
        return _figure(_jpeg_element(self.sheet()), repr(self))

    def _repr_png_(self) -> bytes:
        return _encoded(self.sheet(), "PNG")


class Audio(tuple[Waveform, float]):
    """A sound: a tuple of its waveform and its sampling rate.

    The last expression of a notebook's cell shows itself as a waveform with a player below.

    Attributes:
        waveform: float32 (samples,), or (channels, samples); full scale is [-1, 1].
        sampling_rate: samples a second.

    >>> import mmmedia
    >>> from mmmedia.cli import scene
    >>> mmmedia.load_audio(scene.speech())
    Audio(3 s, 16000 Hz, mono, 192.0 kB)
    """

    def __new__(cls, waveform: Waveform, sampling_rate: float) -> "Audio":  # noqa: D102
        return super().__new__(cls, (waveform, sampling_rate))

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    @property
    def waveform(self) -> Waveform:
        """The samples, float32 (samples,), or (channels, samples)."""
        return self[0]

    @property
    def sampling_rate(self) -> float:
        """Samples a second."""
        return self[1]

    @property
    def duration(self) -> float:
        """Seconds from the first sample to the end of the last."""
        return float(self.waveform.shape[-1] / self.sampling_rate)

    @property
    def channels(self) -> int:
        """How many channels there are."""
        return 1 if self.waveform.ndim == 1 else int(self.waveform.shape[0])

    @packages_for("A tensor")
    def to_tensor(self) -> "torch.Tensor":
        """Return the waveform as a tensor of its shape; no copy is made."""
        import torch

        return torch.from_numpy(self.waveform)

    def sheet(self) -> "Image.Image":
        """Return a picture of the waveform."""
        from mmmedia.show.wave import waveform_picture

        return waveform_picture(self.waveform, self.sampling_rate, size=(720, 60 + 60 * self.channels))

    def show(self) -> None:
        """Show waveform and player below a notebook's cell, else the waveform in the system's viewer."""
        _show(self, self.sheet)

    def __repr__(self) -> str:
        names = {1: "mono", 2: "stereo"}
        channels = names.get(self.channels, f"{self.channels} channels")
        size = _amount(self.waveform.nbytes)
        return f"Audio({self.duration:.6g} s, {self.sampling_rate:g} Hz, {channels}, {size})"

    def _repr_html_(self) -> str:
        picture = _jpeg_element(self.sheet())
        if self.duration > _LONGEST_PLAYER_S:
            note = f"{self!r}: no player for more than {_LONGEST_PLAYER_S} s"
            return _figure(picture, note)
        sound = base64.b64encode(_wav(self.waveform, self.sampling_rate)).decode()
        style = "width: 720px; max-width: 100%"
        source = f"data:audio/wav;base64,{sound}"
        player = f'<audio controls preload="metadata" style="{style}" src="{source}"></audio>'
        return _figure(f"{picture}<br>{player}", repr(self))

    def _repr_png_(self) -> bytes:
        return _encoded(self.sheet(), "PNG")


def _figure(inner: str, caption: str) -> str:
    return (
        f'<figure style="margin: 0">{inner}'
        f'<figcaption style="font-family: monospace">{html.escape(caption)}</figcaption></figure>'
    )


def _jpeg_element(picture: "Image.Image") -> str:
    data = base64.b64encode(_encoded(picture, "JPEG", quality=85)).decode()
    return f'<img style="max-width: 100%" width="{picture.width}" alt="" src="data:image/jpeg;base64,{data}">'


def _encoded(picture: "Image.Image", format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def _wav(waveform: Waveform, sampling_rate: float) -> bytes:
    """Return a WAV of 16 bits, which every browser plays."""
    import wave

    samples = np.atleast_2d(waveform).T.clip(-1, 1) * np.float32(32767)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(samples.shape[1])
        out.setsampwidth(2)
        out.setframerate(max(1, round(sampling_rate)))
        out.writeframes(np.nan_to_num(samples).astype("<i2").tobytes())
    return file.getvalue()


def _show(result: object, picture: Any) -> None:
    """Show a result where it can be seen."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        shell = None
    else:
        shell = cast("Any", get_ipython)()
    if shell is not None and type(shell).__name__ != "TerminalInteractiveShell":
        from IPython.display import display

        cast("Any", display)(result)
    else:
        picture().show()


def _amount(size: int) -> str:
    """Return a number of bytes as people read it.

    >>> _amount(82), _amount(281_127), _amount(88_473_600)
    ('82 bytes', '281.1 kB', '88 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            number = size / factor
            return f"{number:.0f} {unit}" if number >= 10 and unit != "kB" else f"{number:.1f} {unit}"
    return f"{size} bytes"


def check_frames(frames: Any) -> Frames:
    """Return frames that a caller has as an array: uint8 RGB (n, height, width, 3).

    Raises:
        InvalidArgumentError: (a `ValueError`) another shape or type of numbers.
    """
    array = np.asarray(frames)
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8 or not math.prod(array.shape):
        raise InvalidArgumentError(
            f"An array of frames is uint8 (frames, height, width, 3), not {array.dtype} {array.shape}."
        )
    return array
