"""Temp files and locks."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache, files
from support.caches import URL, url


def test_an_abandoned_temp_file_is_swept_and_a_living_one_is_not(cache: MediaCache) -> None:
    cache.put(URL, b"a photo")
    abandoned = cache.directory / ".mmmedia-0123456789abcdef.tmp"
    abandoned.write_bytes(b"half a pho")
    living, file = files.create_temp(str(cache.directory))
    try:
        cache.evict()
        assert not abandoned.exists()
        assert Path(living).exists()
    finally:
        os.close(file)
    cache.evict()
    assert not Path(living).exists()
    assert cache.get(URL) == b"a photo"


def test_without_file_locks_age_tells_what_is_abandoned(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert cache.put(URL, b"a photo")
    old = cache.directory / ".mmmedia-0123456789abcdef.tmp"
    new = cache.directory / ".mmmedia-fedcba9876543210.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    cache.evict()
    assert (old.exists(), new.exists()) == (False, True)


def test_a_temp_file_swept_before_it_was_locked_is_made_again(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_lock = files.lock
    swept: list[Path] = []

    def sweep_first(file: int) -> bool:
        for temp in cache.directory.glob(".mmmedia-*.tmp"):
            if not swept:
                swept.append(temp)
                temp.unlink()
        return plain_lock(file)

    monkeypatch.setattr(files, "lock", sweep_first)
    cache.directory.mkdir()
    assert cache.put(URL, b"a photo")
    assert swept
    assert cache.get(URL) == b"a photo"


def test_what_is_planted_as_temp_file_does_no_harm(cache: MediaCache) -> None:
    cache.directory.mkdir()
    target = cache.directory.parent / "secret"
    target.write_bytes(b"secret")
    (cache.directory / ".mmmedia-0123456789abcdef.tmp").symlink_to(target)
    os.mkfifo(cache.directory / ".mmmedia-0123456789abcdee.tmp")
    (cache.directory / ".mmmedia-0123456789abcded.tmp").mkdir()
    assert cache.put(URL, b"a photo")
    cache.evict()
    assert target.read_bytes() == b"secret"


def test_a_stuck_lock_delays_but_does_not_hang(
    cache: MediaCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "_LOCK_PATIENCE_SECONDS", 0.01)
    caplog.set_level(logging.DEBUG)
    cache.put(url(0), b"a photo")
    holder = os.open(cache.directory, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        assert cache.put(URL, b"a photo")
        assert cache.get(URL) == b"a photo"
    finally:
        os.close(holder)
    assert "can't be locked" in caplog.text


def test_what_is_not_there_has_no_label(tmp_path: Path) -> None:
    assert files.label_at(str(tmp_path / "none")) is None
