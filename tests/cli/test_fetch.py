"""`mmmedia fetch`: into files and into the cache, and what can't be had."""

import json
from pathlib import Path

import pytest

from support.command_line import program, report, run
from support.server import Server, reply

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


def test_files_by_the_names_in_their_urls(server: Server, tmp_path: Path) -> None:
    """Into a directory that is made; equal names get a number; escapes are read, and lead nowhere else."""
    paths = ["/a/cat.png", "/b/cat.png?x=1", "/caf%C3%A9%20.png", "/..%2F..%2Fevil.png", "/"]
    for number, path in enumerate(paths):
        server.route(path.partition("?")[0], reply(PNG + bytes([number])))
    rows = report("fetch", *map(server.url, paths), "-o", tmp_path / "new" / "dir", "--json")
    names = ["cat.png", "cat-2.png", "café .png", "evil.png", "download"]
    assert [Path(row["file"]).name for row in rows] == names
    for number, name in enumerate(names):
        assert (tmp_path / "new" / "dir" / name).read_bytes() == PNG + bytes([number])
    assert sorted(path.name for path in (tmp_path / "new" / "dir").iterdir()) == sorted(names)


def test_one_file_or_standard_output(server: Server, tmp_path: Path) -> None:
    """A name with a suffix is that of a file."""
    server.route("/cat", reply(PNG))
    result = run("fetch", server.url("/cat"), "-o", tmp_path / "my.png")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "my.png").read_bytes() == PNG
    assert result.stdout == f"{server.url('/cat')}  10.2 kB  {tmp_path / 'my.png'}\n"
    done = program("fetch", server.url("/cat"), "-o", "-")
    assert (done.returncode, done.stdout, done.stderr) == (0, PNG, b"")


def test_into_the_cache(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing says where; the second time nothing is downloaded."""
    monkeypatch.setenv("MMMEDIA_MEDIA_CACHE", str(tmp_path))
    server.route("/cat.png", reply(PNG))
    for _ in range(2):
        (row,) = report("fetch", server.url("/cat.png"), "--json")
        assert Path(row["file"]).read_bytes() == PNG
    assert server.count("/cat.png") == 1
    monkeypatch.setenv("MMMEDIA_MEDIA_CACHE_MAX_SIZE_MB", "0")
    server.route("/dog.png", reply(PNG))
    result = run("fetch", server.url("/dog.png"))
    assert result.exit_code == 1
    assert "did not store" in result.stderr


def test_those_that_can_be_had_are_had(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each of the others, and status 1; no part of a file is left."""
    monkeypatch.setenv("MMMEDIA_MEDIA_FETCH_MAX_RETRIES", "1")
    server.route("/good.png", reply(PNG))
    server.route("/page", reply(b"\n<!DOCTYPE html><html><body>no</body></html>"))
    server.route("/empty", reply(b""))
    urls = [server.url(path) for path in ("/gone", "/good.png", "/page", "/empty")]
    result = run("fetch", *urls, "http://nosuchhost.invalid/x", "-o", tmp_path, "--jsonl")
    assert result.exit_code == 1
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == [str(tmp_path / "good.png")]
    lines = result.stderr.splitlines()
    assert len(lines) == 4
    for line, url, said in zip(
        lines,
        [urls[0], *urls[2:], "http://nosuchhost.invalid/x"],
        ["404", "No media. It is an HTML page", "empty", "(DNS)"],
        strict=True,
    ):
        assert line.startswith(f"mmmedia: {url}: ")
        assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["good.png"]


def test_limits_and_secrets(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """URLs keep every limit, and their passwords are not printed."""
    server.route("/cat.png", reply(PNG * 200))
    monkeypatch.setenv("MMMEDIA_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    url = server.url("/cat.png").replace("//", "//me:secret@")
    result = run("fetch", url, "-o", tmp_path)
    assert result.exit_code == 1
    assert "1048576" in result.stderr
    monkeypatch.setenv("MMMEDIA_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    blocked = run("fetch", url, "-o", tmp_path)
    assert "Refused to connect" in blocked.stderr
    assert "secret" not in result.output + blocked.output
    assert list(tmp_path.iterdir()) == []


def test_errors(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cache and no place, no URL, a file in the way: nothing is asked for."""
    monkeypatch.chdir(tmp_path)
    server.route("/cat.png", reply(PNG))
    Path("cat.png").write_text("mine")
    for arguments, status, said in (
        ([server.url("/cat.png")], 2, "MMMEDIA_MEDIA_CACHE"),
        (["cat.png", "-o", "."], 2, "cat.png: no URL"),
        ([server.url("/cat.png"), "-o", "."], 1, "cat.png: It is there already"),
        ([server.url("/cat.png"), server.url("/cat.png"), "-o", "cat.png"], 1, "cat.png: "),
    ):
        result = run("fetch", *arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (status, 1), result.output
        assert said in result.stderr
    assert server.count("/cat.png") == 0
    assert Path("cat.png").read_text() == "mine"
    assert run("fetch", server.url("/cat.png"), "-o", ".", "-f").exit_code == 0
    assert Path("cat.png").read_bytes() == PNG


def test_objects_of_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever types the URL may read its bucket, but for settings that name others."""
    pytest.importorskip("fsspec")
    import fsspec

    with fsspec.open("memory://bucket/cat.png", "wb") as file:
        file.write(PNG)
    (row,) = report("fetch", "memory://bucket/cat.png", "-o", tmp_path, "--json")
    assert Path(row["file"]).read_bytes() == PNG
    monkeypatch.setenv("MMMEDIA_MEDIA_ALLOWED_BUCKETS", "s3://other")
    result = run("fetch", "memory://bucket/cat.png", "-o", tmp_path, "-f")
    assert result.exit_code == 1
    assert "VLLM_MEDIA_ALLOWED_BUCKETS" in result.stderr
