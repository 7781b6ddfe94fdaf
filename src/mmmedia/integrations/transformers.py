"""Videos for the processors of transformers, with the frames that each of them samples by itself.

``processor(text=…, **videos(processor, [url]))`` is what ``processor(text=…, videos=[url])`` would be, but
decoded here; transformers asks torchcodec for that. The extra `transformers` installs what this needs.

>>> from transformers import VideoMAEVideoProcessor  # doctest: +SKIP
>>> videos(VideoMAEVideoProcessor(), ["clip.mp4"], num_frames=8)["videos"][0].shape  # doctest: +SKIP
(8, 288, 512, 3)
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmmedia._quiet import silence_decoders
from mmmedia.batch import Decoder
from mmmedia.errors import InvalidArgumentError
from mmmedia.integrations.sampled import load_sampled
from mmmedia.packages import packages_for
from mmmedia.pipeline.processors import NAME, SampleIndices, metadata_of, rule_of, sampler_of
from mmmedia.video.samplers import VideoSourceMetadata

_WHAT = "mmmedia.integrations.transformers"

if TYPE_CHECKING:
    from transformers.video_utils import VideoMetadata

    from mmmedia.media.connector import MediaConnector


def videos(
    processor: Any, sources: Iterable[Any], *, connector: "MediaConnector | None" = None, **overrides: Any
) -> dict[str, Any]:
    """Return keywords for a processor: decoded videos, sampled as it would sample them.

    Args:
        processor: a processor of transformers, or its video processor.
        sources: paths, URLs, bytes, or open files.
        connector: what fetches URLs; None: a new one, with the policy of the settings.
        **overrides: options of the processor that its sampler looks at, such as `num_frames` and `fps`.

    Returns:
        `videos`: frames, uint8 RGB (n, height, width, 3), of each; `video_metadata` of each; and
        `do_sample_frames`, which is False, as they have been sampled.

    Raises:
        InvalidArgumentError: (a `ValueError`) what is no processor of videos.
        InvalidMediaError: (a `ValueError`) no video that can be decoded, or not all frames of it.
        MissingPackageError: (an `ImportError`) transformers is not installed.
    """
    sample = sampler_of(processor, overrides) or _all_frames
    loaded = [load_video(source, sample_indices_fn=sample, connector=connector) for source in sources]
    return {
        "videos": [frames for frames, _ in loaded],
        "video_metadata": [metadata for _, metadata in loaded],
        "do_sample_frames": False,
    }


def load_video(
    video: Any,
    num_frames: int | None = None,
    fps: float | None = None,
    backend: str = NAME,  # noqa: ARG001 - transformers'
    sample_indices_fn: SampleIndices | None = None,
    *,
    connector: "MediaConnector | None" = None,
    **kwargs: Any,
) -> tuple[Any, Any]:
    """Load a video as `transformers.video_utils.load_video` does.

    Args:
        video: a path, a URL, bytes, or an open file. What is decoded already is returned as it is.
        num_frames: how many frames, evenly spaced; None: all, or by `fps`.
        fps: frames a second.
        backend: not used: it is always this library that decodes.
        sample_indices_fn: called with `metadata`; returns which frames to take, in any order.
        connector: what fetches URLs; None: a new one, with the policy of the settings.
        **kwargs: handed to `sample_indices_fn`.

    Returns:
        The frames, uint8 RGB (n, height, width, 3), and a `VideoMetadata` of transformers.

    Raises:
        InvalidArgumentError: (a `ValueError`) both `num_frames` and `fps`, or such frames as there are not.
        InvalidMediaError: (a `ValueError`) no video that can be decoded, or not all frames of it.
    """
    with packages_for(_WHAT):
        from transformers.video_utils import default_sample_indices_fn
    if num_frames is not None and fps is not None and sample_indices_fn is None:
        raise InvalidArgumentError("num_frames and fps exclude each other.")
    if not (isinstance(video, str | bytes | os.PathLike) or hasattr(video, "read")):
        return video, [None] * len(video)
    default = partial(default_sample_indices_fn, num_frames=num_frames, fps=fps)
    rule = rule_of(partial(sample_indices_fn or default, **kwargs))
    silence_decoders()
    frames, facts = load_sampled(video, rule, connector)
    return frames, to_metadata({**facts, "video_backend": NAME}, frames)


def _all_frames(metadata: "VideoMetadata") -> range:
    return range(metadata.total_num_frames)


def to_metadata(metadata: Mapping[str, Any], frames: Any = None) -> "VideoMetadata":
    """Return what this library tells of a video as a `VideoMetadata` of transformers.

    Args:
        metadata: of `mmmedia.load_video`, `MediaConnector.fetch_video`, or a row of `mmmedia.batch.Decoder`.
        frames: (n, height, width, 3), which tell the size.
    """
    source = VideoSourceMetadata(metadata["total_num_frames"], metadata["fps"], metadata["duration"])
    told = metadata_of(source, frames, metadata["frames_indices"])
    told.video_backend = metadata["video_backend"]
    return told


# For those who want transformers itself changed.

_replaced: dict[str, Any] = {}


def install() -> None:
    """Have transformers decode videos by this library, whatever it is asked for, in this process.

    Its processors name torchcodec in their code, and fail where there is none. `uninstall` takes it back.
    """
    if _replaced:
        return
    utils, processing = _modules()
    mixin = processing.VideoProcessorMixin
    _replaced.update(load_video=utils.load_video, fetch_videos=mixin.fetch_videos)
    utils.VIDEO_DECODERS[NAME] = _decode
    utils.load_video = processing.load_video = load_video
    mixin.fetch_videos = _fetch_videos


def uninstall() -> None:
    """Take back what `install` did."""
    if not _replaced:
        return
    utils, processing = _modules()
    utils.VIDEO_DECODERS.pop(NAME, None)
    utils.load_video = processing.load_video = _replaced.pop("load_video")
    processing.VideoProcessorMixin.fetch_videos = _replaced.pop("fetch_videos")


def _modules() -> tuple[Any, Any]:
    with packages_for(_WHAT):
        utils = import_module("transformers.video_utils")
        return utils, import_module("transformers.video_processing_utils")


def _decode(video_path: Any, sample_indices_fn: SampleIndices, **kwargs: Any) -> tuple[Any, Any]:
    """Decode for transformers' own `load_video`, which has fetched what it is given."""
    return load_video(video_path, sample_indices_fn=sample_indices_fn, **kwargs)


def _fetch_videos(
    _processor: Any, video_url_or_urls: Any, sample_indices_fn: SampleIndices | None = None
) -> Any:
    """Stand in for the method of processors that fetches."""
    if isinstance(video_url_or_urls, list):
        both = [_fetch_videos(_processor, each, sample_indices_fn) for each in video_url_or_urls]
        return list(zip(*both, strict=True))
    return load_video(video_url_or_urls, sample_indices_fn=sample_indices_fn)


# Datasets and their loaders.

_MODALITIES = ("video", "image", "audio")


class decode_columns:  # noqa: N801 - called as a function
    """Decodes columns of a batch: for `Dataset.with_transform` and `Dataset.map(batched=True)` of datasets.

    The columns hold what ``decode=False`` leaves in them (a dict of `path` and `bytes`), or paths, URLs or
    bytes. Beside a column `clip` stand then `clip_metadata` and `clip_error`: what can't be decoded is an
    empty array, and its error says why, unless `on_error` says otherwise. It pickles.

    Args:
        **columns: for each column options of `mmmedia.batch.Decoder`. A column of another name than "video",
            "image" or "audio" says its `modality`.

    Raises:
        InvalidArgumentError: (a `ValueError`) an option that a decoder does not have.

    >>> from mmmedia.cli import scene
    >>> transform = decode_columns(video={"num_frames": 4, "resize": 64})
    >>> batch = transform({"video": [{"bytes": scene.clip(), "path": None}, "nothing.mp4"], "label": [1, 0]})
    >>> [frames.shape for frames in batch["video"]], batch["video_error"][0], batch["label"]
    ([(4, 36, 64, 3), (0, 0, 0, 3)], None, [1, 0])
    """

    def __init__(self, **columns: Mapping[str, Any]) -> None:
        self._decoders: dict[str, Decoder] = {}
        for column, given in columns.items():
            options = dict(given)
            modality = options.pop("modality", column)
            if modality not in _MODALITIES:
                raise InvalidArgumentError(f"{column}: its modality is one of {', '.join(_MODALITIES)}.")
            self._decoders[column] = Decoder(modality, **options)

    def __repr__(self) -> str:
        columns = ", ".join(f"{column}={decoder!r}" for column, decoder in self._decoders.items())
        return f"decode_columns({columns})"

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Return a batch, lists by column, with these decoded."""
        decoded: dict[str, Any] = dict(batch)
        dropped: set[int] = set()
        for column, decoder in self._decoders.items():
            rows = [decoder(_source(cell)) for cell in batch[column]]
            decoded[column] = [row.media for row in rows]
            decoded[f"{column}_metadata"] = [row.metadata for row in rows]
            decoded[f"{column}_error"] = [row.error for row in rows]
            if decoder.on_error == "drop":
                dropped.update(number for number, row in enumerate(rows) if row.error is not None)
        if not dropped:
            return decoded
        return {
            column: [cell for number, cell in enumerate(cells) if number not in dropped]
            for column, cells in decoded.items()
        }


def _source(cell: Any) -> Any:
    """Return what a cell of a dataset that is not decoded refers to."""
    if isinstance(cell, Mapping):
        return cell.get("path") if cell.get("bytes") is None else cell["bytes"]
    return cell


def worker_init(worker_id: int) -> None:  # noqa: ARG001 - torch's
    """Have a worker of torch's `DataLoader` decode with one thread: ``worker_init_fn=worker_init``.

    The workers share the cores already.
    """
    import cv2

    silence_decoders()
    os.environ.setdefault("MMMEDIA_VIDEO_DECODE_WORKERS", "1")
    os.environ.setdefault("MMMEDIA_VIDEO_DECODE_FOR", "throughput")
    cv2.setNumThreads(1)
