"""Files of this machine: opened only below the directory that an operator allows, checked, and read.

Links are followed once, to see where a name leads. Then the file is opened from directory to directory,
through none that has become a link since. So whoever swaps a file or a directory meanwhile gets an error, or
the file that was there before: never one that lies elsewhere. What is read is read from that open file.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mmmedia.errors import (
    InvalidArgumentError,
    LocalFileError,
    LocalFileNotFoundError,
    RefusedURLError,
)

# Without O_NONBLOCK a FIFO would wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# O_PATH: of a directory that may not be listed, what is below may still be opened.
_DIRECTORY_FLAGS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


_INVALID = "allowed_local_media_path: Invalid `--allowed-local-media-path`"


class LocalFile(NamedTuple):
    """An open file.

    Attributes:
        descriptor: open for reading, at its start.
        name: how it was asked for.
        size: its bytes when it was opened.
    """

    descriptor: int
    name: str
    size: int

    def read(self) -> bytes:
        """Return the bytes that it had when it was opened; what was added since is left out.

        Raises:
            LocalFileError: (an `OSError` and a `ValueError`) it has become shorter, or can't be read.
        """
        pieces: list[bytes] = []
        left = self.size
        try:
            while left and (piece := os.read(self.descriptor, left)):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise LocalFileError(f"Cannot read {self.name!r}: {os.strerror(error.errno or 0)}.") from None
        if left:
            raise LocalFileError(f"{self.name!r} became {left} bytes shorter while it was read.")
        return b"".join(pieces)  # of a single one no copy is made


def allowed_directory(path: str | os.PathLike[str]) -> Path | None:
    """Return `allowed_local_media_path` as an absolute path, `None` when it is empty.

    Raises:
        InvalidArgumentError: (a `ValueError`) it is no directory.
    """
    if not os.fspath(path):
        return None
    directory = Path(path)
    if not directory.exists():
        raise InvalidArgumentError(f"{_INVALID}: {str(path)!r} does not exist.")
    if not directory.is_dir():
        raise InvalidArgumentError(f"{_INVALID}: {str(path)!r} is not a directory.")
    return directory.absolute()


@contextmanager
def opened_below(directory: Path, name: str) -> Iterator[LocalFile]:
    """Give a regular file below a directory, open inside the block.

    Args:
        directory: where it must lie, after `..` and symbolic links.
        name: its absolute path.

    Raises:
        RefusedURLError: (a `ValueError`) it lies elsewhere.
        LocalFileNotFoundError: (a `LocalFileError` and a `FileNotFoundError`) it is missing.
        LocalFileError: (an `OSError` and a `ValueError`) it is unreadable, no regular file, or was swapped
            for a link just now.
    """
    try:
        root, goal = Path(os.path.realpath(directory)), Path(os.path.realpath(name))
        if not goal.is_relative_to(root):
            raise RefusedURLError(
                f"allowed_local_media_path: The file path {name!r} must be a subpath of "
                "`--allowed-local-media-path`.",
                reason="path",
            )
        descriptor = _open_without_links(root, goal.relative_to(root).parts)
    except OSError as error:
        kind = LocalFileNotFoundError if error.errno in (errno.ENOENT, errno.ENOTDIR) else LocalFileError
        raise kind(f"Cannot open {name!r}: {os.strerror(error.errno or 0)}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocalFileError(f"{name!r} is not a regular file.")
        yield LocalFile(descriptor, name, status.st_size)
    finally:
        os.close(descriptor)


def _open_without_links(root: Path, parts: tuple[str, ...]) -> int:
    """Open what lies so far below `root`; an `OSError` if one of the parts is a link."""
    descriptor = os.open(root, _DIRECTORY_FLAGS)
    for depth, part in enumerate(parts, 1):
        within = descriptor
        flags = _FILE_FLAGS if depth == len(parts) else _DIRECTORY_FLAGS
        try:
            descriptor = os.open(part, flags, dir_fd=within)
        finally:
            os.close(within)
    return descriptor
