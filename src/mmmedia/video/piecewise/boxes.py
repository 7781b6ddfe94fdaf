"""The boxes of an MP4 that is read in pieces: which there are, and how their tables are read and written."""

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.sources import Window
from mmmedia.video.piecewise.layout import CannotTellError

Ints = npt.NDArray[np.int64]

_MOST_BOXES = 100_000
_LARGEST_INDEX = 1 << 26
_HOLDERS = frozenset({b"trak", b"mdia", b"minf", b"stbl", b"mvex"})


class Box(NamedTuple):
    """A box of a source: its name, where it begins, where its content does, and where it ends."""

    name: bytes
    start: int
    begin: int
    stop: int


def box_at(window: Window, at: int) -> Box:
    """Return the box that begins at an offset of a source.

    Raises:
        CannotTellError: there is none, or it reaches beyond the source.
    """
    head = window.head(at, 16)
    found = next(iter(containers.boxes(head, 0, window.size - at)), None)
    if found is None:
        raise CannotTellError("boxes")
    name, (begin, stop) = found
    if at + stop > window.size:
        raise CannotTellError("cut short")
    return Box(name, at, at + begin, at + stop)


def content(window: Window, box: Box) -> bytes:
    """Return a whole box, its head too; of an index, not of media."""
    if box.stop - box.start > _LARGEST_INDEX:
        raise CannotTellError("an index too large")
    return window.piece(box.start, box.stop)


def children(data: bytes, start: int = 0, stop: int | None = None) -> list[tuple[bytes, bytes]]:
    """Return the name and the content of each box in a stretch.

    Raises:
        CannotTellError: one reaches beyond it, or there are too many.
    """
    end = len(data) if stop is None else stop
    found: list[tuple[bytes, bytes]] = []
    behind = start
    for name, (begin, close) in containers.boxes(data, start, end):
        if close > end or len(found) > _MOST_BOXES:
            raise CannotTellError("boxes")
        found.append((name, data[begin:close]))
        behind = close
    if end - behind >= 8:
        raise CannotTellError("boxes")
    return found


def box(name: bytes, body: bytes) -> bytes:
    """Return a box."""
    if len(body) + 8 < 1 << 32:
        return struct.pack(">I4s", len(body) + 8, name) + body
    return struct.pack(">I4sQ", 1, name, len(body) + 16) + body


def rewritten(name: bytes, body: bytes, change: Mapping[bytes, Callable[[bytes], bytes]]) -> bytes:
    """Return a box in which others are changed, however deep they stand among those of an index.

    Args:
        name: of the box.
        body: its content.
        change: by name, what makes the new box of the content of the old.
    """
    if name in change:
        return change[name](body)
    if name in _HOLDERS:
        return box(name, b"".join(rewritten(*each, change) for each in children(body)))
    return box(name, body)


def find(body: bytes, *path: bytes) -> bytes | None:
    """Return the content of the first box on a path through the content of another; None if there is none."""
    for name in path:
        found = next((inner for each, inner in children(body) if each == name), None)
        if found is None:
            return None
        body = found
    return body


def table(body: bytes, form: str, at: int = 8) -> Ints:
    """Return the entries of a table: a count, then numbers, as `form` has one of them.

    Raises:
        CannotTellError: there are fewer than it says.
    """
    (count,) = struct.unpack_from(">I", body, at - 4)
    kind = np.dtype(form)
    if len(body) < at + count * kind.itemsize:
        raise CannotTellError("tables")
    return np.frombuffer(body, kind, count, at).astype(np.int64)


def pairs(body: bytes, width: int) -> Ints:
    """Return a table of so many numbers of 32 bits a row; shape (rows, width)."""
    (count,) = struct.unpack_from(">I", body, 4)
    if len(body) < 8 + 4 * width * count:
        raise CannotTellError("tables")
    return np.frombuffer(body, ">u4", width * count, 8).astype(np.int64).reshape(count, width)
