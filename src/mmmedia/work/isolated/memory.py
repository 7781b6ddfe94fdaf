"""Shared memory: arrays on their way out of a worker.

Pages that were touched before are worth keeping, as the kernel has nothing to clear. So segments are kept by
the worker that filled them, and one goes back when the arrays in it die. No worker ever sees a segment of
another.
"""

import ctypes
import fcntl
import functools
import itertools
import math
import mmap
import os
import weakref
from collections import deque
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mmmedia.work import fork
from mmmedia.work.isolated.wire import Array, BrokenWireError, Described, Later, places

_KEPT_BYTES: Final = 256 << 20
"""Of segments that nobody uses, per worker."""
_LENT: Final = 64
"""Segments of a worker that are lent and will be used again; each takes a descriptor, others don't."""
_LEAST: Final = 1 << 20
COPIED_BELOW: Final = 1 << 16
"""Bytes that are copied out of a segment, as that takes less than to map them."""


def seal(descriptor: int, seals: int = 0) -> None:
    """Fix the size of memory for good, and whatever else is asked for."""
    # Nobody makes it shorter under who reads it: that would end the reader.
    fixed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fixed | seals)


def mapped(descriptor: int, size: int, flags: int) -> "ctypes.Array[ctypes.c_ubyte]":
    """Map memory for as long as what is returned, or a view of it, lives.

    `mmap.mmap` would keep a descriptor open for as long (until Python 3.13), and there may be thousands.

    Args:
        descriptor: of the memory.
        size: how many bytes, from the first.
        flags: `mmap.MAP_SHARED` or `mmap.MAP_PRIVATE`.

    Raises:
        OSError: it can't be mapped.
    """
    address = libc().mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, descriptor, 0)
    if address in (None, FAILED):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    memory = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(memory, libc().munmap, address, size).atexit = False
    return memory


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the functions of the C library that map memory."""
    found = ctypes.CDLL(None, use_errno=True)
    found.mmap.restype = ctypes.c_void_p
    found.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    )  # fmt: skip
    found.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    found.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


FAILED: Final = ctypes.c_void_p(-1).value


class Segment:
    """A piece of memory that one worker fills, again and again.

    Args:
        number: its name between parent and worker.
        size: its bytes; they take memory only once they are touched.

    Attributes:
        used: how many of them were.
        is_known: whether the worker has it already.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size = number, size
        self.used, self.is_known = 0, False
        self._forks = -1
        self.descriptor = os.memfd_create("mmmedia-out", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size)
            seal(self.descriptor)
        except BaseException:
            self.close()
            raise

    def map(self, size: int) -> "ctypes.Array[ctypes.c_ubyte]":
        """Map the first bytes; what is changed there is changed there only.

        The worker doesn't see what the caller writes, nor does a child that is forked meanwhile.
        """
        self._forks = fork.forks()
        return mapped(self.descriptor, size, mmap.MAP_PRIVATE)

    @property
    def is_inherited(self) -> bool:
        """Whether a child was forked since it was mapped, which may go on reading it."""
        return self._forks not in (-1, fork.forks())

    def empty(self) -> None:
        """Give its memory back to the system, but not the segment."""
        with mmap.mmap(self.descriptor, self.size) as whole:
            whole.madvise(mmap.MADV_REMOVE)
        self.used = 0

    def close(self) -> None:
        """Let it go; arrays in it stay as they are."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def fits(size: int, room: int) -> bool:
    """Say whether so many bytes may be put into a segment: much memory is not held by a small picture.

    >>> fits(10, 1 << 20), fits(2 << 20, 1 << 20), fits(2 << 20, 64 << 20)
    (True, False, False)
    """
    return size <= room <= max(4 * size, _LEAST)


class Segments:
    """Those of one worker. One thread at a time uses them; the arrays in them die in any."""

    def __init__(self) -> None:
        self._free: list[Segment] = []
        self._lent: dict[int, tuple[Segment, weakref.ref[Any]]] = {}
        self._back: deque[Segment] = deque()
        self._dropped: list[int] = []
        self._numbers = itertools.count(1)
        self._last = 0

    def take(self, size: int) -> Segment:
        """Return a segment of at least so many bytes that nobody uses."""
        self._gather()
        for at, segment in enumerate(self._free):  # the smallest is first
            if fits(size, segment.size):
                return self._free.pop(at)
        return Segment(next(self._numbers), 1 << max(size - 1, _LEAST - 1).bit_length())

    def spare(self) -> Segment | None:
        """Return a segment that nobody uses and that would do for what the last one did; None without one."""
        self._gather()
        for at, segment in enumerate(self._free):
            if segment.size >= self._last:
                return self._free.pop(at)
        return None

    def lend(self, segment: Segment, size: int) -> "ctypes.Array[ctypes.c_ubyte]":
        """Map what a worker has filled; the segment comes back when nothing in it is used any more."""
        memory = segment.map(size)
        self._last = size
        segment.used = max(segment.used, size)
        if len(self._lent) >= _LENT:
            self.drop(segment)
        else:
            self._lent[segment.number] = segment, weakref.ref(memory, lambda _: self._returned(segment))
        return memory

    def give(self, segment: Segment) -> None:
        """Take a segment back in which nothing is used."""
        if segment.is_inherited:
            self.drop(segment)
        else:
            self._free.append(segment)
            self._free.sort(key=lambda each: each.size)

    def drop(self, segment: Segment) -> None:
        """Let a segment go, which the worker is to forget."""
        segment.close()
        self._dropped.append(segment.number)

    def dropped(self) -> list[int]:
        """Return the numbers of those that are gone since it was last asked."""
        self._gather()
        dropped, self._dropped = self._dropped, []
        return dropped

    def close(self) -> None:
        """Let all go; arrays in them stay as they are."""
        for segment in (*self._free, *(segment for segment, _ in self._lent.values())):
            segment.close()
        self._free.clear()
        self._lent.clear()

    def _returned(self, segment: Segment) -> None:
        """Note, in whatever thread and at whatever moment, that the arrays in a segment have died."""
        kept = sum(each.used for each in (*self._free, *self._back))
        if kept + segment.used > _KEPT_BYTES and segment.descriptor >= 0:
            segment.empty()
        self._back.append(segment)

    def _gather(self) -> None:
        while self._back:
            segment = self._back.popleft()
            if self._lent.pop(segment.number, None) is not None:
                self.give(segment)


def arrays_in(memory: Any, announced: list[Described]) -> list[npt.NDArray[Any] | bytes]:
    """Return the arrays that lie in memory one behind the other, without copying them; bytes are copied.

    Raises:
        BrokenWireError: there is less than was announced.
    """
    begins, end = places(announced)
    memory = memoryview(memory).cast("B")
    if end > len(memory):
        raise BrokenWireError("arrays beyond the memory that was granted")
    found: list[npt.NDArray[Any] | bytes] = []
    for begin, each in zip(begins, announced, strict=True):
        if each.dtype == "bytes":
            found.append(bytes(memory[begin : begin + each.nbytes]))
        elif not each.nbytes:
            found.append(np.empty(each.shape, each.dtype))
        else:
            flat = np.frombuffer(memory, each.dtype, math.prod(each.shape), begin)
            found.append(flat.reshape(each.shape))
    return found


def put(arrays: list[Array], announced: list[Described], memory: Any) -> None:
    """Copy arrays to where `arrays_in` finds them."""
    memory = memoryview(memory).cast("B")
    for begin, each, array in zip(places(announced)[0], announced, arrays, strict=True):
        if isinstance(array, bytes):
            memory[begin : begin + len(array)] = array
        elif isinstance(array, Later):
            array.fill(memory[begin : begin + array.nbytes])
        elif each.nbytes:
            target = np.frombuffer(memory, array.dtype, array.size, begin).reshape(array.shape)
            np.copyto(target, array)
