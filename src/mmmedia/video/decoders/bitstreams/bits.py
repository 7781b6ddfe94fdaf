"""Reading bit fields of headers: of one header, or the same field of thousands at once."""

import re

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]


class HeaderEndError(Exception):
    """A header is shorter than its fields."""


def unescape(payload: bytes) -> bytes:
    r"""Take out the emulation prevention bytes of an H.264 or HEVC NAL unit.

    >>> unescape(b"\x00\x00\x03\x01")
    b'\x00\x00\x01'
    """
    return payload.replace(b"\x00\x00\x03", b"\x00\x00")


def escape(payload: bytes) -> bytes:
    r"""Put in the emulation prevention bytes of an H.264 NAL unit.

    >>> escape(b"\x00\x00\x01")
    b'\x00\x00\x03\x01'
    """
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


class BitWriter:
    r"""The fields of one header, to be written.

    >>> writer = BitWriter()
    >>> writer.u(1, 1), writer.ue(1), writer.ue(2)
    (None, None, None)
    >>> writer.finish()
    b'\xa7'
    """

    def __init__(self) -> None:
        self._value = 1  # a bit in front, so that leading zeros count

    def u(self, bits: int, value: int) -> None:
        """An unsigned integer of so many bits."""
        self._value = self._value << bits | value

    def ue(self, value: int) -> None:
        """An unsigned integer in Exp-Golomb code."""
        self.u(2 * (value + 1).bit_length() - 1, value + 1)

    def finish(self) -> bytes:
        """The bytes, with the stop bit and zeros to the end of the last."""
        self.u(1, 1)
        bits = self._value.bit_length() - 1
        self.u(-bits % 8, 0)
        length = (bits + 7) // 8
        return (self._value & ((1 << 8 * length) - 1)).to_bytes(length, "big")


class BitReader:
    r"""The fields of one header.

    >>> reader = BitReader(b"\xa6")
    >>> reader.u(1), reader.ue(), reader.ue()
    (1, 1, 2)
    """

    def __init__(self, payload: bytes) -> None:
        self._value = int.from_bytes(payload, "big")
        self._left = 8 * len(payload)

    def u(self, bits: int) -> int:
        """An unsigned integer of so many bits."""
        if bits > self._left:
            raise HeaderEndError
        self._left -= bits
        return self._value >> self._left & ((1 << bits) - 1)

    def ue(self) -> int:
        """An unsigned integer in Exp-Golomb code."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise HeaderEndError
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """A signed integer in Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)


class BitTable:
    r"""The fields of many headers at once: a row of bytes each, read where a mask says so.

    Rows whose fields are malformed or go past the end are marked in `bad`, the latter in `past_end` too.

    >>> table = BitTable(np.array([[0xA6, 0], [0x40, 0]], np.uint8))
    >>> table.u(1).tolist(), table.ue().tolist(), table.bad.tolist()
    ([1, 0], [1, 0], [False, False])
    """

    def __init__(self, rows: Bytes) -> None:
        # As words of 64 bits, and two more at the end, so that a window never ends outside.
        padded = np.pad(rows, ((0, 0), (0, 16 + -rows.shape[1] % 8)))
        self._words: npt.NDArray[np.uint64] = padded.view(">u8").astype(np.uint64)
        self._limit = 8 * rows.shape[1]
        self._at = np.zeros(len(rows), np.int64)
        self.bad = np.zeros(len(rows), np.bool_)
        self.past_end = np.zeros(len(rows), np.bool_)

    def __len__(self) -> int:
        return len(self._at)

    def _window(self, which: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """The next 64 bits of some rows."""
        at = np.minimum(self._at[which], self._limit)
        word, shift = at >> 6, (at & 63).astype(np.uint64)
        high, low = self._words[which, word], self._words[which, word + 1]
        # In two steps, as a shift by all 64 bits is none.
        window: npt.NDArray[np.uint64] = (high << shift) | (low >> np.uint64(1) >> (np.uint64(63) - shift))
        return window

    def _advance(self, which: npt.NDArray[np.intp], bits: Ints | int) -> None:
        self._at[which] += bits
        past = self._at[which] > self._limit
        self.bad[which] |= past
        self.past_end[which] |= past

    def u(self, bits: int, where: Bools | None = None) -> Ints:
        """An unsigned integer of 1 to 32 bits of the rows in the mask, 0 elsewhere."""
        which = self._which(where)
        values = np.zeros(len(self), np.int64)
        values[which] = (self._window(which) >> np.uint64(64 - bits)).astype(np.int64)
        self._advance(which, bits)
        return values

    def flag(self, where: Bools | None = None) -> Bools:
        """One bit of the rows in the mask, False elsewhere."""
        bits: Bools = self.u(1, where) != 0
        return bits

    def ue(self, where: Bools | None = None) -> Ints:
        """An unsigned integer in Exp-Golomb code, below 2**32, of the rows in the mask, 0 elsewhere."""
        which = self._which(where)
        window = self._window(which)
        top = (window >> np.uint64(32)).astype(np.float64)
        zeros = 32 - np.frexp(top)[1]
        self.bad[which] |= zeros >= 32
        zeros = np.minimum(zeros, 31)
        values = np.zeros(len(self), np.int64)
        values[which] = (window >> (63 - 2 * zeros).astype(np.uint64)).astype(np.int64) - 1
        self._advance(which, 2 * zeros + 1)
        return values

    def se(self, where: Bools | None = None) -> Ints:
        """A signed integer in Exp-Golomb code of the rows in the mask, 0 elsewhere."""
        code = self.ue(where)
        return np.where(code & 1, (code + 1) >> 1, -(code >> 1))

    def require(self, good: Bools, where: Bools | None = None) -> None:
        """Mark rows of the mask as bad where a condition does not hold."""
        self.bad |= ~good if where is None else where & ~good

    def _which(self, where: Bools | None) -> npt.NDArray[np.intp]:
        return np.arange(len(self)) if where is None else np.flatnonzero(where)
