"""Bit fields: one header at a time and many at once read the same."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.video.decoders.bitstreams.bits import BitReader, BitTable, HeaderEndError, unescape


def write(fields: list[tuple[str, int, int]]) -> bytes:
    """Write fields as the standards define them: ("u", bits, value), ("ue", 0, value), ("se", 0, value)."""
    bits = ""
    for kind, width, value in fields:
        if kind == "u":
            bits += f"{value:0{width}b}"
        else:
            code = value if kind == "ue" else (2 * value - 1 if value > 0 else -2 * value)
            digits = f"{code + 1:b}"
            bits += "0" * (len(digits) - 1) + digits
    bits += "1"
    bits = bits.ljust((len(bits) + 7) // 8 * 8, "0")
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


FIELDS = st.lists(
    st.one_of(
        st.integers(1, 32).flatmap(lambda w: st.tuples(st.just("u"), st.just(w), st.integers(0, 2**w - 1))),
        st.tuples(st.just("ue"), st.just(0), st.integers(0, 2**16)),
        st.tuples(st.just("se"), st.just(0), st.integers(-(2**15), 2**15)),
    ),
    min_size=1,
    max_size=20,
)


@given(FIELDS)
@settings(max_examples=150, deadline=None)
def test_both_readers_read_what_was_written(fields: list[tuple[str, int, int]]) -> None:
    """Fields of any kind in any order come back, from one header and from a table of them."""
    payload = write(fields)
    reader = BitReader(payload)
    table = BitTable(np.tile(np.frombuffer(payload, np.uint8), (3, 1)))
    for kind, width, value in fields:
        if kind == "u":
            assert reader.u(width) == value
            assert table.u(width).tolist() == [value] * 3
        else:
            assert getattr(reader, kind)() == value
            assert getattr(table, kind)().tolist() == [value] * 3
    assert not table.bad.any()


@given(st.lists(FIELDS, min_size=2, max_size=6))
@settings(max_examples=60, deadline=None)
def test_rows_advance_on_their_own(rows: list[list[tuple[str, int, int]]]) -> None:
    """Rows with different fields are read under masks, each at its own place."""
    payloads = [write(fields) for fields in rows]
    width = max(map(len, payloads))
    table = BitTable(np.array([list(payload.ljust(width, b"\0")) for payload in payloads], np.uint8))
    for number, fields in enumerate(rows):
        where = np.arange(len(rows)) == number
        for kind, bits, value in fields:
            read = table.u(bits, where) if kind == "u" else getattr(table, kind)(where)
            assert read.tolist() == [value if own else 0 for own in where]
    assert not table.bad.any()


@given(st.binary(min_size=1, max_size=6), st.lists(st.sampled_from(["u", "ue", "se"]), max_size=30))
@settings(max_examples=150, deadline=None)
def test_noise_ends_where_it_ends(payload: bytes, kinds: list[str]) -> None:
    """Past the end of a header one reader raises and the other marks the row, at the same field."""
    reader, table = BitReader(payload), BitTable(np.frombuffer(payload, np.uint8)[None])
    for kind in kinds:
        expected: int | None
        try:
            expected = reader.u(5) if kind == "u" else getattr(reader, kind)()
        except HeaderEndError:
            expected = None
        value = table.u(5) if kind == "u" else getattr(table, kind)()
        assert bool(table.bad[0]) == (expected is None)
        if expected is None:
            return
        assert value[0] == expected


def test_an_endless_run_of_zeros_is_an_error() -> None:
    """An Exp-Golomb code of more than 32 bits is malformed, however long the header."""
    with pytest.raises(HeaderEndError):
        BitReader(bytes(40)).ue()
    table = BitTable(np.zeros((2, 40), np.uint8))
    table.ue()
    assert table.bad.all()


def test_reading_on_past_the_end_is_harmless() -> None:
    """A bad row stays bad and gives zeros; the others are not touched."""
    table = BitTable(np.array([[0x80], [0xFF]], np.uint8))
    first = np.array([True, False])
    for _ in range(50):
        table.u(32, first)
    assert table.bad.tolist() == [True, False]
    assert table.u(8)[1] == 0xFF


def test_require() -> None:
    """A condition marks the rows that break it, under a mask only those in it."""
    table = BitTable(np.zeros((3, 1), np.uint8))
    table.require(np.array([True, False, False]), np.array([True, True, False]))
    assert table.bad.tolist() == [False, True, False]
    table.require(np.array([True, True, False]))
    assert table.bad.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("escaped", "clean"),
    [
        (b"\0\0\3\0", b"\0\0\0"),
        (b"\0\0\3\0\0\3\1", b"\0\0\0\0\1"),
        (b"\0\3\0\0\3", b"\0\3\0\0"),
        (b"\1\2\3", b"\1\2\3"),
    ],
)
def test_unescape(escaped: bytes, clean: bytes) -> None:
    """Emulation prevention bytes go, other threes stay."""
    assert unescape(escaped) == clean
