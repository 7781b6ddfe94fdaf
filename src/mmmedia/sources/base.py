"""`Source`: something of known size that is read in pieces."""

import asyncio
import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from mmmedia.errors import InvalidArgumentError

Ranges = Sequence[tuple[int, int]]
"""Stretches of bytes: where each begins, and where it ends, itself left out."""


class Source(ABC):
    """Something of known size that is read in pieces, from any thread; a context manager.

    Attributes:
        size: bytes in all.
        validator: what says that it is still the same thing; `""` where nothing does.
        name: for messages.
        key: what tells it from others; `""`: its name does.
        head: its first bytes, where they are known.
        whole: all of it, once somebody has read all.
        gap: stretches no further apart than so many bytes are better read as one.
        ahead: how many bytes are worth reading where only a few are needed.
        remembers: whether `read_all` reads nothing again that `read` has read.
    """

    size: int
    validator: str = ""
    name: str = ""
    key: str = ""
    head: bytes = b""
    whole: bytes | None = None
    gap: int = 0
    ahead: int = 4096
    remembers: bool = False

    @abstractmethod
    def read(self, ranges: Ranges) -> list[bytes]:
        """Return the bytes of some stretches, each whole.

        Args:
            ranges: within the source.

        Raises:
            InvalidArgumentError: (a `ValueError`) a stretch is not within the source.
            MediaError: it has changed since it was opened, or can't be read.
        """

    async def aread(self, ranges: Ranges) -> list[bytes]:
        """Return the bytes of some stretches, read in a thread; see `read`."""
        return await asyncio.to_thread(self.read, ranges)

    def read_all(self) -> bytes:
        """Return all of it, and keep it."""
        if self.whole is None:
            self.whole = self.read([(0, self.size)])[0] if self.size else b""
        return self.whole

    @property
    def identity(self) -> bytes:
        """What stands for its bytes where not all were read: equal for what is the same thing.

        It begins with `mmmedia-source:`, as no media file does.
        """
        known_by = self.validator or secrets.token_hex()  # of what nothing is known nothing is equal
        text = "\0".join((self.key or self.name, known_by, str(self.size)))
        return (
            b"mmmedia-source:" + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest().encode()
        )

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of what is held open; nothing is read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.size} bytes)"


class SourceInFront(Source):
    """A source in front of another, which it is like in all but how it is read.

    Args:
        inner: the one behind.
    """

    def __init__(self, inner: Source) -> None:
        self._inner = inner
        self.size, self.validator, self.name, self.key = inner.size, inner.validator, inner.name, inner.key
        self.head, self.gap, self.ahead = inner.head, inner.gap, inner.ahead

    def close(self) -> None:
        """Close the source behind."""
        self._inner.close()

    @property
    def identity(self) -> bytes:
        """What stands for its bytes."""
        return self._inner.identity

    @property
    def whole(self) -> bytes | None:
        """All of it, once somebody has read all from the source behind."""
        return self._inner.whole

    @whole.setter
    def whole(self, data: bytes | None) -> None:
        self._inner.whole = data


def check_ranges(ranges: Ranges, size: int) -> None:
    """Raise `InvalidArgumentError`, a `ValueError`, unless all stretches are within so many bytes."""
    for start, stop in ranges:
        if not 0 <= start <= stop <= size:
            raise InvalidArgumentError(f"Bytes {start} to {stop} are not within a source of {size}.")
