"""What decoders and samplers tell each other."""

from typing import TYPE_CHECKING, Literal, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from mmmedia.gpu_ipc_memory import PYNVVIDEOCODEC_DEFAULT_HW_DECODERS
from mmmedia.video.codecs.options import PYNVVIDEOCODEC_VIDEO_BACKEND
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.limits import check_frame_pixel_limit

if TYPE_CHECKING:
    import torch

DecodedFrames: TypeAlias = Union[npt.NDArray[np.uint8], "torch.Tensor"]  # a name that is not loaded
"""uint8 RGB (n, height, width, 3)."""

VideoDecoderBackend = Literal["opencv", "pyav", "torchcodec", "pynvvideocodec", "deepstream"]

__all__ = [
    "PYNVVIDEOCODEC_DEFAULT_HW_DECODERS",
    "PYNVVIDEOCODEC_VIDEO_BACKEND",
    "DecodedFrames",
    "VideoDecoderBackend",
    "VideoSourceMetadata",
    "VideoTargetMetadata",
    "check_frame_pixel_limit",
]
