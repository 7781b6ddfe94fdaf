"""In which half of the library something is tested, and whether its files are decoded in processes apart."""

import pytest

HALVES = ["sync", "async", "sync apart", "async apart"]


def half_of(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return "sync" or "async", by one of `HALVES`, and have workers decode where that says so."""
    half, _, is_apart = name.partition(" ")
    if is_apart:
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "2")
    return half
