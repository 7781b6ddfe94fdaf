from . import (
    base as base,
    deepstream as deepstream,
    opencv as opencv,
    pynvvideocodec as pynvvideocodec,
    torchcodec as torchcodec,
)
from .base import (
    PYNVVIDEOCODEC_DEFAULT_HW_DECODERS as PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
    PYNVVIDEOCODEC_VIDEO_BACKEND as PYNVVIDEOCODEC_VIDEO_BACKEND,
    DecodedFrames as DecodedFrames,
    VideoDecoderBackend as VideoDecoderBackend,
    VideoSourceMetadata as VideoSourceMetadata,
    VideoTargetMetadata as VideoTargetMetadata,
)
from .decoding import decode_video as decode_video
from .limits import check_frame_pixel_limit as check_frame_pixel_limit
from .options import (
    BACKEND_OPTIONS as BACKEND_OPTIONS,
    GPU_BACKENDS as GPU_BACKENDS,
    STARTUP_OPTIONS as STARTUP_OPTIONS,
    incompatible_backend_options as incompatible_backend_options,
    resolve_video_backend_kwargs as resolve_video_backend_kwargs,
)
