"""`mmmedia cache`: what it says is what is there, and it removes what it is told to and nothing else."""

import os
import time
from pathlib import Path

import pytest

from mmmedia.cache import MediaCache
from mmmedia.cache.listing import entries, names_of
from support.command_line import report, run

URLS = [f"https://example.org/{name}" for name in ("old.jpg", "stale.mp4", "new.png")]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaCache:
    """Three entries: an expired one, one that may be confirmed, a fresh one; and a file of someone else."""
    monkeypatch.setenv("MMMEDIA_MEDIA_CACHE", str(tmp_path))
    monkeypatch.setenv("MMMEDIA_MEDIA_CACHE_TTL_HOURS", "1")
    cache = MediaCache(tmp_path, max_bytes=2**30, ttl_secs=1e9)
    for number, url in enumerate(URLS):
        cache.put(url, bytes(5000 + number), etag='"x"' if "stale" in url else "")
    now = time.time()
    for url, age in zip(URLS, (5400, 5000, 60), strict=True):
        os.utime(cache.path(url), (now - age / 2, now - age))
    (tmp_path / "notes.txt").write_text("mine")
    return cache


def names(cache: MediaCache) -> set[str]:
    return {path.name for path in cache.directory.iterdir() if not path.name.startswith(".")}


def test_lists_entries_the_last_used_first(cache: MediaCache) -> None:
    """Size, ages, and whether it may be served; by URL too."""
    result = run("cache", "ls")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["entry", "size", "downloaded", "used"]
    paths = [cache.path(url).name for url in reversed(URLS)]
    assert [line[0] for line in lines[1:]] == paths
    assert [line[-1] for line in lines[1:]] == ["fresh", "stale", "expired"]
    assert lines[1][1:4] == ["5.0", "kB", "1"]
    rows = report("cache", "ls", "--json")
    assert [row["size_bytes"] for row in rows] == [5002, 5001, 5000]
    assert [Path(row["path"]).name for row in rows] == paths
    found = run("cache", "ls", URLS[0], "https://example.org/none", "--jsonl")
    assert (found.exit_code, found.stdout.count("\n")) == (1, 1)


def test_stats(cache: MediaCache) -> None:
    """The sum as it is accounted, and the budget."""
    found = report("cache", "stats", "--json")
    assert found == {
        "directory": str(cache.directory), "entries": 3, "expired": 2, "bytes": 15003,
        "max_bytes": 5120 << 20, "ttl_seconds": 3600.0,
    }  # fmt: skip
    assert "3, of which 2 expired" in run("cache", "stats").stdout


def test_prune_removes_what_has_expired(cache: MediaCache) -> None:
    """What a server may still confirm stays, and so do others' files."""
    result = run("cache", "prune")
    assert (result.exit_code, result.stdout) == (0, "1 entry removed, 5.0 kB; 2 left.\n")
    assert names(cache) == {cache.path(URLS[1]).name, cache.path(URLS[2]).name, "notes.txt"}


def test_clear(cache: MediaCache) -> None:
    """Some entries, then all of them, and nothing else."""
    assert run("cache", "clear", URLS[2]).stdout == "1 entry removed, 5.0 kB; 2 left.\n"
    assert run("cache", "clear", URLS[2]).stdout == "0 entries removed, 0 bytes; 2 left.\n"
    assert run("cache", "clear").stdout == "2 entries removed, 10.0 kB; 0 left.\n"
    assert names(cache) == {"notes.txt"}
    assert run("cache", "ls").stdout.count("\n") == 1


def test_check(cache: MediaCache) -> None:
    """All well; or what is wrong, and status 1."""
    result = run("cache", "check")
    assert (result.exit_code, result.stdout) == (0, "3 entries, all well.\n")
    with cache.path(URLS[2]).open("r+b") as file:
        file.write(b"damage")
    result = run("cache", "check")
    assert result.exit_code == 1
    assert cache.path(URLS[2]).name in result.stdout


def test_another_directory_and_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--directory wins over the setting; without either there is nothing to look at."""
    other = MediaCache(tmp_path / "other", max_bytes=2**20, ttl_secs=3600)
    other.put("https://example.org/a", b"a")
    assert report("cache", "stats", "-d", other.directory, "--json")["entries"] == 1
    result = run("cache", "ls")
    assert (result.exit_code, "MMMEDIA_MEDIA_CACHE" in result.stderr) == (2, True)
    result = run("cache", "stats", "-d", tmp_path / "none")
    assert (result.exit_code, "none: There is no such directory." in result.stderr) == (1, True)
    assert not (tmp_path / "none").exists()


def test_an_entry_that_vanishes_is_left_out(cache: MediaCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes remove entries while they are listed; a link is none."""
    (cache.directory / ("0" * 20)).symlink_to("/etc/passwd")
    assert [entry.size_bytes for entry in entries(cache)] == [5002, 5001, 5000]


def test_partial_entries(cache: MediaCache) -> None:
    """What holds some blocks of a source is listed by what it takes of the disk, and goes with the others."""
    url = "https://example.org/film.mp4"
    path = cache.directory / names_of(cache, url)[1]
    with path.open("wb") as file:
        file.write(bytes([1]) * 70_000)
        file.truncate(100_000_000)
    (row,) = report("cache", "ls", url, "--json")
    assert (row["name"], row["is_partial"]) == (path.name, True)
    assert 70_000 <= row["size_bytes"] < 1_000_000
    assert "fresh, in part" in run("cache", "ls").stdout
    assert run("cache", "clear", url).stdout.startswith("1 entry removed")
    assert not path.exists()
