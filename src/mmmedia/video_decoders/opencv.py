"""OpenCV's decoder, the reference."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.video.decoders.opencv import get_cv2_video_api
from mmmedia.video.mixins import OpenCVVideoBackendMixin
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.decoding import decode_with

if TYPE_CHECKING:
    from mmmedia.video.loaders import VideoLoader
    from mmmedia.video_decoders.base import DecodedFrames

__all__ = ["OpenCVVideoBackendMixin", "decode_opencv", "get_cv2_video_api"]


def decode_opencv(
    loader_cls: "type[VideoLoader]",
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    *,
    frame_recovery: bool = False,
) -> "tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]":
    """Decode by OpenCV; see `mmmedia.video_decoders.decode_video`."""
    return decode_with("opencv", loader_cls, data, target, sampling_kwargs, {}, recovery=frame_recovery)
