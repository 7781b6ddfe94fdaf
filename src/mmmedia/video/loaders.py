"""Loaders: a sampler on a decoder, by name.

A loader is a class with the class methods `load_bytes` and `compute_frames_index_to_sample`. Third parties
subclass `VideoLoader`, or a built-in loader to change its sampler, and register the result::

    @VIDEO_LOADER_REGISTRY.register("every_tenth")
    class EveryTenth(OpenCVVideoBackend):
        @classmethod
        def compute_frames_index_to_sample(cls, source, target, **kwargs):
            return list(range(0, source.total_frames_num, 10))
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError
from mmmedia.sources import Source
from mmmedia.video import codecs, samplers
from mmmedia.video.decoders.opencv import open_capture
from mmmedia.video.decoders.part import WHOLE, Part, part_of
from mmmedia.video.decoders.read import Decoded
from mmmedia.video.loader_registry import VideoLoaderRegistry
from mmmedia.video.mixins import OpenCVVideoBackendMixin, PyAVVideoBackendMixin, ReadsCaptures
from mmmedia.video.piecewise.reading import read_source
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata

Frames = npt.NDArray[np.uint8]


class VideoLoader(ReadsCaptures, ABC):
    """The base class of video loaders."""

    @classmethod
    @abstractmethod
    def load_bytes(
        cls, data: bytes, num_frames: int | None = -1, **kwargs: Any
    ) -> tuple[Frames, dict[str, Any]]:
        """Load a video file.

        Args:
            data: the encoded file.
            num_frames: how many frames to sample; -1: as the loader has it.
            **kwargs: options of this loader; others are ignored, as engines pass one dict to all.

        Returns:
            Frames, uint8 RGB (n, height, width, 3), and metadata.
        """

    @classmethod
    def compute_frames_index_to_sample(
        cls, source: VideoSourceMetadata, target: VideoTargetMetadata, **kwargs: Any
    ) -> list[int]:
        """Return the source indices to load, ascending."""
        raise NotImplementedError

    @classmethod
    def _prepare_source(cls, source: VideoSourceMetadata) -> VideoSourceMetadata:
        """Return the source as this loader's sampler and metadata have it: as it is."""
        return source

    @classmethod
    def create_hf_metadata(
        cls, source: VideoSourceMetadata, valid_frame_indices: list[int], video_backend: str
    ) -> dict[str, Any]:
        """Return the metadata of a loaded video: the keys that engines hand on as keywords, and no others.

        Args:
            source: what the video is.
            valid_frame_indices: the source index of each frame.
            video_backend: what decoded it, and how frames were chosen.
        """
        return {
            "total_num_frames": source.total_frames_num,
            "fps": source.original_fps,
            "duration": source.duration,
            "video_backend": video_backend,
            "frames_indices": valid_frame_indices,
            "do_sample_frames": len(valid_frame_indices) == source.total_frames_num,
        }


_READERS = ("read_frames", "_read_frames", "_read_frames_with_recovery", "_can_use_for_recovery")


def reads_as_built_in(loader: type) -> bool:
    """Whether frames may be got otherwise than through the methods that read: if these are ours."""
    methods = (inspect.getattr_static(loader, name) for name in _READERS)
    return all(
        str(getattr(getattr(method, "__func__", method), "__module__", "")).startswith("mmmedia.")
        for method in methods
    )


_OWN = frozenset({"mmmedia.video.loaders", "mmmedia.video.model_loaders"})


def _own_metadata(loader: type) -> Callable[[Any], VideoSourceMetadata] | None:
    """Return what a loader of others tells of encoded bytes by a `get_video_metadata` of its own, if any."""
    tell: Any = getattr(loader, "get_video_metadata", None)
    if str(getattr(tell, "__module__", "mmmedia.")).startswith("mmmedia."):
        return None
    if envs.MMMEDIA_COMPAT == "0.20":
        return lambda data: VideoSourceMetadata(*tell(open_capture(data)))
    return lambda data: VideoSourceMetadata(*tell(data))


def takes_sources(loader: type) -> bool:
    """Return whether what a loader loads may be given as a source: where its `load_bytes` is one of ours."""
    methods = (getattr(loader, name, None) for name in ("load_bytes", "load_bytes_opencv"))
    return (
        not getattr(loader, "needs_bytes", False)
        and reads_as_built_in(loader)
        and _own_metadata(loader) is None
        and all(getattr(method, "__module__", None) in _OWN for method in methods if method is not None)
    )


VIDEO_LOADER_REGISTRY: VideoLoaderRegistry[VideoLoader] = VideoLoaderRegistry()
for _sampler in samplers.SAMPLERS.values():
    VIDEO_LOADER_REGISTRY.register_lazily(
        _sampler.name, "mmmedia.video.model_loaders", video_processor=_sampler.video_processors
    )
for _codec in ("pynvvideocodec", "deepstream"):
    VIDEO_LOADER_REGISTRY.register_gpu_codec(_codec)


def get_video_loader_backend_for_processor(video_processor: str) -> str | None:
    """Return the name of the loader that is bound to a video processor's class, or None.

    >>> get_video_loader_backend_for_processor("Qwen3VLVideoProcessor")
    'qwen3_vl'
    """
    return VIDEO_LOADER_REGISTRY.get_backend_for_video_processor(video_processor)


@VIDEO_LOADER_REGISTRY.register("opencv")
class OpenCVVideoBackend(VideoLoader, OpenCVVideoBackendMixin, PyAVVideoBackendMixin):
    """Frames evenly spaced over the video: the sampler `samplers.sample_uniform`.

    Attributes:
        default_fps: frames a second to ask for where a request doesn't say; -1: what the sampler takes.
    """

    default_fps: ClassVar[float] = -1
    _sampling_suffix: ClassVar[str] = ""
    """Stands behind the decoder's name in the metadata's `video_backend`."""

    @classmethod
    def compute_frames_index_to_sample(
        cls,
        source: VideoSourceMetadata,
        target: VideoTargetMetadata,
        **kwargs: Any,  # noqa: ARG003 - the interface
    ) -> list[int]:
        """Return evenly spaced indices, at most `target.num_frames` and `target.fps` a second."""
        return samplers.sample_uniform(
            source.total_frames_num, source.duration, num_frames=target.num_frames, fps=target.fps
        )

    @classmethod
    def load_bytes(
        cls,
        data: bytes,
        num_frames: int | None = -1,
        fps: float | None = None,
        max_duration: float | None = 300,
        frame_recovery: bool = False,
        *,
        backend: str | None = None,
        decode: str | None = None,
        start: float | None = None,
        end: float | None = None,
        **kwargs: Any,
    ) -> tuple[Frames, dict[str, Any]]:
        """Load a video file.

        Args:
            data: the encoded file.
            num_frames: at most so many frames, for the samplers that take that; not positive: no cap.
            fps: at most so many frames a second; not positive: no cap; None: `default_fps`.
            max_duration: seconds beyond which the number of samples no longer grows, for "opencv_dynamic".
            frame_recovery: put the next readable frame in the place of one that can't be read.
            backend: "opencv" (None), "pyav": frames by exact index, for files OpenCV can't open as well, or
                one of `mmmedia.video.codecs`.
            decode: how "opencv" gets frames: "auto", "sequential", or "seek"; None: the setting.
            start: seconds from the first frame at which the part begins that is sampled; None: there.
            end: seconds at which that part ends, itself left out; None: with the video. Indices, count, rate
                and duration remain those of the whole.
            **kwargs: options of the sampler and of the decoder; others are ignored.

        Returns:
            Frames, uint8 RGB (n, height, width, 3), with "torchcodec" as a tensor, and a dict of
            `total_num_frames`, `fps`, `duration` (s), `video_backend`, `frames_indices` (the source index of
            each frame) and `do_sample_frames`.

        Raises:
            InvalidMediaError: (a `ValueError`) the bytes hold no video that can be decoded.
            LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
            InvalidArgumentError: (a `ValueError`) an option that does not exist, excludes another or is
                another decoder's.
            MissingPackageError: (an `ImportError`) the decoder's package is not installed.
        """
        target = VideoTargetMetadata(
            -1 if num_frames is None else num_frames,
            cls.default_fps if fps is None else fps,
            300 if max_duration is None else max_duration,
        )
        decoded = _decode(cls, data, target, kwargs, frame_recovery, backend, decode, part_of(start, end))
        name = f"{backend or 'opencv'}{cls._sampling_suffix}"
        return decoded.frames, cls.create_hf_metadata(decoded.source, decoded.indices, name)


@VIDEO_LOADER_REGISTRY.register("opencv_dynamic")
class OpenCVDynamicVideoBackend(OpenCVVideoBackend):
    """Frames at a rate, spread thinner over long videos: the sampler `samplers.sample_dynamic`."""

    default_fps = 2
    _sampling_suffix = "_dynamic"

    @classmethod
    def _prepare_source(cls, source: VideoSourceMetadata) -> VideoSourceMetadata:
        """Return the source with a duration, told from its last frame where the container tells none."""
        return source._replace(duration=samplers.known_duration(*source))

    @classmethod
    def compute_frames_index_to_sample(
        cls,
        source: VideoSourceMetadata,
        target: VideoTargetMetadata,
        **kwargs: Any,  # noqa: ARG003 - the interface
    ) -> list[int]:
        """Return indices at `target.fps` a second, no more of them beyond `target.max_duration`."""
        return samplers.sample_dynamic(*source, fps=target.fps, max_duration=target.max_duration)


@VIDEO_LOADER_REGISTRY.register("molmo2")
class Molmo2VideoBackend(VideoLoader, OpenCVVideoBackendMixin):
    """Frames as Molmo 2 samples them: the sampler `samplers.sample_molmo2`."""

    @staticmethod
    def get_candidate_target_fps(video_fps: float, sampling_fps: float, max_fps: float = 8.0) -> list[float]:
        """Return the rates to choose from: see `samplers.candidate_rates`."""
        return samplers.candidate_rates(video_fps, sampling_fps, max_fps)

    @staticmethod
    def get_target_fps(
        video_fps: float,
        max_frames: int,
        total_frames: int,
        frame_sample_mode: str,
        candidate_target_fps: Sequence[float],
    ) -> float | None:
        """Return the rate chosen: see `samplers.target_rate`."""
        return samplers.target_rate(
            video_fps, max_frames, total_frames, frame_sample_mode, candidate_target_fps
        )

    @staticmethod
    def get_frame_times_and_chosen_fps(
        selected_target_fps: float | None, total_frames: int, max_frames: int, video_fps: float
    ) -> tuple[float | None, npt.NDArray[np.int64]]:
        """Return the rate as it came, and its indices, int64: see `samplers.frames_at_rate`."""
        indices = samplers.frames_at_rate(selected_target_fps, total_frames, max_frames, video_fps)
        return selected_target_fps, np.array(indices, np.int64)

    @staticmethod
    def sample_times(
        duration: float,
        max_frames: int,
        frame_sample_mode: str,
        max_fps: float | None,
        candidate_target_fps: Sequence[float] | None = None,
        **kwargs: Any,  # noqa: ARG004 - the interface
    ) -> npt.NDArray[np.float64]:
        """Return the times to sample in seconds, float64: see `samplers.sample_times`."""
        times = samplers.sample_times(duration, max_frames, frame_sample_mode, max_fps, candidate_target_fps)
        return np.array(times, np.float64)

    @classmethod
    def _sample_frames(
        cls,
        total_num_frames: int,
        video_fps: float,
        duration: float,
        frame_sample_mode: str | None,
        num_frames: int,
        max_fps: float | None,
        sampling_fps: float,
    ) -> npt.NDArray[np.int64]:
        """Return the indices to load, int64: see `samplers.sample_molmo2`."""
        indices = samplers.sample_molmo2(
            total_num_frames, video_fps, duration, frame_sample_mode, num_frames, max_fps, sampling_fps
        )
        return np.array(indices, np.int64)

    @classmethod
    def compute_frames_index_to_sample(
        cls, source: VideoSourceMetadata, target: VideoTargetMetadata, **kwargs: Any
    ) -> list[int]:
        """Return every index, or those of `frame_sample_mode` under `max_fps` (2) and `target.fps`."""
        mode = kwargs.get("frame_sample_mode")
        if mode is None:
            return list(range(source.total_frames_num))
        indices: list[int] = cls._sample_frames(
            source.total_frames_num,
            source.original_fps,
            source.duration,
            mode,
            target.num_frames,
            kwargs.get("max_fps", 2),
            target.fps,
        ).tolist()
        return indices

    @classmethod
    def load_bytes(
        cls, data: bytes, num_frames: int | None = -1, **kwargs: Any
    ) -> tuple[Frames, dict[str, Any]]:
        """Load a video file: `load_bytes_opencv` with the same arguments."""
        return cls.load_bytes_opencv(data, num_frames=num_frames, **kwargs)

    @classmethod
    def load_bytes_opencv(
        cls,
        data: bytes,
        frame_sample_mode: str | None = None,
        num_frames: int | None = -1,
        max_fps: float | None = 2,
        sampling_fps: float = 2,
        frame_recovery: bool = False,
        *,
        backend: str | None = None,
        decode: str | None = None,
        start: float | None = None,
        end: float | None = None,
        **kwargs: Any,
    ) -> tuple[Frames, dict[str, Any]]:
        """Load a video file; as `OpenCVVideoBackend.load_bytes`, but for the sampler.

        Args:
            data: the encoded file.
            frame_sample_mode: None (every frame), "uniform_last_frame" or "fps".
            num_frames: at most so many frames, for the two modes.
            max_fps: frames a second of "uniform_last_frame".
            sampling_fps: the rate of which "fps" takes multiples.
            frame_recovery: put the next readable frame in the place of one that can't be read.
            backend: "opencv" (None) or "pyav".
            decode: "auto", "sequential" or "seek"; None: the setting.
            start: seconds from the first frame at which the part begins that is sampled; None: there.
            end: seconds at which that part ends, itself left out; None: with the video. Indices, count, rate
                and duration remain those of the whole.
            **kwargs: ignored.

        Raises:
            UnsupportedMediaError: (a `NotImplementedError`) another mode; else as for "opencv".
        """
        options = {"frame_sample_mode": frame_sample_mode, "max_fps": max_fps}

        def choose(source: VideoSourceMetadata) -> list[int]:
            count = -1 if num_frames is None else num_frames
            target = VideoTargetMetadata(count, sampling_fps, source.duration)
            return _plain(cls.compute_frames_index_to_sample(source, target, **options))

        decoded = read_source(
            data,
            choose,
            cls,
            recovery=frame_recovery,
            backend=backend,
            decode=decode,
            may_seek=reads_as_built_in(cls),
            part=part_of(start, end),
            fetch=kwargs.get("fetch"),
        )
        return decoded.frames, cls.create_hf_metadata(decoded.source, decoded.indices, backend or "opencv")


def _plain(indices: Iterable[int]) -> list[int]:
    """What a sampler of a third party returns may be NumPy's; metadata hold plain ints."""
    return [int(index) for index in indices]


def _decode(
    loader: type[VideoLoader],
    data: bytes | Source,
    target: VideoTargetMetadata,
    options: dict[str, Any],
    recovery: bool,
    backend: str | None,
    decode: str | None,
    part: Part,
) -> Decoded:
    """The join: the loader's sampler on a decoder."""
    tell = _own_metadata(loader) if backend in {None, "opencv"} else None

    def prepare(source: VideoSourceMetadata) -> VideoSourceMetadata:
        return loader._prepare_source(source if tell is None else tell(data))

    def choose(source: VideoSourceMetadata) -> list[int]:
        prepared = prepare(source)
        chosen = _plain(loader.compute_frames_index_to_sample(prepared, target, **options))
        return chosen or first_of_a_short_clip(prepared, target)

    fetch = options.get("fetch")
    options, decoder_options = codecs.resolve_video_backend_kwargs(backend, options)
    if backend in codecs.OTHER_DECODERS:
        if part != WHOLE or decode not in {None, "auto"}:
            raise InvalidArgumentError(f"backend={backend!r} has no start, end or decode.")
        encoded = data.read_all() if isinstance(data, Source) else data
        decoded = codecs.read(backend, encoded, choose, decoder_options, recovery=recovery)
        return replace(decoded, source=loader._prepare_source(decoded.source))
    decoded = read_source(
        data,
        choose,
        loader,
        recovery=recovery,
        backend=backend,
        decode=decode,
        may_seek=reads_as_built_in(loader),
        part=part,
        fetch=fetch,
    )
    return replace(decoded, source=prepare(decoded.source))


def first_of_a_short_clip(source: VideoSourceMetadata, target: VideoTargetMetadata) -> list[int]:
    """Return the first frame of a clip shorter than from one sample to the next, else nothing."""
    total, fps, _ = source
    is_short = total > 0 and fps > 0 and target.fps > 0 and total * target.fps < fps
    return [0] if is_short and envs.MMMEDIA_COMPAT != "0.20" else []
