"""Sources through decode processes: what a worker asks for is read by its parent, and nothing else."""

import asyncio
import base64
import io
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia.errors import DecoderDiedError, LocalFileError, NotSparseError
from mmmedia.media import ImageMediaIO, MediaConnector, VideoMediaIO
from mmmedia.media.budget import MediaBudget
from mmmedia.media.isolated_sources import AskedSource, LentSource, known, known_by
from mmmedia.sources import BytesSource, FileSource, Window
from mmmedia.video import OpenCVVideoBackend
from mmmedia.work import isolated
from mmmedia.work.isolated.pool import Task
from mmmedia.work.isolated.wire import BrokenWireError
from support.layouts import LAYOUTS, Far, Near, laid_out, long_clip, padded, rewrapped
from support.server import Server, in_turn, ranged, stall
from support.sources import CountingSource
from support.waiting import wait_until

pytestmark = [
    pytest.mark.usefixtures("workers_end", "two_workers"),
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux"),
]


def asked(source: Any) -> tuple[LentSource, AskedSource]:
    """A source as a worker has it, whose parent is not far."""
    lent = LentSource(source)
    answers = {"read": lambda ranges: lent.read([*ranges]), "read_all": lent.read_all}
    there = AskedSource(lambda question, *values: answers[question](*values), lent.told())
    there.take(known(source))
    return lent, there


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [Near, Far])
def test_the_same_frames_of_the_same_bytes(
    layout: str, kind: type[Near], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layout that is read in pieces: what comes, and what is read for it."""
    found = []
    for processes in ("2", "0"):
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", processes)
        source = kind(laid_out(layout))
        video = VideoMediaIO(ImageMediaIO(), num_frames=3, fetch="always").load_source(source)
        found.append((video[0].tobytes(), video[1], video.original_bytes, source.asked))
    assert found[0][:3] == found[1][:3]
    assert found[0][3] == found[1][3] or kind is Near  # of which some is read twice, but for a worker
    assert 0 < source.fetched < source.size or kind is Near


def test_what_needs_all_bytes_reads_each_once_and_hands_them_on() -> None:
    data = padded(long_clip(), 9)
    source = CountingSource(data)
    video_io = VideoMediaIO(ImageMediaIO(), num_frames=-1)  # most of what is not padding
    video = video_io.load_source(CountingSource(long_clip()))
    assert video.original_bytes == long_clip()
    ranges = Window(source)
    ranges.need([(10, 5000), (9000, 9001)])
    lent, other = asked(source)
    window = Window(other)
    window.need([(100, 2000)])
    source.asked.clear()
    assert window.all() == data
    assert source.bytes_asked == len(data) - 1900
    assert source.whole is other.whole
    assert lent.told()["size"] == len(data)


def test_a_whole_that_comes_in_place_of_a_piece_is_taken() -> None:
    class Late(CountingSource):
        def read(self, ranges: Any) -> list[bytes]:
            self.whole = self.data
            return super().read(ranges)

    source = Late(bytes(range(200)))
    _, there = asked(source)
    window = Window(there)
    window.need([(5, 9)])
    assert (window.piece(100, 102), there.read_all()) == (b"de", source.data)
    assert source.reads == 1


def test_a_whole_that_is_there_is_not_asked_for() -> None:
    source = Near(long_clip())
    source.whole = long_clip()
    assert known_by(source) is None
    video = VideoMediaIO(ImageMediaIO(), num_frames=2, fetch="always").load_source(source)
    assert video.original_bytes == long_clip()
    assert source.asked == []


def test_what_files_without_a_validator_are_known_by() -> None:
    one, two = CountingSource(b"abc", validator=""), CountingSource(b"abd", validator="")
    assert known_by(one) == known_by(two)
    assert known_by(one) != known_by(CountingSource(b"abc", validator="", name="another"))
    assert known_by(CountingSource(b"abc")) != known_by(CountingSource(b"abc", validator='"v2"'))


@pytest.mark.parametrize(
    "ranges",
    [None, "ab", [1, 2], [(0, 5, 6)], [(5, 2)], [(-1, 4)], [(0, 101)], [(0, 10), (5, 20)], [("0", 5)]],
    ids=str,
)
def test_no_stretches_are_read_but_such_as_there_are(ranges: Any) -> None:
    source = CountingSource(bytes(100))
    with pytest.raises(BrokenWireError):
        LentSource(source).read(ranges)
    assert source.reads == 0


def test_no_worker_is_given_the_same_again_and_again() -> None:
    lent = LentSource(BytesSource(bytes(100)))
    for _ in range(3):
        lent.read([(0, 60), (60, 100)])
    lent.read_all()
    with pytest.raises(BrokenWireError, match="that it has"):
        lent.read([(0, 1)])
    with pytest.raises(BrokenWireError, match="that it has"):
        lent.read_all()


def test_errors_of_the_source_are_raised_as_they_are() -> None:
    class OwnError(Exception):
        pass

    class Failing(CountingSource):
        def read(self, ranges: Any) -> list[bytes]:
            if self.reads > 1:
                raise OwnError
            return super().read(ranges)

    before = sum(isolated.workers().ends.values())
    with pytest.raises(OwnError):
        VideoMediaIO(ImageMediaIO(), num_frames=2).load_source(Failing(padded(long_clip())))
    with pytest.raises(NotSparseError):
        VideoMediaIO(ImageMediaIO(), fetch="always").load_source(CountingSource(bytes(9 << 20)))
    assert sum(isolated.workers().ends.values()) == before


def test_a_server_that_waits_keeps_nobody_from_decoding(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where there is one process, and more wait than there are."""
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "1")
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(file, "PNG")
    film = padded(long_clip())
    urls = [server.route(f"/{n}.mp4", in_turn(ranged(film), stall())) for n in range(3)]

    async def main() -> None:
        connector = MediaConnector({"video": {"num_frames": 4}})
        loading = [asyncio.ensure_future(connector.fetch_video_async(url)) for url in urls]
        await asyncio.to_thread(server.wait_for, 6)
        picture = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        assert (await connector.fetch_image_async(picture)).size == (40, 30)
        assert not any(each.done() for each in loading)
        for each in loading:
            each.cancel()
        await asyncio.wait(loading)

    asyncio.run(main())
    pool = isolated.workers()
    wait_until(lambda: pool._away == 0 and pool.queue_length == 0)


def test_cancelled_requests_in_pieces_leave_the_queue(server: Server) -> None:
    pool = isolated.workers()
    url = server.route("/a.mp4", ranged(padded(long_clip())))
    sleeps = Task(
        "support.apart:sleep", "mmmedia.media.isolation:prepare", b"", modules=frozenset({"support.apart"})
    )

    async def main() -> None:
        loading = asyncio.ensure_future(MediaConnector({"video": {"num_frames": 4}}).fetch_video_async(url))
        while pool.queue_length < 1:
            await asyncio.sleep(0.01)
        loading.cancel()
        while pool.queue_length:
            await asyncio.sleep(0.01)

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(pool.run, sleeps) for _ in range(2)]
        wait_until(lambda: pool.alive == 2 and not pool._idle)
        asyncio.run(main())
        assert not any(each.done() for each in running)
        isolated.shutdown()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("num_frames", [4, -1])
def test_large_files_are_read_by_the_worker(
    container: str, num_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces, or whole where that is needed; by who calls only for the bytes of the result."""
    path = tmp_path / "a.mp4"
    clip = long_clip() if container == "mp4" else rewrapped(long_clip(), container)
    path.write_bytes(padded(clip) if container == "mp4" else clip)
    video_io = VideoMediaIO(ImageMediaIO(), num_frames=num_frames, fetch="auto")
    monkeypatch.setattr(VideoMediaIO, "smallest_source", 0)
    read, total = FileSource.read, []

    def counted(self: FileSource, ranges: Any) -> list[bytes]:
        total.extend(ranges)
        return read(self, ranges)

    monkeypatch.setattr(FileSource, "read", counted)
    url = path.as_uri()
    apart = video_io.load_file(path)
    assert total == (
        [] if apart.original_bytes.startswith(b"mmmedia-source:") else [(0, path.stat().st_size)]
    )
    by_url = MediaConnector(allowed_local_media_path=str(tmp_path)).load_from_url(url, video_io)
    budget = MediaBudget(max_download_bytes=1 << 30)
    charged = MediaConnector(allowed_local_media_path=str(tmp_path), budget=budget)
    by_asking = charged.load_from_url(url, video_io)
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
    here = video_io.load_file(path)
    for each in (apart, by_url, by_asking):
        assert np.array_equal(each[0], here[0])
        assert each[1] == here[1]
        assert each.original_bytes[:15] == here.original_bytes[:15]
    assert apart.original_bytes == here.original_bytes
    assert budget.download.used > 0
    assert isolated.workers().ends["lie"] == 0


def test_a_file_that_changes_under_the_worker_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(padded(long_clip()))

    class Changing(OpenCVVideoBackend):
        @classmethod
        def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
            with path.open("ab") as file:
                file.write(b"more")
            return [0, 100]

    video_io = VideoMediaIO(ImageMediaIO())
    video_io.video_loader = Changing()
    with pytest.raises(LocalFileError, match="changed while it was read"):
        video_io.load_file(path)


def test_a_source_that_ended_two_workers_is_not_tried_a_third_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = isolated.workers()
    source = CountingSource(padded(long_clip()))
    killer = Task(
        "support.killers:decode", "mmmedia.media.isolation:prepare", b"segv", known_by=known_by(source),
        modules=frozenset({"support.killers"}),
    )  # fmt: skip
    for _ in range(2):
        with pytest.raises(DecoderDiedError, match="SIGSEGV"):
            pool.run(killer)
    with pytest.raises(DecoderDiedError, match="ended two decode processes"):
        VideoMediaIO(ImageMediaIO()).load_source(source)
    assert source.reads == 0
