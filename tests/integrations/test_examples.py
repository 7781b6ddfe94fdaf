"""The examples: Ray and Daft with sixty clips, three of them broken; a server under uvicorn."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.clips import clip
from support.server import reply

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


# Under uvicorn.


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def asked(port: int, **query: object) -> tuple[int, dict]:
    url = f"http://127.0.0.1:{port}/frames?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(600):
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("uvicorn does not listen")


def test_a_server_of_two_workers_ends_without_a_word(server, tmp_path):
    for package in ("uvicorn", "fastapi"):
        if not find_spec(package):
            pytest.skip(f"needs {package}")
    clip_url = server.route("/clip.mp4", reply(clip(frames=20)))
    broken_url = server.route("/broken.mp4", reply(b"no clip"))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", EXAMPLES, "fastapi_app:app"]
    command += ["--workers", "2", "--port", str(port), "--timeout-graceful-shutdown", "30"]
    environment = {**os.environ, "MMMEDIA_MEDIA_LOADING_THREAD_COUNT": "2"}
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            wait_for(port, process)
            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(lambda _: asked(port, url=clip_url, count=4), range(20)))
            assert {status for status, _ in answers} == {200}
            assert answers[0][1]["frames_indices"] == [0, 6, 12, 19]
            assert all(base64.b64decode(jpeg).startswith(b"\xff\xd8") for jpeg in answers[0][1]["jpegs"])
            status, answer = asked(port, url=broken_url)
            assert status == 422
            assert "media container" in answer["error"]
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
        log.seek(0)
        said = log.read()
    assert "Finished server process" in said
    assert not [line for line in said.splitlines() if not line.startswith("INFO:")]
