"""`load_image`, `load_video`, `load_audio`, and their twins for event loops."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mmmedia._quiet import silence_decoders
from mmmedia.errors import InvalidArgumentError
from mmmedia.image import turned_upright
from mmmedia.loading.choosing import choice_of
from mmmedia.loading.media_ios import AudioIO, Size, VideoIO
from mmmedia.loading.results import Audio, Video, check_frames
from mmmedia.loading.sources import (
    URL,
    Source,
    connector_for,
    located,
    read_path,
    refused,
    timeout_for,
)
from mmmedia.media.base import MediaIO, MediaWithBytes
from mmmedia.media.connector import _call
from mmmedia.media.image import ImageMediaIO
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")


def load_image(
    source: Source, *, image_mode: str | None = "RGB", max_pixels: int | None = None
) -> "Image.Image":
    """Load a picture.

    Args:
        source: a path (also with `~`), a `file:`, `data:`, `http(s):` or `s3:` URL or another that fsspec
            knows, bytes, a file open for reading; a PIL picture, or an array uint8 (height, width, 3).
        image_mode: the mode of the result, as Pillow names it; None: that of the file.
        max_pixels: decode at the largest size of the same aspect whose area is at most this.

    Returns:
        A picture as a person sees it: upright, over white where it is transparent.

    Raises:
        InvalidMediaError: (a `ValueError`) no picture, or a broken one.
        LocalFileNotFoundError: (a `FileNotFoundError`) there is no such file.
        MediaError: the source is refused, as `MediaConnector` refuses URLs.
        requests.RequestException: fetching failed; from the async twin `aiohttp.ClientError`.

    >>> from mmmedia.cli import scene
    >>> load_image(scene.photo(), max_pixels=10_000).size
    (122, 81)
    """
    media_io = _image_io(image_mode, max_pixels)
    with packages_for("A picture"):
        if (made := _as_picture(source, media_io)) is not None:
            return made
        return load_from(source, media_io, "a picture").media


async def aload_image(
    source: Source, *, image_mode: str | None = "RGB", max_pixels: int | None = None
) -> "Image.Image":
    """Load a picture; see `load_image`. The event loop only waits."""
    media_io = _image_io(image_mode, max_pixels)
    with packages_for("A picture"):
        if (made := await _call(_as_picture, source, media_io)) is not None:
            return made
        return (await aload_from(source, media_io, "a picture")).media


def load_video(
    source: Source,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    sampler: Any = None,
    indices: Sequence[int] | None = None,
    timestamps: Sequence[float] | None = None,
    start: float | None = None,
    end: float | None = None,
    size: Size | None = None,
    stream: int | None = None,
    device: Any = None,
) -> Video:
    """Load frames of a video: 32 of them, evenly spaced, unless told otherwise.

    Args:
        source: a path (also with `~`), a `file:`, `data:`, `http(s):` or `s3:` URL or another that fsspec
            knows, bytes, a file open for reading; or frames that are there, uint8 (n, height, width, 3).
        num_frames: how many frames, evenly spaced; -1: all.
        fps: at most so many a second.
        sampler: who chooses them: the name of a loader ("qwen3_vl"), a type of model ("qwen2_5_vl"), a
            model's video processor or its class, a `Sampler`, a loader's class, or a function of what the
            video is that returns numbers.
        indices: these frames, by their numbers; negative ones count from the end.
        timestamps: the frames that are on screen at these times, in seconds from the first frame.
        start: seconds from the first frame at which the part begins that is sampled.
        end: seconds at which that part ends. Indices and times remain those of the whole.
        size: of the frames: (height, width), or the longer side, beyond which they are made smaller.
        stream: which of several streams of pictures, numbered from 0; None: the best, as players choose.
        device: put the frames there, as a tensor: "cuda", "cpu"; None: they are a NumPy array.

    Returns:
        A `Video`: a tuple of the frames, uint8 RGB (n, height, width, 3), and their metadata.

    Raises:
        InvalidMediaError: (a `ValueError`) no video, or not all of these frames can be decoded.
        InvalidArgumentError: (a `ValueError`) a keyword that excludes another or has no such value.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
        LocalFileNotFoundError: (a `FileNotFoundError`) there is no such file.
        MediaError: the source is refused, as `MediaConnector` refuses URLs.
        requests.RequestException: fetching failed; from the async twin `aiohttp.ClientError`.

    >>> from mmmedia.cli import scene
    >>> load_video(scene.clip(), timestamps=[0.5, 7.9], size=160)
    Video(2 of 192 frames, 160x90, 24 fps, 8 s, 86.4 kB)
    """
    choice = choice_of(
        num_frames=num_frames,
        fps=fps,
        sampler=sampler,
        indices=indices,
        timestamps=timestamps,
        start=start,
        end=end,
    )
    return _load_video(source, VideoIO(choice, size, stream, device))


async def aload_video(
    source: Source,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    sampler: Any = None,
    indices: Sequence[int] | None = None,
    timestamps: Sequence[float] | None = None,
    start: float | None = None,
    end: float | None = None,
    size: Size | None = None,
    stream: int | None = None,
    device: Any = None,
) -> Video:
    """Load frames of a video; see `load_video`. The event loop only waits."""
    choice = choice_of(
        num_frames=num_frames,
        fps=fps,
        sampler=sampler,
        indices=indices,
        timestamps=timestamps,
        start=start,
        end=end,
    )
    media_io = VideoIO(choice, size, stream, device)
    if is_remote(source):
        silence_decoders()
        with packages_for("A video"):
            return await aload_from(source, media_io, "a video")
    return await _call(_load_video, source, media_io)


def load_audio(
    source: Source,
    *,
    sampling_rate: float | None = None,
    mono: bool = True,
    start: float | None = None,
    end: float | None = None,
) -> Audio:
    """Load a sound, also that of a video.

    Args:
        source: a path (also with `~`), a `file:`, `data:`, `http(s):` or `s3:` URL or another that fsspec
            knows, bytes, a file open for reading; or a tuple of a waveform and its rate.
        sampling_rate: the rate wanted in Hz, got by soxr in high quality; None: that of the file.
        mono: average the channels; otherwise the waveform is (channels, samples).
        start: seconds at which the part begins that is wanted.
        end: seconds at which it ends.

    Returns:
        An `Audio`: a tuple of the waveform, float32 in [-1, 1], and its rate.

    Raises:
        InvalidMediaError: (a `ValueError`) no sound, or a broken one.
        InvalidArgumentError: (a `ValueError`) a keyword with a value that it can't have.
        LimitExceededError: (a `ValueError`) longer than the settings admit, which a file of the caller's own
            may be.
        LocalFileNotFoundError: (a `FileNotFoundError`) there is no such file.
        MediaError: the source is refused, as `MediaConnector` refuses URLs.
        requests.RequestException: fetching failed; from the async twin `aiohttp.ClientError`.

    >>> from mmmedia.cli import scene
    >>> load_audio(scene.speech(), sampling_rate=8000, end=1.5)
    Audio(1.5 s, 8000 Hz, mono, 48.0 kB)
    """
    return _load_audio(source, _audio_io(sampling_rate, mono, start, end))


async def aload_audio(
    source: Source,
    *,
    sampling_rate: float | None = None,
    mono: bool = True,
    start: float | None = None,
    end: float | None = None,
) -> Audio:
    """Load a sound; see `load_audio`. The event loop only waits."""
    media_io = _audio_io(sampling_rate, mono, start, end)
    if is_remote(source):
        with packages_for("A sound"):
            return await aload_from(source, media_io, "a sound")
    return await _call(_load_audio, source, media_io)


def is_remote(source: Source) -> bool:
    """Say whether a source is to be fetched."""
    return isinstance(source, str) and isinstance(located(source), URL)


def _load_video(source: Source, media_io: VideoIO) -> Video:
    silence_decoders()
    with packages_for("A video"):
        if _is_array(source):
            return media_io.load_frames(check_frames(source))
        return load_from(source, media_io, "a video")


def _load_audio(source: Source, media_io: AudioIO) -> Audio:
    with packages_for("A sound"):
        if isinstance(source, tuple) and len(source) == 2 and _is_array(source[0]):
            return media_io.load_waveform(*source)
        if isinstance(found := located(source), Path):
            read_path(found, peek=True)
            return media_io.trusting().load_file(found)
        return load_from(source, media_io, "a sound")


def load_from(source: Source, media_io: MediaIO[T], kind: str) -> T:
    """Load from wherever it is."""
    found = located(source)
    if isinstance(found, URL):
        return connector_for(found).load_from_url(str(found), media_io, fetch_timeout=timeout_for(media_io))
    if found is None:
        raise refused(source, kind)
    if not isinstance(found, Path):
        return media_io.load_bytes(found)
    if not found.is_file():
        return media_io.load_bytes(read_path(found))  # a pipe; or an error
    read_path(found, peek=True)
    return media_io.load_file(found)


async def aload_from(source: Source, media_io: MediaIO[T], kind: str) -> T:
    """Load from wherever it is; see `load_from`."""
    if not is_remote(source):
        return await _call(load_from, source, media_io, kind)
    connector = connector_for(URL(source))
    return await connector.load_from_url_async(source, media_io, fetch_timeout=timeout_for(media_io))


def _image_io(image_mode: str | None, max_pixels: int | None) -> ImageMediaIO:
    return ImageMediaIO(image_mode, max_pixels=max_pixels)


def _audio_io(sampling_rate: float | None, mono: bool, start: float | None, end: float | None) -> AudioIO:
    part = choice_of(start=start, end=end).part  # judges the two
    if sampling_rate is not None and not sampling_rate > 0:
        raise InvalidArgumentError(f"sampling_rate={sampling_rate!r}: expected a positive number of Hz.")
    return AudioIO(
        sampling_rate, mono, None if start is None else part.start, None if end is None else part.end
    )


def _is_array(source: object) -> bool:
    return hasattr(source, "__array__") and hasattr(source, "shape")


def _as_picture(source: Source, media_io: ImageMediaIO) -> "Image.Image | None":
    """Return what is a picture already as one in the mode wanted; None of what has to be decoded."""
    from PIL import Image

    if isinstance(source, MediaWithBytes):
        source = source.media
    if _is_array(source):
        array = np.asarray(source)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
            raise InvalidArgumentError(
                f"An array of pixels is uint8 (height, width, 3), not {array.dtype} {array.shape}."
            )
        try:
            source = Image.fromarray(array)
        except (TypeError, ValueError) as error:
            raise InvalidArgumentError(
                f"An array of pixels is uint8 (height, width, 3), not {array.dtype} {array.shape}."
            ) from error
    if not isinstance(source, Image.Image):
        return None
    if media_io.max_pixels is not None:
        from mmmedia.image import reduce_to_pixels

        source = reduce_to_pixels(source, media_io.max_pixels)
    return media_io._convert_image_mode(turned_upright(source))
