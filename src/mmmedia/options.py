"""What options there are, for type checkers and editors; and a word on those that there are not.

`MediaIOKwargs` is what `MediaConnector(media_io_kwargs=…)` takes, `VideoMetadata` what comes with the frames
of a video. Options that nobody knows are not refused, as loaders of third parties have options of their own.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

logger = logging.getLogger(__name__)


class VideoMetadata(TypedDict):
    """What is known of the frames of a video.

    Attributes:
        total_num_frames: how many frames the video has.
        fps: frames a second of the video.
        duration: seconds of the video.
        video_backend: who sampled them, in the words of engines.
        frames_indices: the number of each frame in the video.
        do_sample_frames: whether these are all frames, of which the model's processor is to take some.
    """

    total_num_frames: int
    fps: float
    duration: float
    video_backend: str
    frames_indices: list[int]
    do_sample_frames: bool


class ImageOptions(TypedDict, total=False):
    """Options of `ImageMediaIO`."""

    image_mode: str | None
    rgba_background_color: Sequence[int]
    exif_transpose: bool
    flatten_alpha: bool
    max_pixels: int | None


class AudioOptions(TypedDict, total=False):
    """Options of `AudioMediaIO`."""

    audio_backend: Literal["auto", "soundfile", "pyav", "torchcodec"]


class VideoOptions(TypedDict, total=False):
    """Options of `VideoMediaIO`: of all its loaders, of their samplers and of their decoders."""

    num_frames: int
    video_backend: str | None
    # What loaders take.
    fps: float | None
    max_duration: float | None
    frame_recovery: bool
    backend: Literal["opencv", "pyav", "torchcodec", "pynvvideocodec", "deepstream"] | None
    decode: Literal["auto", "sequential", "seek"] | None
    start: float | None
    end: float | None
    fetch: Literal["auto", "never", "always"] | None
    # What the samplers of some models take.
    frame_sample_mode: str | None
    max_fps: float | None
    sampling_fps: float
    min_frames: int
    max_frames: int
    temporal_patch_size: int
    fps_max: float
    overflow_strategy: Literal["uniform", "truncate"] | None
    # What decoders take.
    num_ffmpeg_threads: int
    seek_mode: str
    device: str
    hw_decoders: int
    max_width: int | None
    max_height: int | None
    pool_size: int | None
    timeout_sec: float
    # What comes along with frames that were sent as pictures.
    total_num_frames: int
    duration: float
    frames_indices: Sequence[int]
    do_sample_frames: bool


class MediaIOKwargs(TypedDict, total=False):
    """Options by modality."""

    image: ImageOptions
    audio: AudioOptions
    video: VideoOptions


KNOWN: Mapping[str, frozenset[str]] = {
    "image": frozenset(ImageOptions.__annotations__),
    "audio": frozenset(AudioOptions.__annotations__),
    "video": frozenset(VideoOptions.__annotations__),
}
"""Options by modality."""

_warned: set[tuple[str, str]] = set()


def warn_of_slips(options: Mapping[str, Mapping[str, Any] | None]) -> None:
    """Log a warning, once each, of modalities and options that look like others misspelt.

    Args:
        options: by modality, as `media_io_kwargs`.
    """
    for modality, given in options.items():
        known = KNOWN.get(modality)
        if known is None:
            _warn(modality, "", "media_io_kwargs", KNOWN)
            continue
        for name in given or ():
            if name not in known:
                _warn(modality, name, f"media_io_kwargs[{modality!r}]", known)


def _warn(modality: str, name: str, where: str, known: "frozenset[str] | Mapping[str, Any]") -> None:
    near = difflib.get_close_matches(str(name or modality), known, n=1, cutoff=0.75)
    if not near or (modality, name) in _warned:
        return
    _warned.add((modality, name))
    logger.warning("%s has no option %r: did you mean %s?", where, name or modality, near[0])
