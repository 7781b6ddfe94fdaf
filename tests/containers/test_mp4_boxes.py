"""The one walk over the boxes of an MP4: in memory and in an open file."""

import io
import struct

import pytest
from hypothesis import given, strategies as st

from mmmedia.containers import boxes
from support.clips import clip

LONG = struct.pack(">I4sQ", 1, b"mdat", 20) + b"four"
CASES = {
    "side by side": (b"\0\0\0\x09free\1" + LONG, [(b"free", (8, 9)), (b"mdat", (25, 29))]),
    "beyond the end": (b"\0\0\1\0moov", [(b"moov", (8, 256))]),
    "to the end": (b"\0\0\0\0mdat" + bytes(7), [(b"mdat", (8, 15))]),
    "less than its own head": (b"\0\0\0\x07free" + bytes(9), []),
    "a long size cut off": (LONG[:12], []),
    "a name cut off": (LONG + b"\0\0\0\x08mda", [(b"mdat", (16, 20))]),
    "nothing": (b"", []),
}


@pytest.mark.parametrize("name", CASES)
def test_boxes_by_hand(name: str) -> None:
    data, expected = CASES[name]
    for kind in (bytes, bytearray, memoryview, io.BytesIO):
        assert list(boxes(kind(data), 0, len(data))) == expected


def test_of_an_open_file_only_the_heads_are_read() -> None:
    data = clip(frames=4, width=64, height=64)
    read = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            read.append(size)
            return super().read(size)

    found = list(boxes(Counting(data), 0, len(data)))
    assert {b"ftyp", b"moov", b"mdat"} <= {name for name, _ in found}
    assert found == list(boxes(data, 0, len(data)))
    assert read == [16] * len(found)


@given(st.binary(max_size=200), st.integers(0, 50), st.integers(0, 200))
def test_any_bytes_end(data: bytes, start: int, stop: int) -> None:
    """Each box begins behind the one before it, so that the walk comes to an end."""
    places = [begin for _, (begin, _) in boxes(data, start, min(stop, len(data)))]
    assert places == sorted(set(places))
