"""The boxes that an MP4 or QuickTime file is made of (ISO/IEC 14496-12, 4.2): the one walk over them."""

from collections.abc import Iterator
from typing import BinaryIO

Buffer = bytes | bytearray | memoryview

_LONG_HEAD = 16  # a size, a name and, where the size says so, a size of 64 bits


def boxes(data: Buffer | BinaryIO, start: int, stop: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    r"""Yield the name of each box in a stretch of an MP4, and where its content begins and ends.

    The last may reach beyond the stretch. It ends at what can't be a box.

    Args:
        data: the file, in memory or open; of an open one only the heads of the boxes are read.
        start: where the first box begins, in bytes.
        stop: where the stretch ends.

    >>> list(boxes(b"\0\0\0\x0cfree1234\0\0\0\x09mdat", 0, 20))
    [(b'free', (8, 12)), (b'mdat', (20, 21))]
    """
    while start + 8 <= stop:
        head = _bytes_at(data, start)
        size, name, length = int.from_bytes(head[:4], "big"), head[4:8], 8
        if size == 1:
            size, length = int.from_bytes(head[8:], "big"), _LONG_HEAD
        elif size == 0:
            size = stop - start
        if size < length:
            return
        yield name, (start + length, start + size)
        start += size


def _bytes_at(data: Buffer | BinaryIO, start: int) -> bytes:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data[start : start + _LONG_HEAD])
    data.seek(start)
    return data.read(_LONG_HEAD)
