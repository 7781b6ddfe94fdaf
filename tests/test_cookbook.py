"""The recipes of `docs/cookbook.md`, as they stand there but for names of files and numbers of processes.

And the blocks of the README, but for those that are doctests.
"""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mmmedia
from mmmedia.video import OpenCVVideoBackend
from support import needs
from support.clips import clip
from support.server import reply

PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"
README = PAGE.parents[1] / "README.md"
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
RECIPES = {
    heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for heading, text in SECTION.findall(PAGE.read_text())
}
CLIP = clip(frames=40)
HOME = str(Path.home())
FEWER = {"num_workers=8": "num_workers=2", "n_jobs=8": "n_jobs=2", "Pool(8)": "Pool(2)"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Runs a recipe in a directory with the clips a.mp4 and b.mp4, and returns its names."""
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(CLIP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(heading: str, replaced: dict[str, str] | None = None, **names: Any) -> dict[str, Any]:
        (recipe,) = RECIPES[heading]
        for found, instead in (replaced or {}).items():
            assert found in recipe
            recipe = recipe.replace(found, instead)
        for found, instead in FEWER.items():
            recipe = recipe.replace(found, instead)
        names = {"mm": mmmedia, "__name__": "__main__", **names}
        exec(compile(recipe, heading, "exec"), names)
        return names

    return run


def test_the_blocks_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    notebook, bucket = (block for block in blocks if ">>>" not in block)
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    (tmp_path / "urls.txt").write_text("clip.mp4\nnone.mp4\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(notebook, names)
    assert names["frames"].shape == (12, 96, 128, 3)
    assert names["video"]._repr_html_().count("<img") == 1
    exec(bucket, names)
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("none.mp4 ")


def test_every_recipe_is_run_here() -> None:
    source = Path(__file__).read_text()
    # The recipe for buckets is one line, which tests/media/test_sparse_objects.py tries with a real S3 API.
    left = {heading for heading in RECIPES if f'run("{heading}"' not in source}
    assert left == {"Objects of a bucket"}


def test_a_column_of_a_data_frame(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """Also where one of them can't be read."""
    pytest.importorskip("pandas")
    (tmp_path / "b.mp4").write_bytes(b"no clip")
    table = run("A column of a DataFrame")["table"]
    assert table["video"][0].frames.shape == (8, 96, 128, 3)
    assert isinstance(table["video"][1], mmmedia.errors.InvalidMediaError)
    assert table["seconds"].fillna(0).tolist() == [1.6, 0]


def test_fastapi(run: Callable[..., dict[str, Any]], server: Any) -> None:
    fastapi = pytest.importorskip("fastapi", reason="needs fastapi: nox -s ray")
    frames = run("FastAPI")["frames"]
    url, broken = server.route("/clip.mp4", reply(CLIP)), server.route("/broken.mp4", reply(b"no clip"))

    async def both() -> dict[str, Any]:
        with pytest.raises(fastapi.HTTPException) as refused:
            await frames(broken)
        assert refused.value.status_code == 422
        return await frames(url)

    answer = asyncio.run(both())
    assert answer["shape"] == (8, 96, 128, 3)
    assert json.loads(json.dumps(answer))["total_num_frames"] == 40


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # those of Ray itself
def test_ray_data(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs ray: nox -s ray")
    import pyarrow.parquet

    monkeypatch.setenv("HOME", HOME)  # Ray keeps the key of this machine's clusters there
    (tmp_path / "urls.txt").write_text(f"{tmp_path}/a.mp4\n{tmp_path}/none.mp4\n")
    with needs.ray_cluster(4):
        run("Ray Data", {"s3://bucket/urls.txt": f"{tmp_path}/urls.txt", "s3://bucket": str(tmp_path)})
    rows = pyarrow.parquet.read_table(tmp_path / "frames").to_pylist()
    errors = sorted(row["error"] or "" for row in rows)
    assert errors[0] == ""
    assert "none.mp4" in errors[1]
    assert [row["metadata"]["total_num_frames"] for row in rows if not row["error"]] == [40]


def test_a_data_loader(run: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("torch")
    batches = list(run("datasets and DataLoader", paths=["a.mp4", "b.mp4"])["loader"])
    assert [tuple(batch.shape) for batch in batches] == [(2, 16, 224, 224, 3)]


def test_joblib_and_multiprocessing(run: Callable[..., dict[str, Any]]) -> None:
    pytest.importorskip("joblib")
    from mmmedia.batch import Decoder

    found = run("joblib, multiprocessing", paths=["a.mp4", "b.mp4"], Decoder=Decoder)
    assert [row.media.shape for row in found["rows"]] == [(8, 96, 128, 3)] * 2
    assert [len(video.frames) for video in found["videos"]] == [32, 32]


def test_any_other_framework(run: Callable[..., dict[str, Any]], server: Any) -> None:
    from mmmedia.batch import Decoder

    url = server.route("/a.mp4", reply(CLIP))
    local = {"https://cdn.example.org/a.mp4": url, "cdn.example.org": "127.0.0.1"}
    found = run("Any other framework", local, Decoder=Decoder)
    assert found["error"] is None
    assert len(found["frames"]) == len(found["metadata"]["frames_indices"]) > 0


def test_a_file_that_a_downloader_saved(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    """VP9 and Opus in WebM, its name with a blank and brackets."""
    folder = tmp_path / "Downloads"
    folder.mkdir()
    data = clip(codec="libvpx-vp9", container="webm", rate=2, frames=260, audio=True, sound_seconds=130)
    (folder / "talk [x1].webm").write_bytes(data)
    found = run("A file that a downloader saved")
    indices = found["video"].metadata["frames_indices"]
    assert (indices[0], len(indices)) == (120, 30)
    expected, _ = OpenCVVideoBackend.load_bytes(data, num_frames=-1)
    assert np.array_equal(found["video"].frames, expected[indices])
    assert found["sound"].sampling_rate == 16_000
    assert found["sound"].duration == pytest.approx(60)
