"""The names of `vllm.multimodal.gpu_ipc_memory`: GPU memory that decoders of an engine's frontend take."""

from typing import Any

from mmmedia import envs
from mmmedia.errors import LimitExceededError
from mmmedia.video.codecs.gpu_memory import (
    MultiModalGPUMemoryLease,
    MultiModalGPUMemoryPool,
    get_mm_gpu_ipc_pool,
    maybe_init_mm_gpu_ipc_pool,
    set_mm_gpu_ipc_pool,
)
from mmmedia.video.codecs.pynvvideocodec import reserved_bytes

__all__ = [
    "MultiModalGPUMemoryLease",
    "MultiModalGPUMemoryPool",
    "get_mm_gpu_ipc_pool",
    "maybe_init_mm_gpu_ipc_pool",
    "reserve_mm_ipc_gpu_memory",
    "set_mm_gpu_ipc_pool",
]

_GIB = 1 << 30


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
    decoders = api_process_count * reserved_bytes(options.get("backend"), loader, options)
    pool = int(mm_config.mm_ipc_gpu_memory_gb * _GIB)
    if pool + decoders and pool + decoders >= available_kv_cache_memory_bytes:
        raise LimitExceededError(
            f"Decoding on the GPU takes {(pool + decoders) / _GIB:.2f} GiB ({pool / _GIB:.2f} for frames, "
            f"{decoders / _GIB:.2f} for decoders); there are {available_kv_cache_memory_bytes / _GIB:.2f}: "
            "give less by mm_ipc_gpu_memory_gb or hw_decoders, or decode on the CPU."
        )
    return available_kv_cache_memory_bytes - pool - decoders
