"""The reference decoder: sequential reading through OpenCV's stream-buffered FFmpeg backend.

What it returns is the contract of every faster way. It reads any object with `grab`, `retrieve` and `get`
like a `cv2.VideoCapture`, so that code under test may replace that class.
"""

import ctypes
import io
import logging
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError, LimitExceededError, MediaError
from mmmedia.video.decoders.bitstreams import is_progressive_h264
from mmmedia.video.decoders.eligible import Reference
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.decoders.watch import may_use_threads
from mmmedia.video.samplers import VideoSourceMetadata

if TYPE_CHECKING:
    import cv2

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]

# After so many grabs in a row without a frame the rest is taken for failed too: a header may claim any
# number of frames, and asking for each would take for ever.
_MAX_FAILED_GRABS = 10_000

# No list of indices is longer, whatever a header claims: six days at 30 frames a second.
_MAX_TOTAL_FRAMES = 1 << 24

# Larger files take so long to read that decoding their first frame does not count.
_QUICK_LOOK = 1 << 24

_OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# OpenCV's own default, which it drops once the variable is set, then what FFmpeg is held to.
_OPENCV_DEFAULT_OPTIONS = "rtsp_flags;prefer_tcp"
_environment_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    # A child forked while another thread opens a file would wait for that thread for ever.
    os.register_at_fork(
        before=_environment_lock.acquire,
        after_in_parent=_environment_lock.release,
        after_in_child=_environment_lock.release,
    )


class Capture(Protocol):
    """The part of `cv2.VideoCapture` that reading needs."""

    def grab(self) -> bool:
        """Advance by one frame."""

    def retrieve(self, *args: Any) -> tuple[bool, Any]:
        """Return the frame grabbed last, as BGR."""

    def get(self, propId: int, /) -> float:  # noqa: N803 - OpenCV's name
        """Return a property of the stream."""


def get_cv2_video_api() -> int:
    """Return OpenCV's number of the first stream-buffered backend that is present.

    A plug-in counts only from ABI 1, API 2 on, which brought reading from memory.

    Raises:
        MediaError: this OpenCV was built without one.

    >>> import cv2
    >>> get_cv2_video_api() == cv2.CAP_FFMPEG
    True
    """
    from cv2 import videoio_registry as registry

    for backend in registry.getStreamBufferedBackends():
        if not registry.hasBackend(backend):
            continue
        if not registry.isBackendBuiltIn(backend):
            _, abi, api = registry.getStreamBufferedBackendPluginVersion(backend)
            if (abi, api) < (1, 2):
                continue
        return int(backend)
    raise MediaError(
        "This OpenCV has no backend that reads video from memory; install opencv-python-headless."
    )


def is_replaced() -> bool:
    """Whether somebody has put something else in the place of `cv2.VideoCapture`, as tests do."""
    import cv2

    capture: Any = cv2.VideoCapture
    return not isinstance(capture, type) or capture.__module__ != "cv2"


class _Stream(io.BytesIO):
    """Encoded bytes for OpenCV, which cuts offsets to 32 bits and crashes where `seek` raises.

    OpenCV (4.14) also makes a new string of a method's name for every call and never lets go of it: reading
    7 MB loses 60 KB for ever. So each is let go of here, when the next call shows that it is not used again.
    """

    def __init__(self, data: containers.Buffer) -> None:
        super().__init__(data)
        # Whoever has put something in the place of OpenCV makes its strings itself.
        self._names = {} if is_replaced() else {"read": _LostString(), "seek": _LostString()}

    def __getattribute__(self, name: str) -> Any:
        if name == "read":
            method = "read"  # our own string: a class remembers those by which it was asked
        elif name == "seek":
            method = "seek"
        else:
            return super().__getattribute__(name)
        lost = super().__getattribute__("_names").get(method)
        if lost is not None:
            lost.replace_by(name)
        return super().__getattribute__(method)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset; one that does not exist is the end, as it is in a file."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)


class _LostString:
    """A string that native code has made, passed to Python and perhaps forgotten to let go of."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._is_new_each_time = False

    def replace_by(self, text: str) -> None:
        """Let go of the last one, if this is another and nobody but us refers to it."""
        if self._held:
            self._is_new_each_time = self._held[0] is not text
            self._let_go()
        self._held = [text]

    def __del__(self) -> None:
        """Let go of the last one of all."""
        self._let_go()

    def _let_go(self) -> None:
        if _COUNTS_REFERENCES and self._is_new_each_time and _references(self._held) > _OWN_REFERENCES:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(self._held[0]))


def _references(held: list[str]) -> int:
    return sys.getrefcount(held[0])


_COUNTS_REFERENCES = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
_OWN_REFERENCES = _references(["".join(("re", "ad"))])


def open_capture(data: containers.Buffer | containers.Admitted[Any]) -> "cv2.VideoCapture":
    """Open encoded bytes with OpenCV, in memory, allow-listed demuxers only.

    The capture is closed by dropping the last reference to it: `release()` frees the stream without
    holding the interpreter's lock and crashes (seen with OpenCV 4.14).

    Raises:
        InvalidMediaError: (a `ValueError`) the container is refused, or OpenCV can't open it.
    """
    import cv2

    if not is_replaced():
        data = containers.admit(data)
    encoded = data.data if isinstance(data, containers.Admitted) else data
    api = get_cv2_video_api()
    with _capture_options():
        capture = _open(encoded, api, [])
        if not is_replaced() and capture.isOpened() and not may_use_threads(kind(capture)):
            capture = _open(encoded, api, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise InvalidMediaError("Could not open video stream: OpenCV does not recognise it.")
    return capture


def _open(data: containers.Buffer, api: int, parameters: list[int]) -> "cv2.VideoCapture":
    import cv2

    stream: Any = _Stream(data)  # OpenCV's types ask for a class of its own
    return cv2.VideoCapture(stream, api, parameters)


def kind(capture: Capture) -> str:
    """What of a capture may stall: OpenCV with this codec.

    >>> import types
    >>> kind(types.SimpleNamespace(get=lambda _: 0x63766568))
    "OpenCV's hevc"
    """
    import cv2

    code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(8, "little", signed=True)[:4]
    return f"OpenCV's {code.decode('ascii', 'replace')}"


@contextmanager
def _capture_options() -> Iterator[None]:
    """Hold FFmpeg under OpenCV to the allow-list while a capture is opened.

    OpenCV takes options for FFmpeg from one environment variable alone, and reads it when it opens. It is
    set in the C environment, not in `os.environ`, under a lock and for the time of opening; options that
    the operator set stay in force beside it.
    """
    with _environment_lock:
        before = os.environ.get(_OPTIONS_VARIABLE)
        held = [f"{key};{value}" for key, value in containers.AV_OPTIONS.items()]
        os.putenv(_OPTIONS_VARIABLE, "|".join([before or _OPENCV_DEFAULT_OPTIONS, *held]))
        try:
            yield
        finally:
            if before is None:
                os.unsetenv(_OPTIONS_VARIABLE)
            else:
                os.putenv(_OPTIONS_VARIABLE, before)


def source_metadata(capture: Capture, encoded_bytes: int = 0) -> VideoSourceMetadata:
    """Return what OpenCV reports: frames, frames a second, and seconds (0.0 without a rate).

    Args:
        capture: an open capture.
        encoded_bytes: length of the file, against which the claimed number of frames is judged.

    Raises:
        LimitExceededError: (a `ValueError`) the header claims more frames than the bytes can hold.
    """
    import cv2

    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # Below zero for a stream of unknown length, and handed on so; beyond what is exact it is rubbish.
    if not abs(count) < 2.0**53:  # also NaN
        raise InvalidMediaError(f"The header claims {count:g} frames.")
    total = int(count)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    if not math.isfinite(fps):
        fps = 0.0
    if total > min(max(encoded_bytes, 1 << 20), _MAX_TOTAL_FRAMES):
        raise LimitExceededError(
            f"The header claims {total} frames, more than {encoded_bytes} bytes can hold."
        )
    return VideoSourceMetadata(total, fps, total / fps if fps > 0 else 0.0)


def reference(capture: Capture, source: VideoSourceMetadata) -> Reference:
    """Return what the fast path has to agree with."""
    import cv2

    return Reference(
        total=source.total_frames_num,
        width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        rotation=int(capture.get(cv2.CAP_PROP_ORIENTATION_META)),
    )


# Codecs that know no fields.
_PROGRESSIVE = frozenset([b"VP80", b"VP90", b"vp08", b"vp09", b"AV01", b"av01", b"theo", b"gif ", b"GIF "])


def may_be_interlaced(capture: Capture, data: bytes) -> bool:
    """Whether a closer look is due before frames are retrieved.

    OpenCV 4.14 can't convert interlaced frames, does not say so, and hands out memory as it found it.
    """
    import cv2

    codec = (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little")
    if codec in _PROGRESSIVE:
        return False
    return not (codec.lower() in {b"h264", b"avc1"} and len(data) < _QUICK_LOOK and is_progressive_h264(data))


def check_request(capture: Capture, count: int) -> None:
    """Judge `count` frames of a capture by the limits, before any is decoded."""
    import cv2

    check_size(int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), count)


def allocate(capture: Capture, count: int) -> Frames:
    """Return an uninitialised array for `count` frames of a capture, uint8 (count, height, width, 3).

    Raises:
        LimitExceededError: (a `ValueError`) a frame or the array is larger than the settings admit.
        InvalidMediaError: (a `ValueError`) the stream has no size.
    """
    import cv2

    height, width = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
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
        frame that can't be read is logged and left out.
    """
    frames = allocate(capture, count)
    rows = _Rows(capture, frames)
    valid: list[int] = []
    for index in _grabs(capture, last + 1):
        if index in wanted and len(valid) < count and rows.retrieve_into(len(valid)):
            valid.append(index)
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
        own = type(capture).__module__ == "cv2"
        self._arguments = (np.empty(frames.shape[1:], np.uint8),) if own else ()

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
