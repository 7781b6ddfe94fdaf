"""Where results are written: whole or not at all, and over nothing that is there unless that is wanted."""

import io
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmedia.cli.sources import STANDARD
from mmmedia.errors import InvalidArgumentError

if TYPE_CHECKING:
    from PIL import Image


def is_standard(path: Path) -> bool:
    """Say whether a path stands for standard output."""
    return str(path) == STANDARD


def check_free(paths: Iterable[Path], *, force: bool) -> None:
    """See that none of these files is there; devices and pipes may be.

    Raises:
        FileExistsError: one is, and it is not to be replaced.
        IsADirectoryError: one is a directory.
        InvalidArgumentError: (a `ValueError`) a file is to be written to a terminal.
    """
    for path in paths:
        if is_standard(path):
            if sys.stdout.isatty():
                raise InvalidArgumentError("A file is not written to a terminal: name one, or use a pipe.")
        elif path.is_dir():
            raise IsADirectoryError(21, "It is a directory, where a file is to be written", str(path))
        elif path.is_file() and not force:
            raise FileExistsError(17, "It is there already; --force replaces it", str(path))


def write(path: Path, data: bytes | memoryview) -> None:
    """Write a file; if that fails, there is what was there before.

    Raises:
        OSError: it can't be written.
    """
    if is_standard(path):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        if path.exists() and not path.is_file():  # a device or a pipe
            path.write_bytes(data)
            return
        part = path.with_name(f".{path.name[:60]}.{secrets.token_hex(4)}.part")
        try:
            part.write_bytes(data)
            part.replace(path.resolve())  # what a link leads to, not the link
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:  # name the file that people know
        raise OSError(error.errno, error.strerror, str(path)) from error


def encoded(image: "Image.Image", path: Path, **options: Any) -> bytes:
    """Return a picture as a file of the format that a path's suffix names; PNG for standard output.

    Raises:
        InvalidArgumentError: (a `ValueError`) no format that Pillow writes.
    """
    from PIL import Image

    Image.init()
    suffix = ".png" if is_standard(path) else path.suffix.lower()
    form = Image.EXTENSION.get(suffix)
    if form not in Image.SAVE:
        raise InvalidArgumentError(f"{path}: no picture that Pillow can write; name a .png, .jpg or .webp.")
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
