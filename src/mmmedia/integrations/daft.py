"""Videos, pictures and sounds in Daft: expressions over columns of bytes, paths or URLs.

The extra `daft` installs what this needs.

>>> import daft  # doctest: +SKIP
>>> clips = daft.from_glob_path("clips/*.mp4")  # doctest: +SKIP
>>> clips.with_column("clip", decode_videos(daft.col("path"), num_frames=8, resize=336))  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from mmmedia.batch import Decoder, Modality
from mmmedia.errors import InvalidArgumentError
from mmmedia.packages import packages_for

if TYPE_CHECKING:
    from daft import Expression


def decode_videos(
    expr: "Expression",
    *,
    use_process: bool | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> "Expression":
    """Return an expression of decoded videos.

    Args:
        expr: bytes, paths or URLs.
        use_process: whether each decoder has a process of its own; None: as Daft likes.
        max_concurrency: how many decoders work at the same time; None: as Daft likes.
        **options: of `mmmedia.batch.Decoder`. A sampler is looked up here, not in workers; ``on_error`` is
            "null" or "raise", as an expression leaves out no row.

    Returns:
        A struct of `frames`, uint8 RGB (n, height, width, 3); `metadata`; and `error`, what was wrong, in
        words. Frames and metadata are null where it failed, and `error` is null where it did not.

    Raises:
        InvalidArgumentError: (a `ValueError`) an option with a value that it can't have.
        MissingPackageError: (an `ImportError`) Daft is not installed.
    """
    return _decoded(expr, "video", "frames", use_process, max_concurrency, options)


def decode_images(
    expr: "Expression",
    *,
    use_process: bool | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> "Expression":
    """Return an expression of pictures: `image`, uint8 RGB (height, width, 3); see `decode_videos`."""
    return _decoded(expr, "image", "image", use_process, max_concurrency, options)


def decode_audio(
    expr: "Expression",
    *,
    use_process: bool | None = None,
    max_concurrency: int | None = None,
    **options: Any,
) -> "Expression":
    """Return an expression of sounds: `audio`, float32 (samples,), in mono; see `decode_videos`."""
    return _decoded(expr, "audio", "audio", use_process, max_concurrency, options)


def _decoded(
    expr: "Expression",
    modality: Modality,
    name: str,
    use_process: bool | None,
    max_concurrency: int | None,
    options: dict[str, Any],
) -> "Expression":
    decoder = Decoder(modality, **options)
    if decoder.on_error == "drop":
        raise InvalidArgumentError('on_error="drop": an expression leaves out no row; filter by its error.')
    with packages_for("mmmedia.integrations.daft"):
        import daft
    empty = decoder.failed(ValueError())
    kinds = {"frames_indices": daft.DataType.list(daft.DataType.int64())}
    kinds["timestamps"] = daft.DataType.list(daft.DataType.float64())
    plain = {int: daft.DataType.int64(), float: daft.DataType.float64(), bool: daft.DataType.bool()}
    plain[str] = daft.DataType.string()
    facts = {each: kinds.get(each) or plain[type(value)] for each, value in empty.metadata.items()}
    fields = {
        name: daft.DataType.tensor(daft.DataType.from_numpy_dtype(empty.media.dtype)),
        "metadata": daft.DataType.struct(facts),
        "error": daft.DataType.string(),
    }

    class Decode:
        """Made once in each worker."""

        def __init__(self, decoder: Decoder) -> None:
            self.decoder = decoder

        @daft.method(return_dtype=daft.DataType.struct(fields))  # type: ignore[untyped-decorator]
        def decode(self, source: Any) -> dict[str, Any]:
            row = self.decoder(source)
            if row.error is not None:
                return {name: None, "metadata": None, "error": row.error}
            return {name: row.media, "metadata": row.metadata, "error": None}

    made: Any = daft.cls(Decode, use_process=use_process, max_concurrency=max_concurrency)
    decoded: Expression = made(decoder).decode(expr)
    return decoded
