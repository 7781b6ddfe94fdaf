"""What decoders and samplers tell each other."""

from mmmedia.gpu_ipc_memory import PYNVVIDEOCODEC_DEFAULT_HW_DECODERS
from mmmedia.video.codecs.options import PYNVVIDEOCODEC_VIDEO_BACKEND, VideoDecoderBackend
from mmmedia.video.mixins import DecodedFrames
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.limits import check_frame_pixel_limit

__all__ = [
    "PYNVVIDEOCODEC_DEFAULT_HW_DECODERS",
    "PYNVVIDEOCODEC_VIDEO_BACKEND",
    "DecodedFrames",
    "VideoDecoderBackend",
    "VideoSourceMetadata",
    "VideoTargetMetadata",
    "check_frame_pixel_limit",
]
