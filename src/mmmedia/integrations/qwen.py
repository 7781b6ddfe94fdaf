"""A reader for qwen-vl-utils and qwen-omni-utils, which then decode videos by this library.

>>> register()  # doctest: +SKIP
['qwen_vl_utils']
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmmedia._quiet import silence_decoders
from mmmedia.errors import MissingPackageError
from mmmedia.integrations.sampled import load_sampled

if TYPE_CHECKING:
    from mmmedia.media.connector import MediaConnector
    from mmmedia.video.samplers import VideoSourceMetadata

NAME = "mmmedia"
_MODULES = ("qwen_vl_utils.vision_process", "qwen_omni_utils.v2_5.vision_process")


def register(*, default: bool = True, connector: "MediaConnector | None" = None) -> list[str]:
    """Make the reader "mmmedia" known to qwen-vl-utils and qwen-omni-utils, where they are installed.

    Whatever goes wrong in a reader, they try again with torchvision's, which today's torchvision has no more:
    in its place stands one that raises the first error again.

    Args:
        default: have it read all videos of this process; else ``FORCE_QWENVL_VIDEO_READER=mmmedia`` does.
        connector: what fetches URLs; None: a new one each time, with the policy of the settings.

    Returns:
        The packages that were found.

    Raises:
        MissingPackageError: (an `ImportError`) none was.
    """
    found = []
    for name in _MODULES:
        try:
            process: Any = import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise  # a package that is there lacks one of its own
            continue
        readers = process.VIDEO_READER_BACKENDS
        readers[NAME] = _Reader(process, connector)
        if default:
            process.FORCE_QWENVL_VIDEO_READER = NAME
            process.get_video_reader_backend.cache_clear()
        if not isinstance(readers["torchvision"], _Again):
            readers["torchvision"] = _Again(readers["torchvision"])
        found.append(name.partition(".")[0])
    if not found:
        raise MissingPackageError(
            "mmmedia.integrations.qwen needs the package qwen_vl_utils: "
            "python3 -m pip install qwen-vl-utils  # or qwen-omni-utils",
            name="qwen_vl_utils",
        )
    return found


class _Reader:
    """What such a package calls with an element of a conversation."""

    def __init__(self, process: Any, connector: "MediaConnector | None") -> None:
        self._process = process
        self._connector = connector

    def __call__(self, ele: dict[str, Any]) -> tuple[Any, dict[str, Any], float]:
        """Return frames, uint8 (n, 3, height, width), what they are, and how many of them are a second."""
        import torch

        sampled: dict[str, Any] = {}

        def choose(source: "VideoSourceMetadata") -> list[int]:
            total, fps, _ = source
            first, last, total = self._process.calculate_video_frame_range(ele, total, fps)
            count = self._process.smart_nframes(ele, total_frames=total, video_fps=fps)
            indices: list[int] = torch.linspace(first, last, count).round().long().tolist()
            sampled.update(fps=fps, frames_indices=indices, total_num_frames=total, video_backend=NAME)
            return indices

        silence_decoders()
        frames, _ = load_sampled(ele["video"], choose, self._connector)
        fps = len(frames) / max(sampled["total_num_frames"], 1e-6) * sampled["fps"]
        return torch.from_numpy(frames).permute(0, 3, 1, 2), sampled, fps


class _Again:
    """Stands where these packages turn to when a reader fails."""

    def __init__(self, reader: Callable[[dict[str, Any]], Any]) -> None:
        self._reader = reader

    def __call__(self, ele: dict[str, Any]) -> Any:
        """Raise the error that is being handled; without one read as torchvision would."""
        error = sys.exception()
        if error is not None:
            raise error
        return self._reader(ele)
