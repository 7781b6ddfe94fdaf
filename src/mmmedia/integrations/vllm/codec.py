"""The video codec `mmmedia` of vLLM: its loaders choose the frames, this library gets them.

vLLM has no registry of codecs. It looks for the module `vllm.multimodal.video_decoders.NAME` with a function
`decode_NAME`, and in the table `_BACKEND_OPTION_DEFAULTS` for the options of NAME.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from vllm.multimodal.video_decoders.base import VideoSourceMetadata

from mmmedia.integrations.vllm.errors import translate
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import OpenCVVideoBackend
from mmmedia.work import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

_DECODERS = "vllm.multimodal.video_decoders"
NAME = "mmmedia"
Decoded = tuple[npt.NDArray[np.uint8], Any, list[int], list[int]]


def decode_mmmedia(loader_cls: Any, data: bytes, target: Any, sampling_kwargs: dict[str, Any]) -> Decoded:
    """Decode the frames that a loader of vLLM chooses.

    Args:
        loader_cls: the loader; its `_prepare_source` and `compute_frames_index_to_sample` are called.
        data: an encoded video file.
        target: vLLM's `VideoTargetMetadata`.
        sampling_kwargs: what else the loader's choice takes.

    Returns:
        Frames, uint8 RGB (n, height, width, 3); vLLM's metadata of the source, as the loader prepared it; the
        indices that the loader chose; those that the frames are of, each once and in order, as with OpenCV.

    Raises:
        BadPartError: (a `ValueError`) the bytes hold no video that can be decoded.
    """
    return _decode(loader_cls, data, target, sampling_kwargs, recovery=False)


def add() -> None:
    """Make `backend="mmmedia"` known to vLLM's loaders."""
    options: dict[str, dict[str, Any]] = import_module(_DECODERS)._BACKEND_OPTION_DEFAULTS
    module = ModuleType(f"{_DECODERS}.{NAME}", __doc__)
    module.decode_mmmedia = decode_mmmedia  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    options.setdefault(NAME, {})


def is_added() -> bool:
    """Say whether vLLM's loaders know `backend="mmmedia"`."""
    return f"{_DECODERS}.{NAME}" in sys.modules


def replace_opencv() -> None:
    """Have this library decode wherever a loader of vLLM asks for OpenCV, also with `frame_recovery`.

    A loader that reads from the capture in a way of its own still does, through OpenCV.
    """
    module: Any = import_module(f"{_DECODERS}.opencv")
    original = module.decode_opencv
    if getattr(original, "is_of_mmmedia", False):
        return
    read_frames = import_module("vllm.multimodal.video").VideoLoader.read_frames.__func__

    def decode_opencv(
        loader_cls: Any,
        data: bytes,
        target: Any,
        sampling_kwargs: dict[str, Any],
        *,
        frame_recovery: bool = False,
        **options: Any,
    ) -> Any:
        if options or getattr(loader_cls.read_frames, "__func__", None) is not read_frames:
            return original(
                loader_cls, data, target, sampling_kwargs, frame_recovery=frame_recovery, **options
            )
        return _decode(loader_cls, data, target, sampling_kwargs, recovery=frame_recovery)

    decode_opencv.is_of_mmmedia = True  # type: ignore[attr-defined]
    module.decode_opencv = decode_opencv


class _Chosen(OpenCVVideoBackend):
    """A loader that leaves the choice of frames to who calls it."""

    @classmethod
    def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:  # noqa: ARG003  # the interface
        choose: Callable[[Any], list[int]] = kwargs["choose"]
        return choose(source)


def _decode(
    loader_cls: Any, data: bytes, target: Any, sampling_kwargs: dict[str, Any], *, recovery: bool
) -> Decoded:
    source, wanted = None, list[int]()

    def choose(found: Any) -> list[int]:
        nonlocal source, wanted
        source = loader_cls._prepare_source(VideoSourceMetadata(*found))
        chosen = loader_cls.compute_frames_index_to_sample(source=source, target=target, **sampling_kwargs)
        wanted = [int(index) for index in chosen]
        return sorted(set(wanted))

    try:
        frames, metadata = _load(data, choose, recovery)
    except Exception as error:
        translated = translate(error, parameter="video_url")
        if translated is error:
            raise
        raise translated from error
    return frames, source, wanted, metadata["frames_indices"]


def _load(
    data: bytes, choose: "Callable[[Any], list[int]]", recovery: bool
) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Decode here, or in a process of its own, which then asks for the choice."""
    if not isolated.is_on():
        return _Chosen.load_bytes(data, frame_recovery=recovery, choose=choose)

    class Asked(OpenCVVideoBackend):
        @classmethod
        def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:  # noqa: ARG003
            return choose(source)

    video_io = VideoMediaIO(ImageMediaIO(), num_frames=-1, frame_recovery=recovery)
    video_io.video_loader = Asked()
    frames, metadata = video_io.load_bytes(data)
    return frames, metadata
