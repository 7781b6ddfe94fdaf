"""Sources of this machine: bytes in memory, and files."""

import hashlib
import os
import stat
from os import PathLike
from typing import Self

from mmmedia.errors import LocalFileError, LocalFileNotFoundError
from mmmedia.sources.base import Ranges, Source, check_ranges


class BytesSource(Source):
    """Bytes in memory.

    >>> BytesSource(b"0123456789").read([(0, 2), (8, 10)])
    [b'01', b'89']
    """

    def __init__(self, data: bytes | bytearray | memoryview, *, name: str = "bytes") -> None:
        self._data = memoryview(data)
        self.size, self.name = self._data.nbytes, name

    @property
    def identity(self) -> bytes:
        """What stands for the bytes: equal for equal ones."""
        return b"mmmedia-source:" + hashlib.sha256(self._data).hexdigest().encode()

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return copies of some stretches."""
        check_ranges(ranges, self.size)
        return [bytes(self._data[start:stop]) for start, stop in ranges]


class FileSource(Source):
    """A file of this machine, opened once, and never read whole unless asked for.

    Args:
        path: a regular file; or the descriptor of an open one, which is duplicated.
        name: for messages, if other than the path.

    Raises:
        LocalFileNotFoundError: (a `LocalFileError` and a `FileNotFoundError`) there is none.
        LocalFileError: (an `OSError` and a `ValueError`) it can't be opened, or is no regular file.
    """

    def __init__(self, path: str | PathLike[str] | int, *, name: str = "") -> None:
        self.name = name or (f"file {path}" if isinstance(path, int) else os.fspath(path))
        try:
            if isinstance(path, int):
                self._descriptor = os.dup(path)
            else:  # a FIFO would wait for a writer
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise LocalFileNotFoundError(f"Cannot open {self.name!r}: {_reason(error)}.") from None
        except OSError as error:
            raise LocalFileError(f"Cannot open {self.name!r}: {_reason(error)}.") from None
        self._is_open = True
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise LocalFileError(f"{self.name!r} is not a regular file.")
        self.size, self.validator = status.st_size, _validator(status)

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches.

        Raises:
            LocalFileError: (an `OSError` and a `ValueError`) the file has changed since it was opened.
        """
        check_ranges(ranges, self.size)
        if not self._is_open:
            raise LocalFileError(f"{self.name!r} was closed.")
        try:
            pieces = [self._piece(start, stop) for start, stop in ranges]
            is_same = _validator(os.fstat(self._descriptor)) == self.validator
        except OSError as error:
            raise LocalFileError(f"Cannot read {self.name!r}: {_reason(error)}.") from None
        if not is_same or any(
            len(piece) != stop - start for piece, (start, stop) in zip(pieces, ranges, strict=True)
        ):
            raise LocalFileError(f"{self.name!r} was changed while it was read.")
        return pieces

    def fileno(self) -> int:
        """Return the descriptor of the open file."""
        return self._descriptor

    def _piece(self, start: int, stop: int) -> bytes:
        pieces = []
        while start < stop and (piece := os.pread(self._descriptor, stop - start, start)):
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the file."""
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __del__(self) -> None:
        if getattr(self, "_is_open", False):
            self.close()


def _validator(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
