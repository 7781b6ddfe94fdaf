"""The loaders of models: each the sampler of its name on the decoders of `mmmedia.video.loaders`.

They, and the three in that module, are found by name in `VIDEO_LOADER_REGISTRY`, and by the video processor
of a model with `get_video_loader_backend_for_processor`. `VideoBackend` and `DynamicVideoBackend` are names
for the loaders "opencv" and "opencv_dynamic".
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mmmedia.video import samplers
from mmmedia.video.decoders import opencv
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.loaders import (
    VIDEO_LOADER_REGISTRY,
    Frames,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
)
from mmmedia.video.samplers import SAMPLERS, Sampler, VideoSourceMetadata, VideoTargetMetadata

VideoBackend = OpenCVVideoBackend
DynamicVideoBackend = OpenCVDynamicVideoBackend


_MAY_BE_NONE = frozenset({"overflow_strategy"})
"""Options for which `None` is a value; for others engines say so that they were not given."""


class ModelVideoBackend(OpenCVVideoBackend):
    """The base of the loaders of models.

    Attributes:
        sampler: which frames to take.
    """

    sampler: ClassVar[Sampler]

    @classmethod
    def compute_frames_index_to_sample(
        cls, source: VideoSourceMetadata, target: VideoTargetMetadata, **kwargs: Any
    ) -> list[int]:
        """Return the indices of `sampler`, to which those of the keywords go that it knows."""
        given = {name: value for name, value in kwargs.items() if value is not None or name in _MAY_BE_NONE}
        known = {name: value for name, value in given.items() if name in cls.sampler.options}
        return cls.sampler(cls._prepare_source(source), target, **known)


@VIDEO_LOADER_REGISTRY.register("pynvvideocodec", requires_gpu=True)
class PyNvVideoCodecVideoBackend(OpenCVVideoBackend):
    """Frames evenly spaced over the video, decoded on the GPU whatever `backend` says."""

    @classmethod
    def load_bytes(cls, *args: Any, **kwargs: Any) -> tuple[Frames, dict[str, Any]]:
        """Load a video file; as `OpenCVVideoBackend.load_bytes`, but for the decoder.

        Raises:
            MissingPackageError: (an `ImportError`) PyNvVideoCodec is not installed.
        """
        return super().load_bytes(*args, **{**kwargs, "backend": "pynvvideocodec"})


@VIDEO_LOADER_REGISTRY.register("nemotron_vl")
class NemotronVLVideoBackend(OpenCVVideoBackend):
    """Frames evenly spaced over the video; the encoded file goes along in the metadata."""

    needs_bytes = True

    @classmethod
    def load_bytes(cls, data: bytes, *args: Any, **kwargs: Any) -> tuple[Frames, dict[str, Any]]:
        """Load a video file; as "opencv" does, with `original_video_bytes` among the metadata."""
        frames, metadata = super().load_bytes(data, *args, **kwargs)
        return frames, {**metadata, "original_video_bytes": data}


@VIDEO_LOADER_REGISTRY.register("openpangu")
class OpenCVDynamicOpenPanguVideoBackend(ModelVideoBackend):
    """Frames as openPangu samples them: `samplers.sample_openpangu`, always decoded as "opencv" does."""

    sampler = SAMPLERS["openpangu"]
    default_fps = 2

    @classmethod
    def load_bytes(cls, *args: Any, **kwargs: Any) -> tuple[Frames, dict[str, Any]]:
        """Load a video file; as `OpenCVVideoBackend.load_bytes`, but that `backend` is ignored."""
        frames, metadata = super().load_bytes(*args, **{**kwargs, "backend": None})
        return frames, {**metadata, "video_backend": "opencv_dynamic"}


@VIDEO_LOADER_REGISTRY.register("qwen2_vl")
class Qwen2VLVideoBackend(ModelVideoBackend):
    """Frames as Qwen 2, 2.5 and 3 Omni sample them: `samplers.sample_qwen2_vl`."""

    sampler = SAMPLERS["qwen2_vl"]
    default_fps = 2


@VIDEO_LOADER_REGISTRY.register("qwen3_vl")
class Qwen3VLVideoBackend(ModelVideoBackend):
    """Frames as Qwen 3 and 3.5 sample them: `samplers.sample_qwen3_vl`."""

    sampler = SAMPLERS["qwen3_vl"]
    default_fps = 2

    @classmethod
    def _prepare_source(cls, source: VideoSourceMetadata) -> VideoSourceMetadata:
        """Return the source with a rate, 24 where the container tells none."""
        return source._replace(original_fps=samplers.known_rate(source.original_fps))


class _WithDuration(ModelVideoBackend):
    @classmethod
    def _prepare_source(cls, source: VideoSourceMetadata) -> VideoSourceMetadata:
        """Return the source with a duration, told from its last frame where the container tells none."""
        return source._replace(duration=samplers.known_duration(*source))


@VIDEO_LOADER_REGISTRY.register("glm46v")
class GLM46VVideoBackend(_WithDuration):
    """Frames as GLM 4.6V samples them: `samplers.sample_glm46v`."""

    sampler = SAMPLERS["glm46v"]


@VIDEO_LOADER_REGISTRY.register("glm5next")
class Glm5NextVideoBackend(ModelVideoBackend):
    """Frames as GLM 5 samples them: `samplers.sample_glm5next`."""

    sampler = SAMPLERS["glm5next"]
    default_fps = 2
    _SEEK_GAP_THRESHOLD: ClassVar[int] = 64
    """Fewer frames than these are passed over one by one; else the capture is told to seek."""

    @classmethod
    def _sample_frame_indices(
        cls,
        total_frames: int,
        fps: float,
        duration: float,
        *,
        target_fps: float | None = None,
        max_frame_count: int | None = None,
        temporal_patch_size: int = 2,
    ) -> list[int]:
        """Return the indices to load: see `samplers.sample_glm5next`."""
        source = VideoSourceMetadata(total_frames, fps, duration)
        target = VideoTargetMetadata(-1, -1 if target_fps is None else target_fps, -1)
        options = {"max_frames": max_frame_count, "temporal_patch_size": temporal_patch_size}
        return cls.compute_frames_index_to_sample(source, target, **options)

    @classmethod
    def read_frames(
        cls,
        cap: Any,
        frame_idx: Sequence[int],
        total_frames_num: int,  # noqa: ARG003 - the interface
        *,
        frame_recovery: bool = False,  # noqa: ARG003 - this one has none
    ) -> tuple[Frames, list[int]]:
        """Read frames through a capture, as `VideoLoader.read_frames`, but seek over long gaps.

        `load_bytes` gets the same frames otherwise, as a capture's seeking may miss. Nothing is recovered.
        """
        import cv2

        wanted = sorted(set(frame_idx))
        frames: list[Frames] = []
        valid: list[int] = []
        position: int | None = None
        for index in wanted:
            if position is None or index - position >= cls._SEEK_GAP_THRESHOLD:
                cap.set(cv2.CAP_PROP_POS_FRAMES, index)
            else:
                for _ in range(index - position):
                    cap.grab()
            position = index + 1
            ok, picture = cap.read()
            if ok and picture is not None:
                check_size(picture.shape[0], picture.shape[1], len(wanted))
                frames.append(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8))
                valid.append(index)
        opencv.log_missing(wanted, valid)
        return (np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8)), valid


@VIDEO_LOADER_REGISTRY.register("glmga")
class GLMGAVideoBackend(_WithDuration):
    """Frames as GLM GA samples them: `samplers.sample_glmga`; the last one again if they are odd in number.

    The metadata name each frame of the file once.
    """

    sampler = SAMPLERS["glmga"]
    default_fps = 2
    _MAX_FRAMES: ClassVar[int] = 640
    """No request gets more, as the sampler has it."""

    @classmethod
    def load_bytes(cls, *args: Any, **kwargs: Any) -> tuple[Frames, dict[str, Any]]:
        """Load a video file: see `OpenCVVideoBackend.load_bytes`."""
        frames, metadata = super().load_bytes(*args, **kwargs)
        return _even(frames), metadata


@VIDEO_LOADER_REGISTRY.register("embedding_gemma2")
class EmbeddingGemma2VideoBackend(ModelVideoBackend):
    """Frames as Embedding Gemma 2 samples them: `samplers.sample_embedding_gemma2`, repetitions kept."""

    sampler = SAMPLERS["embedding_gemma2"]

    @classmethod
    def load_bytes(
        cls,
        data: bytes,
        num_frames: int | None = -1,  # noqa: ARG003 - engines always give it
        fps: float | None = None,
        max_duration: float | None = 300,
        frame_recovery: bool = False,
        *,
        backend: str | None = None,
        **kwargs: Any,
    ) -> tuple[Frames, dict[str, Any]]:
        """Load a video file: see `OpenCVVideoBackend.load_bytes`.

        A frame of the file is there as often as the sampler names it, and `do_sample_frames` is False.
        """
        frames, metadata = super().load_bytes(
            data, -1, fps, max_duration, frame_recovery, backend=backend, **kwargs
        )
        read: list[int] = metadata["frames_indices"]
        source = VideoSourceMetadata(metadata["total_num_frames"], metadata["fps"], metadata["duration"])
        target = VideoTargetMetadata(-1, cls.default_fps if fps is None else fps, -1)
        wanted = Counter(cls.compute_frames_index_to_sample(source, target, **kwargs))
        times = [max(1, wanted[index]) if read.count(index) == 1 else 1 for index in read]
        if max(times) > 1:
            frames = np.repeat(frames, times, axis=0)
            read = np.repeat(read, times).tolist()
        return frames, {**metadata, "frames_indices": read}

    @classmethod
    def create_hf_metadata(
        cls, source: VideoSourceMetadata, valid_frame_indices: list[int], video_backend: str
    ) -> dict[str, Any]:
        """Return the metadata: as of any loader, but that the processor never samples again."""
        metadata = super().create_hf_metadata(source, valid_frame_indices, video_backend)
        return {**metadata, "do_sample_frames": False}


@VIDEO_LOADER_REGISTRY.register("clef_omni")
class ClefOmniVideoBackend(ModelVideoBackend):
    """Frames as Clef Omni samples them: `samplers.sample_clef_omni`; the last one again if they are odd."""

    sampler = SAMPLERS["clef_omni"]
    default_fps = 2

    @classmethod
    def load_bytes(cls, *args: Any, **kwargs: Any) -> tuple[Frames, dict[str, Any]]:
        """Load a video file: see `OpenCVVideoBackend.load_bytes`."""
        frames, metadata = super().load_bytes(*args, **kwargs)
        read: list[int] = metadata["frames_indices"]
        repeated = read[-1:] if len(read) % 2 else []
        return _even(frames), {**metadata, "frames_indices": read + repeated}


@VIDEO_LOADER_REGISTRY.register("minimax_m3_vl")
class MiniMaxM3VideoBackend(ModelVideoBackend):
    """Frames as MiniMax M3 samples them: `samplers.sample_minimax_m3_vl`."""

    sampler = SAMPLERS["minimax_m3_vl"]
    default_fps = 1


@VIDEO_LOADER_REGISTRY.register("muse_spark")
class MuseSpark1xOmniVideoBackend(ModelVideoBackend):
    """Frames as Muse Spark samples them: `samplers.sample_muse_spark`."""

    sampler = SAMPLERS["muse_spark"]


@VIDEO_LOADER_REGISTRY.register("llava_onevision2")
class LlavaOnevision2VideoBackend(ModelVideoBackend):
    """Frames as LLaVA-OneVision 2 samples them: `samplers.sample_llava_onevision2`."""

    sampler = SAMPLERS["llava_onevision2"]
    _sampling_suffix = "_llava_onevision2"


def _even(frames: Frames) -> Frames:
    """Return the frames, the last of them twice if that makes them even in number."""
    return np.concatenate([frames, frames[-1:]]) if len(frames) % 2 else frames
