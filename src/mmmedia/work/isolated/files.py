"""Encoded files on their way into a worker: copied once, by the parent, and read where they lie.

Decoders take `bytes`, whose contents stand right behind a head of a few words. So the memory in which a file
goes has a page in front of it, of which the worker makes that head: a private page, as all the rest stays
what the parent has sealed. Where heads of another form are in use, the worker copies the file.
"""

import ctypes
import fcntl
import functools
import mmap
import os
import struct
import sys
from collections.abc import Sequence
from typing import Final

from mmmedia.work.isolated.memory import COPIED_BELOW, FAILED, libc, seal

_PAGE: Final = mmap.PAGESIZE
_HEAD: Final = struct.Struct("@nPnn")
"""References, class, length, and hash, which is -1 until somebody asks for it."""


def sealed(parts: Sequence[bytes]) -> int:
    """Return the descriptor of memory that holds copies of these bytes, which nobody can change any more."""
    descriptor = os.memfd_create("mmmedia-in", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        places, total = _places([len(part) for part in parts])
        for place, part in zip(places, parts, strict=True):
            written = 0
            while written < len(part):  # one call writes 2 GiB at most
                written += os.pwrite(descriptor, memoryview(part)[written:], place + written)
        os.ftruncate(descriptor, total)
        seal(descriptor, fcntl.F_SEAL_WRITE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _places(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Return where parts begin, each behind a page for its head and before a zero, and where the last ends.

    >>> _places([5, 4096]) == ([_PAGE, 3 * _PAGE], 5 * _PAGE)
    True
    """
    places, at = [], 0
    for length in lengths:
        places.append(at + _PAGE)
        at += _PAGE + (length // _PAGE + 1) * _PAGE
    return places, at


class Files:
    """The files that a worker reads where they lie; used by one thread at a time."""

    def __init__(self) -> None:
        self._lying: list[tuple[int, int]] = []

    def opened(self, descriptor: int, lengths: Sequence[int]) -> list[bytes]:
        """Return the parts that `sealed` has put there, and close it.

        Of several those are copied that are smaller than what it takes to map them.
        """
        try:
            least = 2 if len(lengths) == 1 else COPIED_BELOW  # of less Python has one object for all
            return [
                self._lie(descriptor, at, length)
                if length >= least and heads_are_known()
                else _copied(descriptor, at, length)
                for at, length in zip(_places(lengths)[0], lengths, strict=True)
            ]
        finally:
            os.close(descriptor)

    def _lie(self, descriptor: int, at: int, size: int) -> bytes:
        total = _PAGE + size + 1
        address = libc().mmap(None, total, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, at - _PAGE)
        if address in (None, FAILED):
            raise MemoryError
        if libc().mprotect(address, _PAGE, mmap.PROT_READ | mmap.PROT_WRITE):
            libc().munmap(address, total)
            raise MemoryError
        head = address + _PAGE - _HEAD.size
        # The one reference is that of this list: it is never freed as what Python has allocated.
        ctypes.memmove(head, _HEAD.pack(1, id(bytes), size, -1), _HEAD.size)
        self._lying.append((address, total))
        lying: bytes = ctypes.cast(head, ctypes.py_object).value
        return lying

    def let_go(self) -> None:
        """Unmap the files that nobody reads any more; a thread that was left behind may."""
        kept = []
        for address, total in self._lying:
            if ctypes.c_ssize_t.from_address(address + _PAGE - _HEAD.size).value > 1:
                kept.append((address, total))
            else:
                libc().munmap(address, total)
        self._lying = kept


def _copied(descriptor: int, at: int, size: int) -> bytes:
    pieces: list[bytes] = []
    while (have := sum(map(len, pieces))) < size:  # one call reads 2 GiB at most
        pieces.append(os.pread(descriptor, size - have, at + have))
    return b"".join(pieces)


@functools.cache
def heads_are_known() -> bool:
    """Say whether bytes have the head that is made here, by one that Python has made."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 14):
        return False
    if bytes.__basicsize__ != _HEAD.size + 1:
        return False
    known = bytes(range(100))
    _, kind, length, _ = _HEAD.unpack(ctypes.string_at(id(known), _HEAD.size))
    is_same = ctypes.string_at(id(known) + _HEAD.size, 101) == known + b"\0"
    return (kind, length) == (id(bytes), 100) and is_same
