"""Videos, pictures and sounds in Ray Data: columns of bytes, paths or URLs in, arrays out.

The extra `ray` installs what this needs.

>>> import ray  # doctest: +SKIP
>>> paths = ray.data.from_items([{"path": "a.mp4"}, {"path": "b.mp4"}])  # doctest: +SKIP
>>> decode_videos(paths, "path", num_frames=8, resize=336).take(1)[0]["frames"].shape  # doctest: +SKIP
(8, 189, 336, 3)
"""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mmmedia.batch import Decoder, Modality, Row
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    from ray.data import Dataset

Batch = Mapping[str, npt.NDArray[Any]]


class _Decode:
    """What the three have in common: a class to be called, of which an actor makes one object."""

    modality: ClassVar[Modality]
    output: ClassVar[str]

    def __init__(
        self,
        column: str,
        *,
        output: str | None = None,
        metadata: str = "metadata",
        error: str = "error",
        keep_source: bool = False,
        decoder: Decoder | None = None,
        **options: Any,
    ) -> None:
        self._column = column
        self._names = (output or type(self).output, metadata, error)
        self._keep_source = keep_source
        self._decoder = decoder or Decoder(self.modality, **options)
        if self._decoder.threads is None:
            self._decoder.threads = _assigned_cpus()

    def __call__(self, batch: Batch) -> Iterator[dict[str, Any]]:
        """Give a batch back one row at a time, so that no more than that stands in memory beside it."""
        for number, source in enumerate(batch[self._column]):
            row = self._decoder(source)
            if row.error is not None and self._decoder.on_error == "drop":
                continue
            kept = {
                name: cells[number : number + 1]
                for name, cells in batch.items()
                if self._keep_source or name != self._column
            }
            cells = {**kept, **self._cells(row)}
            del row
            yield cells
            del cells  # before the next is decoded

    def _cells(self, row: Row) -> dict[str, Any]:
        output, metadata, error = self._names
        return {output: row.media[None], metadata: [_typed(row.metadata)], error: _words(row.error)}


class DecodeVideos(_Decode):
    """Decodes a column of videos: for `Dataset.map_batches`, which makes one in each actor.

    Args:
        column: holds bytes, paths or URLs.
        output: the column that frames go to, uint8 RGB (n, height, width, 3) in each row.
        metadata: the column that what is known of them goes to: a struct of the same fields in every row.
        error: the column that says in words what was wrong; None where nothing was.
        keep_source: keep the column that holds the sources.
        decoder: what decodes, made and checked in the driver; None: one with these options.
        **options: of `mmmedia.batch.Decoder`. With ``on_error="null"`` what can't be decoded gives an empty
            array, with "drop" no row, with "raise" its error. `threads` are by default the CPUs that Ray has
            assigned to the actor.
    """

    modality = "video"
    output = "frames"


class DecodeImages(_Decode):
    """Decodes a column of pictures to `image`, uint8 RGB (height, width, 3); see `DecodeVideos`."""

    modality = "image"
    output = "image"


class DecodeAudio(_Decode):
    """Decodes a column of sounds to `audio`, float32 (samples,), in mono; see `DecodeVideos`."""

    modality = "audio"
    output = "audio"


def decode_videos(
    ds: "Dataset",
    column: str,
    *,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float = 1,
    batch_size: int = 8,
    output: str | None = None,
    metadata: str = "metadata",
    error: str = "error",
    keep_source: bool = False,
    **options: Any,
) -> "Dataset":
    """Return a dataset with a column of videos decoded.

    Args:
        ds: a dataset of Ray.
        column: as of `DecodeVideos`, and so are `output`, `metadata`, `error`, `keep_source` and `options`.
        concurrency: how many actors, or from how many to how many; None: as Ray does it.
        num_cpus: CPUs, and threads, of each actor.
        batch_size: rows that an actor is given at once.
        output: see there.
        metadata: see there.
        error: see there.
        keep_source: see there.
        **options: see there. A sampler is looked up here, not in the actors.

    Raises:
        InvalidArgumentError: (a `ValueError`) an option with a value that it can't have.
        MissingPackageError: (an `ImportError`) Ray is not installed.
    """
    with packages_for("mmmedia.integrations.ray"):
        from ray.data import ActorPoolStrategy
    decoder = Decoder("video", **options)
    if concurrency is None:
        pool = ActorPoolStrategy()
    elif isinstance(concurrency, int):
        pool = ActorPoolStrategy(size=concurrency)
    else:
        pool = ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    names = {"output": output, "metadata": metadata, "error": error, "keep_source": keep_source}
    return ds.map_batches(
        DecodeVideos,
        fn_constructor_args=(column,),
        fn_constructor_kwargs={**names, "decoder": decoder},
        compute=pool,
        num_cpus=num_cpus,
        batch_size=batch_size,
        batch_format="numpy",
    )


def _assigned_cpus() -> int | None:
    """Return how many CPUs Ray has assigned to this actor; None outside of one."""
    ray = sys.modules.get("ray")  # which has been imported in an actor
    if ray is None or not ray.is_initialized():
        return None
    assigned = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return max(1, int(assigned)) if assigned else None


def _typed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata whose lists say what they hold also where they hold nothing."""
    kinds = {"frames_indices": np.int64, "timestamps": np.float64}
    return {
        name: np.array(value, kinds[name]) if name in kinds else value for name, value in metadata.items()
    }


def _words(error: str | None) -> Any:
    """Return a column of one text, which says that it is one also where it holds none."""
    try:
        import pyarrow
    except ModuleNotFoundError:  # outside of Ray, which needs it
        return np.array([error], object)
    return pyarrow.array([error], pyarrow.string())
