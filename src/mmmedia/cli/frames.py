"""`mmmedia frames`: frames of a video as pictures, or as an array."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmmedia.cli.failures import complain
from mmmedia.cli.options import (
    AsJSON,
    AsJSONLines,
    End,
    Force,
    FramesPerSecond,
    Indices,
    NumFrames,
    Size,
    Source,
    Start,
    Stream,
    Timestamps,
)
from mmmedia.cli.outputs import check_free, encoded, is_standard, write
from mmmedia.cli.progress import Report, progress
from mmmedia.cli.sources import load, named, opened, shown
from mmmedia.cli.tables import print_json, print_json_lines, show
from mmmedia.cli.words import joined, one_line, shortened
from mmmedia.errors import InvalidArgumentError, InvalidMediaError

if TYPE_CHECKING:
    from mmmedia import Video
    from mmmedia.loading.choosing import Choice
    from mmmedia.video.samplers import VideoSourceMetadata

_PART = 64
"""Frames that are decoded at a time, of large ones."""
_PART_BYTES = 512_000_000
"""Bytes of decoded frames that are held at a time, of small ones."""


class Format(StrEnum):
    """Of the pictures."""

    png = "png"
    jpg = "jpg"
    webp = "webp"


def frames(
    source: Source,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE.npz",
            help="A directory for pictures, which is made, or a file of NumPy arrays: frames, indices, "
            "timestamps.",
            show_default=False,
        ),
    ],
    num_frames: NumFrames = None,
    fps: FramesPerSecond = None,
    indices: Indices = None,
    timestamps: Timestamps = None,
    start: Start = None,
    end: End = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Who chooses: a loader's name (qwen3_vl), a type of model, or a video processor's class.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    size: Size = None,
    stream: Stream = None,
    picture_format: Annotated[Format, typer.Option("--format", help="Of the pictures.")] = Format.png,
    quality: Annotated[int, typer.Option(help="Of JPEG and WebP pictures.", min=1, max=100)] = 95,
    skip_missing: Annotated[
        bool, typer.Option("--skip-missing", help="Of a damaged video, write the frames that can be decoded.")
    ] = False,
    force: Force = False,
    as_json: AsJSON = False,
    as_lines: AsJSONLines = False,
) -> None:
    """Write frames of a video: 32 of them, evenly spaced, unless told otherwise.

    Pictures are called by the number of their frame in the video; each is printed with its time. Of more
    frames than memory should hold, a part is decoded at a time; an array is held as a whole.
    """
    from mmmedia.loading.choosing import choice_of

    choice = choice_of(
        num_frames=num_frames,
        fps=fps,
        sampler=sampler,
        indices=indices,
        timestamps=timestamps,
        start=start,
        end=end,
    )
    if is_array := output.suffix.lower() == ".npz":
        check_free([output], force=force)
        with progress("Decoding") as report, named(source):
            wanted = _Wanted(choice, size and size.size, stream, report)
            video = wanted.load(opened(source))
            wanted.check(skip=skip_missing)
        write(output, _archive(video))
        rows = _rows(video)
    else:
        rows = []
        pictures = _Pictures(output, picture_format, quality)
        with progress("Writing") as report:
            wanted = _Wanted(choice, size and size.size, stream, report)
            for video in wanted.parts(source, before=lambda numbers: pictures.check(numbers, force=force)):
                with named(source):
                    wanted.check(skip=skip_missing)
                rows += _rows(video, pictures.write(video))
                report.counted(len(rows), len(wanted.numbers))
    if as_json:
        print_json(rows)
    elif as_lines:
        print_json_lines(rows)
    else:
        show(
            [(str(row["frame"]), _time(row["time"]), one_line(row.get("file", ""))) for row in rows],
            ("frame", "time", "" if is_array else "file"),
            right={0, 1},
        )
        size_of = f"{video.width} x {video.height} pixels"
        typer.echo(
            joined(f"{len(rows)} of {video.metadata['total_num_frames']} frames", size_of, str(output))
        )
    if wanted.missing:
        complain(wanted.words(), shown(source))
        raise typer.Exit(1)


class _Wanted:
    """Which frames are wanted, known once the video is; and which of them can't be decoded.

    Attributes:
        numbers: of the frames, in the order in which they are wanted.
        missing: those that were looked for and can't be decoded.
    """

    def __init__(
        self, choice: "Choice", size: int | tuple[int, int] | None, stream: int | None, report: Report
    ) -> None:
        self._choice, self._size, self._stream, self._report = choice, size, stream, report
        self.numbers: list[int] = []
        self.missing: list[int] = []

    def load(self, source: str | Path | bytes) -> "Video":
        """Load all of them."""
        return self._load(source, self._choose)

    def parts(self, source: str, before: Callable[[list[int]], object]) -> "Iterator[Video]":
        """Load each of them once, a part at a time.

        Args:
            source: as it was typed.
            before: is told the numbers of all before any is decoded.
        """

        def first(video: "VideoSourceMetadata") -> Sequence[int]:
            self.numbers = list(dict.fromkeys(self._choose(video)))
            before(self.numbers)
            return self.numbers[:_PART]

        with named(source):
            place = opened(source)
            video = self._load(place, first)
        yield video
        per_part = _PART
        if self._size is None and len(video.frames):
            per_part = max(_PART, _PART_BYTES // video.frames[0].nbytes)
        if len(self.numbers) > _PART and isinstance(place, str):
            from mmmedia.cli.raw import read

            with named(source):
                place = read(source, self._report)  # once, not for each part
        for begin in range(_PART, len(self.numbers), per_part):
            with named(source):
                yield self._load(place, _constant(self.numbers[begin : begin + per_part]))

    def check(self, *, skip: bool) -> None:
        """Raise `InvalidMediaError` (a `ValueError`) if any can't be decoded and is not to be skipped."""
        if self.missing and not skip:
            raise InvalidMediaError(f"{self.words()} --skip-missing writes the others.")

    def words(self) -> str:
        """Say how many can't be decoded."""
        return (
            f"{len(self.missing)} of {len(set(self.numbers))} frames can't be decoded: "
            f"{shortened(self.missing)}."
        )

    def _choose(self, video: "VideoSourceMetadata") -> Sequence[int]:
        self.numbers = self._choice(video)
        return self.numbers

    def _load(
        self, source: str | Path | bytes, choose: "Callable[[VideoSourceMetadata], Sequence[int]]"
    ) -> "Video":
        from mmmedia.loading.choosing import choice_of
        from mmmedia.loading.media_ios import VideoIO

        sought: list[int] = []

        def noted(video: "VideoSourceMetadata") -> Sequence[int]:
            sought[:] = choose(video)
            return sought

        media_io = VideoIO(choice_of(sampler=noted), self._size, self._stream, missing="drop")
        video = load(source, media_io, self._report)
        found = set(video.metadata["frames_indices"])
        self.missing += sorted(set(sought) - found)
        return video


def _constant(numbers: Sequence[int]) -> "Callable[[VideoSourceMetadata], Sequence[int]]":
    return lambda video: numbers  # noqa: ARG005  # whatever it is


class _Pictures:
    """Where frames are written as pictures, and how."""

    def __init__(self, directory: Path, picture_format: Format, quality: int) -> None:
        from PIL import Image

        if is_standard(directory) or directory.suffix.lower() in Image.registered_extensions():
            raise InvalidArgumentError(f"{directory}: name a directory for the pictures, or a file .npz.")
        self._directory, self._suffix = directory, f".{picture_format.value}"
        # The least effort: twice as fast as zlib's usual one, and a tenth larger.
        self._options = {"compress_level": 1} if picture_format is Format.png else {"quality": quality}

    def check(self, numbers: Sequence[int], *, force: bool) -> None:
        """Make the directory, and see that none of the files is there."""
        self._directory.mkdir(parents=True, exist_ok=True)
        check_free(map(self._path, numbers), force=force)

    def write(self, video: "Video") -> list[Path]:
        """Write frames side by side, and return their files."""
        from concurrent.futures import ThreadPoolExecutor

        from PIL import Image

        from mmmedia.work.cores import usable_cores

        def one(frame: Any, path: Path) -> None:
            write(path, encoded(Image.fromarray(frame), path, **self._options))

        paths = [self._path(number) for number in video.metadata["frames_indices"]]
        with ThreadPoolExecutor(usable_cores()) as pool:
            list(pool.map(one, video.frames, paths))
        return paths

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06}{self._suffix}"


def _archive(video: "Video") -> bytes:
    """Return the arrays of a video as a file of NumPy."""
    import io

    import numpy as np

    file = io.BytesIO()
    np.savez(
        file,
        frames=video.frames,
        indices=np.array(video.metadata["frames_indices"], np.int64),
        timestamps=np.array(video.timestamps, np.float64),
    )
    return file.getvalue()


def _rows(video: "Video", paths: Sequence[Path] = ()) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, frame in enumerate(video.metadata["frames_indices"]):
        time = round(video.timestamps[number], 6) if video.timestamps else None
        rows.append({"frame": frame, "time": time, **({"file": str(paths[number])} if paths else {})})
    return rows


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3f} s"
