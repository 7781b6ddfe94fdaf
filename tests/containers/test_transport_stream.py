"""What program maps say of the streams, in any bytes."""

import pytest
from hypothesis import given, strategies as st

from mmmedia.containers import transport_stream
from mmmedia.errors import InvalidMediaError
from support.streams import H264, packet, program_map


def test_looking_for_program_maps_takes_no_longer_than_there_is_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packets that begin in one another, and maps that never end, would take minutes."""
    monkeypatch.setattr(transport_stream, "_MOST_TABLES", 100)
    monkeypatch.setattr(transport_stream, "_FEW_MAPS", 100)
    for pattern, many in (
        (b"\x47\x40\0\x10\0\2\0\3", "tables"),
        (b"\x47\x40\0\x10\0\1\0\3\0", "tables"),
        (packet(b"\0" + b"\2\xb3\xfd"), "program maps"),
    ):
        with pytest.raises(InvalidMediaError, match=f"more {many} than it can"):
            transport_stream.stream_types(pattern * 20_000)
    assert transport_stream.stream_types(packet(b"\0" + program_map((256, H264))) * 20_000) == {256: {H264}}


@given(data=st.binary(max_size=400), starts=st.lists(st.integers(0, 399), max_size=8))
def test_program_maps_of_any_bytes_are_read(data: bytes, starts: list[int]) -> None:
    changed = bytearray(data)
    for start in starts:
        changed[start : start + 6] = b"\x47\x50\x00\x10\x00\x02"
    for pid, kinds in transport_stream.stream_types(bytes(changed)).items():
        assert 0 <= pid < 8192
        assert all(0 <= kind < 256 for kind in kinds)
