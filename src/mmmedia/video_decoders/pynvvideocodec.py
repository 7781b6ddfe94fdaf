"""NVIDIA's decoder through PyNvVideoCodec."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.gpu_ipc_memory import (
    PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES,
    PYNVVIDEOCODEC_DECODER_CACHE_SIZE,
    PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES,
    PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
    get_pynvvideocodec_decoder_gpu_memory_bytes,
    validate_pynvvideocodec_hw_decoders,
    validate_pynvvideocodec_max_dimensions,
)
from mmmedia.video.codecs.pynvvideocodec import (
    PYNVVIDEOCODEC_DECODE_BATCH_SIZE,
    PyNvVideoCodecDecoderSlot,
    PyNvVideoCodecSourceMetadata,
    PyNvVideoCodecVideoBackendMixin,
    _pynv_decoder_pool,
    _pynvvc_frames_to_nhwc,
)
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.decoding import decode_with

if TYPE_CHECKING:
    from mmmedia.video.loaders import VideoLoader
    from mmmedia.video_decoders.base import DecodedFrames

__all__ = [
    "PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES",
    "PYNVVIDEOCODEC_DECODER_CACHE_SIZE",
    "PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES",
    "PYNVVIDEOCODEC_DECODE_BATCH_SIZE",
    "PyNvVideoCodecDecoderSlot",
    "PyNvVideoCodecSourceMetadata",
    "PyNvVideoCodecVideoBackendMixin",
    "_pynv_decoder_pool",
    "_pynvvc_frames_to_nhwc",
    "decode_pynvvideocodec",
    "get_pynvvideocodec_decoder_gpu_memory_bytes",
    "validate_pynvvideocodec_hw_decoders",
    "validate_pynvvideocodec_max_dimensions",
]


def decode_pynvvideocodec(
    loader_cls: "type[VideoLoader]",
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    *,
    hw_decoders: int = PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
    max_width: int | None = None,
    max_height: int | None = None,
) -> "tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]":
    """Decode by PyNvVideoCodec; see `mmmedia.video_decoders.decode_video`, `video.codecs.pynvvideocodec`."""
    options = {"hw_decoders": hw_decoders, "max_width": max_width, "max_height": max_height}
    return decode_with("pynvvideocodec", loader_cls, data, target, sampling_kwargs, options)
