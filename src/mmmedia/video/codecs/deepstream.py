"""DeepStream: NVIDIA's decoder through pipelines of GStreamer, in a pool that a process keeps."""

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from mmmedia import containers, envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError, PoolSizeError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.uint8]

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
) -> "tuple[Frames, list[int], VideoSourceMetadata]":
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
    deepstream = _package()
    seconds = _seconds(options["timeout_sec"])
    pool = pool_of(options["pool_size"], deepstream.DecodePool)
    encoded = bytes(containers.admit(data).data)
    try:
        told = deepstream.probe_metadata(encoded)
    except RuntimeError as error:
        raise _invalid(error) from error
    total, rate, width, height = int(told[0]), float(told[1]), int(told[3]), int(told[4])
    source = VideoSourceMetadata(total, rate, float(told[2]))
    check_size(height, width, 1)
    wanted = choose(source)
    if not wanted:
        raise InvalidMediaError(f"Nothing to sample from a video of {total} frames.")
    check_size(height, width, len(set(wanted)))
    return *_decoded(pool, encoded, wanted, str(told[5]), seconds), source


class DeepStreamVideoBackendMixin:
    """What decoding by DeepStream takes, step by step, for loaders of third parties."""

    @classmethod
    def decode_indices(
        cls,
        data: bytes,
        frame_indices: list[int],
        source: VideoSourceMetadata,  # noqa: ARG003  # the pool tells by itself
        codec: str = "",
        pool_size: int | None = None,
        timeout_sec: float = 120.0,
    ) -> "tuple[Frames, list[int]]":
        """Decode frames by their indices; arguments, results and errors as in `read`.

        Args:
            data: an encoded video.
            frame_indices: which frames; each comes once, in order.
            source: what the video is.
            codec: its name, by which a pipeline is kept.
            pool_size: how many pipelines there are.
            timeout_sec: how long it may take.
        """
        pool = pool_of(pool_size, _package().DecodePool)
        return _decoded(pool, bytes(containers.admit(data).data), frame_indices, codec, _seconds(timeout_sec))


def _package() -> Any:
    try:
        import nvidia.deepstream_videodecode as deepstream
    except ImportError as error:
        raise MissingPackageError(
            'backend="deepstream" needs NVIDIA DeepStream and an NVIDIA GPU: '
            "pip install nvidia-deepstream-videodecode-cu13."
        ) from error
    return deepstream


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise InvalidArgumentError(f"timeout_sec={value!r:.64}: expected a positive number of seconds.")
    return float(value)


def _decoded(
    pool: Any, data: bytes, wanted: Iterable[int], codec: str, seconds: float
) -> "tuple[Frames, list[int]]":
    """Have a pool decode frames, to memory of the host; where fewer come, they are the first."""
    unique = sorted(set(wanted))
    try:
        decoded = pool.decode(
            data, target_indices=unique, codec=codec, max_frames=len(unique), timeout_sec=seconds
        )
    except RuntimeError as error:
        raise _invalid(error) from error
    if decoded.error or decoded.frames is None or not len(decoded.frames):
        raise _invalid(decoded.error or "no frame came")
    frames: Frames = decoded.frames.cpu().numpy()
    return frames, unique[: len(frames)]


def _invalid(reason: object) -> InvalidMediaError:
    return InvalidMediaError(f"DeepStream can't decode the video: {reason!s:.200}")
