"""Arguments and options that several commands have, each said once."""

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from mmmedia.cli.words import moment, numbers


class Numbers(list[int]):
    """Numbers of frames."""


class Moments(list[float]):
    """Times in seconds."""


class Pixels(NamedTuple):
    """A size of pictures in pixels: width and height, or the longer side alone."""

    width: int
    height: int | None = None

    @property
    def size(self) -> int | tuple[int, int]:
        """The same in the words of `mmmedia.load_video`."""
        return self.width if self.height is None else (self.height, self.width)


def _moment(text: str) -> float:
    try:
        return moment(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time; expected seconds or h:mm:ss.") from None


def _moments(text: str) -> Moments:
    return Moments(_moment(part.strip()) for part in text.split(","))


def _numbers(text: str) -> Numbers:
    try:
        return Numbers(numbers(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers with commas between, as 0,5,10-20.") from None


def _pixels(text: str) -> Pixels:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise typer.BadParameter(f"{text!r} is no size; expected 640x360, or the longer side, as 640.")
    return Pixels(*map(int, sides))


Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A path, an http, s3, … or data URL, or - for standard input.",
        show_default=False,
    ),
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Paths, http, s3, … or data URLs, or - for standard input.",
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace files that are there.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
AsJSONLines = Annotated[bool, typer.Option("--jsonl", help="Print a JSON document a line.")]
NumFrames = Annotated[
    int | None, typer.Option(help="So many frames, evenly spaced; -1 for all.", min=-1, show_default=False)
]
FramesPerSecond = Annotated[
    float | None, typer.Option("--fps", help="So many frames a second.", min=1e-6, show_default=False)
]
Indices = Annotated[
    Numbers | None,
    typer.Option(
        help="Frames by their numbers from 0, with commas between; 10-20 for a range.",
        parser=_numbers,
        metavar="LIST",
        show_default=False,
    ),
]
Timestamps = Annotated[
    Moments | None,
    typer.Option(
        help="The frames that are shown at these times, with commas between.",
        parser=_moments,
        metavar="LIST",
        show_default=False,
    ),
]
Start = Annotated[
    float | None,
    typer.Option(
        help="From this time on: seconds, or h:mm:ss.", parser=_moment, metavar="TIME", show_default=False
    ),
]
End = Annotated[
    float | None,
    typer.Option(help="Up to this time.", parser=_moment, metavar="TIME", show_default=False),
]
Size = Annotated[
    Pixels | None,
    typer.Option(
        help="Of the frames: 640x360, or 640 for the longer side, beyond which they are made smaller.",
        parser=_pixels,
        metavar="SIZE",
        show_default=False,
    ),
]
Stream = Annotated[
    int | None,
    typer.Option(
        help="Which of several streams of pictures, from 0; else the best, as players choose.",
        min=0,
        show_default=False,
    ),
]
OutputFile = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="The file to write; - for standard output.",
        metavar="FILE",
        show_default=False,
    ),
]
