"""The caches that most tests use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache
from support.caches import BLOCK, Clock, forbid_attributes


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(tmp_path: Path, clock: Clock) -> Iterator[MediaCache]:
    """A cache in which all is well at the end."""
    cache = MediaCache(tmp_path / "cache", max_bytes=10 * BLOCK, ttl_secs=100, clock=clock)
    yield cache
    assert cache.check() == []


@pytest.fixture(params=["shared account", "own account"])
def either_cache(
    request: pytest.FixtureRequest, cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> MediaCache:
    """A cache on a file system with extended attributes, and on one without."""
    if request.param == "own account":
        forbid_attributes(monkeypatch)
    return cache
