"""Samplers by name, and by what is sampled for: a loader, a video processor, a type of model."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.samplers.dynamic import sample_dynamic
from mmmedia.video.samplers.glm import sample_glm5next, sample_glm46v, sample_glmga
from mmmedia.video.samplers.metadata import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video.samplers.models import (
    sample_clef_omni,
    sample_embedding_gemma2,
    sample_llava_onevision2,
    sample_minimax_m3_vl,
    sample_muse_spark,
    sample_openpangu,
)
from mmmedia.video.samplers.molmo2 import sample_molmo2
from mmmedia.video.samplers.qwen import sample_qwen2_vl, sample_qwen3_vl
from mmmedia.video.samplers.uniform import sample_uniform

# What a function of a sampler is given by a source; its other parameters are options.
_OF_THE_SOURCE = ("total", "fps0", "duration")


@dataclass(frozen=True)
class Sampler:
    """A rule that says which frames of a video to take, and what it is for.

    Called with a source it returns indices: plain ints, ascending.

    Attributes:
        name: that of its loader.
        rule: the function; its parameters are named as in this package.
        video_processors: names of the classes of transformers and of models' own code that it samples for.
        model_types: values of `model_type` in the configuration of a model that it samples for.

    >>> sampler = sampler_for("Qwen3VLVideoProcessor")
    >>> sampler.name, sampler.options["fps"]
    ('qwen3_vl', 2)
    >>> sampler(VideoSourceMetadata(300, 30.0, 10.0), fps=0.5)
    [0, 75, 150, 224, 299]
    """

    name: str
    rule: Callable[..., list[int]]
    video_processors: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()

    @property
    def options(self) -> Mapping[str, Any]:
        """The keywords that it takes, with their defaults; one without a default has to be given."""
        parameters = inspect.signature(self.rule).parameters.values()
        return {p.name: p.default for p in parameters if p.name not in _OF_THE_SOURCE}

    def __call__(
        self, source: VideoSourceMetadata, target: VideoTargetMetadata | None = None, **options: Any
    ) -> list[int]:
        """Return the source indices to take.

        Args:
            source: frames, frames a second and seconds of the video.
            target: what is asked for; None: the sampler's own defaults. What the rule does not look at is
                ignored, here and as an option.
            **options: keywords of the sampler; they win over `target`.

        Raises:
            InvalidMediaError: (a `ValueError`) the source's numbers admit no answer.
            InvalidArgumentError: (a `ValueError`) an unknown option, or one with a value that it can't have.
            LimitExceededError: (a `ValueError`) too many indices.
        """
        known = self.options
        asked = {} if target is None else target._asdict()
        given = {**asked, **options}
        for name in VideoTargetMetadata._fields:
            if name in given and given[name] is None:  # as some engines pass for not given
                given[name] = asked.get(name)
                if given[name] is None:
                    del given[name]
        unknown = sorted(given.keys() - known.keys() - set(VideoTargetMetadata._fields))
        if unknown:
            raise InvalidArgumentError(
                f"The sampler {self.name!r} takes no {', '.join(unknown)}; it takes: {', '.join(known)}."
            )
        missing = [n for n in known if known[n] is inspect.Parameter.empty and n not in given]
        if missing:
            raise InvalidArgumentError(f"The sampler {self.name!r} needs {', '.join(missing)}.")
        total, fps0, duration = source
        of_the_source = {"total": total, "fps0": fps0, "duration": duration}
        taken = inspect.signature(self.rule).parameters
        return self.rule(
            **{name: value for name, value in of_the_source.items() if name in taken},
            **{name: value for name, value in given.items() if name in known},
        )


def _sample_molmo2(
    total: int,
    fps0: float,
    duration: float,
    num_frames: int = -1,
    fps: float = 2,
    *,
    frame_sample_mode: str | None = None,
    max_fps: float | None = 2,
) -> list[int]:
    """`sample_molmo2`, whose base of candidate rates is what is asked for as frames a second."""
    return sample_molmo2(total, fps0, duration, frame_sample_mode, num_frames, max_fps, fps)


_QWEN2_TYPES = (
    "qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_omni_moe", "exaone4_5", "hyperclovax_vision_v2",
)  # fmt: skip
_QWEN3_TYPES = (
    "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "cosmos3_edge", "cosmos3_omni",
    "dots3_note", "lfm3_vl",
)  # fmt: skip

SAMPLERS: Mapping[str, Sampler] = MappingProxyType(
    {
        sampler.name: sampler
        for sampler in (
            Sampler("opencv", sample_uniform),
            Sampler("pynvvideocodec", sample_uniform),
            Sampler("nemotron_vl", sample_uniform),
            Sampler("opencv_dynamic", sample_dynamic, ("Glm4vVideoProcessor",), ("glm4v",)),
            Sampler("molmo2", _sample_molmo2, ("Molmo2VideoProcessor",), ("molmo2",)),
            Sampler("openpangu", sample_openpangu),
            Sampler("qwen2_vl", sample_qwen2_vl, ("Qwen2VLVideoProcessor",), _QWEN2_TYPES),
            Sampler(
                "qwen3_vl",
                sample_qwen3_vl,
                ("Qwen3VLVideoProcessor", "Cosmos3EdgeVideoProcessor"),
                _QWEN3_TYPES,
            ),
            Sampler("glm46v", sample_glm46v, ("Glm46VVideoProcessor",), ("glm46v",)),
            Sampler(
                "glm5next",
                sample_glm5next,
                ("Glm5NextVideoProcessor", "Glm5nextVideoProcessor"),
                ("glm5_next",),
            ),
            Sampler("glmga", sample_glmga, ("GlmgaVideoProcessor",), ("glmga",)),
            Sampler(
                "embedding_gemma2",
                sample_embedding_gemma2,
                ("EmbeddingGemma2VideoProcessor",),
                ("embedding_gemma2",),
            ),
            Sampler("clef_omni", sample_clef_omni),
            Sampler(
                "minimax_m3_vl", sample_minimax_m3_vl, ("MiniMaxM3VLVideoProcessor",), ("minimax_m3_vl",)
            ),
            Sampler("muse_spark", sample_muse_spark, ("MuseSparkVideoProcessor",), ("muse_spark",)),
            Sampler("llava_onevision2", sample_llava_onevision2, ("LlavaOnevision2VideoProcessor",)),
        )
    }
)
"""Every sampler by the name of its loader."""

_BY_ANY_NAME = {
    name: sampler
    for sampler in SAMPLERS.values()
    for name in (sampler.name, *sampler.video_processors, *sampler.model_types)
}


def sampler_for(processor_or_model_type: object) -> Sampler:
    """Return the sampler for a model.

    Args:
        processor_or_model_type: the name of a video processor's class ("Qwen3VLVideoProcessor"), a type of
            model ("qwen2_5_vl"), the name of a loader ("opencv_dynamic"); or such a class, a video processor,
            a processor that holds one, or a configuration.

    Raises:
        InvalidArgumentError: (a `ValueError`) there is none: such models are given frames evenly spaced, by
            the sampler "opencv", or sample by their own code.

    >>> sampler_for("qwen2_5_omni").name
    'qwen2_vl'
    """
    names = list(dict.fromkeys(_names_of(processor_or_model_type)))
    for name in names:
        if name in _BY_ANY_NAME:
            return _BY_ANY_NAME[name]
    raise InvalidArgumentError(
        f"There is no sampler for {', '.join(names[:1]) or repr(processor_or_model_type)}; there are: "
        f"{', '.join(_BY_ANY_NAME)}."
    )


def _names_of(what: object) -> Iterator[str]:
    """The names by which a model may be known, the nearest first."""
    if isinstance(what, str):
        yield what
        return
    held = getattr(what, "video_processor", None)
    for kind in (what if isinstance(what, type) else type(what), type(held)):
        yield from (base.__name__ for base in kind.__mro__ if base is not object and base is not type(None))
    model_type = getattr(what, "model_type", None)
    if isinstance(model_type, str):
        yield model_type
