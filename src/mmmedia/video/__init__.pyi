from . import (
    decoders as decoders,
    excerpts as excerpts,
    frames as frames,
    loader_registry as loader_registry,
    loaders as loaders,
    mixins as mixins,
    model_loaders as model_loaders,
    reading as reading,
    samplers as samplers,
)
from .codecs.options import (
    PYNVVIDEOCODEC_VIDEO_BACKEND as PYNVVIDEOCODEC_VIDEO_BACKEND,
    VideoDecoderBackend as VideoDecoderBackend,
)
from .decoders import DecodeStats as DecodeStats, decode_stats as decode_stats
from .excerpts import Excerpt as Excerpt, excerpt as excerpt
from .frames import (
    rescale_video_size as rescale_video_size,
    resize_video as resize_video,
    sample_frames_from_video as sample_frames_from_video,
)
from .loader_registry import VideoLoaderRegistry as VideoLoaderRegistry
from .loaders import (
    VIDEO_LOADER_REGISTRY as VIDEO_LOADER_REGISTRY,
    Molmo2VideoBackend as Molmo2VideoBackend,
    OpenCVDynamicVideoBackend as OpenCVDynamicVideoBackend,
    OpenCVVideoBackend as OpenCVVideoBackend,
    VideoLoader as VideoLoader,
    get_video_loader_backend_for_processor as get_video_loader_backend_for_processor,
)
from .mixins import (
    DecodedFrames as DecodedFrames,
    OpenCVVideoBackendMixin as OpenCVVideoBackendMixin,
    PyAVVideoBackendMixin as PyAVVideoBackendMixin,
)
from .model_loaders import (
    ClefOmniVideoBackend as ClefOmniVideoBackend,
    DynamicVideoBackend as DynamicVideoBackend,
    EmbeddingGemma2VideoBackend as EmbeddingGemma2VideoBackend,
    Glm5NextVideoBackend as Glm5NextVideoBackend,
    GLM46VVideoBackend as GLM46VVideoBackend,
    GLMGAVideoBackend as GLMGAVideoBackend,
    LlavaOnevision2VideoBackend as LlavaOnevision2VideoBackend,
    MiniMaxM3VideoBackend as MiniMaxM3VideoBackend,
    ModelVideoBackend as ModelVideoBackend,
    MuseSpark1xOmniVideoBackend as MuseSpark1xOmniVideoBackend,
    NemotronVLVideoBackend as NemotronVLVideoBackend,
    OpenCVDynamicOpenPanguVideoBackend as OpenCVDynamicOpenPanguVideoBackend,
    PyNvVideoCodecVideoBackend as PyNvVideoCodecVideoBackend,
    Qwen2VLVideoBackend as Qwen2VLVideoBackend,
    Qwen3VLVideoBackend as Qwen3VLVideoBackend,
    VideoBackend as VideoBackend,
)
from .reading import read_frames as read_frames
from .samplers import (
    SAMPLERS as SAMPLERS,
    Sampler as Sampler,
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
    sampler_for as sampler_for,
)
