"""GPU memory that decoders share: nobody takes more than there is, and who waits gets its share."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from mmmedia import gpu_ipc_memory
from mmmedia.gpu_ipc_memory import (
    MultiModalGPUMemoryPool,
    maybe_init_mm_gpu_ipc_pool,
    reserve_mm_ipc_gpu_memory,
)
from support.forking import holds_in_child

GIB = 1 << 30
CONTEXT = int(1.8 * GIB)


@pytest.fixture(autouse=True)
def no_pool() -> Any:
    yield
    gpu_ipc_memory.set_mm_gpu_ipc_pool(None)


def test_a_lease_is_given_back_once() -> None:
    pool = MultiModalGPUMemoryPool(100)
    first, second = pool.acquire(60), pool.acquire(40)
    assert (pool.total_bytes, pool.available_bytes, first.nbytes) == (100, 0, 60)
    first.release()
    first.release()
    assert pool.available_bytes == 60
    with second, pool.acquire(0):
        assert pool.available_bytes == 60
    assert pool.available_bytes == 100


def test_who_finds_too_little_waits() -> None:
    pool = MultiModalGPUMemoryPool(100)
    lease = pool.acquire(50)
    done = threading.Event()

    def take() -> None:
        with pool.acquire(60):
            done.set()

    thread = threading.Thread(target=take)
    thread.start()
    assert not done.wait(0.05)
    lease.release()
    assert done.wait(10)
    thread.join()
    assert pool.available_bytes == 100


@pytest.mark.parametrize("number", [-1, 101])
def test_what_is_never_there_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="negative" if number < 0 else "total pool has 100"):
        MultiModalGPUMemoryPool(100).acquire(number)


def test_a_pool_has_something() -> None:
    with pytest.raises(ValueError, match="positive"):
        MultiModalGPUMemoryPool(0)


def test_the_pool_of_a_process() -> None:
    """Each of several has its share; none of no memory."""
    for gigabytes, count, expected in ((1, 1, GIB), (1, 3, GIB // 3), (0.5, 1, GIB // 2)):
        pool = maybe_init_mm_gpu_ipc_pool(gigabytes, count)
        assert pool is gpu_ipc_memory.get_mm_gpu_ipc_pool()
        assert pool is not None
        assert pool.total_bytes == expected
    assert maybe_init_mm_gpu_ipc_pool(0) is gpu_ipc_memory.get_mm_gpu_ipc_pool() is None
    with pytest.raises(ValueError, match="api_process_count=0"):
        maybe_init_mm_gpu_ipc_pool(1, 0)


def test_a_forked_child_has_all_of_it() -> None:
    pool = maybe_init_mm_gpu_ipc_pool(1)
    assert pool is not None
    with pool.acquire(GIB):
        assert holds_in_child(lambda: gpu_ipc_memory.get_mm_gpu_ipc_pool().available_bytes == GIB)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("gigabytes", "options", "taken"),
    [
        (0, {}, 0),
        (1, {}, GIB),
        (2.5, {"backend": "torchcodec", "device": "cuda"}, int(2.5 * GIB)),
        (1, {"backend": "pynvvideocodec"}, GIB + CONTEXT + 2 * (128 << 20)),
        (0, {"video_backend": "pynvvideocodec"}, CONTEXT + 2 * (128 << 20)),
        (
            0,
            {"backend": "pynvvideocodec", "hw_decoders": 3, "max_width": 8192, "max_height": 8192},
            CONTEXT + 3 * 8192 * 8192 * 6,
        ),
        (0, {"backend": "deepstream"}, CONTEXT + (128 << 20)),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_left_beside_decoders(
    gigabytes: float, options: dict[str, Any], taken: int, processes: int
) -> None:
    """The figures are vLLM's: frames share one budget, and each process has its decoders."""
    config = SimpleNamespace(mm_ipc_gpu_memory_gb=gigabytes, media_io_kwargs={"video": options})
    decoders = taken - int(gigabytes * GIB)
    left = reserve_mm_ipc_gpu_memory(20 * GIB, config, processes)
    assert left == 20 * GIB - int(gigabytes * GIB) - processes * decoders


def test_nothing_is_left_is_said() -> None:
    config = SimpleNamespace(mm_ipc_gpu_memory_gb=1, media_io_kwargs=None)
    with pytest.raises(ValueError, match="mm_ipc_gpu_memory_gb"):
        reserve_mm_ipc_gpu_memory(GIB, config)
    assert reserve_mm_ipc_gpu_memory(GIB, None) == GIB
