"""`mmmedia excerpt`: a small clip of what some frames of a video need."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmmedia.errors import MediaError

if TYPE_CHECKING:
    from mmmedia.video.samplers import VideoSourceMetadata

logger = logging.getLogger(__name__)


def excerpt(
    source: Annotated[Path, typer.Argument(metavar="IN", help="The path of a video.", show_default=False)],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="The clip.", show_default=False)
    ],
    num_frames: Annotated[
        int | None, typer.Option(help="So many frames, evenly spaced.", min=1, show_default=False)
    ] = None,
    indices: Annotated[
        str | None, typer.Option(help="Numbers of frames, with commas between.", show_default=False)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="So many frames a second.", min=1e-6, show_default=False)
    ] = None,
) -> None:
    """Cut out of a video, without encoding anew, what some of its frames need.

    Prints the number of each wanted frame in the video, and its position in the clip.
    """
    from mmmedia.video.excerpts import excerpt as cut

    if sum(each is not None for each in (num_frames, indices, fps)) != 1:
        typer.echo("mmmedia: Give one of --num-frames, --indices and --fps.", err=True)
        raise typer.Exit(2)
    try:
        choice = _choice(num_frames, indices, fps)
        made = cut(source, choice)
        output.write_bytes(made.data)
    except (MediaError, OSError) as error:
        logger.debug("%s", source, exc_info=True)
        typer.echo(f"mmmedia: {source}: {error}", err=True)
        raise typer.Exit(1) from None
    for number, position in zip(made.indices, made.positions, strict=True):
        typer.echo(f"{number}\t{position}")
    typer.echo(
        f"{len(made.data)} bytes, {made.frames} frames of {made.source.total_frames_num}"
        + (f"; all of it, because: {made.reason}" if made.reason else ""),
        err=True,
    )


def _choice(
    num_frames: int | None, indices: str | None, fps: float | None
) -> "Sequence[int] | Callable[[VideoSourceMetadata], Sequence[int]]":
    """The frames that the options name, or what chooses them."""
    from mmmedia.errors import InvalidArgumentError
    from mmmedia.video import samplers

    if indices is not None:
        try:
            return [int(number) for number in indices.split(",")]
        except ValueError:
            raise InvalidArgumentError(
                f"--indices {indices}: expected numbers with commas between."
            ) from None

    def choose(source: "VideoSourceMetadata") -> Sequence[int]:
        if num_frames is not None:
            return samplers.sample_uniform(source.total_frames_num, source.duration, num_frames=num_frames)
        assert fps is not None
        return samplers.sample_dynamic(*source, fps=fps, max_duration=1e9) or [0]

    return choose
