"""Operations on arrays of frames: uint8 RGB of shape (frames, height, width, 3)."""

from typing import Any

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.samplers import evenly_spaced

Frames = npt.NDArray[Any]


def resize_video(frames: Frames, size: tuple[int, int]) -> Frames:
    """Resize every frame, bilinear, by OpenCV.

    Args:
        frames: shape (frames, height, width, channels).
        size: the new (height, width) in pixels.

    Returns:
        A new array of shape (frames, new height, new width, channels) and the same dtype.

    >>> resize_video(np.zeros((2, 4, 6, 3), np.uint8), (8, 12)).shape
    (2, 8, 12, 3)
    """
    import cv2

    height, width = size
    if height < 1 or width < 1:
        raise InvalidArgumentError(f"A video can't be resized to {height} x {width} pixels.")
    count, _, _, channels = frames.shape
    resized = np.empty((count, height, width, channels), frames.dtype)
    for row, frame in zip(resized, frames, strict=True):
        # OpenCV drops an axis of one channel.
        row[...] = cv2.resize(frame, (width, height)).reshape(row.shape)
    return resized


def rescale_video_size(frames: Frames, size_factor: float) -> Frames:
    """Resize every frame to `size_factor` times its height and width, truncated.

    >>> rescale_video_size(np.zeros((2, 4, 6, 3), np.uint8), 0.5).shape
    (2, 2, 3, 3)
    """
    _, height, width, _ = frames.shape
    return resize_video(frames, (int(height * size_factor), int(width * size_factor)))


def sample_frames_from_video(frames: Frames, num_frames: int) -> Frames:
    """Return `num_frames` frames evenly spaced from first to last; -1: all of them.

    >>> sample_frames_from_video(np.arange(10).reshape(10, 1, 1, 1), 3).ravel().tolist()
    [0, 4, 9]
    """
    if num_frames == -1:
        return frames
    if num_frames < 0:
        raise InvalidArgumentError(f"num_frames={num_frames}: expected -1 or a number of frames.")
    if num_frames and not len(frames):
        raise InvalidArgumentError(f"num_frames={num_frames}: a video of no frames has none to sample.")
    return frames[evenly_spaced(len(frames), num_frames)]
