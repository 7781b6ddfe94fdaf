"""Who opens a file: as the kernel tells, whatever language the opener is written in."""

import ctypes
import os
from pathlib import Path

import pytest

_IN_OPEN = 0x20


class Watch:
    """Tells whether a file was opened since it last told; a context manager. Skips where the system can't."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "inotify_init1"):
            pytest.skip("this system does not tell who opens files")
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, bytes(path), _IN_OPEN) < 0:
            pytest.skip("this system does not tell who opens files")

    def opened(self) -> bool:
        try:
            return bool(os.read(self._fd, 4096))
        except BlockingIOError:
            return False

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
