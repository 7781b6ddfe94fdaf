"""Media as URLs, and URLs as media, in one call: the names of `vllm.multimodal.utils`."""

import mimetypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from mmmedia.media import AudioMediaIO, ImageMediaIO, MediaConnector, MediaWithBytes, VideoMediaIO

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

    from mmmedia.media.video import VideoWithBytes
    from mmmedia.options import MediaIOKwargs


def encode_audio_base64(
    audio: "npt.NDArray[np.floating[Any]]",
    sampling_rate: float,
    *,
    format: str = "WAV",  # noqa: A002
) -> str:
    """Encode a waveform, ``(samples,)`` or ``(samples, channels)``, as a file in base64.

    Args:
        audio: full scale is [-1, 1].
        sampling_rate: in Hz.
        format: a format that libsndfile writes.

    Raises:
        InvalidArgumentError: (a `ValueError`) it can't be written so.
    """
    return AudioMediaIO().encode_base64((audio, sampling_rate), audio_format=format)


def encode_audio_url(
    audio: "npt.NDArray[np.floating[Any]]",
    sampling_rate: float,
    *,
    format: str = "WAV",  # noqa: A002
) -> str:
    """Encode a waveform as a data URL; otherwise as `encode_audio_base64`.

    >>> import numpy as np
    >>> encode_audio_url(np.zeros(1), 16_000, format="FLAC")[:28]
    'data:audio/flac;base64,ZkxhQ'
    """
    return _data_url("audio", format, encode_audio_base64(audio, sampling_rate, format=format))


def encode_image_base64(
    image: "Image.Image | MediaWithBytes[Image.Image]",
    *,
    image_mode: str | None = "RGB",
    format: str = "PNG",  # noqa: A002
) -> str:
    """Encode a picture as a file in base64.

    Args:
        image: any picture.
        image_mode: the mode to convert it to, `None` to keep its own.
        format: a format that Pillow writes.

    Raises:
        UnsupportedMediaError: (a `NotImplementedError`) Pillow writes no such format.
        InvalidArgumentError: (a `ValueError`) the format can't hold such a picture.
    """
    return ImageMediaIO(image_mode=image_mode).encode_base64(image, image_format=format)


def encode_image_url(
    image: "Image.Image | MediaWithBytes[Image.Image]",
    *,
    image_mode: str | None = "RGB",
    format: str = "PNG",  # noqa: A002
) -> str:
    """Encode a picture as a data URL; otherwise as `encode_image_base64`.

    >>> from PIL import Image
    >>> encode_image_url(Image.new("RGB", (1, 1)), format="JPEG")[:28]
    'data:image/jpeg;base64,/9j/4'
    """
    return _data_url("image", format, encode_image_base64(image, image_mode=image_mode, format=format))


def encode_video_base64(frames: "npt.NDArray[np.uint8]", *, format: str = "JPEG") -> str:  # noqa: A002
    """Encode frames, uint8 RGB (n, height, width, 3), as comma-separated base64 JPEGs.

    Raises:
        UnsupportedMediaError: (a `NotImplementedError`) another format than "JPEG".
    """
    return VideoMediaIO(ImageMediaIO()).encode_base64(frames, video_format=format)


def encode_video_url(frames: "npt.NDArray[np.uint8]", *, format: str = "JPEG") -> str:  # noqa: A002
    """Encode frames as a `data:video/jpeg` URL; otherwise as `encode_video_base64`."""
    text = encode_video_base64(frames, format=format)
    if format.upper() == "JPEG":  # what pictures are called by that name
        return f"data:video/jpeg;base64,{text}"
    return _data_url("video", format, text)


def fetch_audio(
    audio_url: str, audio_io_kwargs: Mapping[str, Any] | None = None
) -> "tuple[npt.NDArray[np.float32], float]":
    """Load a sound from a URL; results and errors are those of `MediaConnector.fetch_audio`.

    Args:
        audio_url: a `data:`, `http:` or `https:` URL.
        audio_io_kwargs: keywords for the media IO.
    """
    return MediaConnector(media_io_kwargs=_of("audio", audio_io_kwargs)).fetch_audio(audio_url)


def fetch_image(
    image_url: str, image_io_kwargs: Mapping[str, Any] | None = None
) -> "MediaWithBytes[Image.Image]":
    """Load a picture from a URL; otherwise as `fetch_audio`."""
    return MediaConnector(media_io_kwargs=_of("image", image_io_kwargs)).fetch_image(image_url)


def fetch_video(video_url: str, video_io_kwargs: Mapping[str, Any] | None = None) -> "VideoWithBytes":
    """Load a video from a URL; otherwise as `fetch_audio`."""
    return MediaConnector(media_io_kwargs=_of("video", video_io_kwargs)).fetch_video(video_url)


def _of(modality: str, kwargs: Mapping[str, Any] | None) -> "MediaIOKwargs | None":
    return None if kwargs is None else cast("MediaIOKwargs", {modality: kwargs})


def _data_url(kind: str, name: str, text: str) -> str:
    """Return a data URL of a format's media type; one that Python does not know is called by its name."""
    media_type = mimetypes.types_map.get(f".{name.lower()}", "")
    if not media_type.startswith(f"{kind}/"):
        media_type = f"{kind}/{name.lower()}"
    return f"data:{media_type};base64,{text}"
