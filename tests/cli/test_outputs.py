"""Files are written whole or not at all."""

import os
import threading
from pathlib import Path

import pytest

from mmmedia.cli.outputs import check_free, write
from support.clips import clip
from support.command_line import run


def test_a_link_leads_to_what_is_written(tmp_path: Path) -> None:
    """The link stays, what it leads to is replaced."""
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_named_pipe_is_written_into(tmp_path: Path) -> None:
    """It is no file that could be replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_free([pipe], force=False)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"through")
    reader.join(60)
    assert read == [b"through"]
    assert pipe.is_fifo()


def test_what_is_in_the_way(tmp_path: Path) -> None:
    """Directories always, files unless they are to be replaced."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IsADirectoryError):
        check_free([tmp_path], force=True)
    with pytest.raises(FileExistsError):
        check_free([tmp_path / "none", tmp_path / "file"], force=False)
    check_free([tmp_path / "file"], force=True)


def test_standard_output(tmp_path: Path) -> None:
    """The file alone."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip(frames=30))
    cut = run("excerpt", source, "--indices", "3", "-o", "-")
    assert (cut.exit_code, cut.stdout_bytes[4:8]) == (0, b"ftyp")
    assert cut.stderr.startswith("3\t")
    picture = run("sheet", source, "-o", "-")
    assert picture.stdout_bytes.startswith(b"\x89PNG")
