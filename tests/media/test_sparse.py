"""The connector fetches of a video what its frames need: by both halves, whatever the server does."""

import asyncio
import functools
import gc
import os
import re
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmmedia import metrics
from mmmedia.cli.raw import RawMediaIO
from mmmedia.connections import HTTPConnection, http_status
from mmmedia.connections.ranges import FIRST_BYTES
from mmmedia.errors import LimitExceededError, NotSparseError, SourceChangedError
from mmmedia.media import ImageMediaIO, MediaConnector, MediaWithBytes, VideoMediaIO
from mmmedia.media.budget import MediaBudget
from mmmedia.media.sparse import Limited, _OnLoop
from mmmedia.sources import BytesSource
from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.loaders import VIDEO_LOADER_REGISTRY
from support.halves import HALVES, half_of
from support.layouts import long_clip, padded, rewrapped
from support.server import Behaviour, Request, Server, in_turn, ranged, redirect, reply, stall

pytestmark = pytest.mark.usefixtures("workers_end")


@functools.cache
def film() -> bytes:
    """A clip of which pieces are worth fetching."""
    return padded(long_clip())


def shown(video: MediaWithBytes[Any]) -> tuple[bytes, dict[str, Any]]:
    frames, metadata = video
    return frames.tobytes(), metadata


@functools.cache
def reference(num_frames: int = 4) -> tuple[bytes, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
        return shown(VideoMediaIO(ImageMediaIO(), num_frames=num_frames).load_bytes(film()))


class Half:
    """One half of a connector with a connection of its own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, url: str, *, how: dict[str, Any] | None = None, **kwargs: Any) -> MediaWithBytes[Any]:
        connection = HTTPConnection()
        kwargs = {"num_frames": 4, **kwargs}
        connector = MediaConnector({"video": kwargs}, connection, **(how or {}))
        try:
            if self.name == "sync":
                return connector.fetch_video(url)
            return asyncio.run(connector.fetch_video_async(url))
        finally:
            connection.close()


@pytest.fixture(params=HALVES)
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Half:
    return Half(half_of(request.param, monkeypatch))


in_this_process = pytest.mark.parametrize("half", ["sync", "async"], indirect=True)
"""For what is replaced here, or in no module of its own."""


def fetched(server: Server) -> int:
    """How many bytes were asked for, of requests for pieces."""
    asked = (re.findall(r"\d+", request.headers.get("Range", "")) for request in server.requests)
    return sum(int(last) + 1 - int(start) for start, last in asked)


def test_a_video_is_fetched_in_pieces(half: Half, server: Server) -> None:
    video = half(server.route("/a.mp4", ranged(film())))
    assert shown(video) == reference()
    assert fetched(server) < 0.2 * len(film())
    assert all("Range" in request.headers for request in server.requests)
    assert video.original_bytes.startswith(b"mmmedia-source:")
    assert shown(half(server.route("/b.mp4", reply(film())))) == reference()
    assert server.count("/b.mp4") == 1


def test_a_part_of_a_long_one_takes_a_part_of_the_bytes(half: Half, server: Server) -> None:
    whole = VideoMediaIO(ImageMediaIO(), num_frames=4, start=3.0, end=4.0).load_bytes(film())
    video = half(server.route("/a.mp4", ranged(film())), start=3.0, end=4.0)
    assert shown(video) == shown(whole)
    assert video[1]["frames_indices"][0] == 90
    assert fetched(server) < 0.12 * len(film())


def test_what_is_small_is_fetched_whole(half: Half, server: Server) -> None:
    """In two requests, of which the second asks for the rest; with "always" in pieces too."""
    url = server.route("/a.mp4", ranged(long_clip()))
    video = half(url)
    assert shown(video) == reference()
    assert video.original_bytes == long_clip()
    assert [request.headers["Range"] for request in server.requests] == [
        f"bytes=0-{FIRST_BYTES - 1}",
        f"bytes={FIRST_BYTES}-{len(long_clip()) - 1}",
    ]
    assert shown(half(url, fetch="always")) == reference()


def test_never_is_never(half: Half, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """By keyword, by setting, where frames are read one after the other, and where others' rules hold."""
    url = server.route("/a.mp4", ranged(film()))
    half(url, fetch="never")
    half(url, decode="sequential")
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "never")
    half(url)
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "auto")
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    half(url)
    assert [request.headers.get("Range") for request in server.requests] == [None] * 4


def test_always_raises_where_it_can_not(half: Half, server: Server) -> None:
    url = server.route("/a.ts", ranged(rewrapped(long_clip(), "mpegts")))
    with pytest.raises(NotSparseError, match="container") as caught:
        half(url, fetch="always")
    assert http_status(caught.value) == 422


def test_what_can_not_be_read_in_pieces_is_fetched_to_its_end(half: Half, server: Server) -> None:
    """Nothing is asked for twice."""
    data = rewrapped(long_clip(), "mpegts")
    data += bytes(-len(data) % 188)
    data += (b"\x47\x1f\xff\x10" + b"\xff" * 184) * ((9 << 20) // 188)
    video = half(server.route("/a.ts", ranged(data)))
    assert shown(video) == shown(VideoMediaIO(ImageMediaIO(), num_frames=4).load_bytes(data))
    assert video.original_bytes == data
    assert fetched(server) == len(data)


def other(etag: str = '"two"') -> Behaviour:
    return ranged(film()[:-1] + b"\1", validators={"ETag": etag})


def ignoring(then: Behaviour) -> Behaviour:
    """Answers for what it has, whatever the condition."""

    def behave(request: Request) -> None:
        request.headers.pop("If-Range", None)
        then(request)

    return behave


def test_who_takes_no_pieces_shares_what_was_begun(server: Server) -> None:
    """It reads them all."""
    url = server.route("/a.mp4", ranged(film()))
    connector = MediaConnector({"video": {"num_frames": 4}}, HTTPConnection())

    async def both() -> tuple[Any, Any]:
        return await asyncio.gather(
            connector.fetch_video_async(url), connector.load_from_url_async(url, RawMediaIO())
        )

    video, raw = asyncio.run(both())
    assert shown(video) == reference()
    assert raw == film()


def test_what_changes_is_begun_anew_once(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", in_turn(ranged(film()), ignoring(other())))
    video = half(url)
    assert shown(video) == reference()
    assert [request.headers["Range"] for request in server.requests].count(f"bytes=0-{FIRST_BYTES - 1}") == 2
    numbers = iter(range(1000))

    def restless(request: Request) -> None:
        request.headers.pop("If-Range", None)
        ranged(film(), validators={"ETag": f'"{next(numbers)}"'})(request)

    with pytest.raises(SourceChangedError) as caught:
        half(server.route("/b.mp4", restless))
    assert http_status(caught.value) == 503


def test_a_whole_that_comes_late_is_taken(half: Half, server: Server) -> None:
    """The same thing, or another that took its place."""
    for later in (reply(film(), headers={"ETag": '"one"'}), other()):
        url = server.route("/a.mp4", in_turn(ranged(film()), later))
        before = server.count()
        video = half(url)
        assert shown(video) == reference()
        assert len(video.original_bytes) == len(film())
        assert server.count() - before <= 7


def test_redirects_and_errors_are_as_of_any_download(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", redirect("/b.mp4"))
    server.route("/b.mp4", ranged(film()))
    assert shown(half(url)) == reference()
    assert server.count("/a.mp4") == 1
    for status, seen in ((404, 422), (403, 422)):
        for behaviour in (reply(status=status), in_turn(ranged(film()), reply(status=status))):
            with pytest.raises(ValueError, match=str(status)) as caught:
                half(server.route("/c.mp4", behaviour))
            assert http_status(caught.value) == seen
    with pytest.raises(ValueError, match="redirect"):
        half(server.route("/d.mp4", in_turn(ranged(film()), redirect("ftp://127.0.0.1/redirect"))))


def test_limits_count_what_is_fetched(half: Half, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than a download may be is read in pieces; more than that is not fetched of it."""
    url = server.route("/a.mp4", ranged(film()))
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "3")
    assert shown(half(url)) == reference()
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    before = fetched(server)
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB") as caught:
        half(url, num_frames=30)
    assert http_status(caught.value) == 422
    assert fetched(server) - before <= 1 << 20
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "3")
    monkeypatch.setenv("VLLM_MAX_MEDIA_SOURCE_SIZE_MB", "5")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_SOURCE_SIZE_MB"):
        half(url)


def test_budgets_are_charged_with_what_is_fetched(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", ranged(film()))
    budget = MediaBudget(max_download_bytes=8 << 20)
    half(url, how={"budget": budget})
    assert budget.download.used == fetched(server)
    with pytest.raises(LimitExceededError, match="MediaBudget"):
        half(url, how={"budget": MediaBudget(max_download_bytes=400_000)})
    late = in_turn(ranged(film()), reply(film(), headers={"ETag": '"one"'}))
    budget = MediaBudget(max_download_bytes=20 << 20)
    half(server.route("/b.mp4", late), how={"budget": budget})
    assert budget.download.used == len(film())


def test_many_who_ask_at_once_begin_once(server: Server) -> None:
    """The first piece is fetched once; each then fetches what it needs."""
    url = server.route("/a.mp4", ranged(film()))
    connection = HTTPConnection()

    async def run() -> list[MediaWithBytes[Any]]:
        connectors = [MediaConnector({"video": {"num_frames": n}}, connection) for n in (2, 3, 4)]
        return await asyncio.gather(*(each.fetch_video_async(url) for each in connectors))

    for count, video in zip((2, 3, 4), asyncio.run(run()), strict=True):
        assert shown(video) == reference(count)
    first = [r for r in server.requests if r.headers["Range"] == f"bytes=0-{FIRST_BYTES - 1}"]
    assert len(first) == 1


@in_this_process
def test_only_what_was_read_whole_is_cached(
    half: Half, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And expired entries are asked about as ever."""
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    url = server.route("/a.mp4", ranged(film()))
    half(url, num_frames=2)
    assert MediaConnector()._get_cached_bytes(url) is None
    monkeypatch.setattr("mmmedia.video.piecewise.reading.LARGEST_PART", 0.0)
    half(url, num_frames=2)
    assert MediaConnector()._get_cached_bytes(url) == film()
    before = server.count()
    assert shown(half(url)) == reference()
    assert server.count() == before
    monkeypatch.setenv("VLLM_MEDIA_CACHE_REVALIDATE", "1")
    half(server.route("/b.mp4", ranged(film())))
    assert "Range" not in server.requests[-1].headers


def test_files_are_read_in_pieces(half: Half, tmp_path: Path) -> None:
    """Of those that file URLs name, and paths; a file that is no file is the error that it was."""
    path = tmp_path / "a film.mp4"
    path.write_bytes(film())
    budget = MediaBudget(max_download_bytes=2 << 20)
    how = {"allowed_local_media_path": tmp_path, "budget": budget}
    video = half(path.as_uri(), how=how)
    assert shown(video) == reference()
    assert 0 < budget.download.used < 2 << 20
    assert video.original_bytes.startswith(b"mmmedia-source:")
    media_io = VideoMediaIO(ImageMediaIO(), num_frames=4)
    assert shown(media_io.load_file(path)) == reference()
    small = tmp_path / "small.mp4"
    small.write_bytes(long_clip())
    assert media_io.load_file(small).original_bytes == long_clip()
    with pytest.raises(OSError, match="directory"):
        media_io.load_file(tmp_path)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(long_clip(),))
    writer.start()
    assert media_io.load_file(fifo).original_bytes == long_clip()
    writer.join()
    never = VideoMediaIO(ImageMediaIO(), num_frames=4, fetch="never")
    assert never.load_file(path).original_bytes == film()


@in_this_process
def test_a_loader_that_needs_all_bytes_gets_them(half: Half, server: Server) -> None:
    class Own(OpenCVVideoBackend):
        @classmethod
        def load_bytes(cls, data: bytes, num_frames: int | None = -1, **kwargs: Any) -> Any:
            assert isinstance(data, bytes)
            return super().load_bytes(data, num_frames, **kwargs)

    VIDEO_LOADER_REGISTRY.register("needs_all_bytes")(Own)
    url = server.route("/a.mp4", ranged(film()))
    video = half(url, video_backend="needs_all_bytes")
    assert shown(video) == reference()
    assert "Range" not in server.requests[-1].headers
    with pytest.raises(NotSparseError, match="takes no sources"):
        half(url, video_backend="needs_all_bytes", fetch="always")
    media_io = VideoMediaIO(ImageMediaIO(), num_frames=4, video_backend="needs_all_bytes")
    assert media_io.load_source(BytesSource(film())).original_bytes == film()


def test_pictures_are_fetched_as_ever(server: Server) -> None:
    with pytest.raises(ValueError, match=r"."):
        MediaConnector().fetch_image(server.route("/a.png", ranged(b"no picture")))
    assert "Range" not in server.requests[0].headers


def test_cancelling_ends_the_pieces_and_frees_the_thread(server: Server) -> None:
    url = server.route("/a.mp4", in_turn(ranged(film()), stall()))

    async def run() -> None:
        loading = asyncio.ensure_future(MediaConnector({"video": {"num_frames": 4}}).fetch_video_async(url))
        await asyncio.to_thread(server.wait_for, 2)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading

    asyncio.run(run())
    gc.collect()


def test_a_thread_does_not_wait_for_a_loop_that_is_closed() -> None:
    class Stuck(BytesSource):
        async def aread(self, ranges: Any) -> list[bytes]:
            await asyncio.sleep(3600)
            return []

    loop = asyncio.new_event_loop()
    bridge = _OnLoop(Stuck(b"abc"), loop)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            bridge.read([(0, 1)])
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    loop.run_until_complete(asyncio.sleep(0.05))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    thread.join(20)
    assert not thread.is_alive()
    assert isinstance(raised[0], CancelledError)
    with pytest.raises(CancelledError):
        bridge.read([(0, 1)])
    bridge.stop()
    with pytest.raises(CancelledError):
        bridge.read([(0, 1)])


def test_what_a_request_may_read_is_limited() -> None:
    charged: list[int] = []
    limited = Limited(BytesSource(bytes(100), name="a"), charged.append, 50)
    assert limited.read([(0, 10), (20, 30)]) == [bytes(10)] * 2
    with pytest.raises(LimitExceededError, match="more than 50 bytes"):
        limited.read([(0, 31)])
    assert (charged, limited.fetched) == ([0, 20], 20)
    limited.whole = bytes(100)
    assert limited.whole is not None


def test_saved_bytes_are_counted(server: Server) -> None:
    registry = pytest.importorskip("prometheus_client").REGISTRY
    assert metrics.register()

    def counted(name: str) -> float:
        return float(registry.get_sample_value(name) or 0.0)

    before = counted("mmmedia_bytes_saved_total"), counted("mmmedia_pieces_total")
    Half("sync")(server.route("/a.mp4", ranged(film())))
    saved = counted("mmmedia_bytes_saved_total") - before[0]
    assert saved == len(film()) - fetched(server)
    assert counted("mmmedia_pieces_total") - before[1] == server.count() - 1


def test_the_same_thing_has_the_same_name(half: Half, server: Server) -> None:
    """What engines look into their caches with is that of the URL, its validator and size."""
    url = server.route("/a.mp4", ranged(film()))
    one, again = half(url), half(url, num_frames=2)
    assert one.original_bytes == again.original_bytes
    server.route("/a.mp4", other())
    assert half(url).original_bytes != one.original_bytes
    assert np.array_equal(half(url)[0], one[0])


def test_blocks_of_what_was_read_are_cached(
    half: Half, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants other frames fetches what is missing; of the same frames, the first piece alone."""
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    url = server.route("/a.mp4", ranged(film()))
    assert shown(half(url)) == reference()
    first = fetched(server)
    assert shown(half(url)) == reference()
    again = fetched(server) - first
    assert again == FIRST_BYTES
    assert shown(half(url, num_frames=7)) == reference(7)
    more = fetched(server) - first - again
    assert FIRST_BYTES < more < first + (1 << 20)
    spans = [tuple(map(int, re.findall(r"\d+", each.headers["Range"]))) for each in server.requests]
    later = [span for span in spans if span[0] >= FIRST_BYTES]
    assert len(set(later)) == len(later)
    server.route("/a.mp4", other())
    assert shown(half(url)) == reference()


@pytest.mark.parametrize("on_loop", [False, True])
def test_a_handle_reads_pieces_when_it_is_asked(on_loop: bool, server: Server) -> None:
    """Its name is that of the source, and no bytes'; it decodes once for all who ask for the same."""
    url = server.route("/a.mp4", ranged(film()))
    connection = HTTPConnection()
    connector = MediaConnector({"video": {"num_frames": 4}}, connection)

    async def run() -> Any:
        media = await connector.open_async(url, "video")
        return media, await media.load_async()

    if on_loop:
        media, video = asyncio.run(run())
    else:
        media = connector.open(url, "video")
        assert server.count() == 1
        video = media.load()
    assert shown(video) == reference()
    assert (media.content_hash_of, media.size) == ("source", len(film()))
    assert media.content_hash.startswith("source-")
    before = server.count()
    assert shown(media.load()) == reference()
    assert server.count() == before
    assert shown(media.load(num_frames=7)) == reference(7)
    connection.close()


def test_progress_tells_of_what_is_fetched(half: Half, server: Server) -> None:
    told: list[tuple[int, int | None]] = []

    def on_progress(done: int, total: int | None) -> None:
        told.append((done, total))

    half(server.route("/a.mp4", ranged(film())), how={"on_progress": on_progress})
    assert told[0] == (FIRST_BYTES, len(film()))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (fetched(server), len(film()))
    told.clear()
    half(server.route("/b.mp4", reply(film())), how={"on_progress": on_progress})
    assert told[-1] == (len(film()), len(film()))


def test_what_was_decoded_is_not_read_again(
    half: Half, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "64")
    url = server.route("/a.mp4", ranged(film()))
    one = half(url)
    before = server.count()
    again = half(url)
    assert shown(one) == shown(again) == reference()
    assert server.count() == before + 1
    again[0][:] = 0
    assert shown(half(url)) == reference()
