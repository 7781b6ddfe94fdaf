"""`SourceFile`: a source as a file, for whoever reads only files."""

import io
from typing import Any

from mmmedia.sources.base import Source


class SourceFile(io.RawIOBase):
    """A seekable file that is read from a source as it is needed, a little ahead.

    >>> from mmmedia.sources.local import BytesSource
    >>> file = SourceFile(BytesSource(b"0123456789"))
    >>> file.seek(-3, io.SEEK_END), file.read()
    (7, b'789')
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0
        self._start, self._piece = 0, b""

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; fewer bytes only at the end."""
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._source.size)
        if stop <= self._at:
            return 0
        if not (self._start <= self._at and stop <= self._start + len(self._piece)):
            ahead = min(max(stop, self._at + self._source.ahead), self._source.size)
            self._start, self._piece = self._at, self._source.read([(self._at, ahead)])[0]
        length, begin = stop - self._at, self._at - self._start
        view[:length] = self._piece[begin : begin + length]
        self._at = stop
        return length
