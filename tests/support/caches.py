"""What tests of the cache share."""

import errno
import os
import sys
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="extended attributes")
BLOCK = 4096
URL = "https://example.org/a/cat.jpg?size=2"


class Clock:
    def __init__(self, now: float = 1_700_000_000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


def forbid_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> bytes:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "getxattr", unsupported)
    monkeypatch.setattr(os, "setxattr", unsupported)


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


def fill(cache: MediaCache, clock: Clock, numbers: range) -> None:
    for number in numbers:
        clock.now += 1
        assert cache.put(url(number), b"%d" % number)


def present(cache: MediaCache, numbers: range) -> list[int]:
    return [number for number in numbers if cache.path(url(number)).exists()]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def counted_anew(cache: MediaCache) -> tuple[int, int]:
    sizes = [max(BLOCK, file.stat().st_size) for file in cache.directory.iterdir()]
    return sum(sizes), len(sizes)
