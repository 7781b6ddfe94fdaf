"""The backend "pyav": frames by exact index in display order, of whatever FFmpeg opens."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.convert import Converter
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.decoders.packets import index
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.watch import may_use_threads, watched

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Frames = npt.NDArray[np.uint8]
_KIND = "PyAV"


def source_metadata(packets: index.PacketIndex) -> VideoSourceMetadata:
    """Return frames (counted, not declared), frames a second, and seconds."""
    total = int(np.count_nonzero(~packets.discard))
    fps = float(packets.rate)
    return VideoSourceMetadata(total, fps, total / fps if fps > 0 else 0.0)


def read_frames(data: bytes | containers.Admitted[bytes], wanted: Sequence[int]) -> tuple[Frames, list[int]]:
    """Decode from the first frame to the last wanted one, single pass, and return those wanted.

    Returns:
        The frames, uint8 RGB (valid, height, width, 3), and the source index of each.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes can't be decoded, or the frames change their size.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
    """
    return watched(_KIND, lambda: _read_frames(data, wanted))


def _read_frames(data: bytes | containers.Admitted[bytes], wanted: Sequence[int]) -> tuple[Frames, list[int]]:
    targets = sorted({number for number in wanted if number >= 0})
    frames = np.empty((0, 0, 0, 3), np.uint8)
    valid: list[int] = []
    convert = Converter()
    if not targets:
        return frames, valid
    for number, frame in enumerate(_decode(data)):
        if number != targets[len(valid)]:
            continue
        if not valid:
            check_size(frame.height, frame.width, len(targets))
            frames = np.empty((len(targets), frame.height, frame.width, 3), np.uint8)
        elif (frame.height, frame.width) != frames.shape[1:3]:
            raise InvalidMediaError(
                f"The video changes its resolution midway, from {frames.shape[2]} x {frames.shape[1]} to "
                f"{frame.width} x {frame.height} pixels; such a video can't be loaded as one array."
            )
        convert(frame, frames[len(valid)])
        valid.append(number)
        if len(valid) == len(targets):
            break
    return frames[: len(valid)], valid


def starts_interlaced(data: bytes | containers.Admitted[bytes]) -> bool:
    """Whether the first frame consists of two fields; False where there is no first frame."""
    try:
        frame = next(_decode(data, threads=1), None)
    except InvalidMediaError:
        return False
    return frame is not None and frame.interlaced_frame


def _decode(data: bytes | containers.Admitted[bytes], threads: int = 0) -> "Iterator[VideoFrame]":
    """Frames in display order; a packet that can't be decoded is passed over. 0 threads: as FFmpeg likes."""
    import av

    deadline = Deadline()
    with containers.open_av(data) as container:
        stream = containers.video_stream(container)
        check_size(stream.codec_context.height, stream.codec_context.width, 1)
        stream.thread_count = threads if may_use_threads(_KIND) else 1
        stream.thread_type = "AUTO"
        for packet in index.demux(container.demux(stream), flush=True):
            deadline.check()
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue
