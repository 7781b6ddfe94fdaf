"""`VideoMediaIO`, which loads videos to arrays of frames and metadata, and `VideoEmbeddingMediaIO`.

A video comes together with its bytes, as a `MediaWithBytes` that unpacks to frames and metadata; with
``MMMEDIA_COMPAT=0.20`` it is the bare tuple.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    NotSparseError,
    UnsupportedMediaError,
)
from mmmedia.media.base import Chargeable, MediaWithBytes, SourceMediaIO, decode_base64
from mmmedia.media.embedding import EmbeddingMediaIO
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.isolation import apart
from mmmedia.sources import Source
from mmmedia.video.codecs.options import STARTUP_OPTIONS, incompatible_backend_options
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.loaders import VIDEO_LOADER_REGISTRY, takes_sources
from mmmedia.video.piecewise.reading import fetch_mode, refusal

Frames = npt.NDArray[Any]
Video = tuple[Frames, dict[str, Any]]

if TYPE_CHECKING:
    from mmmedia.options import VideoMetadata

    class VideoWithBytes(MediaWithBytes[tuple[Frames, VideoMetadata]], tuple[Frames, VideoMetadata]):
        """What `MediaConnector.fetch_video` returns: a `MediaWithBytes`, which unpacks as its tuple does.

        Only checkers of types know this class: nothing else tells them what each part of it is.
        """


class VideoEmbeddingMediaIO(EmbeddingMediaIO):
    """Loads a video embedding: a `torch.Tensor`, dense, on the CPU."""

    modality = "video_embedding"


class VideoMediaIO(SourceMediaIO[MediaWithBytes[Video]]):
    """Loads a video to frames, uint8 RGB (n, height, width, 3), and a plain dict of metadata, with its bytes.

    Args:
        image_io: decodes the frames of a sequence of JPEGs.
        num_frames: how many frames to sample.
        video_backend: registry name of the loader; None: the setting `VLLM_VIDEO_LOADER_BACKEND`.
        **kwargs: handed to the loader's `load_bytes`.

    >>> from mmmedia.media import ImageMediaIO
    >>> io = VideoMediaIO(ImageMediaIO())
    >>> text = io.encode_base64(np.zeros((2, 4, 6, 3), np.uint8))
    >>> frames, metadata = io.load_base64("video/jpeg", text)
    >>> frames.shape, metadata["frames_indices"]
    ((2, 4, 6, 3), [0, 1])
    """

    modality = "video"

    @classmethod
    def merge_kwargs(
        cls, default_kwargs: Mapping[str, Any] | None, runtime_kwargs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Merge as `MediaIO` does, less what a request may not decide, and what it makes pointless.

        A request chooses neither pools nor devices (`STARTUP_OPTIONS`), nor a loader or decoder on a GPU that
        is not the engine's own. Of `fps` and `num_frames` one that it gives drops the other; another decoder
        drops the engine's options of the one before.

        >>> VideoMediaIO.merge_kwargs({"num_frames": 32, "fps": 2}, {"num_frames": 8, "device": "cuda"})
        {'num_frames': 8}
        """
        defaults = dict(default_kwargs or {})
        given = {name: value for name, value in (runtime_kwargs or {}).items() if name not in STARTUP_OPTIONS}
        for key in ("video_backend", "backend"):
            name = given.get(key)
            if name != defaults.get(key) and VIDEO_LOADER_REGISTRY.backend_requires_gpu(str(name)):
                del given[key]
        backend = given.get("backend")
        if backend is not None and backend != defaults.get("backend"):
            for option in incompatible_backend_options(defaults.get("backend"), str(backend)):
                defaults.pop(option, None)
        merged = super().merge_kwargs(defaults, given)
        if "fps" in given and "num_frames" not in given:
            merged.pop("num_frames", None)
        elif "num_frames" in given and "fps" not in given:
            merged.pop("fps", None)
        return merged

    def __init__(self, image_io: ImageMediaIO, num_frames: int = 32, **kwargs: Any) -> None:
        self.image_io = image_io
        self.num_frames = num_frames
        video_backend = kwargs.pop("video_backend", None)
        self.kwargs = kwargs
        self.video_loader = VIDEO_LOADER_REGISTRY.load(video_backend or envs.VLLM_VIDEO_LOADER_BACKEND)

    @property
    def decoded_budget(self) -> Chargeable | None:
        """What decoded bytes are charged to: that of `image_io`."""
        return self.image_io.decoded_budget

    def load_bytes(self, data: bytes) -> MediaWithBytes[Video]:
        """Load a video file; results and errors are those of the loader, and of the budget."""
        return _with(self._load(data), data)

    def _load(self, data: bytes | Source) -> Video:
        video = self._decode(data)
        frames: Any = video[0] if isinstance(video, tuple) else video
        if self.decoded_budget is not None and getattr(frames, "ndim", 0) >= 3:
            self.decoded_budget.charge(frames.nbytes)
        return video

    def fetch_mode(self) -> str:
        """Return "auto", "never" or "always"; "never" where there is no doing without all bytes."""
        mode = fetch_mode(self.kwargs.get("fetch"))
        return mode if self._refusal(mode) is None or mode == "always" else "never"

    def _refusal(self, mode: str) -> str | None:
        """Return why all bytes are needed; `None` if they are not."""
        if not takes_sources(type(self.video_loader)):
            return "the loader takes no sources"
        return refusal(mode, self.kwargs.get("backend"), self.kwargs.get("decode"))

    def load_source(self, source: Source) -> MediaWithBytes[Video]:
        """Load through a source, of which only what the sampled frames need is read where that pays.

        The `original_bytes` are the `identity` of the source, unless all of it was read.

        Raises:
            NotSparseError: (a `ValueError`) `fetch` is "always", and pieces won't do.
            MediaError: as of `load_bytes`, and of `Source.read`.
        """
        mode = self.fetch_mode()
        reason = self._refusal(mode)
        if reason is not None and mode == "always":
            raise NotSparseError.of(source.name, reason)
        video = self._load(source if reason is None else source.read_all())
        return _with(video, source.identity if source.whole is None else source.whole)

    @apart("video")
    def _decode(self, data: bytes | Source) -> Video:
        loader: Any = self.video_loader  # of which only our own take sources
        video: Video = loader.load_bytes(data, num_frames=self.num_frames, **self.kwargs)
        return video

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes[Video]:
        """Load comma-separated base64 JPEGs for the media type "video/jpeg", else a video file in base64.

        Raises:
            InvalidMediaError: (a `ValueError`) bad base64, a bad frame, or frames of different sizes.
            InvalidArgumentError: (a `ValueError`) `num_frames` is 0, or metadata that do not fit the frames.
        """
        if media_type.strip().lower() == "video/jpeg":
            return _with(self._load_jpeg_sequence(data), data)
        return self.load_bytes(decode_base64(data))

    def encode_base64(self, media: Frames, *, video_format: str = "JPEG") -> str:
        """Return frames, uint8 RGB (n, height, width, 3), as comma-separated base64 JPEGs.

        Raises:
            UnsupportedMediaError: (a `NotImplementedError`) another format.
        """
        if video_format.upper() != "JPEG":
            raise UnsupportedMediaError(f"Videos are encoded as JPEG, not {video_format!r}.")
        from PIL import Image

        encode = self.image_io.encode_base64
        return ",".join(encode(Image.fromarray(frame), image_format="JPEG") for frame in media)

    @apart("video")
    def _load_jpeg_sequence(self, data: str) -> Video:
        if self.num_frames == 0:
            raise InvalidArgumentError("num_frames must be greater than 0 or -1")
        count = data.count(",") + 1
        if self.num_frames > 0:
            count = min(count, self.num_frames)
        frames: list[Frames] = []
        for number, part in enumerate(_parts(data, count)):
            frame = np.asarray(self.image_io.load_base64("image/jpeg", part))
            if number == 0:
                check_size(frame.shape[0], frame.shape[1], count)
            elif frame.shape != frames[0].shape:
                raise InvalidMediaError(
                    f"Frame {number} of the JPEG sequence has the shape {frame.shape}, "
                    f"the frames before it {frames[0].shape}."
                )
            frames.append(frame)
        return np.stack(frames), self._sequence_metadata(len(frames))

    def _sequence_metadata(self, count: int) -> dict[str, Any]:
        fps = _number("fps", self.kwargs.get("fps"), 1.0)
        indices = _indices(self.kwargs.get("frames_indices"), count)
        least = max(count, indices[-1] + 1)
        total = self.kwargs.get("total_num_frames")
        if total is None:
            total = least
        elif isinstance(total, bool) or not isinstance(total, int) or total < least:
            raise InvalidArgumentError(
                f"total_num_frames={total!r}: expected an integer, at least {least}, as {count} frames were "
                f"sent, the last with the index {indices[-1]}."
            )
        # 0.20 counted the frames that were sent, not those of the video that they were taken from.
        seconds = (count if envs.MMMEDIA_COMPAT == "0.20" else total) / fps if fps > 0 else 0.0
        duration = _number("duration", self.kwargs.get("duration"), seconds)
        if duration < 0:
            raise InvalidArgumentError(f"duration={duration!r}: expected seconds, not negative.")
        return {
            "total_num_frames": total,
            "fps": fps,
            "duration": duration,
            "video_backend": "jpeg_sequence",
            "frames_indices": indices,
            "do_sample_frames": bool(self.kwargs.get("do_sample_frames")),
        }


def _with(video: Video, source: bytes | str) -> MediaWithBytes[Video]:
    """Return a video with what it was decoded from; by itself where 0.20's results are wanted."""
    if envs.MMMEDIA_COMPAT == "0.20":
        return cast("MediaWithBytes[Video]", video)
    return MediaWithBytes(video, source.encode() if isinstance(source, str) else source)


def _parts(data: str, count: int) -> Iterator[str]:
    """The first `count` parts between commas, cut out one by one: a text may hold commas by the million."""
    start = 0
    for _ in range(count):
        end = data.find(",", start)
        yield data[start:] if end < 0 else data[start:end]
        start = end + 1


def _number(name: str, value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidArgumentError(f"{name}={value!r}: expected a finite number.")
    return value


def _indices(value: object, count: int) -> list[int]:
    """Return the source indices of the frames sent: as many, not negative, none before the last one's.

    Without any they are 0 to count - 1. Who pads to an even number sends the last frame again.
    """
    if value is None:
        return list(range(count))
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        raise InvalidArgumentError(f"frames_indices={value!r}: expected a list of integers.")
    indices = list(value)
    whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in indices)
    if not whole or len(indices) != count:
        raise InvalidArgumentError(
            f"frames_indices holds {len(indices)} values: expected an integer for each of {count} frames."
        )
    result = [int(i) for i in indices]
    if result[0] < 0 or any(b < a for a, b in itertools.pairwise(result)):
        raise InvalidArgumentError("frames_indices must not go back and not be negative.")
    return result
