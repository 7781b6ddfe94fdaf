"""NVIDIA's decoder through DeepStream."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.video.codecs.deepstream import DeepStreamVideoBackendMixin
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.decoding import decode_with

if TYPE_CHECKING:
    from mmmedia.video.loaders import VideoLoader
    from mmmedia.video_decoders.base import DecodedFrames


__all__ = ["DeepStreamVideoBackendMixin", "decode_deepstream"]


def decode_deepstream(
    loader_cls: "type[VideoLoader]",
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    *,
    pool_size: int | None = None,
    timeout_sec: float = 120.0,
) -> "tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]":
    """Decode by DeepStream; see `mmmedia.video_decoders.decode_video`, and `video.codecs.deepstream`."""
    options = {"pool_size": pool_size, "timeout_sec": timeout_sec}
    return decode_with("deepstream", loader_cls, data, target, sampling_kwargs, options)
