"""torchcodec, on the CPU or a GPU: it is given an excerpt, so that it decodes only what the frames need."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mmmedia import containers
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.excerpts import excerpt
from mmmedia.video.samplers import VideoSourceMetadata

if TYPE_CHECKING:
    import torch

Choose = Callable[[VideoSourceMetadata], list[int]]


class Read(NamedTuple):
    """What a decoder gave.

    Attributes:
        frames: uint8 RGB (n, height, width, 3): a tensor, on the device that decoded.
        indices: the source index of each; one that was chosen twice is there twice.
        source: what the video is.
    """

    frames: "torch.Tensor"
    indices: list[int]
    source: VideoSourceMetadata


def read(data: bytes, choose: Choose, options: Mapping[str, Any]) -> Read:
    """Decode the frames that `choose` picks.

    Args:
        data: an encoded video.
        choose: from what the video is to the indices of frames.
        options: `num_ffmpeg_threads` (0: as FFmpeg likes), `seek_mode` ("exact" or "approximate") and
            `device` ("cpu", "cuda", "cuda:1", …).

    Raises:
        InvalidArgumentError: (a `ValueError`) a device or mode that there is not.
        MissingPackageError: (an `ImportError`) torchcodec is not installed, or finds no FFmpeg.
        InvalidMediaError: (a `ValueError`) a video that can't be decoded.
        LimitExceededError: (a `ValueError`) frames larger than the settings admit.
    """
    _check(options)
    make = _video_decoder()
    settings = {"dimension_order": "NHWC", **options}
    try:
        try:
            part = excerpt(data, choose)
        except InvalidArgumentError:  # what was chosen is not in it
            raise
        except InvalidMediaError:
            return _read_all(make(containers.admit(data).data, **settings), choose)
        decoder = make(part.data, **settings)
        _check_frames(decoder, len(part.positions))
        return Read(decoder.get_frames_at(part.positions).data, part.indices, part.source)
    except RuntimeError as error:
        if "Could not load libtorchcodec" in str(error):
            raise MissingPackageError("torchcodec finds no FFmpeg that it works with.") from error
        raise InvalidMediaError(f"torchcodec can't decode the video: {_line(error)}") from error


class TorchCodecVideoBackendMixin:
    """What decoding by torchcodec takes, step by step, for loaders of third parties."""

    @staticmethod
    def make_torchcodec_decoder(
        data: bytes, *, num_ffmpeg_threads: int = 0, seek_mode: str = "exact", device: str = "cpu"
    ) -> Any:
        """Return a `torchcodec.decoders.VideoDecoder` of encoded bytes; arguments and errors as in `read`."""
        options = {"num_ffmpeg_threads": num_ffmpeg_threads, "seek_mode": seek_mode, "device": device}
        _check(options)
        return _video_decoder()(containers.admit(data).data, dimension_order="NHWC", **options)

    @staticmethod
    def get_torchcodec_metadata(decoder: Any) -> VideoSourceMetadata:
        """Return what such a decoder says of its video."""
        told = decoder.metadata
        rate, seconds = float(told.average_fps or 0), float(told.duration_seconds or 0)
        total = int(told.num_frames or seconds * rate)
        return VideoSourceMetadata(total, rate, total / rate if rate > 0 else 0.0)

    @staticmethod
    def decode_torchcodec_frames(
        decoder: Any,
        frame_indices: list[int],
        *,
        device: str = "cpu",  # noqa: ARG004  # the decoder has one
    ) -> "tuple[torch.Tensor, list[int]]":
        """Decode frames, of which one may be wanted several times; return them, and the index of each."""
        frames: torch.Tensor = decoder.get_frames_at(frame_indices).data
        return frames, list(frame_indices)


def _read_all(decoder: Any, choose: Choose) -> Read:
    """Decode from the file as it is, by what torchcodec says of it."""
    source = TorchCodecVideoBackendMixin.get_torchcodec_metadata(decoder)
    wanted = choose(source)
    if not wanted:
        raise InvalidMediaError(f"Nothing to sample from a video of {source.total_frames_num} frames.")
    _check_frames(decoder, len(wanted))
    return Read(decoder.get_frames_at(wanted).data, wanted, source)


def _check_frames(decoder: Any, count: int) -> None:
    check_size(int(decoder.metadata.height), int(decoder.metadata.width), count)


def _check(options: Mapping[str, Any]) -> None:
    device, mode = options["device"], options["seek_mode"]
    kind = str(device).partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InvalidArgumentError(f"device={device!r:.64}: expected cpu or cuda.")
    if mode not in ("exact", "approximate"):
        raise InvalidArgumentError(f"seek_mode={mode!r:.64}: expected exact or approximate.")
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise InvalidArgumentError(f"device={device!r:.64}: torch finds no NVIDIA GPU.")


def _video_decoder() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except ImportError as error:
        raise MissingPackageError(
            'backend="torchcodec" needs torchcodec: pip install mmmedia[torchcodec].'
        ) from error
    return VideoDecoder


def _line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
