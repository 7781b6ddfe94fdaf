"""What becomes of failures: a line on standard error each, and the status with which the program ends.

0: all was done; 1: something could not be; 2: the command line or a setting can't be understood; 130: Ctrl-C.
"""

import logging
import os
import sys
from typing import Any, TypeGuard

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
    if status := _http_status(error):
        text = f"The server answered {status}."
    elif isinstance(error, MediaError):
        text = str(error)
    elif _is_plain(error):
        text = f"{error.filename}: {error.strerror}."
    else:
        text = _of_network(error) or str(error)
    return one_line(text) or type(error).__name__


def _is_plain(error: BaseException | str) -> TypeGuard[OSError]:
    """Say whether an error is the system's, about a file that it names itself."""
    return (
        isinstance(error, OSError) and isinstance(error.filename, str) and not isinstance(error, MediaError)
    )


def _http_status(error: BaseException) -> str:
    """Return the status that a server answered with, and its words; "" where that is not it."""
    from http import HTTPStatus

    from mmmedia.connections import status_of

    status = status_of(error)
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{status} {known.get(status, '')}".rstrip() if status else ""


def _of_network(error: BaseException) -> str:
    """Return why a server could not be reached, "" where that is not it."""
    import socket
    import ssl

    from mmmedia.connections.failures import causes

    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            return f"No host of this name is found: {cause.strerror} (DNS)."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The server's certificate is not good: {cause.verify_message}."
        if isinstance(cause, ConnectionError | TimeoutError) and cause.strerror:
            return f"The connection failed: {cause.strerror}."
    return f"{error.strerror}." if isinstance(error, OSError) and error.strerror else ""


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
        if _is_plain(error):
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
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has read enough
            _close_standard_output()
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (MediaError, OSError) as error:  # requests' errors are OSErrors
            complain(error, getattr(error, "__notes__", [""])[0])
            raise typer.Exit(status_of(error)) from None


def _close_standard_output() -> None:
    """Let what is still to be flushed at the program's end go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
