"""Media in the workers of torch, of the standard library and of joblib: no warning, and the same frames."""

import subprocess
import sys
from pathlib import Path

import pytest

from support import workers_with_media
from support.clips import clip


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = []
    for number, codec in enumerate(("libx264", "libx265", "mpeg4", "libx264")):
        made.append(tmp_path / f"{number}.mp4")
        made[-1].write_bytes(clip(codec=codec, frames=20))
    return made


def run(way: str, paths: list[Path]) -> list[str]:
    command = [sys.executable, "-W", "error", workers_with_media.__file__, way, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_data_loader_of_two_workers(context, paths):
    """The parent has decoded before; what can't be decoded is named."""
    pytest.importorskip("torch")
    paths[1].write_bytes(b"nothing")
    lines = run(f"loader-{context}", paths)
    assert lines.pop(1).startswith("0 0 0 3 InvalidMediaError")
    assert lines == ["4 96 128 3 None"] * 3


def test_a_pool_of_processes_maps_the_method_of_a_connector(paths):
    assert run("pool-spawn", paths) == ["4 96 128 3 None"] * 4


def test_joblib_calls_the_method_of_a_connector(paths):
    pytest.importorskip("joblib")
    assert run("joblib", paths) == ["4 96 128 3 None"] * 4
