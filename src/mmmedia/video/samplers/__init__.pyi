from .dynamic import sample_dynamic as sample_dynamic
from .glm import (
    sample_glm5next as sample_glm5next,
    sample_glm46v as sample_glm46v,
    sample_glmga as sample_glmga,
)
from .metadata import (
    TimedSource as TimedSource,
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
)
from .models import (
    sample_clef_omni as sample_clef_omni,
    sample_embedding_gemma2 as sample_embedding_gemma2,
    sample_llava_onevision2 as sample_llava_onevision2,
    sample_minimax_m3_vl as sample_minimax_m3_vl,
    sample_muse_spark as sample_muse_spark,
    sample_openpangu as sample_openpangu,
)
from .molmo2 import (
    candidate_rates as candidate_rates,
    frames_at_rate as frames_at_rate,
    sample_molmo2 as sample_molmo2,
    sample_times as sample_times,
    target_rate as target_rate,
)
from .named import (
    SAMPLERS as SAMPLERS,
    Sampler as Sampler,
    sampler_for as sampler_for,
)
from .numbers import (
    evenly_spaced as evenly_spaced,
    known_duration as known_duration,
)
from .qwen import (
    known_rate as known_rate,
    sample_qwen2_vl as sample_qwen2_vl,
    sample_qwen3_vl as sample_qwen3_vl,
)
from .uniform import sample_uniform as sample_uniform
