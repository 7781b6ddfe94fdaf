"""What processors of transformers say by themselves: which frames of a video they take."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mmmedia.errors import InvalidArgumentError
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    from transformers.video_utils import VideoMetadata

    from mmmedia.video.samplers import VideoSourceMetadata

SampleIndices = Callable[..., Any]
"""Called with `metadata`, a `VideoMetadata` of transformers; returns the numbers of frames, in any order."""

Rule = Callable[["VideoSourceMetadata"], list[int]]

NAME = "mmmedia"
# What a processor takes out of its options before it hands the others to its sampler.
_NOT_FOR_SAMPLERS = ("input_data_format", "do_convert_rgb", "device", "video_metadata", "do_sample_frames")


def sampler_of(processor: Any, overrides: Mapping[str, Any]) -> SampleIndices | None:
    """Return a video processor's own way of sampling; None where it takes all frames.

    Args:
        processor: a processor of transformers, or its video processor.
        overrides: options of it that count instead of its own.

    Raises:
        InvalidArgumentError: (a `ValueError`) what is no processor of videos.
    """
    processor = getattr(processor, "video_processor", processor)
    known = getattr(getattr(processor, "valid_kwargs", None), "__annotations__", None)
    if known is None or not hasattr(processor, "sample_frames"):
        raise InvalidArgumentError(f"{type(processor).__name__} is no processor of videos of transformers.")
    options = {**{name: getattr(processor, name, None) for name in known}, **overrides}
    # As in its chat templates, who asks for a number of frames asks for a sample.
    asked = any(overrides.get(name) is not None for name in ("num_frames", "fps"))
    samples = overrides.get("do_sample_frames", getattr(processor, "do_sample_frames", False) or asked)
    for name in _NOT_FOR_SAMPLERS:
        options.pop(name, None)
    rule: SampleIndices = partial(processor.sample_frames, **options)
    return rule if samples else None


def rule_of(sample: SampleIndices | None) -> Rule:
    """Return a way of sampling as this library calls it; None takes all frames."""

    def choose(source: "VideoSourceMetadata") -> list[int]:
        if sample is None:
            return list(range(source.total_frames_num))
        numbers: list[int] = np.asarray(sample(metadata=metadata_of(source))).tolist()
        return numbers

    return choose


def metadata_of(
    source: "VideoSourceMetadata", frames: Any = None, indices: Sequence[int] | None = None
) -> "VideoMetadata":
    """Return what transformers calls the metadata of a video.

    Args:
        source: what the video is.
        frames: those that were taken, (n, height, width, 3), or None.
        indices: their numbers.

    Raises:
        MissingPackageError: (an `ImportError`) transformers is not installed.
    """
    with packages_for("A processor of transformers"):
        from transformers.video_utils import VideoMetadata
    total, fps, duration = source
    metadata = VideoMetadata(total_num_frames=total, fps=fps, duration=duration, video_backend=NAME)
    if frames is not None:
        metadata.height, metadata.width = int(frames.shape[1]), int(frames.shape[2])
    if indices is not None:
        metadata.frames_indices = list(indices)
    return metadata
