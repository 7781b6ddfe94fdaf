"""The reference decoder: sequential reading through OpenCV's stream-buffered FFmpeg backend.

What it returns is the contract of every faster way. It reads any object with `grab`, `retrieve` and `get`
like a `cv2.VideoCapture`, so that code under test may replace that class.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.decoders.opencv.capture import Capture, frame_size
from mmmedia.video.decoders.opencv.numbered import Numbered

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]

# After so many grabs in a row without a frame the rest is taken for failed too: a header may claim any
# number of frames, and asking for each would take for ever.
_MAX_FAILED_GRABS = 10_000


def allocate(capture: Capture, count: int) -> Frames:
    """Return an uninitialised array for `count` frames of a capture, uint8 (count, height, width, 3).

    Raises:
        LimitExceededError: (a `ValueError`) a frame or the array is larger than the settings admit.
        InvalidMediaError: (a `ValueError`) the stream has no size.
    """
    height, width = frame_size(capture)
    check_size(height, width, count)
    return np.empty((count, height, width, 3), np.uint8)


def read_frames(
    capture: Capture, wanted: Collection[int], count: int, last: int
) -> tuple[Frames, int, list[int]]:
    """Read the wanted frames by grabbing every frame up to the last of them.

    Args:
        capture: positioned before its first frame.
        wanted: source indices.
        count: rows to allocate, at least the number of different wanted indices.
        last: the index at which to stop.

    Returns:
        The frames, uint8 RGB (valid, height, width, 3), their number, and their source indices. A wanted
        frame that can't be read is left out, and logged unless the capture is numbered: of such a one there
        may be another way to read it, and who reads says at the end what is left out.
    """
    frames = allocate(capture, count)
    rows = _Rows(capture, frames)
    valid: list[int] = []
    for index in _grabs(capture, last + 1):
        if index in wanted and len(valid) < count and rows.retrieve_into(len(valid)):
            valid.append(index)
    if not isinstance(capture, Numbered):
        log_missing(wanted, valid)
    return frames[: len(valid)], len(valid), valid


def read_frames_with_recovery(
    capture: Capture,
    wanted: Sequence[int],
    total: int,
    can_use: Callable[[int, list[int], dict[int, int], int], bool] | None = None,
) -> tuple[Frames, list[int], dict[int, int]]:
    """Read the wanted frames, and in the place of one that fails the next that can be read.

    Args:
        capture: positioned before its first frame.
        wanted: source indices.
        total: the source's number of frames.
        can_use: the rule `can_use_for_recovery`, or another's.

    Returns:
        The frames as in `read_frames`, the source indices that were read, and a map from each wanted index
        that failed to the index that stands in for it.
    """
    can_use = can_use or can_use_for_recovery
    targets = sorted(set(wanted))
    next_target = dict(zip(targets, [*targets[1:], total], strict=True))
    frames = allocate(capture, len(targets))
    rows = _Rows(capture, frames)
    valid: list[int] = []
    failed: list[int] = []
    recovered: dict[int, int] = {}
    position = 0
    for index in _grabs(capture, total):
        # Wanted indices that were passed over are failed grabs.
        while position < len(targets) and targets[position] < index:
            failed.append(targets[position])
            position += 1
        # What was not replaced before the next wanted frame stays missing.
        failed = [target for target in failed if index <= next_target[target]]
        if index in next_target:
            position += 1
            if rows.retrieve_into(len(valid)):
                valid.append(index)
            else:
                failed.append(index)
        elif can_use(index, failed, next_target, total) and rows.retrieve_into(len(valid)):
            recovered[failed.pop(0)] = index
            valid.append(index)
        if not failed and targets and index >= targets[-1]:
            break
    if recovered:
        logger.warning(
            "Replaced %d frames that could not be read by later ones: %s.", len(recovered), recovered
        )
    if not isinstance(capture, Numbered):
        log_missing(set(targets).difference(recovered), valid)
    return frames[: len(valid)], valid, recovered


def log_missing(wanted: Collection[int], valid: Collection[int]) -> None:
    """Say which of the wanted frames are left out, if any."""
    missing = sorted(set(wanted).difference(valid))
    if missing:
        logger.warning(
            "Left out %d of %d wanted frames that could not be read, the first at index %d.",
            len(missing),
            len(wanted),
            missing[0],
        )


def can_use_for_recovery(
    idx: int, failed_frames: Sequence[int], next_target_map: dict[int, int], total: int
) -> bool:
    """Whether the frame `idx` may stand in for the oldest failure: it comes before the next wanted frame."""
    if not failed_frames:
        return False
    oldest = failed_frames[0]
    return oldest < idx < next_target_map.get(oldest, total)


def _grabs(capture: Capture, stop: int) -> Iterator[int]:
    """Grab frame after frame and yield the index of each that succeeds; failures count as well."""
    deadline = Deadline()
    failures = 0
    for index in range(stop):
        deadline.check()
        if capture.grab():
            failures = 0
            yield index
        else:
            failures += 1
            if failures >= _MAX_FAILED_GRABS:
                logger.debug("Gave up after %d failed grabs in a row, at index %d.", failures, index)
                return


class _Rows:
    """Retrieves the grabbed frame straight into a row of the frames array, BGR turned to RGB."""

    def __init__(self, capture: Capture, frames: Frames) -> None:
        self._capture = capture
        self._frames = frames
        # OpenCV's own captures fill a buffer that is handed to them; a replacement need not know how.
        is_own = isinstance(capture, Numbered) or type(capture).__module__ == "cv2"
        self._arguments = (np.empty(frames.shape[1:], np.uint8),) if is_own else ()

    def retrieve_into(self, row: int) -> bool:
        """Fill a row; False where the frame can't be retrieved."""
        import cv2

        ok, image = self._capture.retrieve(*self._arguments)
        if not ok or image is None:
            return False
        target = self._frames[row]
        if image.shape != target.shape:
            raise InvalidMediaError(
                f"The video changes its resolution midway, from {target.shape[1]} x {target.shape[0]} "
                f"to {image.shape[1]} x {image.shape[0]} pixels; such a video can't be loaded as one array."
            )
        cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=target)
        return True
