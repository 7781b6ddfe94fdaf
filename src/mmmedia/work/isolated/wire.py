"""What parent and worker say to each other: JSON in frames, and the arrays that go with it beside it.

A value is sent as a tree of what JSON has, with tags for tuples, dicts, bytes and arrays. The last two are
not in it, but numbered: their contents go through shared memory, once the other side has agreed to them.
From parent to worker a frame may also hold pickled bytes and descriptors; from worker to parent neither.
"""

import json
import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

MAX_MESSAGE: Final = 16 << 20
"""Bytes of a worker's message at most: that holds the indices of every frame of a day of video."""

_HEAD: Final = struct.Struct("<II")
_PIECE: Final = 1 << 16
ALIGNMENT: Final = 64

DTYPES: Final = frozenset(
    ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32",
     "float64", "complex64", "complex128")
)  # fmt: skip
_MAX_DIMENSIONS: Final = 32


class BrokenWireError(Exception):
    """The other side has gone, or says what nobody says."""


class Later(NamedTuple):
    """An array that is made only when there is memory for it.

    Attributes:
        nbytes: how many bytes it takes, of the type uint8.
        fill: makes it in memory, which it is given.
    """

    nbytes: int
    fill: Callable[[memoryview], None]


Array = npt.NDArray[Any] | bytes | Later


class Described(NamedTuple):
    """An array that is announced, and not there yet.

    Attributes:
        dtype: its name, one of `DTYPES`; "bytes" for a text of bytes.
        shape: its shape.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its contents."""
        size = 1 if self.dtype == "bytes" else np.dtype(self.dtype).itemsize
        return size * math.prod(self.shape)


# ------------------------------------------------------------------------------------------------- trees


def pack(value: Any, arrays: list[Array]) -> Any:
    """Return a value as JSON has it; its arrays and bytes are appended to a list.

    Raises:
        TypeError: something in it that is not sent.
    """
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, bytes | bytearray | memoryview):
        arrays.append(bytes(value))
        return {"b": len(arrays) - 1}
    if isinstance(value, Later):
        arrays.append(value)
        return {"a": len(arrays) - 1}
    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPES:
            raise TypeError(f"an array of {value.dtype}")
        arrays.append(value)
        return {"a": len(arrays) - 1}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, list):
        return [pack(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"t": [pack(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(name, str | int) for name in value):
        return {"d": [[name, pack(item, arrays)] for name, item in value.items()]}
    raise TypeError(f"a {type(value).__name__}")


def unpack(tree: Any, arrays: Any) -> Any:
    """Return the value that a tree stands for.

    Args:
        tree: what `pack` returned.
        arrays: what its numbers stand for; each is used once at most.

    Raises:
        BrokenWireError: no such tree.
    """
    left = dict(enumerate(arrays))

    def value(node: Any) -> Any:
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [value(item) for item in node]
        if isinstance(node, dict) and len(node) == 1:
            ((tag, content),) = node.items()
            if tag in ("a", "b") and isinstance(content, int) and content in left:
                return left.pop(content)
            if tag == "t" and isinstance(content, list):
                return tuple(value(item) for item in content)
            if tag == "d" and isinstance(content, list):
                return {name: value(item) for name, item in map(_entry, content)}
        raise BrokenWireError("a value of no known kind")

    try:
        return value(tree)
    except RecursionError:
        raise BrokenWireError("a value of too many levels") from None


def _entry(pair: Any) -> tuple[str | int, Any]:
    if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str | int):
        return pair[0], pair[1]
    raise BrokenWireError("a value of no known kind")


def describe(arrays: list[Array]) -> list[Any]:
    """Return what is announced of arrays, for `described` on the other side."""
    said: list[Any] = []
    for each in arrays:
        if isinstance(each, bytes):
            said.append(["bytes", [len(each)]])
        elif isinstance(each, Later):
            said.append(["uint8", [each.nbytes]])
        else:
            said.append([each.dtype.name, list(each.shape)])
    return said


def described(announced: Any) -> list[Described]:
    """Return what was announced, once it is sure that arrays can be so.

    Raises:
        BrokenWireError: they can't.
    """
    if not isinstance(announced, list):
        raise BrokenWireError("arrays that are no list")
    found = []
    for each in announced:
        if not (isinstance(each, list) and len(each) == 2 and isinstance(each[1], list)):
            raise BrokenWireError("an array that is not described")
        dtype, shape = each
        is_known = dtype in DTYPES or (dtype == "bytes" and len(shape) == 1)
        if not is_known or len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
            raise BrokenWireError("an array of no known kind")
        found.append(Described(dtype, tuple(shape)))
    return found


def places(arrays: list[Described]) -> tuple[list[int], int]:
    """Return where in shared memory each array begins, and how many bytes all of them take."""
    begins, end = [], 0
    for each in arrays:
        begins.append(end)
        end += -(-each.nbytes // ALIGNMENT) * ALIGNMENT
    return begins, end


# ------------------------------------------------------------------------------------------------ frames


class Wire:
    """One end of a connection.

    Args:
        end: a stream socket.
        trusts: whether what comes may hold pickled bytes and descriptors.
    """

    def __init__(self, end: socket.socket, *, trusts: bool) -> None:
        self.socket = end
        self._trusts = trusts
        self._received = bytearray()
        self._descriptors: list[int] = []

    def send(self, message: dict[str, Any], pickled: bytes = b"", descriptors: tuple[int, ...] = ()) -> None:
        """Send a message.

        Raises:
            BrokenWireError: nobody is there to receive it, or not in time.
        """
        text = json.dumps(message, separators=(",", ":")).encode()
        frame = b"".join((_HEAD.pack(len(text), len(pickled)), text, pickled))
        try:
            if descriptors:
                sent = socket.send_fds(self.socket, [frame], descriptors)
                frame = frame[sent:]
            if frame:
                self.socket.sendall(frame)
        except OSError as error:
            raise BrokenWireError(type(error).__name__) from None

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], bytes, list[int]]:
        """Return the next message, what was pickled with it, and the descriptors that came.

        Args:
            seconds: how long to wait for it, all of it; None: for ever.

        Raises:
            TimeoutError: it has not come by then.
            BrokenWireError: the other side has gone, or says what can't be.
        """
        end = None if seconds is None else time.monotonic() + seconds
        self._await(_HEAD.size, end)
        text_size, pickled_size = _HEAD.unpack_from(self._received)
        if not self._trusts and (text_size > MAX_MESSAGE or pickled_size):
            raise BrokenWireError("a message of no known form")
        total = _HEAD.size + text_size + pickled_size
        self._await(total, end)
        text = bytes(self._received[_HEAD.size : _HEAD.size + text_size])
        pickled = bytes(self._received[_HEAD.size + text_size : total])
        del self._received[:total]
        descriptors, self._descriptors = self._descriptors, []
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise BrokenWireError("a message that is no JSON") from None
        if not isinstance(message, dict):
            raise BrokenWireError("a message of no known form")
        return message, pickled, descriptors

    def _await(self, size: int, end: float | None) -> None:
        while len(self._received) < size:
            if end is not None:
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self.socket.settimeout(left)
            try:
                if self._trusts:
                    piece, descriptors, _, _ = socket.recv_fds(self.socket, _PIECE, 4)
                    self._descriptors += descriptors
                else:  # and so the system closes what is sent along
                    piece = self.socket.recv(_PIECE)
            except TimeoutError:
                raise
            except OSError as error:
                raise BrokenWireError(type(error).__name__) from None
            if not piece:
                raise BrokenWireError("the end")
            self._received += piece

    def close(self) -> None:
        """Close this end."""
        self.socket.close()
