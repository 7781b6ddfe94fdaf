"""Objects of stores are read in pieces: of fsspec's memory, and of a real S3 API where there is one."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from mmmedia.errors import LimitExceededError, RemoteFileNotFoundError, SourceChangedError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.media.budget import MediaBudget
from mmmedia.media.fsspec_connector import FsspecConnector
from mmmedia.sources import FsspecSource
from support.layouts import long_clip, padded
from support.server import Server, ranged

HAS_S3 = all(importlib.util.find_spec(name) for name in ("moto", "s3fs", "flask"))


def film() -> bytes:
    return padded(long_clip())


def shown(video: Any) -> tuple[bytes, dict[str, Any]]:
    frames, metadata = video
    return frames.tobytes(), metadata


def reference() -> tuple[bytes, dict[str, Any]]:
    return shown(VideoMediaIO(ImageMediaIO(), num_frames=4).load_bytes(film()))


def fetch(half: str, url: str, **how: Any) -> Any:
    connector = FsspecConnector({"video": {"num_frames": 4}}, allowed_buckets=["memory://*", "s3://*"], **how)
    if half == "sync":
        return connector.fetch_video(url)
    return asyncio.run(connector.fetch_video_async(url))


@pytest.fixture
def url() -> str:
    fsspec.filesystem("memory").pipe_file("/clips/film.mp4", film())
    return "memory://clips/film.mp4"


@pytest.mark.parametrize("half", ["sync", "async"])
def test_an_object_is_read_in_pieces(half: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = MediaBudget(max_download_bytes=4 << 20)
    video = fetch(half, url, budget=budget)
    assert shown(video) == reference()
    assert 0 < budget.download.used < 2 << 20
    assert video.original_bytes.startswith(b"mmmedia-source:")
    monkeypatch.setenv("VLLM_MAX_MEDIA_SOURCE_SIZE_MB", "5")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_SOURCE_SIZE_MB"):
        fetch(half, url)
    with pytest.raises(RemoteFileNotFoundError):
        fetch(half, "memory://clips/none.mp4")


@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_small_object_is_read_whole(half: str) -> None:
    fsspec.filesystem("memory").pipe_file("/clips/small.mp4", long_clip())
    assert fetch(half, "memory://clips/small.mp4").original_bytes == long_clip()


@pytest.mark.parametrize("half", ["sync", "async"])
def test_an_object_that_changes_is_begun_anew_once(
    half: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, left = FsspecSource.read, [1]

    def read(self: FsspecSource, ranges: Any) -> list[bytes]:
        if left[0]:
            left[0] -= 1
            raise SourceChangedError.of(self.name)
        return real(self, ranges)

    monkeypatch.setattr(FsspecSource, "read", read)
    assert shown(fetch(half, url)) == reference()
    left[0] = 2
    with pytest.raises(SourceChangedError):
        fetch(half, url)


@pytest.mark.parametrize("half", ["sync", "async"])
def test_http_is_fetched_in_pieces_by_this_connector_too(half: str, server: Server) -> None:
    video = fetch(half, server.route("/a.mp4", ranged(film())))
    assert shown(video) == reference()
    assert all("Range" in request.headers for request in server.requests)


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("mode", ["auto", "never"])
def test_progress_is_told_of_objects_too(
    half: str, mode: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of pieces, and of a whole; bytes that have come, and how many there are."""
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", mode)
    told: list[tuple[int, int | None]] = []
    fetch(half, url, on_progress=lambda *now: told.append(now))
    assert len(told) > 1
    assert told == sorted(set(told))
    assert {total for _, total in told} == {len(film())}
    assert (told[-1][0] == len(film())) == (mode == "never")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A filesystem over a real S3 API on loopback, in another process."""
    serve = (
        "from moto.server import ThreadedMotoServer; import sys, json\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
        "print(json.dumps(server.get_host_and_port()), flush=True); sys.stdin.read(); server.stop()"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", serve],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        host, port = json.loads(process.stdout.readline())
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield fsspec.filesystem("s3")
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


@pytest.mark.skipif(not HAS_S3, reason="needs moto[server] and s3fs: nox -s s3")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("half", ["sync", "async"])
def test_a_real_s3_gives_pieces(half: str, s3: Any) -> None:
    """By its ETags; and an object that is written anew meanwhile is never mixed with the old."""
    s3.mkdir("clips")
    s3.pipe_file("clips/film.mp4", film())
    budget = MediaBudget(max_download_bytes=4 << 20)
    video = fetch(half, "s3://clips/film.mp4", budget=budget)
    assert shown(video) == reference()
    assert budget.download.used < 2 << 20
    source = FsspecSource(s3, "clips/film.mp4", name="s3://clips/film.mp4")
    assert source.read([(5, 9), (400_000, 400_100)]) == [film()[5:9], film()[400_000:400_100]]
    s3.pipe_file("clips/film.mp4", film()[:-1] + b"\1")
    with pytest.raises(SourceChangedError):
        source.read([(5, 9)])
    with pytest.raises(RemoteFileNotFoundError):
        fetch(half, "s3://clips/none.mp4")
