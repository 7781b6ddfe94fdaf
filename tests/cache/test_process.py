"""The caches of a process."""

import os
from pathlib import Path

import pytest

from mmmedia.cache import get_media_cache
from support.caches import BLOCK, URL


def test_one_process_has_one_cache_per_directory(tmp_path: Path) -> None:
    first = get_media_cache(tmp_path / "cache", 10 * BLOCK, 100)
    again = get_media_cache(str(tmp_path / "cache"), 10 * BLOCK, 100)
    smaller = get_media_cache(tmp_path / "cache", BLOCK, 100)
    assert first is not None
    assert first is again
    assert smaller is not None
    assert smaller.max_bytes == BLOCK
    first.put(URL, b"a photo")
    assert smaller.get(URL) == b"a photo"
    assert (first.stats.hits, first.stats.puts) == (smaller.stats.hits, smaller.stats.puts) == (1, 1)


def test_a_directory_out_of_reach_is_one_warning_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    for _ in range(3):
        assert get_media_cache(tmp_path / "file", BLOCK, 100) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "VLLM_MEDIA_CACHE" in caplog.text
    (tmp_path / "file").unlink()
    assert get_media_cache(tmp_path / "file", BLOCK, 100) is not None


def test_a_directory_that_can_not_be_written_is_no_cache(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root
    assert get_media_cache(tmp_path, BLOCK, 100) is None
    assert "not writable" in caplog.text
