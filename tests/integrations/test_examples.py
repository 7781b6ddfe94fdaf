"""The examples for Ray and Daft: sixty clips, three of them broken, and a run that was interrupted."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.clips import clip

EXAMPLES = Path(__file__).parents[2] / "examples"
BROKEN = {"07.mp4": b"no clip", "23.mp4": clip(frames=40)[:2000], "42.mp4": b""}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(60):
        data = clip(frames=20, width=128 + 32 * (number % 3))
        (folder / f"{number:02}.mp4").write_bytes(BROKEN.get(f"{number:02}.mp4", data))
    return folder


def run(framework: str, clips: Path, out: Path) -> list[str]:
    command = [sys.executable, EXAMPLES / f"{framework}_thumbnails.py", clips, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "new," in line or line.startswith("  /")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", ["ray", "daft"])
def test_clips_become_thumbnails_and_the_broken_ones_are_named(framework, clips, tmp_path):
    if not find_spec(framework):
        pytest.skip(f"needs {framework}")
    import pyarrow.dataset

    out = tmp_path / "out"
    kept = [clips / f"{number:02}.mp4" for number in range(40, 60)]
    for path in kept:
        path.rename(tmp_path / path.name)
    first = run(framework, clips, out)
    assert first[0] == "40 new, 40 in all, 2 of them unreadable:"
    (out / "interrupted.parquet").write_bytes(b"PAR1 and no more")
    for path in kept:
        (tmp_path / path.name).rename(path)
    summary, *named = run(framework, clips, out)
    assert summary == "20 new, 60 in all, 3 of them unreadable:"
    assert [Path(line.split(":")[0].strip()).name for line in named] == sorted(BROKEN)
    table = pyarrow.dataset.dataset(out, format="parquet", exclude_invalid_files=True).to_table()
    rows = {Path(row["path"]).name: row for row in table.to_pylist()}
    assert rows["01.mp4"]["thumbnail"].startswith(b"\xff\xd8")
    assert (rows["01.mp4"]["frames"], rows["01.mp4"]["seconds"]) == (20, 0.8)
    assert not rows["07.mp4"]["thumbnail"]
