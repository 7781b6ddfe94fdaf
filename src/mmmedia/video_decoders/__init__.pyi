from . import (
    base as base,
    deepstream as deepstream,
    opencv as opencv,
    pynvvideocodec as pynvvideocodec,
    torchcodec as torchcodec,
)
from .base import (
    DecodedFrames as DecodedFrames,
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
)
from .decoding import check_frame_pixel_limit as check_frame_pixel_limit, decode_video as decode_video
from .options import (
    BACKEND_OPTIONS as BACKEND_OPTIONS,
    GPU_BACKENDS as GPU_BACKENDS,
    STARTUP_OPTIONS as STARTUP_OPTIONS,
    incompatible_backend_options as incompatible_backend_options,
    resolve_video_backend_kwargs as resolve_video_backend_kwargs,
)
