"""One way into all decoders: encoded bytes and a choice of frames in, frames out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mmmedia import containers, envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSeekableError
from mmmedia.video.decoders import eligible, opencv, plan, pyav, seek, stats
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, Structure
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.decoders.packets import index
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.watch import watched

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]
File = bytes | containers.Admitted[bytes]
BACKENDS = ("opencv", "pyav")
MODES = ("auto", "sequential", "seek")


@dataclass(frozen=True)
class Decoded:
    """Frames, uint8 RGB (n, height, width, 3), the source index of each, and what the source is."""

    frames: Frames
    indices: list[int]
    source: VideoSourceMetadata


class Reader(Protocol):
    """How a loader reads through a capture; the built-in one is `VideoLoader` itself."""

    def _read_frames(
        self, cap: Any, frame_indices: set[int], num_expected_frames: int, max_frame_idx: int
    ) -> tuple[Frames, int, list[int]]: ...

    def _read_frames_with_recovery(
        self, cap: Any, frame_indices: list[int], total_frames: int
    ) -> tuple[Frames, list[int], dict[int, int]]: ...


def read_video(
    data: bytes,
    choose: Callable[[VideoSourceMetadata], list[int]],
    reader: Reader,
    *,
    recovery: bool = False,
    backend: str | None = None,
    decode: str | None = None,
    may_seek: bool = True,
) -> Decoded:
    """Decode the frames that `choose` picks from what the source says of itself.

    Args:
        data: an encoded video file.
        choose: from source metadata to source indices.
        reader: reads sequentially through a capture.
        recovery: put the next readable frame in the place of one that fails.
        backend: "opencv" (None), or "pyav".
        decode: "auto", "sequential" or "seek"; None: the setting `VLLM_VIDEO_DECODE`.
        may_seek: False where the reader's own way of reading must be honoured.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes hold no video that can be decoded.
        InvalidArgumentError: (a `ValueError`) an unknown backend or mode, or one that excludes another.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
    """
    if backend not in {None, *BACKENDS}:
        raise InvalidArgumentError(f"Unknown video backend {backend!r}; there are: {', '.join(BACKENDS)}.")
    mode = decode or envs.VLLM_VIDEO_DECODE
    if mode not in MODES:
        raise InvalidArgumentError(f"decode={mode!r}: expected one of {', '.join(MODES)}.")
    if backend == "pyav":
        if recovery:
            raise InvalidArgumentError('frame_recovery needs backend="opencv".')
        return _read_pyav(containers.admit(data), choose, mode)
    built_in = may_seek and not opencv.is_replaced()
    if not built_in:
        if mode == "seek":
            raise InvalidArgumentError('decode="seek": this loader reads in a way of its own.')
        mode = "sequential"
    file = data if opencv.is_replaced() else containers.admit(data)
    capture = opencv.open_capture(file)
    source = opencv.source_metadata(capture, len(data))
    wanted = _chosen(choose, source)
    opencv.check_request(capture, len(wanted))
    reason = "by request"
    if mode != "sequential":
        try:
            return _seek(file, capture, source, wanted, forced=mode == "seek")
        except CannotSeekError as refusal:
            reason = str(refusal)
            if mode == "seek":
                raise NotSeekableError(f'decode="seek": not provably exact here: {reason}.') from None
    stats.count("sequential", reason)
    logger.debug("Decoding sequentially (%s): %d of %d frames.", reason, len(wanted), source.total_frames_num)
    if built_in and opencv.may_be_interlaced(capture, data) and pyav.starts_interlaced(file):
        return _by_pyav(file, wanted, source, "OpenCV can't convert its interlaced frames")
    read = partial(_sequentially, reader, capture, wanted, source.total_frames_num, recovery)
    frames, valid = watched(opencv.kind(capture), read) if built_in else read()
    if valid:
        return Decoded(frames, valid, source)
    del capture, read
    if opencv.is_replaced():
        raise _nothing_read(source)
    return _by_pyav(file, wanted, source, "OpenCV reads no frame of it")


def _sequentially(
    reader: Reader, capture: Any, wanted: list[int], total: int, recovery: bool
) -> tuple[Frames, list[int]]:
    """The reference: one pass by OpenCV. The frames that could be read, and their source indices."""
    if recovery:
        frames, valid, _ = reader._read_frames_with_recovery(capture, wanted, total)
        return frames, valid
    frames, count, valid = reader._read_frames(capture, set(wanted), len(wanted), max(wanted))
    return frames[:count], valid


def _seek(
    file: File, capture: opencv.Capture, source: VideoSourceMetadata, wanted: list[int], *, forced: bool
) -> Decoded:
    """The fast path; raises CannotSeekError where it does not pay or can't be proven."""
    reference = opencv.reference(capture, source)
    last = max(wanted)
    if not forced and not plan.may_pay(wanted, last, reference.width * reference.height):
        raise CannotSeekError("does not pay")
    try:
        packets = index.build(file)
    except InvalidMediaError:
        raise CannotSeekError("can't be indexed") from None
    structure = eligible.judge(packets, reference)
    if plan.is_short(packets.codec, len(packets), reference.width * reference.height):
        if not forced:
            raise CannotSeekError("does not pay")
        seek.prove_whole(packets)
    decoded = _by_spans(packets, structure, source, wanted, must_pay=not forced)
    opencv.log_missing(wanted, decoded.indices)
    return decoded


def _by_spans(
    packets: index.PacketIndex,
    structure: Structure,
    source: VideoSourceMetadata,
    wanted: list[int],
    *,
    must_pay: bool = False,
) -> Decoded:
    """Decode the spans that hold the wanted frames; raises CannotSeekError as `seek.execute` does."""
    # An index past the end fails in the reference too, and is left out.
    present = sorted({number for number in wanted if 0 <= number < len(packets)})
    if not present:
        raise CannotSeekError("no such frames")
    seek_plan = seek.make_plan(packets, structure, present)
    if must_pay and not seek_plan.pays(last=present[-1]):
        raise CannotSeekError("does not pay")
    check_size(packets.height, packets.width, len(present))
    frames = np.empty((len(present), packets.height, packets.width, 3), np.uint8)
    decoded = seek.execute(seek_plan, frames)
    stats.count("seek", wanted=len(present), decoded=decoded)
    logger.debug(
        "Decoded by seeking: %d frames for %d of %d.", decoded, len(present), source.total_frames_num
    )
    return Decoded(frames, present, source)


def _by_pyav(file: File, wanted: list[int], source: VideoSourceMetadata, why: str) -> Decoded:
    """PyAV's answer for a stream that OpenCV opens and then can't deliver."""
    try:
        frames, valid = pyav.read_frames(file, wanted)
    except InvalidMediaError as error:
        raise _nothing_read(source) from error
    if not valid:
        raise _nothing_read(source)
    logger.warning("A video was decoded with PyAV: %s.", why)
    return Decoded(frames, valid, source)


def _nothing_read(source: VideoSourceMetadata) -> InvalidMediaError:
    return InvalidMediaError(
        f"No frame could be read from the video, which claims {source.total_frames_num} frames."
    )


def _read_pyav(file: File, choose: Callable[[VideoSourceMetadata], list[int]], mode: str) -> Decoded:
    packets = index.build(file)
    source = pyav.source_metadata(packets)
    wanted = _chosen(choose, source)
    if mode != "sequential":
        try:
            return _by_spans(packets, eligible.judge(packets, None), source, wanted)
        except CannotSeekError as refusal:
            if mode == "seek":
                raise NotSeekableError(f'decode="seek": {refusal}.') from None
            stats.count("sequential", str(refusal))
    frames, valid = pyav.read_frames(file, wanted)
    if not valid:
        raise InvalidMediaError("No frame could be decoded from the video.")
    return Decoded(frames, valid, source)


def _chosen(choose: Callable[[VideoSourceMetadata], list[int]], source: VideoSourceMetadata) -> list[int]:
    wanted = choose(source)
    if not wanted:
        raise InvalidMediaError(
            f"Nothing to sample from a video of {source.total_frames_num} frames at {source.original_fps} a "
            f"second for {source.duration} s."
        )
    return wanted
