"""Samplers: which frames of a source to take. Pure functions of numbers; no decoder is known here.

A source is `total` frames at `fps0` frames a second for `duration` seconds. Every sampler returns source
indices as plain ints, ascending; some repeat one. The rules are those of the loaders of the same names in
vLLM 0.33, and so of the models; tables recorded from it are among the tests. `sampler_for` finds a sampler by
the model that it is for.
"""

from mmmedia.video.samplers.dynamic import sample_dynamic
from mmmedia.video.samplers.glm import (
    sample_glm5next,
    sample_glm46v,
    sample_glmga,
)
from mmmedia.video.samplers.metadata import (
    TimedSource,
    VideoSourceMetadata,
    VideoTargetMetadata,
)
from mmmedia.video.samplers.models import (
    sample_clef_omni,
    sample_embedding_gemma2,
    sample_llava_onevision2,
    sample_minimax_m3_vl,
    sample_muse_spark,
    sample_openpangu,
)
from mmmedia.video.samplers.molmo2 import (
    candidate_rates,
    frames_at_rate,
    sample_molmo2,
    sample_times,
    target_rate,
)
from mmmedia.video.samplers.named import SAMPLERS, Sampler, sampler_for
from mmmedia.video.samplers.numbers import (
    evenly_spaced,
    known_duration,
)
from mmmedia.video.samplers.qwen import (
    known_rate,
    sample_qwen2_vl,
    sample_qwen3_vl,
)
from mmmedia.video.samplers.uniform import sample_uniform

__all__ = [
    "SAMPLERS",
    "Sampler",
    "TimedSource",
    "VideoSourceMetadata",
    "VideoTargetMetadata",
    "candidate_rates",
    "evenly_spaced",
    "frames_at_rate",
    "known_duration",
    "known_rate",
    "sample_clef_omni",
    "sample_dynamic",
    "sample_embedding_gemma2",
    "sample_glm5next",
    "sample_glm46v",
    "sample_glmga",
    "sample_llava_onevision2",
    "sample_minimax_m3_vl",
    "sample_molmo2",
    "sample_muse_spark",
    "sample_openpangu",
    "sample_qwen2_vl",
    "sample_qwen3_vl",
    "sample_times",
    "sample_uniform",
    "sampler_for",
    "target_rate",
]
