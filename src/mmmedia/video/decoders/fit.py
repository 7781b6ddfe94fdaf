"""Frames in another size than they have, each made so before it is stored."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidArgumentError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.decoders.upright import Upright

Pixels = npt.NDArray[np.uint8]
Size = int | tuple[int, int]


def size_for(of: tuple[int, int], size: Size | None) -> tuple[int, int]:
    """Return the (height, width) that a keyword `size` means for a picture of such a size.

    Raises:
        InvalidArgumentError: (a `ValueError`) no number of pixels.

    >>> size_for((1080, 1920), 640), size_for((90, 160), 640), size_for((1080, 1920), (224, 224))
    ((360, 640), (90, 160), (224, 224))
    """
    if size is None:
        return of
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        scale = min(1.0, size / max(of))
        return max(1, round(of[0] * scale)), max(1, round(of[1] * scale))
    try:
        height, width = (int(side) for side in cast("Any", size))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise InvalidArgumentError(
            f"size={size!r:.64}: expected (height, width), or the longer side, in pixels."
        )
    return height, width


def fitted_size(of: tuple[int, int], size: Size | None, count: int) -> tuple[int, int]:
    """Return the (height, width) of `count` frames to be stored, and judge them by the limits.

    Args:
        of: height and width of a frame as it is decoded, upright.
        size: as of `size_for`; None: as it is.
        count: how many frames are stored.

    Raises:
        LimitExceededError: (a `ValueError`) a frame, or what is stored of all, is larger than the settings
            admit.
    """
    check_size(*of, 1)
    fitted = size_for(of, size)
    check_size(*fitted, count)
    return fitted


def fit(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return one frame (height, width, 3) in a size: itself, where it has that.

    Smaller ones are means of areas. What is three times too large is halved first, which takes half the time
    and differs on the average by a quarter of a level, by two where little is left of a side.
    """
    import cv2

    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    if size[0] > height or size[1] > width:
        return cast("Pixels", cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR))
    while height >= 3 * size[0] and width >= 3 * size[1] and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        pixels = cast("Pixels", cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA))
    return cast("Pixels", cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA))


def resized(frames: Pixels, size: Size | None) -> Pixels:
    """Return frames, uint8 (n, height, width, 3), in a size as of `size_for`.

    >>> resized(np.zeros((2, 90, 160, 3), np.uint8), 80).shape
    (2, 45, 80, 3)
    """
    fitted = size_for((frames.shape[1], frames.shape[2]), size)
    if fitted == frames.shape[1:3] or not len(frames):
        return frames
    result = np.empty((len(frames), *fitted, 3), np.uint8)
    for row, frame in zip(result, frames, strict=True):
        row[...] = fit(frame, fitted)
    return result


def store(bgr: Pixels, row: Pixels, turn: Upright) -> None:
    """Put a stored BGR frame (height, width, 3) into a row of RGB frames: upright, in its size."""
    import cv2

    size = row.shape[0], row.shape[1]
    if turn.size(bgr.shape[0], bgr.shape[1]) == size:
        turn.fill(row, bgr)
    else:
        cv2.cvtColor(fit(turn(bgr), size), cv2.COLOR_BGR2RGB, dst=row)
