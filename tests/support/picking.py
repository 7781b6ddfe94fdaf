"""A loader that reads the frames that it is told to."""

from typing import Any

from mmmedia.video import OpenCVVideoBackend, VideoSourceMetadata, VideoTargetMetadata


class Pick(OpenCVVideoBackend):
    """Reads `indices`."""

    @classmethod
    def compute_frames_index_to_sample(
        cls, source: VideoSourceMetadata, target: VideoTargetMetadata, **kwargs: Any
    ) -> list[int]:
        return list(kwargs["indices"])
