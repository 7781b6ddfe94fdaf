"""OpenCV's decoder, the reference."""

from mmmedia.video.decoders.opencv import get_cv2_video_api, read_frames, read_frames_with_recovery
from mmmedia.video.loaders import OpenCVVideoBackend

__all__ = ["OpenCVVideoBackend", "get_cv2_video_api", "read_frames", "read_frames_with_recovery"]
