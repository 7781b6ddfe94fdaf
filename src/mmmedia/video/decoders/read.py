"""One way into all decoders: encoded bytes and a choice of frames in, frames out."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.video.decoders import opencv, pyav, stats
from mmmedia.video.samplers import VideoSourceMetadata

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]
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
        return _read_pyav(data, choose)
    return _read_opencv(data, choose, reader, recovery)


def _read_opencv(
    data: bytes, choose: Callable[[VideoSourceMetadata], list[int]], reader: Reader, recovery: bool
) -> Decoded:
    capture = opencv.open_capture(data)
    source = opencv.source_metadata(capture, len(data))
    wanted = _chosen(choose, source)
    if recovery:
        frames, valid, _ = reader._read_frames_with_recovery(capture, wanted, source.total_frames_num)
    else:
        frames, count, valid = reader._read_frames(capture, set(wanted), len(wanted), max(wanted))
        frames = frames[:count]
    stats.count("sequential")
    if valid:
        return Decoded(frames, valid, source)
    del capture
    return _rescue(data, wanted, source)


def _rescue(data: bytes, wanted: list[int], source: VideoSourceMetadata) -> Decoded:
    """PyAV's answer for a stream that OpenCV opens and then can't read at all, as some lack a decoder."""
    if not opencv.is_replaced():
        try:
            frames, valid = pyav.read_frames(data, wanted)
        except InvalidMediaError as error:
            logger.debug("PyAV can't read it either: %s", error)
        else:
            if valid:
                logger.warning("OpenCV opened the video but read no frame of it; decoded with PyAV instead.")
                return Decoded(frames, valid, source)
    raise InvalidMediaError(
        f"No frame could be read from the video, which claims {source.total_frames_num} frames."
    )


def _read_pyav(data: bytes, choose: Callable[[VideoSourceMetadata], list[int]]) -> Decoded:
    from mmmedia.video.decoders import index

    source = pyav.source_metadata(index.build(data))
    wanted = _chosen(choose, source)
    frames, valid = pyav.read_frames(data, wanted)
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
