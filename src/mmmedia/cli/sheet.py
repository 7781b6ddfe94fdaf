"""`mmmedia sheet`: the contact sheet of a video, and what samplers pick from it."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mmmedia.cli.options import (
    End,
    Force,
    FramesPerSecond,
    NumFrames,
    OutputFile,
    Source,
    Start,
    Stream,
)
from mmmedia.cli.outputs import check_free, encoded, is_standard, write
from mmmedia.cli.progress import Report, progress
from mmmedia.cli.sources import STANDARD, load, named, opened, shown
from mmmedia.cli.words import joined, one_line

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

    from mmmedia import Video

_FEW = 12
_LARGEST = 480
"""Of a frame's sides, in pixels: sheets show smaller ones."""


def sheet(
    source: Source,
    output: OutputFile,
    samplers: Annotated[
        list[str] | None,
        typer.Option(
            "--sampler",
            help="What it picks, in a row of its own; several times for several: a loader's name (opencv, "
            "qwen3_vl, …), a type of model, or a video processor's class.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    num_frames: NumFrames = None,
    fps: FramesPerSecond = None,
    start: Start = None,
    end: End = None,
    stream: Stream = None,
    force: Force = False,
) -> None:
    """Draw frames of a video with their numbers and times: 12 of them, or what samplers pick.

    Samplers that take no number of frames, or no rate, are asked without.
    """
    from mmmedia.cli.raw import read

    check_free([output], force=force)
    with progress("Decoding") as report, named(source):
        place = opened(source)
        if isinstance(place, str) and len(samplers or []) > 1:
            place = read(source, report)  # once, not for each
        if not samplers:
            num_frames = _FEW if num_frames is None and fps is None else num_frames
        videos = []
        for number, name in enumerate(samplers or [None]):
            videos.append(_loaded(place, name, num_frames, fps, start, end, stream, report))
            report.counted(number + 1, len(samplers or [None]))
    picture = _drawn(source, samplers, videos, num_frames, fps)
    write(output, encoded(picture, output))
    for name, video in zip(samplers or [""], videos, strict=True):
        facts = joined(name, f"{len(video.frames)} of {video.metadata['total_num_frames']} frames")
        typer.echo(facts, err=is_standard(output))
    if not is_standard(output):
        typer.echo(f"{one_line(str(output))}  {picture.width} x {picture.height} pixels")


def _loaded(
    place: "str | Path | bytes",
    sampler: str | None,
    num_frames: int | None,
    fps: float | None,
    start: float | None,
    end: float | None,
    stream: int | None,
    report: Report,
) -> "Video":
    from mmmedia.loading.choosing import choice_of
    from mmmedia.loading.media_ios import VideoIO

    takes = _taken_by(sampler)
    choice = choice_of(
        sampler=sampler,
        num_frames=num_frames if "num_frames" in takes else None,
        fps=fps if "fps" in takes else None,
        start=start,
        end=end,
    )
    return load(place, VideoIO(choice, _LARGEST, stream), report)


def _taken_by(sampler: str | None) -> Collection[str]:
    """Return which options a sampler takes; of others' loaders that is not known."""
    from mmmedia.errors import InvalidArgumentError
    from mmmedia.video.samplers import sampler_for

    everything = ("num_frames", "fps")
    if sampler is None:
        return everything
    try:
        return sampler_for(sampler).options
    except InvalidArgumentError:
        return everything


def _drawn(
    source: str,
    samplers: Sequence[str] | None,
    videos: "Sequence[Video]",
    num_frames: int | None,
    fps: float | None,
) -> "Image.Image":
    """Draw a grid of the frames, or a row for each sampler."""
    from mmmedia.show import Row, contact_sheet, grid_sheet

    about = videos[0].metadata
    rate = f"{about['fps']:.6g} a second" if about["fps"] > 0 else ""
    length = f"{about['duration']:.6g} s" if about["duration"] > 0 else ""
    facts = joined(f"{about['total_num_frames']} frames", rate, length)
    title = shown(source) if source == STANDARD else shown(source).rstrip("/").rpartition("/")[2]
    rows = []
    for name, video in zip(samplers or [title], videos, strict=True):
        takes = _taken_by(name) if samplers else ()
        note = ", ".join(
            f"{option}={value:g}"
            for option, value in (("num_frames", num_frames), ("fps", fps))
            if value is not None and option in takes
        )
        about = video.metadata
        numbers = about["frames_indices"], about["total_num_frames"], about["fps"]
        rows.append(Row(name, note if samplers else facts, video.frames, *numbers, video.timestamps or None))
    return contact_sheet(title, facts, rows) if samplers else grid_sheet(rows[0])
