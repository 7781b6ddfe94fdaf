"""The command line: what `mmmedia --help` lists.

A command's module imports nothing heavy at its head: all of them are read for any of them.
"""

import logging
import os
import sys
from typing import Annotated

import typer

from mmmedia import __version__
from mmmedia.cli.audio import audio
from mmmedia.cli.bench import bench
from mmmedia.cli.cache import cache
from mmmedia.cli.config import config
from mmmedia.cli.demo import demo
from mmmedia.cli.doctor import doctor
from mmmedia.cli.excerpt import excerpt
from mmmedia.cli.failures import Commands
from mmmedia.cli.fetch import fetch
from mmmedia.cli.frames import frames
from mmmedia.cli.inspect import inspect
from mmmedia.cli.sheet import sheet

app = typer.Typer(
    name="mmmedia",
    cls=Commands,
    help="Getting media into multimodal models: fetch safely, decode exactly, hand over arrays.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in which paragraphs of docstrings flow
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (inspect, frames, sheet, audio, excerpt, fetch, bench, demo, doctor):
    app.command()(_command)
app.add_typer(cache)
app.command()(config)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mmmedia {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what the library does, and why, to the terminal.")
    ] = False,
    version: Annotated[  # noqa: ARG001  # its callback prints
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up logging: what this program reports of a file is all that it says, unless asked for more."""
    for stream in (
        sys.stdout,
        sys.stderr,
    ):  # a terminal of another encoding gets question marks, no traceback
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    logging.getLogger("mmmedia").setLevel(logging.DEBUG if verbose else logging.ERROR)
    if verbose:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    else:  # FFmpeg inside OpenCV writes to the terminal past Python; read when OpenCV is first imported
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
