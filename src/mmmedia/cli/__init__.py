"""The command line: `mmmedia demo`, `mmmedia inspect`, `mmmedia excerpt` and `mmmedia doctor`."""

import logging
import os
from typing import Annotated

import typer

from mmmedia import __version__
from mmmedia.cli.demo import demo
from mmmedia.cli.doctor import doctor
from mmmedia.cli.excerpt import excerpt
from mmmedia.cli.inspect import inspect

app = typer.Typer(
    name="mmmedia",
    help="Getting media into multimodal models: fetch safely, decode exactly, hand over arrays.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(inspect)
app.command()(excerpt)
app.command()(doctor)


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
    logging.getLogger("mmmedia").setLevel(logging.DEBUG if verbose else logging.ERROR)
    if verbose:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    else:  # FFmpeg inside OpenCV writes to the terminal past Python; read when OpenCV is first imported
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
