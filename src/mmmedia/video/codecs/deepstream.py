"""DeepStream: NVIDIA's decoder through pipelines of GStreamer, in a pool that a process keeps."""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mmmedia import containers, envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError, PoolSizeError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Choose = Callable[[VideoSourceMetadata], list[int]]

MOST_WORKERS: Final = 16

_lock = threading.Lock()
_pool: tuple[int, Any] | None = None
"""How many workers it has, and the pool."""


def _start_afresh() -> None:
    """Forget, in a forked child, the pipelines of its parent."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


afresh_in_child(_start_afresh)


def pool_of(size: object, make: Callable[[int], Any]) -> Any:
    """Return the pipelines of this process, made at the first call.

    Args:
        size: how many, up to 16; None: as many as threads decode, `VLLM_MEDIA_LOADING_THREAD_COUNT`.
        make: makes a pool of so many.

    Raises:
        InvalidArgumentError: (a `ValueError`) no number from 1 to 16.
        PoolSizeError: (a `RuntimeError`) another number than at the first call.
    """
    global _pool  # noqa: PLW0603
    if size is None:
        number = max(1, min(envs.VLLM_MEDIA_LOADING_THREAD_COUNT, MOST_WORKERS))
    elif isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= MOST_WORKERS:
        number = size
    else:
        raise InvalidArgumentError(f"pool_size={size!r:.64}: expected a number from 1 to {MOST_WORKERS}.")
    with _lock:
        if _pool is None:
            _pool = number, make(number)
        if size is not None and _pool[0] != number:
            raise PoolSizeError(f"pool_size={number}: this process has {_pool[0]} already.")
        return _pool[1]


def read(
    data: bytes, choose: Choose, options: Mapping[str, Any]
) -> "tuple[npt.NDArray[np.uint8], list[int], VideoSourceMetadata]":
    """Decode the whole stream, and keep the frames that `choose` picks.

    Args:
        data: an encoded video.
        choose: from what the video is to the indices of frames.
        options: `pool_size` and `timeout_sec`, in seconds, for one video.

    Returns:
        Frames, uint8 RGB (n, height, width, 3), in memory of the host; the source index of each; what the
        video is. Where fewer come than are wanted, they are the first.

    Raises:
        MissingPackageError: (an `ImportError`) the package is not installed.
        InvalidArgumentError: (a `ValueError`) a bad option.
        PoolSizeError: (a `RuntimeError`) another number of pipelines than before.
        InvalidMediaError: (a `ValueError`) a video that can't be decoded, or not in time.
        LimitExceededError: (a `ValueError`) frames larger than the settings admit.
    """
    try:
        import nvidia.deepstream_videodecode as deepstream
    except ImportError as error:
        raise MissingPackageError(
            'backend="deepstream" needs NVIDIA DeepStream and an NVIDIA GPU: '
            "pip install nvidia-deepstream-videodecode-cu13."
        ) from error
    seconds = options["timeout_sec"]
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds > 0:
        raise InvalidArgumentError(f"timeout_sec={seconds!r:.64}: expected a positive number of seconds.")
    pool = pool_of(options["pool_size"], deepstream.DecodePool)
    encoded = bytes(containers.admit(data).data)
    try:
        told = deepstream.probe_metadata(encoded)
        total, rate, width, height = int(told[0]), float(told[1]), int(told[3]), int(told[4])
        source = VideoSourceMetadata(total, rate, float(told[2]))
        check_size(height, width, 1)
        wanted = choose(source)
        unique = sorted(set(wanted))
        if not unique:
            raise InvalidMediaError(f"Nothing to sample from a video of {total} frames.")
        check_size(height, width, len(unique))
        decoded = pool.decode(
            encoded,
            target_indices=unique,
            codec=str(told[5]),
            max_frames=len(unique),
            timeout_sec=float(seconds),
        )
    except RuntimeError as error:
        raise InvalidMediaError(f"DeepStream can't decode the video: {error!s:.200}") from error
    if decoded.error or decoded.frames is None or not len(decoded.frames):
        raise InvalidMediaError(f"DeepStream can't decode the video: {decoded.error or 'no frame'!s:.200}")
    frames = decoded.frames.cpu().numpy()
    return frames, unique[: len(frames)], source
