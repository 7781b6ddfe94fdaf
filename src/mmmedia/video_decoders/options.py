"""Which decoder has which options."""

from mmmedia.video.codecs.options import (
    BACKEND_OPTIONS,
    GPU_BACKENDS,
    STARTUP_OPTIONS,
    incompatible_backend_options,
    resolve_video_backend_kwargs,
)

__all__ = [
    "BACKEND_OPTIONS",
    "GPU_BACKENDS",
    "STARTUP_OPTIONS",
    "incompatible_backend_options",
    "resolve_video_backend_kwargs",
]
