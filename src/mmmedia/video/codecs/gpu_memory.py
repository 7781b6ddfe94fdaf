"""Memory of a GPU, of which decoders take no more at a time than an engine leaves them."""

import threading
from types import TracebackType
from typing import Self

from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.work.fork import afresh_in_child

_GIB = 1 << 30


class MultiModalGPUMemoryLease:
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


class MultiModalGPUMemoryPool:
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
