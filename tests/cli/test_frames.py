"""`mmmedia frames`: which frames come out, under which names, and what is said of those that do not."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmmedia
from support.clips import clip, read_number
from support.command_line import program, report, run
from support.server import Server, reply
from video.test_read_frames import _damaged

CLIP = {"frames": 60, "rate": 25, "gop": 20}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clip of 60 frames, each of which shows its number."""
    path = tmp_path / "ä clip [1].mp4"
    path.write_bytes(clip(**CLIP))
    return path


def number_in(path: Path) -> int:
    with Image.open(path) as picture:
        return read_number(np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ([], {}),
        (["--num-frames", 4], {"num_frames": 4}),
        (["--fps", 2], {"fps": 2.0}),
        (["--indices", "3-5,59, 0"], {"indices": [3, 4, 5, 59, 0]}),
        (["--timestamps", "0,0:01,2.39"], {"timestamps": [0, 1, 2.39]}),
        (["--start", "1", "--end", "0:01.2", "--num-frames", -1], {"start": 1, "end": 1.2, "num_frames": -1}),
        (["--sampler", "qwen3_vl"], {"sampler": "qwen3_vl"}),
    ],
)
def test_writes_the_frames_that_load_video_gives(
    source: Path, tmp_path: Path, options: list[object], keywords: dict[str, object]
) -> None:
    """The same numbers and times as in the library, each picture under its number and of that frame."""
    rows = report("frames", source, "-o", tmp_path / "out", "--json", *options)
    video = mmmedia.load_video(source, **keywords)
    wanted = video.metadata["frames_indices"]
    assert [row["frame"] for row in rows] == wanted
    assert [row["time"] for row in rows] == pytest.approx(video.timestamps, abs=1e-6)
    assert [Path(row["file"]).name for row in rows] == [f"{number:06}.png" for number in wanted]
    assert [number_in(Path(row["file"])) for row in rows] == wanted


def test_pictures_hold_the_pixels(source: Path, tmp_path: Path) -> None:
    """PNG as they are; JPEG and WebP nearly; a size is that of `load_video`."""
    expected = mmmedia.load_video(source, indices=[7]).frames[0].astype(int)
    for form, most in (("png", 0), ("jpg", 12), ("webp", 12)):
        (row,) = report("frames", source, "-o", tmp_path / form, "--indices", 7, "--format", form, "--json")
        with Image.open(row["file"]) as picture:
            assert abs(np.asarray(picture.convert("RGB")) - expected).mean() <= most
    (row,) = report("frames", source, "-o", tmp_path, "--indices", 7, "--size", "64x32", "--json")
    with Image.open(row["file"]) as picture:
        assert picture.size == (64, 32)


def test_arrays(source: Path, tmp_path: Path) -> None:
    """Frames as `load_video` gives them, repeats kept, with numbers and times."""
    target = tmp_path / "a.npz"
    result = run("frames", source, "-o", target, "--indices", "9,0,9", "--size", 64)
    assert result.exit_code == 0, result.output
    video = mmmedia.load_video(source, indices=[9, 0, 9], size=64)
    with np.load(target) as arrays:
        assert arrays["frames"].tolist() == video.frames.tolist()
        assert arrays["indices"].tolist() == [9, 0, 9]
        assert arrays["timestamps"].tolist() == video.timestamps
    assert result.stdout.splitlines()[-1] == f"3 of 60 frames · 64 x 48 pixels · {target}"


def test_more_than_memory_should_hold(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded a part at a time, no frame twice or never, of a download too, which is made once."""
    module = sys.modules["mmmedia.cli.frames"]  # the package's attribute is the function
    monkeypatch.setattr(module, "_PART", 7)
    monkeypatch.setattr(module, "_PART_BYTES", 11 * 128 * 96 * 3)
    monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(11 * 128 * 96 * 3))
    rows = report("frames", source, "-o", tmp_path / "out", "--num-frames", -1, "--json")
    assert [row["frame"] for row in rows] == [*range(60)]
    assert [number_in(Path(row["file"])) for row in rows] == [*range(60)]
    assert run("frames", source, "-o", tmp_path / "a.npz", "--num-frames", -1).exit_code == 1
    with Server() as server:
        server.route("/clip.mp4", reply(source.read_bytes()))
        rows = report("frames", server.url("/clip.mp4"), "-o", tmp_path / "two", "--fps", 25, "--json")
        assert [number_in(Path(row["file"])) for row in rows] == [row["frame"] for row in rows]
        assert server.count("/clip.mp4") <= 2


def test_what_is_there_stays_unless_it_is_to_be_replaced(source: Path, tmp_path: Path) -> None:
    """One file in the way, and none is written; --force writes all."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "000005.png").write_text("mine")
    (out / "notes.txt").write_text("mine")
    result = run("frames", source, "-o", out, "--indices", "4,5")
    assert result.exit_code == 1
    assert result.stderr == f"mmmedia: {out / '000005.png'}: It is there already; --force replaces it.\n"
    assert sorted(path.name for path in out.iterdir()) == ["000005.png", "notes.txt"]
    assert run("frames", source, "-o", out, "--indices", "4,5", "--force").exit_code == 0
    assert number_in(out / "000005.png") == 5
    assert (out / "notes.txt").read_text() == "mine"


def test_frames_that_can_not_be_decoded(tmp_path: Path) -> None:
    """How many is said, and nothing written, or with --skip-missing the others; the status is 1."""
    source = tmp_path / "damaged.mp4"
    source.write_bytes(_damaged())
    lost = {0, *range(12)} - set(mmmedia.video.read_frames(source, range(12), missing="drop")[1])
    said = f"{len(lost)} of 12 frames can't be decoded: {' '.join(map(str, sorted(lost)))}."
    result = run("frames", source, "-o", tmp_path / "out", "--num-frames", -1)
    assert result.exit_code == 1
    assert result.stderr == f"mmmedia: {source}: {said} --skip-missing writes the others.\n"
    assert [*(tmp_path / "out").iterdir()] == []
    assert run("frames", source, "-o", tmp_path / "a.npz", "--num-frames", -1).exit_code == 1
    assert not (tmp_path / "a.npz").exists()
    result = run("frames", source, "-o", tmp_path / "out", "--num-frames", -1, "--skip-missing", "--jsonl")
    assert result.exit_code == 1
    assert result.stderr == f"mmmedia: {source}: {said}\n"
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert {row["frame"] for row in rows} == {*range(12)} - lost
    assert len([*(tmp_path / "out").iterdir()]) == 12 - len(lost)


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--indices", "60"], 2, "no frame 60: it has 60"),
        (["--indices", "a"], 2, "expected numbers with commas"),
        (["--indices", "5-3"], 2, "expected numbers with commas"),
        (["--timestamps", "1:99"], 2, "no time"),
        (["--timestamps", "99"], 2, "beyond the video"),
        (["--num-frames", 3, "--indices", "1"], 2, "indices"),
        (["--size", "12x"], 2, "no size"),
        (["--sampler", "no_such"], 2, "no_such"),
        (["--stream", 3], 2, "one stream of pictures"),
        (["--num-frames", 0], 2, "num_frames=0"),
    ],
)
def test_errors(source: Path, tmp_path: Path, options: list[object], status: int, said: str) -> None:
    """What the command line asks for and can't have: a message, status 2, and no directory is made."""
    result = run("frames", source, "-o", tmp_path / "out", *options)
    assert result.exit_code == status
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_outputs_that_can_not_be(source: Path, tmp_path: Path) -> None:
    """A file where the directory is to be, a picture's name for a directory."""
    (tmp_path / "file").write_text("mine")
    result = run("frames", source, "-o", tmp_path / "file")
    assert (result.exit_code, (tmp_path / "file").read_text()) == (1, "mine")
    assert "file: File exists." in result.stderr
    for name in (tmp_path / "one.png", "-"):
        result = run("frames", source, "-o", name)
        assert result.exit_code == 2
        assert "name a directory" in result.stderr


def test_standard_input_into_a_pipe_that_closes(source: Path, tmp_path: Path) -> None:
    """`mmmedia frames - | head`: the frames are written, and it ends quietly."""
    done = program("frames", "-", "-o", "out", "--indices", "1,2", stdin=source.read_bytes(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [number_in(tmp_path / "out" / f"{number:06}.png") for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (clip()[:3000], "cut short before its index"),
        (b"<!doctype html><title>Sign in</title>", "It is an HTML page"),
        (b"\x89PNG\r\n\x1a\n", "not a media container"),
        (b"", "mpty"),
    ],
)
def test_sources_that_are_no_video(data: bytes, said: str, tmp_path: Path) -> None:
    """From a file and from a pipe: one line that names it, and no directory."""
    (tmp_path / "source").write_bytes(data)
    for source, name, stdin in ((tmp_path / "source",) * 2 + (None,), ("-", "standard input", data)):
        result = run("frames", source, "-o", tmp_path / "out", stdin=stdin)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert result.stderr.startswith(f"mmmedia: {name}: ")
        assert said in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_file_and_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in words."""
    monkeypatch.setenv("MMMEDIA_MEDIA_FETCH_MAX_RETRIES", "1")
    result = run("frames", tmp_path / "none", "-o", tmp_path / "out")
    assert "There is no file" in result.stderr
    result = run("frames", "http://nosuchhost.invalid/x.mp4", "-o", tmp_path / "out")
    assert (result.exit_code, "(DNS)" in result.stderr) == (1, True)


def test_objects_of_buckets(source: Path, tmp_path: Path) -> None:
    """What fsspec reads, by its URL."""
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://bucket/clip.mp4", "wb") as file:
        file.write(source.read_bytes())
    rows = report("frames", "memory://bucket/clip.mp4", "-o", tmp_path / "out", "--indices", "8", "--json")
    assert number_in(Path(rows[0]["file"])) == 8
