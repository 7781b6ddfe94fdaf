"""PyNvVideoCodec: NVIDIA's decoder, through a pool of decoders that a process keeps."""

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError, PoolSizeError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.fork import afresh_in_child

Choose = Callable[[VideoSourceMetadata], list[int]]
Frames = npt.NDArray[np.uint8]

_BATCH = 32
"""Frames that are on the GPU at a time."""


class Pool:
    """At most so many decoders at a time, each kept for the next video.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(None)  # made when first used

    @contextmanager
    def decoder(self, path: str, make: Callable[[str], Any]) -> Iterator[Any]:
        """Give a decoder of the file at `path`, waiting for one; a decoder that failed is not used again."""
        decoder = self._free.get()
        kept = None
        try:
            if decoder is None:
                decoder = make(path)
            else:
                decoder.reconfigure_decoder(path)
            yield decoder
            kept = decoder
        finally:
            self._free.put(kept)


_lock = threading.Lock()
_pool: Pool | None = None


def _start_afresh() -> None:
    """Forget, in a forked child, the decoders of its parent."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


afresh_in_child(_start_afresh)


def pool_of(size: object) -> Pool:
    """Return the decoders of this process, made at the first call.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive number.
        PoolSizeError: (a `RuntimeError`) another number than at the first call.
    """
    global _pool  # noqa: PLW0603
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise InvalidArgumentError(f"hw_decoders={size!r:.64}: expected a positive number.")
    with _lock:
        if _pool is None:
            _pool = Pool(size)
        if _pool.size != size:
            raise PoolSizeError(f"hw_decoders={size}: this process has {_pool.size} already.")
        return _pool


def read(
    data: bytes, choose: Choose, options: Mapping[str, Any]
) -> tuple[Frames, list[int], VideoSourceMetadata]:
    """Decode the frames that `choose` picks.

    Args:
        data: an encoded video.
        choose: from what the video is to the indices of frames.
        options: `hw_decoders`, and `max_width`, `max_height` in pixels, of the decoders' surfaces.

    Returns:
        Frames, uint8 RGB (n, height, width, 3); the source index of each; what the video is.

    Raises:
        MissingPackageError: (an `ImportError`) PyNvVideoCodec is not installed.
        InvalidArgumentError: (a `ValueError`) a bad option.
        PoolSizeError: (a `RuntimeError`) another number of decoders than before.
        InvalidMediaError: (a `ValueError`) a video that can't be decoded.
        LimitExceededError: (a `ValueError`) frames larger than the settings admit.
    """
    try:
        import PyNvVideoCodec as nvc  # noqa: N813  # as its documentation has it
    except ImportError as error:
        raise MissingPackageError(
            'backend="pynvvideocodec" needs PyNvVideoCodec and an NVIDIA GPU: pip install PyNvVideoCodec.'
        ) from error
    pool = pool_of(options["hw_decoders"])
    surfaces = {name: options[name] for name in ("max_width", "max_height") if options[name] is not None}
    admitted = containers.admit(data)

    def make(path: str) -> Any:
        return nvc.SimpleDecoder(
            path,
            use_device_memory=True,
            output_color_type=nvc.OutputColorType.RGB,
            decoder_cache_size=2,
            **surfaces,
        )

    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(admitted.data)
        file.flush()
        with pool.decoder(file.name, make) as decoder:
            return _read(decoder, choose)


def _read(decoder: Any, choose: Choose) -> tuple[Frames, list[int], VideoSourceMetadata]:
    told = decoder.get_stream_metadata()
    total, rate = int(told.num_frames), float(told.average_fps)
    source = VideoSourceMetadata(total, rate, total / rate if rate > 0 else 0.0)
    wanted = choose(source)
    if not wanted:
        raise InvalidMediaError(f"Nothing to sample from a video of {total} frames.")
    check_size(int(told.height), int(told.width), len(wanted))
    try:
        return _on_the_host(decoder, wanted, int(told.height), int(told.width)), wanted, source
    except RuntimeError as error:
        raise InvalidMediaError(f"PyNvVideoCodec can't decode the video: {error!s:.200}") from error


def _on_the_host(decoder: Any, wanted: Sequence[int], height: int, width: int) -> Frames:
    """Decode in batches, each taken to memory of the host before the next."""
    import torch
    from torch.utils.dlpack import from_dlpack

    pinned = torch.cuda.is_available()
    frames = torch.empty((len(wanted), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
    for start in range(0, len(wanted), _BATCH):
        batch = decoder.get_batch_frames_by_index(list(wanted[start : start + _BATCH]))
        for number, frame in enumerate(batch, start):
            frames[number].copy_(from_dlpack(frame))
    array: Frames = frames.numpy()
    return array
