"""One partial entry: some blocks of a source in a sparse file, each with its checksum.

The file holds, one after the other:

* a page that says what it is of: the key, the validator, the size of the source, when it was begun;
* the table: 8 bytes for each block, its CRC-32 and the same again in disguise; zeros where there is none;
* the blocks, each in its own place: what was not written takes no room on the disk.

A block is written before its record: who is killed in between leaves a block that nobody believes in, and a
block that is torn or meddled with does not match its record.

Who fetches blocks holds locks on their records, of its own opening of the file (`F_OFD_SETLK`), so that
others, be they threads or processes, wait for them and don't fetch them again. Such locks end with whoever
had them. Where there are none, each fetches what it needs.
"""

import contextlib
import fcntl
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

BLOCK_BYTES = 64 * 1024
"""Bytes of a block; the last of a source is as long as it is."""

MAX_VALIDATOR_BYTES = 2048
_PAGE_BYTES = 4096
_RECORD = struct.Struct("<II")
_HEAD = struct.Struct("<8sIQ32sH")
_MAGIC = b"mmparts1"
_FLOCK = struct.Struct("hhqqi4x")
_SET_LOCK = getattr(fcntl, "F_OFD_SETLK", None)


class Plan(NamedTuple):
    """What a partial entry is of, and so where everything lies in it.

    Attributes:
        key: what its source goes by, a URL.
        size: bytes of the source.
        validator: what says that the source is still the same.
    """

    key: str
    size: int
    validator: str

    @property
    def blocks(self) -> int:
        """How many blocks the source has."""
        return -(-self.size // BLOCK_BYTES)

    @property
    def data_start(self) -> int:
        """Where the first block lies; a whole number of pages."""
        return _PAGE_BYTES + _to_pages(self.blocks * _RECORD.size)

    def head(self) -> bytes:
        """Return the first page, by which the file is known."""
        validator = self.validator.encode("utf-8", "surrogatepass")
        key = sha256(self.key.encode("utf-8", "surrogatepass")).digest()
        head = _HEAD.pack(_MAGIC, BLOCK_BYTES, self.size, key, len(validator)) + validator
        return (head + zlib.crc32(head).to_bytes(4, "little")).ljust(_PAGE_BYTES, b"\0")

    def length_of(self, block: int) -> int:
        """Return the bytes of a block."""
        return min(BLOCK_BYTES, self.size - block * BLOCK_BYTES)

    def room_of(self, blocks: Iterable[int]) -> int:
        """Return the bytes that blocks take of the disk."""
        return sum(_to_pages(self.length_of(block)) for block in blocks)


def blocks_of(ranges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the numbers of the blocks in which ranges lie, ascending.

    >>> blocks_of([(65536, 65537), (0, 10), (5, 5)])
    [0, 1]
    """
    wanted: set[int] = set()
    for start, stop in ranges:
        if start < stop:
            wanted.update(range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)))
    return sorted(wanted)


def spans_of(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending blocks as ranges of blocks, those in a row as one.

    >>> spans_of([0, 1, 2, 5])
    [(0, 3), (5, 6)]
    """
    spans: list[tuple[int, int]] = []
    for block in blocks:
        if spans and spans[-1][1] == block:
            spans[-1] = (spans[-1][0], block + 1)
        else:
            spans.append((block, block + 1))
    return spans


class PartialFile:
    """An open partial entry.

    Args:
        descriptor: open for reading and writing; `close` closes it.
        plan: what it is of.
    """

    def __init__(self, descriptor: int, plan: Plan) -> None:
        self.descriptor = descriptor
        self.plan = plan

    def is_of_plan(self) -> bool:
        """Say whether this is what the file is of, as far as its first page says."""
        return os.pread(self.descriptor, _PAGE_BYTES, 0) == self.plan.head()

    def begin(self) -> None:
        """Write what stands before the blocks, into an empty file.

        Raises:
            OSError: it can't be written.
        """
        _write_at(self.descriptor, self.plan.head() + bytes(self.plan.data_start - _PAGE_BYTES), 0)

    def read(self, blocks: Sequence[int]) -> tuple[dict[int, bytes], list[int]]:
        """Return blocks, asked for in ascending order, that are there; and those that are damaged.

        Raises:
            OSError: the file can't be read.
        """
        found: dict[int, bytes] = {}
        damaged: list[int] = []
        for first, stop in spans_of(blocks):
            table = os.pread(self.descriptor, (stop - first) * _RECORD.size, _at_record(first))
            records = dict(enumerate(_RECORD.iter_unpack(table[: len(table) // 8 * 8]), first))
            noted = [block for block, record in records.items() if any(record)]
            for begin, end in spans_of(noted):
                data = memoryview(self._read_data(begin, end))
                for block in range(begin, end):
                    at = (block - begin) * BLOCK_BYTES
                    piece = data[at : at + self.plan.length_of(block)]
                    if records[block] == _record_of(block, piece):
                        found[block] = bytes(piece)
                    else:
                        damaged.append(block)
        return found, damaged

    def has_all(self) -> bool:
        """Say whether every block has a record; whether they are sound only reading them tells.

        Raises:
            OSError: the file can't be read.
        """
        table = os.pread(self.descriptor, self.plan.blocks * _RECORD.size, _PAGE_BYTES)
        return len(table) == self.plan.blocks * _RECORD.size and all(map(any, _RECORD.iter_unpack(table)))

    def _read_data(self, first: int, stop: int) -> bytes:
        left = min(stop * BLOCK_BYTES, self.plan.size) - first * BLOCK_BYTES
        at = self.plan.data_start + first * BLOCK_BYTES
        pieces: list[bytes] = []
        while left and (piece := os.pread(self.descriptor, left, at)):
            pieces.append(piece)
            left, at = left - len(piece), at + len(piece)
        return b"".join(pieces)  # of a single one no copy is made

    def write(self, blocks: Mapping[int, bytes]) -> None:
        """Write blocks, and then their records.

        Raises:
            OSError: they can't be written.
        """
        for block, data in blocks.items():
            _write_at(self.descriptor, data, self.plan.data_start + block * BLOCK_BYTES)
            _write_at(self.descriptor, _RECORD.pack(*_record_of(block, data)), _at_record(block))

    def claim(self, blocks: Iterable[int]) -> list[int]:
        """Lock the records of blocks, and return those that nobody else has locked."""
        return [block for block in blocks if self._lock(fcntl.F_WRLCK, _at_record(block), _RECORD.size)]

    def release(self) -> None:
        """Unlock all, also where a process forked meanwhile has a copy of the descriptor."""
        self._lock(fcntl.F_UNLCK, 0, 0)

    def close(self) -> None:
        """Unlock and close it."""
        if self.descriptor >= 0:
            self.release()
            os.close(self.descriptor)

    def forget(self) -> None:
        """Close it, in a forked child: what is locked by it is the parent's to unlock."""
        with contextlib.suppress(OSError):
            os.close(self.descriptor)
        self.descriptor = -1

    def _lock(self, kind: int, start: int, length: int) -> bool:
        """Lock or unlock; return False if somebody else has it."""
        if _SET_LOCK is None or self.descriptor < 0:
            return True
        try:
            fcntl.fcntl(self.descriptor, _SET_LOCK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without such locks
            return True
        return True

    def damage(self) -> str:
        """Return what is wrong with its blocks; empty if nothing is.

        Raises:
            OSError: it can't be read.
        """
        for first in range(0, self.plan.blocks, 64):
            _, damaged = self.read(range(first, min(first + 64, self.plan.blocks)))
            if damaged:
                return f"has other bytes in block {damaged[0]} than were stored"
        return ""


def plan_in(descriptor: int) -> Plan | None:
    """Return the plan that a file follows, with the hash of its key for the key; None if it follows none.

    Raises:
        OSError: it can't be read.
    """
    page = os.pread(descriptor, _PAGE_BYTES, 0)
    if len(page) < _PAGE_BYTES:
        return None
    magic, block_bytes, size, key, length = _HEAD.unpack_from(page)
    end = _HEAD.size + length
    if (magic, block_bytes) != (_MAGIC, BLOCK_BYTES) or length > MAX_VALIDATOR_BYTES:
        return None
    if zlib.crc32(page[:end]).to_bytes(4, "little") != page[end : end + 4]:
        return None
    return Plan(key.hex(), size, page[_HEAD.size : end].decode("utf-8", "replace"))


def open_regular(path: str, flags: int) -> tuple[int, os.stat_result] | None:
    """Open a regular file; None if there is none, or none that can be opened."""
    try:
        descriptor = os.open(path, flags)
    except OSError:
        return None
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        undo.pop_all()
    return descriptor, status


def _record_of(block: int, data: bytes | memoryview) -> tuple[int, int]:
    """Return the record of a block: never zeros, and no other block's."""
    crc32 = zlib.crc32(data, len(data))
    return crc32, (crc32 ^ block * 0x9E3779B1 & 0xFFFFFFFF) | 1


def _at_record(block: int) -> int:
    return _PAGE_BYTES + block * _RECORD.size


def _to_pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _write_at(descriptor: int, data: bytes, at: int) -> None:
    written = os.pwrite(descriptor, data, at)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], at + written)
