"""The backend "pyav": frames by exact index in display order, of whatever FFmpeg opens."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.convert import Converter
from mmmedia.video.decoders.fit import Size, fitted_size
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import Shown
from mmmedia.video.decoders.upright import upright
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.watch import may_use_threads, watched

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Frames = npt.NDArray[np.uint8]
_KIND = "PyAV"


def claimed_metadata(packets: index.PacketIndex, total: int) -> VideoSourceMetadata | None:
    """Return what a constant rate would make of so many frames; None where the container has no rate."""
    if not packets.average_rate:
        return None
    fps = float(packets.average_rate)
    return VideoSourceMetadata(total, fps, total / fps)


def read_frames(
    data: bytes | containers.Admitted[bytes],
    packets: index.PacketIndex,
    shown: Shown,
    wanted: Sequence[int],
    size: Size | None = None,
) -> tuple[Frames, list[int], bool]:
    """Decode from the first frame to the last wanted one, single pass, and return those wanted.

    Args:
        data: the encoded file.
        packets: its packets.
        shown: the frames that count.
        wanted: numbers of such frames.
        size: of the frames, as of `fit.size_for`.

    Returns:
        The frames, uint8 RGB (valid, height, width, 3), upright; the number of each; and whether any of them
        is interlaced.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes can't be decoded, or the frames change their size.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
    """
    numbers: dict[int, int] | None = None
    if shown.positions is not None:
        numbers = {position: number for number, position in enumerate(shown.positions.tolist())}
    threads = 0
    while True:
        read = partial(_read_frames, data, packets, shown, numbers, wanted, size, threads)
        try:
            return watched(_KIND, read)
        except _OtherOrderError:
            numbers = None
        except _LostBehindError:
            threads = 1


class _OtherOrderError(Exception):
    """Frames come in another order than their times tell."""


class _LostBehindError(Exception):
    """Frames are missing: several threads keep back good ones behind damage, or some came too late."""


def _read_frames(
    data: bytes | containers.Admitted[bytes],
    packets: index.PacketIndex,
    shown: Shown,
    numbers: dict[int, int] | None,
    wanted: Sequence[int],
    size: Size | None,
    threads: int,
) -> tuple[Frames, list[int], bool]:
    """Tell frames by `numbers`, from decode position to number, or by counting."""
    targets = sorted({number for number in wanted if 0 <= number < shown.total})
    rows = {number: row for row, number in enumerate(targets)}
    frames = np.empty((0, 0, 0, 3), np.uint8)
    valid: list[int] = []
    interlaced = False
    convert = Converter(packets)
    if not targets:
        return frames, valid, interlaced
    turn, last, passed_over = None, -1, False
    own = (0, 0)
    for count, frame in enumerate(itertools.islice(_decode(data, threads, shown.begin), shown.made_up, None)):
        number = count if numbers is None else numbers.get(-1 if frame.pts is None else frame.pts)
        if number is not None:
            if number <= last:
                raise _OtherOrderError
            passed_over = passed_over or number > last + 1
            last = number
        if number is not None and number in rows:
            turn = turn or upright(packets.matrix or index.frame_matrix(frame))
            before, own = own, turn.size(frame.height, frame.width)
            if not valid:
                frames = np.empty((len(targets), *fitted_size(own, size, len(targets)), 3), np.uint8)
            elif own != before:
                raise InvalidMediaError(
                    f"The video changes its resolution midway, from {before[1]} x {before[0]} to "
                    f"{own[1]} x {own[0]} pixels; such a video can't be loaded as one array."
                )
            convert(frame, frames[len(valid)], turn)
            interlaced = interlaced or frame.interlaced_frame
            valid.append(number)
        # Whether those passed over are lost, or come later, only the rest can tell.
        if number is not None and number >= targets[-1] and not passed_over:
            break
    convert.finish()
    if len(valid) < len(targets) and threads != 1:
        raise _LostBehindError
    return frames[: len(valid)], valid, interlaced


def starts_interlaced(data: bytes | containers.Admitted[bytes]) -> bool:
    """Whether the first frame consists of two fields; False where there is no first frame."""
    try:
        frame = next(_decode(data, threads=1), None)
    except InvalidMediaError:
        return False
    return frame is not None and frame.interlaced_frame


def _decode(data: bytes | containers.Admitted[bytes], threads: int, begin: int = 0) -> "Iterator[VideoFrame]":
    """Frames in display order, the decode position of each in the place of its time.

    A packet that can't be decoded is passed over.

    Args:
        data: the encoded file.
        threads: 0: as FFmpeg likes.
        begin: the decode position of the first packet.

    Raises:
        _LostBehindError: a packet can't be decoded, by more than one thread.
    """
    deadline = Deadline()
    with containers.open_av(data) as container:
        stream = containers.video_stream(container)
        check_size(stream.codec_context.height, stream.codec_context.width, 1)
        stream.thread_count = threads if may_use_threads(_KIND) else 1
        stream.thread_type = "AUTO"
        # How far pictures of H.264 are reordered is guessed, else, and those that come too late are lost.
        if threads == 1 and stream.codec_context.name == "h264":
            stream.codec_context.options = {"strict": "strict"}
        for position, packet in enumerate(index.demux(container.demux(stream))):
            deadline.check()
            if position < begin:
                continue
            packet.pts = packet.dts = position
            yield from _pictures(stream, packet)
        yield from _pictures(stream, None)


def _pictures(stream: "VideoStream", packet: "Packet[VideoStream] | None") -> "list[VideoFrame]":
    """The frames that come with a packet, or at the end; none where it can't be decoded."""
    import av

    try:
        return stream.codec_context.decode(packet)
    except av.FFmpegError:
        if stream.thread_count != 1:
            raise _LostBehindError from None
        return []
