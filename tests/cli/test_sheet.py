"""`mmmedia sheet`: a contact sheet of a person's own file."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.clips import clip
from support.command_line import program, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clip of 60 frames."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip())
    return path


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert picture.format == {".png": "PNG", ".jpg": "JPEG"}[path.suffix]
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
        return picture.size


def test_a_grid_of_frames(source: Path, tmp_path: Path) -> None:
    """Twelve frames unless told otherwise; more frames make a taller sheet."""
    result = run("sheet", source, "-o", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    few = size(tmp_path / "a.png")
    assert result.stdout == f"12 of 60 frames\n{tmp_path / 'a.png'}  {few[0]} x {few[1]} pixels\n"
    assert run("sheet", source, "-o", tmp_path / "b.jpg", "--num-frames", 40).exit_code == 0
    many = size(tmp_path / "b.jpg")
    assert (many[0], many[1] > few[1]) == (few[0], True)


def test_a_row_for_each_sampler(source: Path, tmp_path: Path) -> None:
    """Each in a row; one that takes no rate is asked without."""
    result = run(
        "sheet", source, "-o", tmp_path / "a.png", "--sampler", "opencv", "--sampler", "opencv_dynamic",
        "--sampler", "molmo2", "--num-frames", 5, "--start", "0:01",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:3] == [
        "opencv · 5 of 60 frames", "opencv_dynamic · 2 of 60 frames", "molmo2 · 35 of 60 frames",
    ]  # fmt: skip
    assert size(tmp_path / "a.png")[1] > 3 * 150


def test_standard_input_and_output(source: Path) -> None:
    """`mmmedia sheet - -o - < clip > sheet.png`: nothing but the picture on standard output."""
    done = program("sheet", "-", "-o", "-", stdin=source.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"12 of 60 frames\n")
    with Image.open(io.BytesIO(done.stdout)) as picture:
        picture.load()
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["-o", "out.unknown"], 2, "no picture that Pillow can write"),
        (["-o", "none/out.png"], 1, "out.png: No such file or directory"),
        (["-o", "there.png"], 1, "there.png: It is there already"),
        (["-o", "out.png", "--sampler", "none_such"], 2, "none_such"),
        (["-o", "out.png", "--sampler", "opencv", "--fps", 0], 2, "Invalid value for '--fps'"),
    ],
)
def test_errors(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    status: int,
    said: str,
) -> None:
    """A message, and no file."""
    monkeypatch.chdir(tmp_path)
    Path("there.png").write_text("mine")
    result = run("sheet", source, *options)
    assert result.exit_code == status
    assert said in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "there.png"]
    assert Path("there.png").read_text() == "mine"
