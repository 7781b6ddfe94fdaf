"""`mmmedia bench`: both ways are taken, and compared."""

from pathlib import Path

import numpy as np
import pytest

from support.clips import clip
from support.command_line import report, run


def test_measures_both_ways(tmp_path: Path) -> None:
    """A time for each, which way it took, and that the frames are equal."""
    source = tmp_path / "clip.mp4"
    source.write_bytes(clip(frames=120, gop=10))
    found = report("bench", source, "--num-frames", 3, "--repeats", 1, "--json")
    assert [(way["decode"], way["way"].partition(":")[0]) for way in found["ways"]] == [
        ("auto", found["ways"][0]["way"].partition(":")[0]), ("sequential", "sequential"),
    ]  # fmt: skip
    assert all(way["seconds"] > 0 for way in found["ways"])
    assert {name: found[name] for name in ("frames", "total", "width", "height", "equal")} == {
        "frames": 3, "total": 120, "width": 128, "height": 96, "equal": True,
    }  # fmt: skip
    shown = run("bench", source, "--fps", 1, "--repeats", 1)
    assert shown.exit_code == 0
    assert "The frames are equal." in shown.stdout


def test_frames_that_differ_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that must never be."""
    from mmmedia.video import reading

    source = tmp_path / "clip.mp4"
    source.write_bytes(clip())
    read = reading.read_frames

    def wrong(*arguments: object, **keywords: object) -> object:
        frames, indices, video = read(*arguments, **keywords)
        if keywords.get("decode") == "auto":
            frames = np.bitwise_xor(frames, 1)
        return frames, indices, video

    monkeypatch.setattr("mmmedia.video.read_frames", wrong)
    result = run("bench", source, "--repeats", 1)
    assert result.exit_code == 1
    assert "THE FRAMES DIFFER" in result.stdout
