from . import decoders as decoders, frames as frames, loaders as loaders, samplers as samplers
from .decoders import DecodeStats as DecodeStats, decode_stats as decode_stats
from .frames import (
    rescale_video_size as rescale_video_size,
    resize_video as resize_video,
    sample_frames_from_video as sample_frames_from_video,
)
from .loaders import (
    VIDEO_LOADER_REGISTRY as VIDEO_LOADER_REGISTRY,
    Molmo2VideoBackend as Molmo2VideoBackend,
    OpenCVDynamicVideoBackend as OpenCVDynamicVideoBackend,
    OpenCVVideoBackend as OpenCVVideoBackend,
    VideoLoader as VideoLoader,
)
from .samplers import (
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
)
