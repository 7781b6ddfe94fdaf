"""PyNvVideoCodec: NVIDIA's decoder, through a pool of decoders that a process keeps."""

import queue
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError, PoolSizeError
from mmmedia.video.codecs.gpu_memory import get_mm_gpu_ipc_pool
from mmmedia.video.codecs.options import BACKEND_OPTIONS
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.samplers import VideoSourceMetadata
from mmmedia.work.fork import afresh_in_child

Choose = Callable[[VideoSourceMetadata], list[int]]
Frames = npt.NDArray[np.uint8]

PYNVVIDEOCODEC_DECODE_BATCH_SIZE: Final = 32
"""Frames that are on the GPU at a time."""
PYNVVIDEOCODEC_DECODER_CACHE_SIZE: Final = 2
"""Surfaces that a decoder keeps."""
PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES: Final = 128 << 20
"""What a decoder takes at least."""
PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES: Final = int(1.8 * (1 << 30))
"""What a process takes on a GPU before it decodes anything."""

_GPU: Final = 0


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


def reserved_bytes(backend: str | None, loader: str, options: Mapping[str, Any]) -> int:
    """Return what a process takes of a GPU's memory to decode with these options, but for frames.

    Args:
        backend: the decoder, one of `BACKEND_OPTIONS`; None: the loader's.
        loader: the name of the loader.
        options: those of the decoder, perhaps among others.
    """
    if "deepstream" in (backend, loader):
        return PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES + PYNVVIDEOCODEC_DECODER_GPU_MEMORY_BYTES
    if "pynvvideocodec" not in (backend, loader):
        return 0
    given = {**BACKEND_OPTIONS["pynvvideocodec"], **options}
    number = validate_pynvvideocodec_hw_decoders(given["hw_decoders"])
    each = get_pynvvideocodec_decoder_gpu_memory_bytes(given["max_width"], given["max_height"])
    return PYNVVIDEOCODEC_CUDA_CONTEXT_BYTES + number * each


def _positive(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgumentError(f"{name} must be a positive integer, not {value!r:.64}.")
    return value


class Stream(NamedTuple):
    """What a file says of its video, before anything is decoded.

    Attributes:
        coding: codec, chroma format and bit depth: what a decoder is made for.
        width: of a frame, in pixels.
        height: likewise.
    """

    coding: tuple[Any, Any, Any]
    width: int
    height: int

    @classmethod
    def of(cls, path: str, nvc: Any) -> "Stream":
        """Return what the file at `path` says."""
        told = nvc.CreateDemuxer(path)
        coding = told.GetNvCodecId(), told.ChromaFormat(), told.BitDepth()
        return cls(coding, int(told.Width()), int(told.Height()))

    def check(self, nvc: Any) -> None:
        """Ask the GPU whether it decodes this.

        Raises:
            InvalidMediaError: (a `ValueError`) it says no.
        """
        told = nvc.GetDecoderCaps(_GPU, *self.coding)
        # By the names of CUDA's own structure, however the package spells them.
        able = {
            re.sub("^[bn](?=[A-Z])|_", "", str(name)).lower(): value for name, value in dict(told).items()
        }
        if not able.get("issupported", able.get("numdecoderengines", 1)):
            raise InvalidMediaError("The GPU does not decode the codec of the video.")
        blocks = -(-self.width // 16) * -(-self.height // 16)  # of 16 x 16 pixels
        for name, value in (("maxwidth", self.width), ("maxheight", self.height), ("maxmbcount", blocks)):
            if value > int(able.get(name, value)):
                raise InvalidMediaError(
                    f"The GPU does not decode frames of {self.width} x {self.height} pixels in this codec: "
                    f"its {name} is {able[name]}."
                )


class Slot:
    """A decoder of the pool, for one video after the other."""

    def __init__(self) -> None:
        self._decoder: Any = None
        self._coding: tuple[Any, ...] | None = None
        self._size = 0, 0

    def decoder(self, path: str, stream: Stream, largest: tuple[int, int] | None, nvc: Any) -> Any:
        """Return the decoder, set to the file at `path`: a new one where the last can't be.

        Args:
            path: a file.
            stream: what it says of itself.
            largest: width and height to make a new one for; None: those of the stream.
            nvc: the package.
        """
        fits = stream.width <= self._size[0] and stream.height <= self._size[1]
        if self._decoder is not None and self._coding == stream.coding and fits:
            self._decoder.reconfigure_decoder(path)
            return self._decoder
        self.invalidate()
        width, height = largest or (0, 0)
        self._size = max(width, stream.width), max(height, stream.height)
        self._decoder = nvc.SimpleDecoder(
            path,
            gpu_id=_GPU,
            use_device_memory=True,
            max_width=self._size[0],
            max_height=self._size[1],
            need_scanned_stream_metadata=True,
            decoder_cache_size=PYNVVIDEOCODEC_DECODER_CACHE_SIZE,
            output_color_type=nvc.OutputColorType.RGB,
        )
        self._coding = stream.coding
        return self._decoder

    def invalidate(self) -> None:
        """Let go of the decoder: the next video gets a new one."""
        self._decoder = self._coding = None
        self._size = 0, 0


class Pool:
    """At most so many decoders at a time, each kept for the next video.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for _ in range(size):
            self._free.put(Slot())

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Lend a slot, waiting for one; a decoder that failed is not used again."""
        slot = self._free.get()
        try:
            yield slot
        except BaseException:
            slot.invalidate()
            raise
        finally:
            self._free.put(slot)


_lock = threading.Lock()
_pool: Pool | None = None


def _start_afresh() -> None:
    """Forget, in a forked child, the decoders of its parent."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


afresh_in_child(_start_afresh)


def pool_of(size: object) -> Pool:
    """Return the decoders of this process, made at the first call.

    Raises:
        InvalidArgumentError: (a `ValueError`) no positive number.
        PoolSizeError: (a `RuntimeError`) another number than at the first call.
    """
    global _pool  # noqa: PLW0603
    number = validate_pynvvideocodec_hw_decoders(size)
    with _lock:
        if _pool is None:
            _pool = Pool(number)
        if _pool.size != number:
            raise PoolSizeError(f"hw_decoders={number}: this process has {_pool.size} already.")
        return _pool


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
        LimitExceededError: (a `ValueError`) frames larger than the settings admit, or more than the pool of
            GPU memory has.
    """
    try:
        import PyNvVideoCodec as nvc  # noqa: N813  # as its documentation has it
    except ImportError as error:
        raise MissingPackageError(
            'backend="pynvvideocodec" needs PyNvVideoCodec and an NVIDIA GPU: pip install PyNvVideoCodec.'
        ) from error
    width, height = validate_pynvvideocodec_max_dimensions(options["max_width"], options["max_height"])
    pool = pool_of(options["hw_decoders"])
    admitted = containers.admit(data)
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(admitted.data)
        file.flush()
        try:
            stream = Stream.of(file.name, nvc)
            check_size(stream.height, stream.width, 1)
            stream.check(nvc)
            with pool.slot() as slot:
                largest = None if width is None or height is None else (width, height)
                return _read(slot.decoder(file.name, stream, largest, nvc), stream, choose)
        except RuntimeError as error:
            raise InvalidMediaError(f"PyNvVideoCodec can't decode the video: {error!s:.200}") from error


def _read(decoder: Any, stream: Stream, choose: Choose) -> tuple[Frames, list[int], VideoSourceMetadata]:
    told = decoder.get_stream_metadata()
    total, rate = len(decoder), float(told.average_fps)
    source = VideoSourceMetadata(total, rate, total / rate if rate > 0 else 0.0)
    wanted = choose(source)
    if not wanted:
        raise InvalidMediaError(f"Nothing to sample from a video of {total} frames.")
    # It drops what it is asked for twice, or does not have.
    unique = sorted({index for index in wanted if 0 <= index < total})
    check_size(stream.height, stream.width, len(wanted))
    pool = get_mm_gpu_ipc_pool()
    nbytes = len(unique) * stream.height * stream.width * 3
    with nullcontext() if pool is None else pool.acquire(nbytes):
        frames = _on_the_host(decoder, unique, stream)
    if unique == wanted:
        return frames, unique, source
    rows = {index: row for row, index in enumerate(unique)}
    found = [index for index in wanted if index in rows]
    return frames[[rows[index] for index in found]], found, source


def _on_the_host(decoder: Any, wanted: Sequence[int], stream: Stream) -> Frames:
    """Decode in batches, each taken to memory of the host before the next."""
    import torch
    from torch.utils.dlpack import from_dlpack

    shape = len(wanted), stream.height, stream.width, 3
    frames = torch.empty(shape, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
    for start in range(0, len(wanted), PYNVVIDEOCODEC_DECODE_BATCH_SIZE):
        batch = decoder.get_batch_frames_by_index(
            list(wanted[start : start + PYNVVIDEOCODEC_DECODE_BATCH_SIZE])
        )
        for number, frame in enumerate(batch, start):
            frames[number].copy_(from_dlpack(frame))
    array: Frames = frames.numpy()
    return array
