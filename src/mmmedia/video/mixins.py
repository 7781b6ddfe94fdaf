"""The steps of decoding by name, as vLLM has them, for loaders of third parties that take them one by one.

The loaders of this library do not: they go the way of `mmmedia.video.decoders.read`.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders import opencv
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import shown_frames
from mmmedia.video.samplers import VideoSourceMetadata

if TYPE_CHECKING:
    import av
    import cv2
    import torch

Frames = npt.NDArray[np.uint8]
DecodedFrames: TypeAlias = Union[npt.NDArray[np.uint8], "torch.Tensor"]  # a name that is not loaded
"""uint8 RGB (n, height, width, 3)."""


class ReadsCaptures:
    """Reads through a capture: any object with `grab`, `retrieve` and `get` like a `cv2.VideoCapture`."""

    @classmethod
    def read_frames(
        cls, cap: Any, frame_idx: Sequence[int], total_frames_num: int, *, frame_recovery: bool = False
    ) -> tuple[Frames, list[int]]:
        """Read frames through a capture, one after the other; a loader that overrides it reads so itself.

        Args:
            cap: stands before its first frame.
            frame_idx: source indices, in any order; each is read once.
            total_frames_num: how many frames the source has.
            frame_recovery: put the next readable frame in the place of one that can't be read.

        Returns:
            Frames, uint8 RGB (n, height, width, 3), and the source index of each, ascending. One that can't
            be read is left out.
        """
        if frame_recovery:
            frames, valid, _ = cls._read_frames_with_recovery(cap, list(frame_idx), total_frames_num)
            return frames, valid
        wanted = set(frame_idx)
        frames, count, valid = cls._read_frames(cap, wanted, len(wanted), max(wanted, default=-1))
        return frames[:count], valid

    @classmethod
    def _read_frames(
        cls, cap: Any, frame_indices: set[int], num_expected_frames: int, max_frame_idx: int
    ) -> tuple[Frames, int, list[int]]:
        """Read frames one after the other: see `decoders.opencv.read_frames`."""
        return opencv.read_frames(cap, frame_indices, num_expected_frames, max_frame_idx)

    @classmethod
    def _read_frames_with_recovery(
        cls, cap: Any, frame_indices: list[int], total_frames: int
    ) -> tuple[Frames, list[int], dict[int, int]]:
        """Read frames and replace failures: see `decoders.opencv.read_frames_with_recovery`."""
        return opencv.read_frames_with_recovery(cap, frame_indices, total_frames, cls._can_use_for_recovery)

    @staticmethod
    def _can_use_for_recovery(
        idx: int, failed_frames: list[int], next_target_map: dict[int, int], total_frames: int
    ) -> bool:
        """Whether a frame may replace the oldest failure: see `decoders.opencv.can_use_for_recovery`."""
        return opencv.can_use_for_recovery(idx, failed_frames, next_target_map, total_frames)


class OpenCVVideoBackendMixin(ReadsCaptures):
    """What decoding by OpenCV takes."""

    @staticmethod
    def get_cv2_video_api() -> int:
        """Return OpenCV's number of its first backend that reads from memory."""
        return opencv.get_cv2_video_api()

    @classmethod
    def open_video_capture(cls, data: bytes) -> "cv2.VideoCapture":
        """Open encoded bytes, in memory.

        Raises:
            InvalidMediaError: (a `ValueError`) the container is refused, or OpenCV can't open it.
        """
        return opencv.open_capture(data)

    @staticmethod
    def get_video_metadata(data: Any) -> VideoSourceMetadata:
        """Return what a video is.

        Args:
            data: encoded bytes, of which frames are counted, as in vLLM 0.33; or an open capture, whose
                claims are returned, as in 0.20.

        Raises:
            InvalidMediaError: (a `ValueError`) no video, or one without frames.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            return opencv.source_metadata(data, 1 << 62)
        admitted = containers.admit(bytes(data))
        packets = index.build(admitted)
        shown = shown_frames(packets)
        try:
            claim: VideoSourceMetadata | None = opencv.claimed_metadata(opencv.open_capture(admitted))
        except InvalidMediaError:
            claim = None
        return shown.metadata(claim, packets.rate)

    @classmethod
    def demux_count_frames(cls, data: bytes) -> int:
        """Return how many frames a video shows, by its packets; errors as in `get_video_metadata`."""
        return shown_frames(index.build(containers.admit(data))).total

    @classmethod
    def _read_frames_no_recovery(
        cls, cap: Any, frame_indices: Collection[int], max_frame_idx: int
    ) -> tuple[Frames, list[int]]:
        """Read frames one after the other, up to one: see `decoders.opencv.read_frames`."""
        frames, _, valid = opencv.read_frames(cap, frame_indices, len(frame_indices), max_frame_idx)
        return frames, valid


class PyAVVideoBackendMixin:
    """What decoding by PyAV takes."""

    @staticmethod
    def get_metadata(container: "av.container.InputContainer") -> VideoSourceMetadata:
        """Return what the header of an open container says of its video."""
        stream = containers.video_stream(container)
        fps = float(stream.average_rate or 0)
        seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
        if not seconds and container.duration:
            seconds = container.duration / 1_000_000
        total = stream.frames or round(seconds * fps)
        return VideoSourceMetadata(total, fps, total / fps if fps > 0 else seconds)

    @staticmethod
    def decode_frames(
        container: "av.container.InputContainer",
        frame_indices: Sequence[int],
        fps: float,  # noqa: ARG004  # by which vLLM seeks, and may miss
        duration: float,  # noqa: ARG004
    ) -> tuple[Frames, list[int]]:
        """Decode an open container from where it stands, counting from 0, up to the last wanted frame.

        Returns:
            Frames, uint8 RGB (n, height, width, 3), and the index of each, ascending. One that does not come
            is left out.

        Raises:
            LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
        """
        wanted = set(frame_indices)
        frames: list[Frames] = []
        valid: list[int] = []
        for number, frame in enumerate(container.decode(containers.video_stream(container))):
            if number in wanted:
                check_size(frame.height, frame.width, len(wanted))
                frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
                valid.append(number)
            if number >= max(wanted, default=0):
                break
        return (np.stack(frames) if frames else np.empty((0, 0, 0, 3), np.uint8)), valid
