"""Memory of a GPU, of which decoders take no more at a time than an engine leaves them.

The names are those of `vllm.multimodal.gpu_ipc_memory`.
"""

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.work.fork import afresh_in_child

_GIB = 1 << 30

PYNVVIDEOCODEC_DECODER_CACHE_SIZE: Final = 2
"""Surfaces that a decoder keeps."""
PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES: Final = 128 << 20
"""What a decoder takes at least."""
PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES: Final = int(1.8 * (1 << 30))
"""What a process takes on a GPU before it decodes anything."""
PYNVVIDEOCODEC_DEFAULT_HW_DECODERS: Final = 2
"""Decoders of a process."""


class _OfThisProcess:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"A {type(self).__name__} can't be copied or pickled: its memory is there once.")


class MultiModalGPUMemoryLease(_OfThisProcess):
    """Bytes of a pool, until they are released; also a context manager.

    Attributes:
        lease_id: its number among those of the pool.
        nbytes: how many bytes.
    """

    def __init__(self, pool: "MultiModalGPUMemoryPool", lease_id: int, nbytes: int) -> None:
        self.lease_id = lease_id
        self.nbytes = nbytes
        self._pool = pool

    def release(self) -> None:
        """Give the bytes back; a second time does nothing."""
        self._pool._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class MultiModalGPUMemoryPool(_OfThisProcess):
    """Bytes that many threads share: who asks for more than are left waits.

    Args:
        total_bytes: how many there are.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive number.

    >>> pool = MultiModalGPUMemoryPool(100)
    >>> with pool.acquire(60):
    ...     pool.available_bytes
    40
    >>> pool.available_bytes
    100
    """

    def __init__(self, total_bytes: int) -> None:
        if total_bytes <= 0:
            raise InvalidArgumentError(f"total_bytes={total_bytes!r}: must be positive.")
        self._total = total_bytes
        self._leases: dict[int, int] = {}
        self._last_id = 0
        self._changed = threading.Condition()

    @property
    def total_bytes(self) -> int:
        """The bytes there are."""
        return self._total

    @property
    def available_bytes(self) -> int:
        """The bytes that nobody has."""
        with self._changed:
            return self._left()

    def acquire(self, nbytes: int) -> MultiModalGPUMemoryLease:
        """Take bytes, as soon as there are so many.

        Raises:
            InvalidArgumentError: (a `ValueError`) a negative number.
            LimitExceededError: (a `ValueError`) more than there ever are.
        """
        if nbytes < 0:
            raise InvalidArgumentError(f"nbytes={nbytes!r}: can't be negative.")
        if nbytes > self._total:
            raise LimitExceededError(
                f"Decoding takes {nbytes} bytes of GPU memory, and the total pool has {self._total} "
                "(--mm-ipc-gpu-memory-gb)."
            )
        with self._changed:
            self._changed.wait_for(lambda: self._left() >= nbytes)
            self._last_id += 1
            self._leases[self._last_id] = nbytes
            return MultiModalGPUMemoryLease(self, self._last_id, nbytes)

    def _left(self) -> int:
        return self._total - sum(self._leases.values())

    def _release(self, lease: MultiModalGPUMemoryLease) -> None:
        with self._changed:
            if self._leases.pop(lease.lease_id, None) is not None:
                self._changed.notify_all()


_pool: MultiModalGPUMemoryPool | None = None


def _start_afresh() -> None:
    """Forget, in a forked child, what its parent's threads have taken."""
    if _pool is not None:
        set_mm_gpu_ipc_pool(MultiModalGPUMemoryPool(_pool.total_bytes))


afresh_in_child(_start_afresh)


def set_mm_gpu_ipc_pool(pool: MultiModalGPUMemoryPool | None) -> None:
    """Set the pool of this process, `None` for none: decoders then take what they like."""
    global _pool  # noqa: PLW0603
    _pool = pool


def get_mm_gpu_ipc_pool() -> MultiModalGPUMemoryPool | None:
    """Return the pool of this process."""
    return _pool


def maybe_init_mm_gpu_ipc_pool(
    mm_ipc_gpu_memory_gb: float, api_process_count: int = 1
) -> MultiModalGPUMemoryPool | None:
    """Set and return the pool of this process, one of several that share a GPU; none of no memory.

    Args:
        mm_ipc_gpu_memory_gb: GiB of all of them together.
        api_process_count: how many they are.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive number of processes.
    """
    if api_process_count < 1:
        raise InvalidArgumentError(f"api_process_count={api_process_count!r}: must be positive.")
    share = int(mm_ipc_gpu_memory_gb * _GIB) // api_process_count
    set_mm_gpu_ipc_pool(MultiModalGPUMemoryPool(share) if share > 0 else None)
    return get_mm_gpu_ipc_pool()


def reserve_mm_ipc_gpu_memory(
    available_kv_cache_memory_bytes: int, mm_config: Any, api_process_count: int = 1
) -> int:
    """Return what of a GPU's memory is left for an engine's cache beside the decoders of its frontends.

    They take the pool of `maybe_init_mm_gpu_ipc_pool`, and each of them a CUDA context and its decoders.

    Args:
        available_kv_cache_memory_bytes: what there is without them.
        mm_config: has `mm_ipc_gpu_memory_gb`, and in `media_io_kwargs["video"]` the options of videos;
            `None`: nothing is decoded on a GPU.
        api_process_count: how many frontends there are.

    Raises:
        LimitExceededError: (a `ValueError`) they need all there is.
        InvalidArgumentError: (a `ValueError`) a bad option of the decoder.

    >>> from types import SimpleNamespace
    >>> reserve_mm_ipc_gpu_memory(8 << 30, SimpleNamespace(mm_ipc_gpu_memory_gb=1, media_io_kwargs={})) >> 30
    7
    """
    if mm_config is None:
        return available_kv_cache_memory_bytes
    options = (mm_config.media_io_kwargs or {}).get("video") or {}
    loader = options.get("video_backend") or envs.VLLM_VIDEO_LOADER_BACKEND
    decoders = api_process_count * _reserved_bytes(options.get("backend"), loader, options)
    pool = int(mm_config.mm_ipc_gpu_memory_gb * _GIB)
    if pool + decoders and pool + decoders >= available_kv_cache_memory_bytes:
        raise LimitExceededError(
            f"Decoding on the GPU takes {(pool + decoders) / _GIB:.2f} GiB ({pool / _GIB:.2f} for frames, "
            f"{decoders / _GIB:.2f} for decoders); there are {available_kv_cache_memory_bytes / _GIB:.2f}: "
            "give less by mm_ipc_gpu_memory_gb or hw_decoders, or decode on the CPU."
        )
    return available_kv_cache_memory_bytes - pool - decoders


def validate_pynvvideocodec_hw_decoders(hw_decoders: object) -> int:
    """Return the number of decoders.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive integer.
    """
    return _positive("hw_decoders", hw_decoders)


def validate_pynvvideocodec_max_dimensions(
    max_width: object, max_height: object
) -> tuple[int, int] | tuple[None, None]:
    """Return the largest frame that decoders are made for, in pixels; None: as large as the video's.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive integer, or one without the other.
    """
    if max_width is None and max_height is None:
        return None, None
    if max_width is None or max_height is None:
        raise InvalidArgumentError("max_width and max_height must be set together.")
    return _positive("max_width", max_width), _positive("max_height", max_height)


def get_pynvvideocodec_decoder_gpu_memory_bytes(max_width: object, max_height: object) -> int:
    """Return what a decoder takes of a GPU's memory; errors as `validate_pynvvideocodec_max_dimensions`.

    >>> get_pynvvideocodec_decoder_gpu_memory_bytes(8192, 8192) >> 20
    384
    """
    width, height = validate_pynvvideocodec_max_dimensions(max_width, max_height)
    surfaces = (width or 0) * (height or 0) * 3 * PYNVVIDEOCODEC_DECODER_CACHE_SIZE
    return max(PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES, surfaces)


def _reserved_bytes(backend: str | None, loader: str, options: Mapping[str, Any]) -> int:
    """Return what a process takes of a GPU's memory to decode with these options, but for frames.

    Args:
        backend: the decoder, None: the loader's.
        loader: the name of the loader.
        options: those of the decoder, perhaps among others.
    """
    if "deepstream" in (backend, loader):
        return PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES + PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES
    if "pynvvideocodec" not in (backend, loader):
        return 0
    number = validate_pynvvideocodec_hw_decoders(
        options.get("hw_decoders", PYNVVIDEOCODEC_DEFAULT_HW_DECODERS)
    )
    each = get_pynvvideocodec_decoder_gpu_memory_bytes(options.get("max_width"), options.get("max_height"))
    return PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES + number * each


def _positive(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgumentError(f"{name} must be a positive integer, not {value!r:.64}.")
    return value
