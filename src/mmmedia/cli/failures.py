"""What becomes of failures: a line on standard error each, and the status with which the program ends.

0: all was done; 1: something could not be; 2: the command line or a setting can't be understood; 130: Ctrl-C.
"""

import logging
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from mmmedia.cli.words import one_line
from mmmedia.errors import InvalidArgumentError, InvalidSettingError, MediaError

logger = logging.getLogger(__name__)


def reason(error: BaseException) -> str:
    """Return why something failed, on one line.

    >>> reason(FileNotFoundError(2, "No such file or directory", "clip.mp4"))
    'clip.mp4: No such file or directory.'
    """
    text = one_line(str(error)) or type(error).__name__
    if isinstance(error, OSError) and error.strerror and not isinstance(error, MediaError):
        name = error.filename if isinstance(error.filename, str) else ""
        text = one_line(f"{name}: {error.strerror}." if name else f"{error.strerror}.")
    return text


def complain(error: BaseException | str, about: str = "") -> None:
    """Say on standard error what failed.

    Args:
        error: what was raised, or why something failed.
        about: the source that it was about, as it is shown.
    """
    if isinstance(error, str):
        text = error
    else:
        logger.debug("%s", about, exc_info=error)
        text = reason(error)
    if about and text.startswith(f"{about}: "):
        about = ""
    typer.echo(f"mmmedia: {about}: {text}" if about else f"mmmedia: {text}", err=True)


def status_of(error: BaseException) -> int:
    """Return the status with which a command ends that failed so."""
    return 2 if isinstance(error, InvalidArgumentError | InvalidSettingError) else 1


class Commands(TyperGroup):
    """Commands whose failures end them with a line, never with a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has read enough
            _close_standard_output()
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (MediaError, OSError) as error:  # requests' errors are OSErrors
            complain(error, getattr(error, "__notes__", [""])[0])
            raise typer.Exit(status_of(error)) from None
        return result


def _close_standard_output() -> None:
    """Let what is still to be flushed at the program's end go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
