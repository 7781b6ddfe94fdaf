"""Opening a video with OpenCV's stream-buffered FFmpeg backend, and what it says of it."""

import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from mmmedia import containers, envs
from mmmedia.errors import InvalidMediaError, LimitExceededError, MediaError
from mmmedia.video.decoders.bitstreams.h264_sets import is_progressive_h264
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.decoders.opencv.stream import Stream, is_replaced
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.fork import none_while_held
from mmmedia.work.jobs import worker_count
from mmmedia.work.watch import may_use_threads

if TYPE_CHECKING:
    import cv2

# No list of indices is longer, whatever a header claims: six days at 30 frames a second.
_MAX_TOTAL_FRAMES = 1 << 24

# Larger files take so long to read that decoding their first frame does not count.
_QUICK_LOOK = 1 << 24

_OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
# OpenCV's own default, which it drops once the variable is set, then what FFmpeg is held to.
_OPENCV_DEFAULT_OPTIONS = "rtsp_flags;prefer_tcp"


_environment_lock = threading.Lock()
# OpenCV has locks of its own while it opens a file, for which a child would wait for ever.
none_while_held(_environment_lock)


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


def open_capture(
    data: containers.Buffer | containers.Admitted[Any], *, threads: int = 0, turned: bool = True
) -> "cv2.VideoCapture":
    """Open encoded bytes with OpenCV, in memory, allow-listed demuxers only.

    The capture is closed by dropping the last reference to it: `release()` frees the stream without
    holding the interpreter's lock and crashes (seen with OpenCV 4.14).

    Args:
        data: an encoded file.
        threads: how many decode; 0: as many as OpenCV likes, or as there are workers where what counts is
            throughput.
        turned: whether OpenCV turns pictures as the file says.

    Raises:
        InvalidMediaError: (a `ValueError`) the container is refused, or OpenCV can't open it.
    """
    import cv2

    if not is_replaced():
        data = containers.admit(data)
    encoded = containers.recognisable(data) if isinstance(data, containers.Admitted) else data
    api = get_cv2_video_api()
    most = threads or (worker_count() if envs.MMMEDIA_VIDEO_DECODE_FOR == "throughput" else 0)
    parameters = [cv2.CAP_PROP_N_THREADS, most] if most else []
    more: Mapping[str, str] = {}
    with _capture_options(more):
        capture = _open(encoded, api, parameters)
    is_stream = isinstance(data, containers.Admitted) and data.name == "mpegts"
    if is_stream and capture.isOpened() and not capture.get(cv2.CAP_PROP_FRAME_WIDTH):
        more = containers.PATIENCE
        with _capture_options(more):
            capture = _open(encoded, api, parameters)
    may_stall = not (is_replaced() or threads) and most != 1
    if may_stall and capture.isOpened() and not may_use_threads(kind(capture)):
        with _capture_options(more):
            capture = _open(encoded, api, [cv2.CAP_PROP_N_THREADS, 1])
    if not turned:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    if not capture.isOpened():
        raise InvalidMediaError("Could not open video stream: OpenCV does not recognise it.")
    return capture


def _open(data: containers.Buffer, api: int, parameters: list[int]) -> "cv2.VideoCapture":
    import cv2

    stream: Any = Stream(data)  # OpenCV's types ask for a class of its own
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
def _capture_options(more: Mapping[str, str]) -> Iterator[None]:
    """Hold FFmpeg under OpenCV to the allow-list while a capture is opened.

    OpenCV takes options for FFmpeg from one environment variable alone, and reads it when it opens. It is
    set in the C environment, not in `os.environ`, under a lock and for the time of opening; options that
    the operator set stay in force beside it.
    """
    with _environment_lock:
        before = os.environ.get(_OPTIONS_VARIABLE)
        held = [f"{key};{value}" for key, value in {**more, **containers.AV_OPTIONS}.items()]
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
    if count > min(max(encoded_bytes, 1 << 20), _MAX_TOTAL_FRAMES):
        raise LimitExceededError(
            f"The header claims {count:.0f} frames, more than {encoded_bytes} bytes can hold."
        )
    return claimed_metadata(capture)


def claimed_metadata(capture: Capture) -> VideoSourceMetadata:
    """Return what OpenCV reports, however wrong: -1 frames where it reports rubbish."""
    import cv2

    count, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), float(capture.get(cv2.CAP_PROP_FPS))
    total = int(count) if abs(count) < 2.0**53 else -1
    fps = fps if math.isfinite(fps) else 0.0
    return VideoSourceMetadata(total, fps, total / fps if fps > 0 else 0.0)


def frame_size(capture: Capture) -> tuple[int, int]:
    """Return height and width of the frames in pixels."""
    import cv2

    height, width = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    return int(height), int(width)


# Codecs that know no fields.
_PROGRESSIVE = frozenset([b"VP80", b"VP90", b"vp08", b"vp09", b"AV01", b"av01", b"theo", b"gif ", b"GIF "])


def may_be_interlaced(capture: Capture, data: bytes) -> bool:
    """Whether a closer look is due before frames are retrieved.

    OpenCV 4.14 can't convert interlaced frames, does not say so, and hands out memory as it found it.
    """
    codec = _codec(capture)
    if codec in _PROGRESSIVE:
        return False
    return not (codec.lower() in {b"h264", b"avc1"} and len(data) < _QUICK_LOOK and is_progressive_h264(data))


# Codecs whose decoders pass on no numbers of colours that mean nothing.
_TELL_COLOURS = frozenset([b"h264", b"avc1", b"avc3", b"hevc", b"hvc1", b"hev1", b"vp80", b"vp90", b"vp09"])
_MATROSKA, _PRIMARIES_TOLD = b"\x1a\x45\xdf\xa3", b"\x55\xbb"


def may_tell_any_colours(capture: Capture, data: bytes) -> bool:
    """Whether a closer look is due, lest OpenCV ends the process over primaries that there are not."""
    if _codec(capture).lower() not in _TELL_COLOURS:
        return True
    return data[:4] == _MATROSKA and data.find(_PRIMARIES_TOLD, 0, _QUICK_LOOK) >= 0


def _codec(capture: Capture) -> bytes:
    import cv2

    return (int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little")


def check_request(capture: Capture, count: int) -> None:
    """Judge `count` frames of a capture by the limits, before any is decoded."""
    check_size(*frame_size(capture), count)
