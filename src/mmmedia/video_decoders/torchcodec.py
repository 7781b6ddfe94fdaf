"""torchcodec, on the CPU or a GPU."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from mmmedia.video.codecs.torchcodec import TorchCodecVideoBackendMixin
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video_decoders.decoding import decode_with

if TYPE_CHECKING:
    from mmmedia.video.loaders import VideoLoader
    from mmmedia.video_decoders.base import DecodedFrames

__all__ = ["TorchCodecVideoBackendMixin", "decode_torchcodec"]


def decode_torchcodec(
    loader_cls: "type[VideoLoader]",
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    *,
    num_ffmpeg_threads: int = 0,
    seek_mode: Literal["exact", "approximate"] = "exact",
    device: str = "cpu",
) -> "tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]":
    """Decode by torchcodec; see `mmmedia.video_decoders.decode_video`, and `video.codecs.torchcodec`."""
    options = {"num_ffmpeg_threads": num_ffmpeg_threads, "seek_mode": seek_mode, "device": device}
    return decode_with("torchcodec", loader_cls, data, target, sampling_kwargs, options)
