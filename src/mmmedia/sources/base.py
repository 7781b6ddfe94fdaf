"""`Source`: something of known size that is read in pieces."""

from abc import ABC, abstractmethod
from collections.abc import Sequence


class Source(ABC):
    """Something of known size that is read in pieces.

    Attributes:
        size: bytes in all.
        validator: what says that it is still the same thing; empty where nothing does.
        name: what it is called in messages.
    """

    size: int
    validator: str
    name: str

    @abstractmethod
    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of ranges, each from its start up to its stop, itself left out."""

    @abstractmethod
    async def aread(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of ranges; see `read`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds."""
