"""Samplers: which frames of a source to take. Pure functions of numbers; no decoder is known here.

A source is `total` frames at `fps0` frames a second for `duration` seconds. Every sampler returns source
indices as plain ints, ascending; some repeat one. The rules are those of the loaders of the same names in
vLLM 0.33, and so of the models; tables recorded from it are among the tests. `sampler_for` finds a sampler by
the model that it is for.
"""

from mmmedia.video.samplers.dynamic import sample_dynamic as sample_dynamic
from mmmedia.video.samplers.glm import (
    sample_glm5next as sample_glm5next,
    sample_glm46v as sample_glm46v,
    sample_glmga as sample_glmga,
)
from mmmedia.video.samplers.metadata import (
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
)
from mmmedia.video.samplers.models import (
    sample_clef_omni as sample_clef_omni,
    sample_embedding_gemma2 as sample_embedding_gemma2,
    sample_llava_onevision2 as sample_llava_onevision2,
    sample_minimax_m3_vl as sample_minimax_m3_vl,
    sample_muse_spark as sample_muse_spark,
    sample_openpangu as sample_openpangu,
)
from mmmedia.video.samplers.molmo2 import (
    candidate_rates as candidate_rates,
    frames_at_rate as frames_at_rate,
    sample_molmo2 as sample_molmo2,
    sample_times as sample_times,
    target_rate as target_rate,
)
from mmmedia.video.samplers.named import SAMPLERS as SAMPLERS, Sampler as Sampler, sampler_for as sampler_for
from mmmedia.video.samplers.numbers import (
    evenly_spaced as evenly_spaced,
    known_duration as known_duration,
)
from mmmedia.video.samplers.qwen import (
    known_rate as known_rate,
    sample_qwen2_vl as sample_qwen2_vl,
    sample_qwen3_vl as sample_qwen3_vl,
)
from mmmedia.video.samplers.uniform import sample_uniform as sample_uniform
