"""`mmmedia excerpt`: a small clip of what some frames of a video need."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from mmmedia.cli.options import Force, FramesPerSecond, Indices, NumFrames, OutputFile, Source
from mmmedia.cli.outputs import check_free, is_standard, write
from mmmedia.cli.progress import progress
from mmmedia.cli.sources import load, named, opened

if TYPE_CHECKING:
    from mmmedia.video.samplers import VideoSourceMetadata


def excerpt(
    source: Source,
    output: OutputFile,
    num_frames: NumFrames = None,
    indices: Indices = None,
    fps: FramesPerSecond = None,
    force: Force = False,
) -> None:
    """Cut out of a video, without encoding anew, what some of its frames need.

    Prints the number of each wanted frame in the video, and its position in the clip.
    """
    from mmmedia.cli.raw import CutIO
    from mmmedia.errors import InvalidArgumentError

    if sum(each is not None for each in (num_frames, indices, fps)) != 1:
        raise InvalidArgumentError("Give one of --num-frames, --indices and --fps.")
    check_free([output], force=force)
    with progress("Cutting") as report, named(source):
        made = load(opened(source), CutIO(indices or _choice(num_frames, fps)), report)
    write(output, made.data)
    for number, position in zip(made.indices, made.positions, strict=True):
        typer.echo(f"{number}\t{position}", err=is_standard(output))
    typer.echo(
        f"{len(made.data)} bytes, {made.frames} frames of {made.source.total_frames_num}"
        + (f"; all of it, because: {made.reason}" if made.reason else ""),
        err=True,
    )


def _choice(num_frames: int | None, fps: float | None) -> "Callable[[VideoSourceMetadata], Sequence[int]]":
    """What chooses the frames."""
    from mmmedia.video import samplers

    def choose(source: "VideoSourceMetadata") -> Sequence[int]:
        if num_frames is not None:
            return samplers.sample_uniform(source.total_frames_num, source.duration, num_frames=num_frames)
        assert fps is not None
        return samplers.sample_dynamic(*source, fps=fps, max_duration=1e9) or [0]

    return choose
