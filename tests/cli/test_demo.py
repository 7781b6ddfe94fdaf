"""`mmmedia demo`, in this process and as the program that users start."""

import io
import os
import re
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmmedia import __version__
from mmmedia.cli import scene
from mmmedia.cli.demo import Served, serve
from mmmedia.connections import HTTPConnection
from mmmedia.work.threads import IDLE
from support.command_line import program, run


def _at_work() -> set[threading.Thread]:
    """The threads there are, but for those that only wait to be used again."""
    return {thread for thread in threading.enumerate() if thread.name != IDLE}


def test_prints_the_table_writes_the_sheet_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing is a miss, then a hit; afterwards neither temp files, threads nor settings are left."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setattr(scene, "CLIP_SECONDS", 2)
    before, threads = dict(os.environ), _at_work()
    result = run("demo", "--output", str(tmp_path / "sheet.png"))
    assert result.exit_code == 0, result.output
    assert "6 hits · 6 misses · 6 puts · 6 entries" in result.output
    for text in ("photo.jpg", "(800, 1200, 3) uint8", "speech.wav", "(48000,) float32", "16000 Hz",
                 "opencv_dynamic", "molmo2", "48 frames, 24 fps, 2 s", "(48, 288, 512, 3)",
                 "frames_indices 0 24 47"):  # fmt: skip
        assert text in result.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert len(sheet.convert("RGB").getcolors(1 << 24)) > 10_000
    assert list(temporary.iterdir()) == []
    ours = {"MMMEDIA_MEDIA_CACHE", "no_proxy", "NO_PROXY", "http_proxy"}
    assert {name: os.environ.get(name) for name in ours} == {name: before.get(name) for name in ours}
    assert _at_work() <= threads


def test_the_program_runs_offline(tmp_path: Path) -> None:
    """`python -m mmmedia demo` ends well, with the sheet in the working directory, no traceback."""
    done = program("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    assert re.search(r"cache  6 hits · 6 misses", shown)
    assert "frames_indices 0 24 48 72 96 120 144 168 191" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["mmmedia-demo.png"]


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of a second, for what does not look at it."""
    monkeypatch.setattr(scene, "CLIP_SECONDS", 1)


def test_uses_the_configured_cache_and_forgets_what_it_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of the user's is used; URLs that nobody can ask for again don't stay in it."""
    small(monkeypatch)
    directory = tmp_path / "cache"
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(directory))
    monkeypatch.setenv("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    result = run("demo", "-o", str(tmp_path / "sheet.png"))
    assert result.exit_code == 0, result.output
    assert "6 hits · 6 misses · 6 puts" in result.output
    assert directory.is_dir()
    assert [path for path in directory.iterdir() if path.stat().st_size] == []


@pytest.mark.parametrize(
    ("output", "variable", "status", "said"),
    [
        ("nowhere/sheet.png", None, 1, "nowhere"),
        ("sheet.unknown", None, 2, "sheet.unknown"),
        ("sheet.png", "VLLM_MAX_VIDEO_DECODE_BYTES", 1, "VLLM_MAX_VIDEO_DECODE_BYTES"),
    ],
)
def test_what_goes_wrong_is_one_line(
    output: str, variable: str | None, status: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An output that can't be written, or a limit in the way: and one line says why."""
    small(monkeypatch)
    if variable:
        monkeypatch.setenv(variable, "1000")
    result = run("demo", "-o", str(tmp_path / output))
    assert result.exit_code == status
    assert result.stderr.startswith("mmmedia: ")
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_scene_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes twice, so that figures and docs made of them don't change."""
    small(monkeypatch)
    assert scene.photo() == scene.photo()
    assert scene.speech() == scene.speech()
    assert scene.clip() == scene.clip()


def test_the_sound_is_like_a_voice() -> None:
    """It has pauses, a pitch of a voice, and no clipping."""
    waveform, rate = soundfile.read(io.BytesIO(scene.speech()))
    assert rate == scene.SPEECH_RATE
    assert 0.7 < abs(waveform).max() < 0.9
    loud = np.abs(waveform).reshape(-1, rate // 50).max(axis=1)
    assert (loud < 0.01).sum() > 5
    vowel = waveform[int(0.1 * rate) : int(0.3 * rate)]
    echo = np.correlate(vowel, vowel, "full")[len(vowel) - 1 :]
    assert 80 < rate / (echo[50:400].argmax() + 50) < 200


def test_the_server_gives_what_it_has() -> None:
    """A file by its path, whatever the query; 404 for the rest; gone when the block ends."""
    import requests

    connection = HTTPConnection(reuse_client=False)
    with serve({"a.txt": Served("text/plain", b"hello")}) as address:
        assert connection.get_bytes(f"{address}/a.txt?again") == b"hello"
        with pytest.raises(requests.HTTPError):
            connection.get_bytes(f"{address}/b.txt")


def test_version_and_help() -> None:
    """`--version` names the version, and help names both commands."""
    assert run("--version").output == f"mmmedia {__version__}\n"
    assert all(command in run("--help").output for command in ("demo", "inspect"))
