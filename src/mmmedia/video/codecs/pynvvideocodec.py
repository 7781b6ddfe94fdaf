"""PyNvVideoCodec: NVIDIA's decoder, through decoders that a process keeps for one video after the other."""

import contextlib
import logging
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mmmedia import containers, gpu_ipc_memory
from mmmedia.errors import InvalidMediaError, MissingPackageError, PoolSizeError
from mmmedia.gpu_ipc_memory import (
    PYNVVIDEOCODEC_DECODER_CACHE_SIZE,
    PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
    validate_pynvvideocodec_hw_decoders,
    validate_pynvvideocodec_max_dimensions,
)
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")
Choose = Callable[[VideoSourceMetadata], list[int]]
Frames = npt.NDArray[np.uint8]

PYNVVIDEOCODEC_DECODE_BATCH_SIZE: Final = 32
"""Frames that are on the GPU at a time."""


def _invalid(reason: str) -> InvalidMediaError:
    """Return vLLM's error of a video that can't be decoded; why is in the log."""
    logger.warning("A video can't be decoded by PyNvVideoCodec: %s", reason)
    return InvalidMediaError("Invalid or unsupported video file.")


class PyNvVideoCodecSourceMetadata(NamedTuple):
    """What a video is, and the size of its frames in pixels."""

    source: VideoSourceMetadata
    width: int
    height: int


class PyNvVideoCodecDecoderSlot:
    """A decoder, for one video after the other.

    Args:
        stream: the stream of CUDA that it works on, None for the default.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.decoder: Any = None
        self.source_path: str | None = None
        self.max_width = self.max_height = 0

    def invalidate(self) -> None:
        """End the decoder, once its work is done: the next video gets a new one."""
        decoder, self.decoder, self.source_path = self.decoder, None, None
        self.max_width = self.max_height = 0
        if decoder is not None:
            with contextlib.suppress(Exception):  # it may be broken, and is not used again
                if self.stream is not None:
                    self.stream.synchronize()
                decoder.stop()

    def get_decoder(
        self, file_path: str, nvc: Any, device_index: int, max_width: int, max_height: int
    ) -> Any:
        """Return the decoder, set to a file: a new one where the last is too small, or of another codec.

        Args:
            file_path: the file.
            nvc: the package.
            device_index: the number of the GPU.
            max_width: the largest frame that it must take, in pixels.
            max_height: likewise.
        """
        if self.decoder is not None and self.source_path == file_path:
            return self.decoder
        if self.decoder is not None and max_width <= self.max_width and max_height <= self.max_height:
            try:
                self.decoder.reconfigure_decoder(file_path)
            except Exception:  # noqa: BLE001  # of another codec, or broken: a new one tells
                self.invalidate()
            else:
                self.source_path = file_path
                return self.decoder
        if self.decoder is not None:
            self.invalidate()
        self._construct(file_path, nvc, device_index, max_width, max_height)
        return self.decoder

    def _construct(
        self, file_path: str, nvc: Any, device_index: int, max_width: int, max_height: int
    ) -> None:
        on_stream = {} if self.stream is None else {"cuda_stream": self.stream.cuda_stream}
        try:
            self.decoder = nvc.SimpleDecoder(
                file_path,
                gpu_id=device_index,
                use_device_memory=True,
                max_width=max_width,
                max_height=max_height,
                need_scanned_stream_metadata=True,
                decoder_cache_size=PYNVVIDEOCODEC_DECODER_CACHE_SIZE,
                output_color_type=nvc.OutputColorType.RGB,
                **on_stream,
            )
        except Exception:
            if self.stream is not None:
                self.stream.synchronize()
            raise
        self.source_path = file_path
        self.max_width, self.max_height = max_width, max_height


class _PyNvDecoderPool:
    """The decoders of this process.

    Attributes:
        max_slots: how many there may be; None: not told yet.
        slots: those that nobody uses.
        active: how many there are.
    """

    def __init__(self) -> None:
        self.start_afresh()

    def start_afresh(self) -> None:
        """Forget all of them, as a forked child must."""
        self.cond = threading.Condition()
        self.max_slots: int | None = None
        self.slots: list[PyNvVideoCodecDecoderSlot] = []
        self.active = 0

    def configure(self, hw_decoders: int) -> None:
        """Say how many there may be.

        Raises:
            PoolSizeError: (a `RuntimeError`) another number was told before.
        """
        with self.cond:
            if self.max_slots is None:
                self.max_slots = hw_decoders
            if self.max_slots != hw_decoders:
                raise PoolSizeError(
                    f"hw_decoders: already configured as {self.max_slots}, got {hw_decoders}."
                )


_pynv_decoder_pool = _PyNvDecoderPool()
afresh_in_child(_pynv_decoder_pool.start_afresh)


class PyNvVideoCodecVideoBackendMixin:
    """What decoding by PyNvVideoCodec takes."""

    _DEVICE_INDEX: ClassVar[int] = 0

    @classmethod
    def decode_frames_pynvvideocodec(
        cls,
        loader_cls: Any,
        data: bytes,
        target: VideoTargetMetadata,
        max_width: int | None = None,
        max_height: int | None = None,
        hw_decoders: int = PYNVVIDEOCODEC_DEFAULT_HW_DECODERS,
        **kwargs: Any,
    ) -> tuple[Frames, VideoSourceMetadata, list[int], list[int]]:
        """Decode the frames that a loader's sampler picks.

        Args:
            loader_cls: the loader.
            data: an encoded video.
            target: what is asked for.
            max_width: as of `read`, as the next two.
            max_height: likewise.
            hw_decoders: likewise.
            **kwargs: keywords of the sampler.

        Returns:
            As `mmmedia.video_decoders.decode_video`, whose errors it raises.
        """
        wanted: list[int] = []
        prepared: list[VideoSourceMetadata] = []

        def choose(source: VideoSourceMetadata) -> list[int]:
            prepared.append(loader_cls._prepare_source(source))
            chosen = loader_cls.compute_frames_index_to_sample(source=prepared[0], target=target, **kwargs)
            wanted.extend(int(index) for index in chosen)
            return list(wanted)

        options = {"hw_decoders": hw_decoders, "max_width": max_width, "max_height": max_height}
        frames, valid, _ = cls._read(data, choose, options)
        return frames, prepared[0], wanted, valid

    @classmethod
    def _read(
        cls, data: bytes, choose: Choose, options: Mapping[str, Any]
    ) -> tuple[Frames, list[int], VideoSourceMetadata]:
        """Decode the frames that `choose` picks: see `read`."""
        width, height = validate_pynvvideocodec_max_dimensions(options["max_width"], options["max_height"])
        hw_decoders = validate_pynvvideocodec_hw_decoders(options["hw_decoders"])
        nvc = _package()
        cls._configure_decoder_slots(hw_decoders)
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(data)
            file.flush()
            bounds = _told(
                nvc, lambda: cls._validate_decoder_caps(file.name, nvc, max_width=width, max_height=height)
            )
            found = _told(nvc, lambda: cls._read_source_metadata(file.name, nvc, *bounds))
            source, total = found.source, found.source.total_frames_num
            check_size(found.height, found.width, 1)
            wanted = choose(source)
            if not wanted:
                raise InvalidMediaError(f"Nothing to sample from a video of {total} frames.")
            check_size(found.height, found.width, len(wanted))
            # It drops what it is asked for twice, or does not have.
            unique = sorted({index for index in wanted if 0 <= index < total})
            pool = gpu_ipc_memory.get_mm_gpu_ipc_pool()
            nbytes = len(unique) * found.height * found.width * 3
            with nullcontext() if pool is None else pool.acquire(nbytes):
                frames = _told(nvc, lambda: cls._decode_to_pinned_host(file.name, unique, nvc, *bounds))
        if unique == wanted:
            return frames, unique, source
        rows = {index: row for row, index in enumerate(unique)}
        valid = [index for index in wanted if index in rows]
        return frames[[rows[index] for index in valid]], valid, source

    @classmethod
    def _configure_decoder_slots(cls, hw_decoders: object) -> None:
        """Say how many decoders this process may have; errors as in `read`."""
        _pynv_decoder_pool.configure(validate_pynvvideocodec_hw_decoders(hw_decoders))

    @classmethod
    def _create_decoder_slot(cls) -> PyNvVideoCodecDecoderSlot:
        import torch

        make: Any = torch.cuda.Stream
        return PyNvVideoCodecDecoderSlot(make(cls._DEVICE_INDEX) if torch.cuda.is_available() else None)

    @classmethod
    @contextmanager
    def _borrow_decoder_slot(cls) -> Iterator[PyNvVideoCodecDecoderSlot]:
        """Lend a slot, waiting for one; one in which something failed is not used again."""
        pool = _pynv_decoder_pool
        with pool.cond:
            pool.cond.wait_for(lambda: pool.slots or pool.active < (pool.max_slots or 1))
            slot = pool.slots.pop() if pool.slots else None
            pool.active += slot is None
        is_whole = False
        try:
            if slot is None:
                slot = cls._create_decoder_slot()
            yield slot
            is_whole = True
        finally:
            if slot is not None and not is_whole:
                slot.invalidate()
            with pool.cond:
                if is_whole and slot is not None:
                    pool.slots.append(slot)
                else:
                    pool.active -= 1
                pool.cond.notify()

    @staticmethod
    @contextmanager
    def _torch_stream_context(stream: Any) -> Iterator[None]:
        """Have torch work on a stream of CUDA, None for the one that it does."""
        if stream is None:
            yield
            return
        import torch

        with torch.cuda.stream(stream):
            yield
            stream.synchronize()

    @classmethod
    def _validate_decoder_caps(
        cls, file_path: str, nvc: Any, max_width: int | None = None, max_height: int | None = None
    ) -> tuple[int, int]:
        """Ask the GPU whether it decodes a file; return the width and height to make a decoder for.

        These are as given, as far as the GPU goes; else those of the file, so that it may as well be turned.
        Nothing opens the file before, so here it is judged, too.

        Raises:
            InvalidMediaError: (a `ValueError`) it does not decode it, or must not see it.
        """
        _admit(file_path)
        stream = nvc.CreateDemuxer(file_path)
        told = nvc.GetDecoderCaps(
            cls._DEVICE_INDEX, stream.GetNvCodecId(), stream.ChromaFormat(), stream.BitDepth()
        )
        able = dict(told)
        if not able.get("supported", 1):
            raise _invalid("The GPU does not decode its codec.")
        width, height = int(stream.Width()), int(stream.Height())
        blocks = -(-width // 16) * -(-height // 16)  # of 16 x 16 pixels
        for name, value in (("width_max", width), ("height_max", height), ("mb_num_max", blocks)):
            if value > int(able.get(name, value)):
                raise _invalid(
                    f"The GPU does not decode frames of {width} x {height} pixels in this codec: its {name} "
                    f"is {able[name]}."
                )
        if width < int(able.get("width_min", 0)) or height < int(able.get("height_min", 0)):
            raise _invalid(f"The GPU decodes no frames of {width} x {height} pixels.")
        if max_width is not None and max_height is not None and (width > max_width or height > max_height):
            raise _invalid(
                f"Its frames of {width} x {height} pixels are larger than decoders are made for: "
                f"max_width={max_width}, max_height={max_height}."
            )
        wide = high = max(width, height)
        square = math.ceil(wide / 16) ** 2
        if square > int(able.get("mb_num_max", square)):
            wide, high = width, height
        wide, high = max_width or wide, max_height or high
        return min(wide, int(able.get("width_max", wide))), min(high, int(able.get("height_max", high)))

    @classmethod
    def _read_source_metadata(
        cls, file_path: str, nvc: Any, max_width: int, max_height: int
    ) -> PyNvVideoCodecSourceMetadata:
        """Return what a video is, as a decoder tells it."""
        with cls._borrow_decoder_slot() as slot, cls._torch_stream_context(slot.stream):
            decoder = slot.get_decoder(file_path, nvc, cls._DEVICE_INDEX, max_width, max_height)
            told, total = decoder.get_stream_metadata(), len(decoder)
        rate = float(cls._metadata_value(told, "average_fps", "avg_frame_rate", "frame_rate", default=0.0))
        source = VideoSourceMetadata(total, rate, total / rate if rate > 0 else 0.0)
        width, height = (int(cls._metadata_value(told, name, default=0)) for name in ("width", "height"))
        return PyNvVideoCodecSourceMetadata(source, width, height)

    @staticmethod
    def _metadata_value(metadata: Any, *names: str, default: Any = None) -> Any:
        """Return the first attribute of these names that is there."""
        return next((getattr(metadata, name) for name in names if hasattr(metadata, name)), default)

    @classmethod
    def _decode_to_pinned_host(
        cls, file_path: str, frame_idx: Sequence[int], nvc: Any, max_width: int, max_height: int
    ) -> Frames:
        """Decode frames in batches, each taken to pinned memory of the host before the next."""
        import torch

        frames: torch.Tensor | None = None
        with cls._borrow_decoder_slot() as slot, cls._torch_stream_context(slot.stream):
            decoder = slot.get_decoder(file_path, nvc, cls._DEVICE_INDEX, max_width, max_height)
            for start in range(0, len(frame_idx), PYNVVIDEOCODEC_DECODE_BATCH_SIZE):
                batch = list(frame_idx[start : start + PYNVVIDEOCODEC_DECODE_BATCH_SIZE])
                pictures = _pynvvc_frames_to_nhwc(decoder.get_batch_frames_by_index(batch))
                if frames is None:
                    shape = len(frame_idx), *pictures.shape[1:]
                    frames = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
                frames[start : start + len(pictures)].copy_(pictures)
        if frames is None:
            raise InvalidMediaError("PyNvVideoCodec gave none of the frames.")
        array: Frames = frames.numpy()
        return array


def _pynvvc_frames_to_nhwc(frames: Sequence[Any]) -> "torch.Tensor":
    """Return frames of the package as one tensor (n, height, width, 3), where they are."""
    import torch
    from torch.utils.dlpack import from_dlpack

    tensor = torch.stack([from_dlpack(frame) for frame in frames])
    is_planar = tensor.shape[1] == 3 and tensor.shape[-1] != 3
    return tensor.permute(0, 2, 3, 1).contiguous() if is_planar else tensor


def read(
    data: bytes, choose: Choose, options: Mapping[str, Any]
) -> tuple[Frames, list[int], VideoSourceMetadata]:
    """Decode the frames that `choose` picks.

    Args:
        data: an encoded video.
        choose: from what the video is to the indices of frames.
        options: `hw_decoders`, and `max_width`, `max_height` in pixels, for which decoders are made.

    Returns:
        Frames, uint8 RGB (n, height, width, 3), in pinned memory of the host; the source index of each; what
        the video is.

    Raises:
        MissingPackageError: (an `ImportError`) PyNvVideoCodec is not installed.
        InvalidArgumentError: (a `ValueError`) a bad option.
        PoolSizeError: (a `RuntimeError`) another number of decoders than before.
        InvalidMediaError: (a `ValueError`) a video that can't be decoded, or not by this GPU.
        RuntimeError: the GPU fails.
        LimitExceededError: (a `ValueError`) frames larger than the settings admit, or more than the pool of
            GPU memory has.
    """
    return PyNvVideoCodecVideoBackendMixin._read(data, choose, options)


def _admit(file_path: str) -> None:
    """Refuse what FFmpeg may not open; what is not there the package refuses."""
    try:
        containers.admit(Path(file_path).read_bytes())
        return
    except FileNotFoundError:
        return
    except InvalidMediaError as error:
        reason = str(error)
    raise _invalid(reason)


def _package() -> Any:
    try:
        import PyNvVideoCodec as nvc  # noqa: N813  # as its documentation has it
    except ImportError as error:
        raise MissingPackageError(
            'backend="pynvvideocodec" needs PyNvVideoCodec and an NVIDIA GPU: pip install PyNvVideoCodec.'
        ) from error
    return nvc


def _told(nvc: Any, work: Callable[[], T]) -> T:
    """Say what the package finds wrong with a file, but not by its own error, which may hold on to a decoder.

    Other errors are of the GPU, and no fault of the file.
    """
    kinds = (getattr(nvc, name) for name in dir(nvc) if name.startswith("PyNvVCException"))
    own: Any = tuple(kind for kind in kinds if isinstance(kind, type))
    try:
        return work()
    except (IndexError, *own) as error:
        reason = f"{error!s:.200}"
    raise _invalid(reason)
