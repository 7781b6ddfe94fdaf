from .options import (
    BACKEND_OPTIONS as BACKEND_OPTIONS,
    GPU_BACKENDS as GPU_BACKENDS,
    STARTUP_OPTIONS as STARTUP_OPTIONS,
    incompatible_backend_options as incompatible_backend_options,
    resolve_video_backend_kwargs as resolve_video_backend_kwargs,
)
from .reading import OTHER_DECODERS as OTHER_DECODERS, read as read
