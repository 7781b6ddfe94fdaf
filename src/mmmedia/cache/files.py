"""One file: its lock, its extended attribute, its bytes; and the label of an entry."""
# Plain strings and os calls: on this path a Path would cost as much as the system call.
# ruff: noqa: PTH108, PTH119

import contextlib
import fcntl
import os
import stat
import sys
import time
import zlib
from typing import NamedTuple

from mmmedia.cache.names import is_partial_name, temp_name

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a planted FIFO must not block
WRITE = READ | os.O_RDWR
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK_BYTES = 4096
_SECTOR_BYTES = 512  # in which `st_blocks` counts
_PIECE_BYTES = 1 << 20
_ATTRIBUTE = "user.mmmedia"
_LOCK_PATIENCE_SECONDS = 5.0  # only a process stopped in the middle of a put makes anyone wait so long
_TEMP_AGE_SECONDS = 3600.0  # after which a temp file counts as abandoned where files can't be locked


def charge(size_bytes: int) -> int:
    """Return how many bytes of the budget a file of this size takes: a million tiny files are not free."""
    return max(size_bytes, _BLOCK_BYTES)


def charge_of_status(status: os.stat_result, *, is_partial: bool) -> int:
    """Return what a file takes of the budget: its length; a partial entry what it really takes."""
    return charge(status.st_blocks * _SECTOR_BYTES if is_partial else status.st_size)


def charge_of(path: str) -> int | None:
    """Return what the regular file at a path takes of the budget; None if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return charge_of_status(status, is_partial=is_partial_name(os.path.basename(path)))


# Locks.


def lock(file: int) -> bool:
    """Take a file's lock, waiting for some seconds; return False if there is no having it."""
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    pause = 50e-6
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        except OSError:  # a file system without locks
            return False
        else:
            return True
        time.sleep(pause)
        pause = min(2 * pause, 0.005)


def unlock(file: int) -> None:
    """Release a file's lock, also where a process forked meanwhile has a copy of the descriptor."""
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


# Attributes.


def get_attribute(file: int) -> bytes | None:
    """Return a file's attribute; None if it has none or there is no such thing here."""
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(file, _ATTRIBUTE)
    except OSError:
        return None


def set_attribute(file: int, value: bytes) -> bool:
    """Set a file's attribute; return False if that can't be done here."""
    if sys.platform != "linux":
        return False
    try:
        os.setxattr(file, _ATTRIBUTE, value)
    except OSError:
        return False
    return True


class Label(NamedTuple):
    """What the attribute of an entry says of it."""

    length: int  # in bytes
    crc32: int
    etag: str = ""  # what the server gave for asking whether the entry is still good
    last_modified: str = ""

    @classmethod
    def of(cls, data: bytes, etag: str, last_modified: str) -> "Label":
        """Return the label of some bytes, without an ETag or a date that no attribute would hold."""
        # Attributes are small on every file system, and this one has a line for each.
        if len(etag) + len(last_modified) > 512 or not (etag + last_modified).isprintable():
            etag = last_modified = ""
        return cls(len(data), zlib.crc32(data), etag, last_modified)

    @classmethod
    def on(cls, file: int) -> "Label | None":
        """Return the label of an open entry; None if it has none, or one of another make."""
        text = get_attribute(file)
        if text is None:
            return None
        try:
            length, crc32, etag, last_modified = text.decode().split("\n")
            return cls(int(length), int(crc32), etag, last_modified)
        except ValueError:
            return None

    def stick(self, file: int) -> None:
        """Put it on an open entry, where there are attributes."""
        set_attribute(file, f"{self.length}\n{self.crc32}\n{self.etag}\n{self.last_modified}".encode())

    def describes(self, data: bytes) -> bool:
        """Return whether these are the bytes that it was made of."""
        return self.length == len(data) and self.crc32 == zlib.crc32(data)


def label_at(path: str) -> Label | None:
    """Return the label of the entry at a path; None if it has none or can't be read."""
    try:
        file = os.open(path, READ)
    except OSError:
        return None
    try:
        return Label.on(file)
    finally:
        os.close(file)


# Bytes.


def read_all(file: int, size_bytes: int) -> bytes:
    """Return the bytes of an open file, in one call if it has the size that was found."""
    data = os.read(file, size_bytes)
    if len(data) == size_bytes:
        return data
    chunks = [data]
    while data:
        data = os.read(file, size_bytes)
        chunks.append(data)
    return b"".join(chunks)


def crc32_of(file: int) -> int:
    """Return the CRC-32 of an open file, of which a piece at a time is read."""
    crc = 0
    while data := os.read(file, _PIECE_BYTES):
        crc = zlib.crc32(data, crc)
    return crc


def write_all(file: int, data: bytes) -> None:
    """Write bytes to an open file."""
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])


# Temp files.


def create_temp(directory: str) -> tuple[str, int]:
    """Make a temp file; return its path and its descriptor, which holds its lock until it is closed."""
    while True:
        path = f"{directory}/{temp_name()}"
        file = os.open(path, _CREATE, 0o666)
        lock(file)
        if os.fstat(file).st_nlink:
            return path, file
        os.close(file)  # swept between its creation and its lock


def remove(path: str) -> bool:
    """Remove a file; return whether it is gone, by whosever hand."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def sweep(path: str) -> None:
    """Remove a temp file whose writer is no more."""
    if is_abandoned(path):
        remove(path)


def is_abandoned(path: str) -> bool:
    """Return whether nobody is writing a temp file any more: a writer holds its lock until it ends."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return time.time() - os.fstat(file).st_mtime > _TEMP_AGE_SECONDS
    else:
        return True
    finally:
        os.close(file)
