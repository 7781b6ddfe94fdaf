"""The front door reads of a long video what its frames need: of paths, of URLs, of objects of buckets."""

import asyncio
import functools
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

import mmmedia
from mmmedia.cli.report import InspectIO
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSparseError
from mmmedia.loading.kinds import AnyIO
from mmmedia.loading.load import aload_from, load_from
from mmmedia.sources import FileSource, FsspecSource
from support.clips import two_streams
from support.environment import importing
from support.layouts import FRAMES, long_clip, padded, rewrapped, write_huge
from support.server import Server, ranged
from support.sounds import encode, encode_av, sine

MIB = 1 << 20


@functools.cache
def film() -> bytes:
    return padded(long_clip())


@functools.cache
def song() -> bytes:
    """A sound of 9 MiB that could be a video by its first bytes."""
    return padded(encode_av(sine(440, 0.2, 48_000), 48_000, "mp4", "aac"))


def many(source: Any, **options: Any) -> Any:
    ((_, result),) = mmmedia.load_many([source], on_error="raise", **options)
    return result


async def amany(source: Any, **options: Any) -> Any:
    return await anext(
        result async for _, result in mmmedia.aload_many([source], on_error="raise", **options)
    )


def inspected(source: Any, **_: Any) -> Any:
    return load_from(source, InspectIO(), "a file")


async def ainspected(source: Any, **_: Any) -> Any:
    return await aload_from(source, InspectIO(), "a file")


def waited(load: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **options: asyncio.run(load(*args, **options))


LOADS: dict[str, Callable[..., Any]] = {
    "load_video": mmmedia.load_video, "aload_video": waited(mmmedia.aload_video),
    "load_many": many, "aload_many": waited(amany),
    "inspect": inspected, "ainspect": waited(ainspected),
}  # fmt: skip


@pytest.fixture(params=LOADS)
def load(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return LOADS[request.param]


def shown(result: Any) -> Any:
    return (
        result if isinstance(result, dict) else (result.frames.tobytes(), result.metadata, result.timestamps)
    )


def fetched(server: Server) -> int:
    asked = (re.findall(r"\d+", request.headers.get("Range", "")) for request in server.requests)
    return sum(int(last) + 1 - int(start) for start, last in asked)


def test_of_a_url_what_is_needed_is_fetched(load: Callable[..., Any], server: Server) -> None:
    assert shown(load(server.route("/a.mp4", ranged(film())), num_frames=4)) == shown(
        load(film(), num_frames=4)
    )
    assert 0 < fetched(server) < 0.2 * len(film())
    asked = [request.headers["Range"] for request in server.requests]
    assert len(set(asked)) == len(asked), "nothing is asked for twice"


def test_of_an_object_what_is_needed_is_read(
    load: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file("/clips/a.mp4", film())
    asked, plain = [0], FsspecSource.read

    def read(self: FsspecSource, ranges: Any) -> list[bytes]:
        asked[0] += sum(stop - start for start, stop in ranges)
        return plain(self, ranges)

    monkeypatch.setattr(FsspecSource, "read", read)
    assert shown(load("memory://clips/a.mp4", num_frames=4)) == shown(load(film(), num_frames=4))
    assert 0 < asked[0] < 0.2 * len(film())


_LOAD = """
import asyncio, functools, resource, sys
import mmmedia
from mmmedia.cli.report import InspectIO
from mmmedia.media import MediaConnector
from test_pieces import LOADS
name, small, large = sys.argv[1:]
def one(path, frames):
    if name == "open":
        connector = MediaConnector(allowed_local_media_path="/")
        media = connector.open(__import__("pathlib").Path(path).as_uri())
        assert media.modality == "video", media
        return media.load(num_frames=frames)
    return LOADS[name](path, num_frames=frames)
one(small, 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
one(large, 8)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", [*LOADS, "open"])
def test_a_file_of_four_gigabytes_takes_little_memory(name: str, tmp_path: Path) -> None:
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.write_bytes(long_clip())
    write_huge(large, long_clip(), (4 << 30) // FRAMES)
    assert large.stat().st_size > 4 << 30
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, name, str(small), str(large)],
        capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200


def environment() -> dict[str, str]:
    return {**os.environ, **importing()}


@pytest.mark.parametrize("stream", [None, 0, 1])
def test_of_several_streams_the_one_wanted(stream: int | None, server: Server, tmp_path: Path) -> None:
    """Of a file that is read as a whole for it, wherever it is."""
    data, path = padded(two_streams("mp4", default=1)), tmp_path / "a.mp4"
    path.write_bytes(data)
    wanted = mmmedia.load_video(data, num_frames=3, stream=stream)
    assert wanted.width == (64 if stream == 0 else 128)
    for source in (path, server.route("/a.mp4", ranged(data))):
        assert shown(mmmedia.load_video(source, num_frames=3, stream=stream)) == shown(wanted)


def test_a_stream_that_is_not_there(server: Server) -> None:
    url = server.route("/a.mp4", ranged(film()))
    assert mmmedia.load_video(url, num_frames=2, stream=0).width == 160
    assert fetched(server) < 0.2 * len(film())
    for stream in (1, True):
        with pytest.raises(InvalidArgumentError, match="one stream"):
            mmmedia.load_video(url, stream=stream)


def test_what_is_no_video_is_read_as_a_whole(server: Server, tmp_path: Path) -> None:
    """Sounds, pictures, and what is neither: by what the tables say, or all of it."""
    picture = io.BytesIO()
    Image.effect_noise((1800, 2400), 90).convert("RGB").save(picture, "PNG")
    sound = encode(sine(440, 1, 16_000), 16_000)
    files = {
        mmmedia.Audio: [song(), sound + bytes(9 * MIB)],
        Image.Image: [picture.getvalue()],
        mmmedia.Video: [
            padded(two_streams("mp4", default=1)),
            rewrapped(long_clip(), "mpegts") + bytes(9 * MIB),
        ],
    }
    for kind, found in files.items():
        for data in found:
            path = tmp_path / "file"
            path.write_bytes(data)
            assert len(data) > 8 * MIB
            for source in (path, server.route("/file", ranged(data))):
                assert isinstance(many(source), kind)
    with pytest.raises(InvalidMediaError):
        many(server.route("/file", ranged(b"no media" * (2 * MIB))))


def test_always_is_always(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And never never."""
    url = server.route("/a.mp4", ranged(long_clip()))
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "never")
    mmmedia.load_video(url, num_frames=2)
    many(url, num_frames=2)
    inspected(url)
    assert [request.headers.get("Range") for request in server.requests] == [None] * 3
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "always")
    many(url, num_frames=2)
    assert "Range" in server.requests[-1].headers
    inspected(url)
    other = tmp_path / "a.ts"
    other.write_bytes(rewrapped(long_clip(), "mpegts"))
    with pytest.raises(NotSparseError, match="container"):
        mmmedia.load_video(other)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """It can't be read in pieces."""
    code = "import sys, mmmedia; print(mmmedia.load_video('/dev/stdin', num_frames=2).width)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=long_clip(), capture_output=True, check=False, env=environment()
    )
    assert done.stdout.strip() == b"160", done.stderr.decode()


def test_any_io_reads_what_a_source_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path)
    media_io = AnyIO(
        mmmedia.ImageMediaIO(), mmmedia.loading.media_ios.VideoIO(), mmmedia.loading.media_ios.AudioIO()
    )
    with FileSource(path) as source:
        assert media_io.load_source(source).size == (8, 6)
