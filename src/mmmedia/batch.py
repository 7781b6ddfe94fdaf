"""`Decoder`: one thing after the other, in a worker of whatever distributes the work.

What adapters to frameworks stand on (`mmmedia.integrations`): it is made where the work is handed out,
pickled, and called in workers with what a column holds. It plans for the least CPU time, as workers share the
cores.
"""

import copy
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia._quiet import silence_decoders
from mmmedia.errors import InvalidArgumentError, InvalidSettingError
from mmmedia.loading.choosing import choice_of
from mmmedia.loading.media_ios import AudioIO, VideoIO
from mmmedia.loading.sources import URL, Source, connector_for, located, read_path, refused, timeout_for
from mmmedia.media.base import MediaIO
from mmmedia.media.connector import MediaConnector
from mmmedia.media.image import ImageMediaIO
from mmmedia.packages import packages_for
from mmmedia.video.decoders.fit import Size, resized, size_for
from mmmedia.work.fork import is_forked_child

Modality = Literal["image", "video", "audio"]
OnError = Literal["null", "drop", "raise"]


class Row(NamedTuple):
    """What became of one source.

    Attributes:
        media: frames, uint8 RGB (n, height, width, 3); pixels, uint8 RGB (height, width, 3); or a waveform,
            float32 (samples,). An empty array of that many dimensions where it failed.
        metadata: the same keys with values of the same types in every row, also where it failed.
        error: the type of the error and what it says; None where there is none.
    """

    media: npt.NDArray[Any]
    metadata: dict[str, Any]
    error: str | None


class Decoder:
    """Decodes videos, pictures or sounds, one a call; it pickles.

    Args:
        modality: "video", "image" or "audio".
        num_frames: of a video: as in `mmmedia.load_video`.
        fps: likewise.
        sampler: likewise. A name that was registered here need not be known in workers.
        on_error: "raise": a source that can't be loaded raises its error; "null": it gives an empty array and
            the error in words; "drop": the same, and adapters leave it out.
        threads: how many decode one video, and do the work of OpenCV in this process; None: as many as it may
            use.
        resize: the size of frames or pixels, as `size` in `mmmedia.load_video`.
        **connector: keywords of the connector that fetches URLs, such as `allowed_media_domains`. With
            `allowed_local_media_path` paths have to lie below it; otherwise they are the caller's own.

    Raises:
        InvalidArgumentError: (a `ValueError`) a keyword with a value that it can't have.

    >>> from mmmedia.cli import scene
    >>> decode = Decoder("video", num_frames=4, resize=64)
    >>> frames, metadata, error = decode(scene.clip())
    >>> frames.shape, metadata["frames_indices"], error
    ((4, 36, 64, 3), [0, 63, 127, 191], None)
    >>> decode(b"no media").error
    'InvalidMediaError: By its first bytes, not a media container that is known and allowed; refused.'
    """

    def __init__(
        self,
        modality: Modality,
        *,
        num_frames: int | None = None,
        fps: float | None = None,
        sampler: Any = None,
        on_error: OnError = "null",
        threads: int | None = None,
        resize: Size | None = None,
        **connector: Any,
    ) -> None:
        if on_error not in ("null", "drop", "raise"):
            raise InvalidArgumentError(f"on_error={on_error!r:.32}: expected 'null', 'drop' or 'raise'.")
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise InvalidArgumentError(f"threads={threads!r:.32}: expected a positive number.")
        self.modality, self.on_error, self.threads, self.resize = modality, on_error, threads, resize
        self.connector = connector
        self._media_io = _media_io(modality, num_frames, fps, sampler, resize)
        if connector:
            MediaConnector(**{name: value for name, value in connector.items() if name != "allowed_buckets"})
        self._prepared_in = 0

    def __call__(self, source: Source) -> Row:
        """Decode one source: bytes, a path, a URL, or an open file.

        Raises:
            Exception: what went wrong, with `on_error="raise"`; without it what is not the source's fault: a
                missing package, a setting that can't be read.
        """
        self._prepare()
        what = {"image": "A picture", "video": "A video", "audio": "A sound"}[self.modality]
        try:
            with packages_for(what), envs.unless_set(_PLAN), envs.at_most(self._ceilings):
                return self._row(self._load(source))
        except (ImportError, InvalidSettingError):
            raise
        except Exception as error:
            if self.on_error == "raise":
                raise
            return self.failed(error)

    def failed(self, error: Exception) -> Row:
        """Return the row of a source that gave an error."""
        words = " ".join(str(error).split())
        media, metadata = copy.deepcopy(_NOTHING[self.modality])
        return Row(media, metadata, f"{type(error).__name__}: {words}" if words else type(error).__name__)

    @property
    def _ceilings(self) -> dict[str, int]:
        return {} if self.threads is None else {"VLLM_VIDEO_DECODE_WORKERS": self.threads}

    def _prepare(self) -> None:
        """Do once in each process what is for the whole of it."""
        if self._prepared_in == os.getpid():
            return
        silence_decoders()
        if self.threads is not None and self.modality == "video":
            with packages_for("A video"):
                _limit_opencv(self.threads)
        self._prepared_in = os.getpid()

    def _load(self, source: Source) -> Any:
        found = located(source)
        if found is None:
            raise refused(source, f"{self.modality}s")
        if isinstance(found, Path) and "allowed_local_media_path" in self.connector:
            found = URL(Path(os.path.abspath(found)).as_uri())  # noqa: PTH100  # links are the connector's to judge
        if isinstance(found, URL):
            connector = connector_for(found, **self.connector)
            timeout = timeout_for(self._media_io)
            return connector.load_from_url(str(found), self._media_io, fetch_timeout=timeout)
        if isinstance(found, Path):
            read_path(found, peek=True)
            return self._media_io.load_file(found)
        return self._media_io.load_bytes(found)

    def _row(self, loaded: Any) -> Row:
        if self.modality == "video":
            metadata = {**loaded.metadata, "timestamps": loaded.timestamps}
            return Row(loaded.frames, metadata, None)
        if self.modality == "audio":
            return Row(
                loaded.waveform,
                {"sampling_rate": float(loaded.sampling_rate), "duration": loaded.duration},
                None,
            )
        pixels = np.array(loaded.media)  # a copy that can be written to
        pixels = resized(pixels[None], self.resize)[0]
        width, height = loaded.media.size
        return Row(pixels, {"width": width, "height": height}, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_prepared_in": 0}

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in ("on_error", "threads", "resize"))
        return f"Decoder({self.modality!r}, {', '.join(shown)})"


def _limit_opencv(threads: int) -> None:
    """Let OpenCV use so many threads in this process."""
    import cv2

    if threads == 1:
        cv2.setNumThreads(0)  # none but the caller's; what 1 means, too, but that waits for threads to end
    elif not is_forked_child():  # which waits for ever for those of its parent
        cv2.setNumThreads(threads)


_PLAN = {"MMMEDIA_VIDEO_DECODE_FOR": "throughput"}
_NOTHING: dict[str, tuple[npt.NDArray[Any], dict[str, Any]]] = {
    "video": (
        np.empty((0, 0, 0, 3), np.uint8),
        {
            "total_num_frames": 0,
            "fps": 0.0,
            "duration": 0.0,
            "video_backend": "",
            "frames_indices": [],
            "do_sample_frames": False,
            "timestamps": [],
        },
    ),
    "image": (np.empty((0, 0, 3), np.uint8), {"width": 0, "height": 0}),
    "audio": (np.empty(0, np.float32), {"sampling_rate": 0.0, "duration": 0.0}),
}


def _media_io(
    modality: str, num_frames: int | None, fps: float | None, sampler: Any, resize: Size | None
) -> MediaIO[Any]:
    if modality not in _NOTHING:
        raise InvalidArgumentError(f"modality={modality!r:.32}: expected image, video or audio.")
    choice = choice_of(num_frames=num_frames, fps=fps, sampler=sampler)
    if resize is not None:
        size_for((1, 1), resize)
    if modality == "video":
        return VideoIO(choice, resize)
    if (num_frames, fps, sampler) != (None, None, None):
        raise InvalidArgumentError(f"num_frames, fps, sampler: not for {modality}s.")
    if modality == "audio" and resize is not None:
        raise InvalidArgumentError("resize: not for sounds.")
    return ImageMediaIO() if modality == "image" else AudioIO()
