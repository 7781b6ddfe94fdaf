"""What was fetched in pieces is kept, shared and named: sparse fetching with the caches and with handles."""

import asyncio
import functools
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia import content_hash
from mmmedia.cache import BlockCacheSource, MediaCache, get_media_cache
from mmmedia.cache.partial import blocks_of
from mmmedia.connections import HTTPConnection, http_status
from mmmedia.connections.ranges import FIRST_BYTES
from mmmedia.errors import LimitExceededError, SourceChangedError
from mmmedia.media import ImageMediaIO, Media, MediaConnector, VideoMediaIO, decoded
from mmmedia.media.budget import MediaBudget
from mmmedia.sources import BytesSource
from support.halves import HALVES, half_of
from support.layouts import laid_out, long_clip, padded
from support.server import Server, in_turn, ranged, reply
from support.sounds import encode_av, sine

pytestmark = pytest.mark.usefixtures("workers_end")


@functools.cache
def film() -> bytes:
    return padded(long_clip())


@functools.cache
def reference(**kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMMEDIA_DECODE_PROCESSES", "0")
        frames, metadata = VideoMediaIO(ImageMediaIO(), **kwargs).load_bytes(film())
    return frames, metadata


class Half:
    """One half of a connector, with a connection of its own."""

    def __init__(self, name: str) -> None:
        self.name = name

    def fetch(self, url: str, connector: MediaConnector | None = None, **kwargs: Any) -> Any:
        connector = connector or MediaConnector({"video": kwargs}, HTTPConnection())
        if self.name == "sync":
            return connector.fetch_video(url)
        return asyncio.run(connector.fetch_video_async(url))

    def open(self, url: str, modality: str | None = "video", **kwargs: Any) -> Media:
        connector = MediaConnector(connection=HTTPConnection(), **kwargs)
        if self.name == "sync":
            return connector.open(url, modality)
        return asyncio.run(connector.open_async(url, modality))

    def load(self, media: Media, *args: Any, **kwargs: Any) -> Any:
        if self.name == "sync":
            return media.load(*args, **kwargs)
        return asyncio.run(media.load_async(*args, **kwargs))


@pytest.fixture(params=HALVES)
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Half:
    return Half(half_of(request.param, monkeypatch))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def asked(server: Server, since: int = 0) -> list[tuple[int, int]]:
    """The ranges that requests asked for, but the first pieces."""
    found = (re.findall(r"\d+", request.headers.get("Range", "")) for request in server.requests[since:])
    ranges = [(int(start), int(last) + 1) for start, last in found]
    return [each for each in ranges if each != (0, FIRST_BYTES)]


def same(video: Any, **kwargs: Any) -> bool:
    frames, metadata = reference(**kwargs)
    return np.array_equal(video[0], frames) and video[1] == metadata


def test_other_frames_fetch_only_the_blocks_that_are_missing(
    half: Half, server: Server, directory: Path
) -> None:
    url = server.route("/a.mp4", ranged(film()))
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    first = asked(server)
    assert first
    before = server.count()
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    assert (asked(server, before), server.count() - before) == ([], 1)
    before = server.count()
    assert same(half.fetch(url, num_frames=7), num_frames=7)
    more = asked(server, before)
    blocks = [set(blocks_of(ranges)) for ranges in (first, more)]
    assert blocks[1]
    assert not blocks[0] & blocks[1]
    cache = get_media_cache(directory, 5120 << 20, 24 * 3600.0)
    assert cache is not None
    assert cache.check() == []
    assert cache.stats.partial_hits > 0
    assert cache.stats.bytes < 0.4 * len(film())


def test_requests_at_the_same_time_share_blocks(server: Server, directory: Path) -> None:
    url = server.route("/a.mp4", ranged(film()))

    async def main() -> list[Any]:
        connection = HTTPConnection()
        kinds = [{"num_frames": number} for number in (4, 4, 5, 4)]
        return await asyncio.gather(
            *(MediaConnector({"video": kwargs}, connection).fetch_video_async(url) for kwargs in kinds)
        )

    found = asyncio.run(main())
    assert all(same(video, num_frames=number) for video, number in zip(found, (4, 4, 5, 4), strict=True))
    blocks = [block for pair in asked(server) for block in blocks_of([pair])]
    assert len(blocks) == len(set(blocks))


def test_another_state_of_the_source_begins_anew(half: Half, server: Server, directory: Path) -> None:
    other = film()[:-1] + b"\1"
    url = server.route("/a.mp4", ranged(film()))
    half.fetch(url, num_frames=4)
    server.route("/a.mp4", ranged(other, validators={"ETag": '"two"'}))
    before = server.count()
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    assert asked(server, before)


def test_all_blocks_become_a_whole_entry(
    half: Half, server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When what they hold has decoded; where it may be downloaded as a whole."""
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "3")
    url, cache = server.route("/a.mp4", ranged(film())), get_media_cache(str(directory), 1 << 30, 3600)
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    with cache_source(cache, url) as source:
        source.read([(0, len(film()))])
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    assert cache.get(url) is None
    monkeypatch.delenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB")
    media = half.open(url)
    assert cache.get(url) is None
    half.load(media, num_frames=4)
    assert cache.get(url) == film()
    before = server.count()
    assert same(half.fetch(url, num_frames=5), num_frames=5)
    assert server.count() == before


def cache_source(cache: MediaCache, url: str) -> BlockCacheSource:
    """What fills the blocks of the film behind a URL."""
    source = BytesSource(film())
    source.validator = '"one"'
    return BlockCacheSource(source, cache, url)


def test_a_whole_that_comes_late_replaces_the_blocks(half: Half, server: Server, directory: Path) -> None:
    url = server.route("/a.mp4", in_turn(ranged(film()), reply(film(), headers={"ETag": '"one"'})))
    assert same(half.fetch(url, num_frames=4), num_frames=4)
    names = [path.name for path in directory.iterdir()]
    assert len(names) == 1
    assert names[0].endswith(".mp4")
    before = server.count()
    assert same(half.fetch(url, num_frames=7), num_frames=7)
    assert server.count() == before


def test_what_is_there_is_not_charged_for(half: Half, server: Server, directory: Path) -> None:
    url = server.route("/a.mp4", ranged(film()))

    def cost() -> int:
        budget = MediaBudget(max_download_bytes=10**9)
        connector = MediaConnector({"video": {"num_frames": 4}}, HTTPConnection(), budget=budget)
        half.fetch(url, connector)
        return budget.download.used

    first, again = cost(), cost()
    assert first == sum(stop - start for start, stop in asked(server)) + FIRST_BYTES
    assert again == FIRST_BYTES


def test_the_second_turn_decodes_nothing(half: Half, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "_cache", decoded.DecodedCache(0, unit="bytes"))
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "64")
    url = server.route("/a.mp4", ranged(film()))
    first = half.fetch(url, num_frames=4)
    before = server.count()
    again = half.fetch(url, num_frames=4)
    assert same(first, num_frames=4)
    assert same(again, num_frames=4)
    assert first.original_bytes == again.original_bytes
    assert first.original_bytes.startswith(b"mmmedia-source:")
    assert (server.count() - before, decoded._cache.stats().hits) == (1, 1)


# Handles.


def test_a_handle_fetches_as_it_is_asked_to_decode(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", ranged(film()))
    media = half.open(url)
    assert server.count() == 1
    assert (media.content_hash_of, media.size, media.modality) == ("source", len(film()), "video")
    assert media.content_hash.startswith("source-")
    assert media.content_hash == half.open(url).content_hash
    assert same(half.load(media, num_frames=4), num_frames=4)
    before = server.count()
    assert same(half.load(media, num_frames=4), num_frames=4)
    assert server.count() == before
    assert same(half.load(media, num_frames=7), num_frames=7)
    assert sum(stop - start for start, stop in asked(server)) < 0.5 * len(film())


@pytest.mark.parametrize("layout", ["moov last", "moov first", "webm", "fragments, one sidx"])
def test_a_handle_finds_out_what_it_is_of(half: Half, server: Server, layout: str) -> None:
    """From the first piece and the index; what was read for that is not read again."""
    front = BytesSource(padded(laid_out(layout)) if "webm" not in layout else long_webm())
    data = front.read_all()
    url = server.route("/a", ranged(data))
    media = half.open(url, None)
    assert (media.modality, media.content_hash_of, media.size) == ("video", "source", len(data))
    assert media.content_hash == half.open(url).content_hash
    before = server.count()
    assert sum(stop - start for start, stop in asked(server)) < 0.1 * len(data)
    frames, metadata = VideoMediaIO(ImageMediaIO(), num_frames=4).load_bytes(data)
    loaded = half.load(media, num_frames=4)
    assert np.array_equal(loaded[0], frames)
    assert loaded[1] == metadata
    requested = [request.headers["Range"] for request in server.requests[:before]]
    assert not {request.headers["Range"] for request in server.requests[before:]} & set(requested)


def long_webm() -> bytes:
    """Of 9 MiB, by a codec whose streams may hold anything behind a frame: its index is at the front."""
    return long_clip("libvpx-vp9", container="webm") + bytes(9 << 20)


def test_a_handle_of_what_is_no_video_has_its_bytes(
    half: Half, server: Server, directory: Path, tmp_path: Path
) -> None:
    """Which are stored when they have decoded."""
    cache = get_media_cache(str(directory), 1 << 30, 3600)
    sound = padded(encode_av(sine(440, 0.2, 48_000), 48_000, "mp4", "aac"))
    picture = io.BytesIO()
    Image.effect_noise((1800, 2400), 90).convert("RGB").save(picture, "PNG")
    for modality, data in (("audio", sound), ("image", picture.getvalue())):
        url = server.route(f"/{modality}", ranged(data))
        media = half.open(url, None)
        assert (media.modality, media.content_hash_of) == (modality, "bytes")
        assert media.content_hash == content_hash(data)
        assert cache.get(url) is None
        half.load(media)
        assert cache.get(url) == data
        (tmp_path / modality).write_bytes(data)
        media = half.open((tmp_path / modality).as_uri(), None, allowed_local_media_path=tmp_path)
        assert media.content_hash == content_hash(data)


def test_a_handle_of_what_is_small_has_its_bytes(half: Half, server: Server) -> None:
    media = half.open(server.route("/a.mp4", ranged(long_clip())))
    assert media.content_hash_of == "bytes"
    before = server.count()
    half.load(media)
    assert server.count() == before


def test_a_handle_keeps_to_what_it_is_of(half: Half, server: Server) -> None:
    url = server.route("/a.mp4", ranged(film()))
    media = half.open(url)
    server.route("/a.mp4", ranged(film()[:-1] + b"\1", validators={"ETag": '"two"'}))
    with pytest.raises(SourceChangedError):
        half.load(media, num_frames=4)
    server.route("/a.mp4", reply(status=404))
    with pytest.raises(ValueError, match="404") as caught:
        half.load(media, num_frames=4)
    assert http_status(caught.value) == 422


def test_a_handle_charges_for_what_it_fetches(half: Half, server: Server) -> None:
    budget = MediaBudget(max_download_bytes=FIRST_BYTES + 100)
    media = half.open(server.route("/a.mp4", ranged(film())), budget=budget)
    assert budget.download.used == FIRST_BYTES
    with pytest.raises(LimitExceededError):
        half.load(media, num_frames=4)


def test_a_handle_of_a_large_file_reads_what_it_needs(half: Half, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(film())
    budget = MediaBudget(max_download_bytes=len(film()) // 2)
    media = half.open(path.as_uri(), allowed_local_media_path=tmp_path, budget=budget)
    assert media.content_hash_of == "source"
    assert same(half.load(media, num_frames=4), num_frames=4)
    with pytest.raises(LimitExceededError):
        half.load(media, "audio")


def test_progress_is_that_of_all_pieces(half: Half, server: Server) -> None:
    told: list[tuple[int, int | None]] = []
    url = server.route("/a.mp4", ranged(film()))
    connector = MediaConnector(
        {"video": {"num_frames": 4}}, HTTPConnection(), on_progress=lambda *now: told.append(now)
    )
    half.fetch(url, connector)
    assert told[0] == (FIRST_BYTES, len(film()))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {len(film())}
    fetched = sum(stop - start for start, stop in asked(server)) + FIRST_BYTES
    assert told[-1][0] == fetched < len(film())
