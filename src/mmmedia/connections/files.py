"""Files that appear when they are whole."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def partial_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write that becomes `path` if the block succeeds, and vanishes if not.

    It is as readable as any file that the process makes.

    Raises:
        OSError: it can't be made or written.
    """
    partial = path.parent / f".{path.name[:64]}.{secrets.token_hex(8)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(partial, flags, 0o666)  # less the umask of the process
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
