"""Handles: fetched once, named before anything is decoded, decoded once whoever holds them."""

import asyncio
import base64
import copy
import io
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia import content_hash
from mmmedia.cache import get_media_cache
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    InvalidURLError,
    LimitExceededError,
    RefusedURLError,
)
from mmmedia.exceptions import HTTPResponseSizeExceededError
from mmmedia.media import ImageMediaIO, MediaConnector, VideoMediaIO, decoded
from mmmedia.media.audio import AudioMediaIO
from mmmedia.media.handles import Media, Opening
from mmmedia.video import VIDEO_LOADER_REGISTRY, OpenCVVideoBackend
from support.budgets import Purse
from support.clips import clip
from support.server import Server, in_turn, reply
from support.sources import CountingSource

CLIP = clip(frames=12)
BOTH = clip(frames=12, audio=True)


def _png() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((40, 30), 80).convert("RGB").save(file, "PNG")
    return file.getvalue()


PNG = _png()
SEQUENCE = VideoMediaIO(ImageMediaIO()).encode_base64(np.zeros((3, 16, 24, 3), np.uint8))


def _data_url(data: bytes) -> str:
    return f"data:;base64,{base64.b64encode(data).decode()}"


Open = Callable[..., Media]
Load = Callable[..., Any]


def _sync(connector: MediaConnector, *args: Any) -> Media:
    return connector.open(*args)


def _async(connector: MediaConnector, *args: Any) -> Media:
    return asyncio.run(connector.open_async(*args))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Open:
    return request.param


def _load(media: Media, *args: Any, **kwargs: Any) -> Any:
    return media.load(*args, **kwargs)


def _load_async(media: Media, *args: Any, **kwargs: Any) -> Any:
    return asyncio.run(media.load_async(*args, **kwargs))


@pytest.fixture(params=[_load, _load_async], ids=["load", "load_async"])
def load(request: pytest.FixtureRequest) -> Load:
    return request.param


@pytest.fixture
def decodes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was decoded, once for each time."""
    seen: list[str] = []
    for kind in (ImageMediaIO, VideoMediaIO, AudioMediaIO):
        plain = kind.load_bytes

        def noting(self: Any, data: bytes, plain: Any = plain) -> Any:
            seen.append(self.modality)
            return plain(self, data)

        monkeypatch.setattr(kind, "load_bytes", noting)
    return seen


def test_a_handle_has_a_name_before_anything_is_decoded(
    opened: Open, server: Server, decodes: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    connector = MediaConnector(allowed_local_media_path=tmp_path)
    for url in (_data_url(CLIP), server.route("/a", reply(CLIP)), (tmp_path / "a.mp4").as_uri()):
        media = opened(connector, url)
        assert media.content_hash == content_hash(CLIP)
        assert (media.content_hash_of, media.modality, media.size, media.url) == (
            "bytes",
            "video",
            len(CLIP),
            url,
        )
    assert not decodes


@pytest.mark.parametrize(
    ("data", "modality"), [(PNG, "image"), (CLIP, "video"), (BOTH, "video")], ids=["image", "video", "both"]
)
def test_it_loads_what_fetching_loads(
    opened: Open, load: Load, server: Server, data: bytes, modality: str
) -> None:
    url = server.route("/a", reply(data))
    loaded = load(opened(MediaConnector(), url))
    fetched = getattr(MediaConnector(), f"fetch_{modality}")(url)
    assert type(loaded) is type(fetched)
    assert loaded.original_bytes == data
    if modality == "image":
        assert loaded.media == fetched.media
    else:
        assert np.array_equal(loaded[0], fetched[0])
        assert loaded[1] == fetched[1]


def test_pictures_and_sound_of_one_url_are_one_download(
    opened: Open, load: Load, server: Server, decodes: list[str]
) -> None:
    url = server.route("/a", reply(BOTH))
    media = opened(MediaConnector(), url)
    frames, metadata = load(media)
    waveform, rate = load(media, "audio")
    assert server.count() == 1
    assert decodes == ["video", "audio"]
    assert np.array_equal(waveform, MediaConnector().fetch_audio(url)[0])
    assert (rate, len(frames)) == (48_000, len(metadata["frames_indices"]))


def test_equal_arguments_decode_once_and_each_has_its_own(
    opened: Open, load: Load, decodes: list[str]
) -> None:
    media = opened(MediaConnector({"video": {"num_frames": 6}}), _data_url(CLIP))
    first, _ = load(media)
    for again in (load(media)[0], load(media, num_frames=6)[0], load(media, "video")[0]):
        assert np.array_equal(again, first)
        again[:] = 0
    assert len(decodes) == 1
    assert load(media, num_frames=3)[0].shape[0] == 3
    assert first.shape[0] == 6
    assert len(decodes) == 2


def test_without_copies_all_share_what_nobody_can_write(opened: Open, load: Load, decodes: list[str]) -> None:
    media = opened(MediaConnector(), _data_url(BOTH))
    one, two = (load(media, copy=False)[0] for _ in range(2))
    assert np.shares_memory(one, two)
    own = load(media)[0]
    assert np.array_equal(own, one)
    assert not np.shares_memory(own, one)
    for array in (one, load(media, "audio", copy=False)[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
    own[:] = 0
    assert one.any()
    assert decodes == ["video", "audio"]


def test_arguments_go_over_those_of_the_connector(opened: Open, load: Load) -> None:
    media = opened(MediaConnector({"image": {"max_pixels": 300}}), _data_url(PNG))
    assert load(media).size == (20, 15)
    assert load(media, max_pixels=75).size == (10, 7)
    assert load(media, image_mode="L").mode == "L"
    video = opened(MediaConnector({"video": {"num_frames": 6}}), _data_url(CLIP))
    assert load(video, fps=5)[0].shape[0] != 6, "one that is given drops the other"
    of_a_model = {"video_processor": "Qwen3VLVideoProcessor"}
    fetched = MediaConnector({"video": {"num_frames": 6}}).fetch_video(_data_url(CLIP), **of_a_model)
    assert load(video, **of_a_model)[1] == fetched[1] != load(video)[1]


def test_a_part_of_a_video_goes_all_the_way(opened: Open, load: Load, server: Server) -> None:
    """Samplers see it as if it were the whole; indices, count, rate and duration are those of the whole."""
    data = clip(frames=50, rate=25)
    url = server.route("/a", reply(data))
    kwargs = {"start": 0.4, "end": 1.2, "num_frames": 5}
    frames, metadata = load(opened(MediaConnector(), url), **kwargs)
    for fetched in (
        MediaConnector({"video": kwargs}).fetch_video(url),
        asyncio.run(MediaConnector({"video": kwargs}).fetch_video_async(url)),
    ):
        assert np.array_equal(fetched[0], frames)
        assert fetched[1] == metadata
    indices = metadata["frames_indices"]
    assert indices[0] == 10
    assert indices[-1] == 29
    assert len(indices) == 5
    assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (50, 25.0, 2.0)
    whole, of_whole = MediaConnector({"video": {"num_frames": -1}}).fetch_video(url)
    assert of_whole["frames_indices"] == list(range(50))
    assert np.array_equal(frames, whole[indices])


def test_a_sequence_of_jpegs_is_a_video(opened: Open, load: Load) -> None:
    url = f"data:video/jpeg;base64,{SEQUENCE}"
    media = opened(MediaConnector(), url)
    assert (media.modality, media.size) == ("video", len(SEQUENCE))
    assert media.content_hash == content_hash(SEQUENCE.encode())
    assert load(media)[0].shape == (3, 16, 24, 3)
    assert load(media, num_frames=2)[0].shape == (2, 16, 24, 3)
    assert load(media).original_bytes == SEQUENCE.encode()


def test_threads_that_hold_it_decode_once(decodes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    media = MediaConnector().open(_data_url(CLIP))
    with ThreadPoolExecutor(6) as pool:
        found = [each.result(30)[0] for each in [pool.submit(media.load) for _ in range(6)]]
    assert decodes == ["video"]
    assert all(np.array_equal(each, found[0]) for each in found)
    assert not any(np.shares_memory(found[0], each) for each in found[1:])


def test_tasks_that_hold_it_decode_once(decodes: list[str]) -> None:
    async def main() -> None:
        media = await MediaConnector().open_async(_data_url(CLIP))
        found = await asyncio.gather(*(media.load_async() for _ in range(20)))
        assert all(np.array_equal(each[0], found[0][0]) for each in found)

    asyncio.run(main())
    assert decodes == ["video"]


def test_a_loader_of_a_stranger_decodes_once_too(decodes: list[str], load: Load) -> None:
    class Strange(OpenCVVideoBackend):
        pass

    VIDEO_LOADER_REGISTRY.register("strange, by a handle")(Strange)
    media = MediaConnector({"video": {"video_backend": "strange, by a handle"}}).open(_data_url(CLIP))
    for _ in range(2):
        one, two = load(media)[0], load(media)[0]
    assert not np.shares_memory(one, two)
    assert decodes == ["video"]
    for _ in range(2):
        load(media, unknown=object())
    assert len(decodes) == 3, "of what can't be compared nobody knows whether it is the same"


def test_handles_share_the_cache_of_decoded_media(
    decodes: list[str], load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "_cache", decoded.DecodedCache(0, unit="bytes"))
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "64")
    first = MediaConnector().fetch_video(_data_url(CLIP))
    media = MediaConnector().open(_data_url(CLIP))
    one, two = load(media, copy=False)[0], load(media)[0]
    assert np.array_equal(first[0], one)
    assert np.array_equal(first[0], two)
    assert decodes == ["video"]
    (entry,) = decoded._cache._entries.values()
    assert np.shares_memory(entry.media.media[0], one)
    decoded._cache.clear()
    load(media)
    assert decodes == ["video"], "the handle holds what it decoded"


# Errors.


@pytest.mark.parametrize("modality", ["picture", "", 3])
def test_another_modality_is_refused(opened: Open, load: Load, modality: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="expected image, audio or video"):
        opened(MediaConnector(), _data_url(CLIP), modality)
    with pytest.raises(InvalidArgumentError, match="expected image, audio or video"):
        load(opened(MediaConnector(), _data_url(CLIP)), modality)


def test_errors_of_fetching_come_from_opening(opened: Open, server: Server) -> None:
    with pytest.raises(InvalidURLError):
        opened(MediaConnector(), "ftp://a/b")
    with pytest.raises(RefusedURLError):
        opened(MediaConnector(allowed_media_domains=["example.org"]), server.url("/a"))
    with pytest.raises(InvalidMediaError):
        opened(MediaConnector(), _data_url(b"no media"))
    with pytest.raises(InvalidMediaError):
        opened(MediaConnector(), "data:;base64,!")
    big = server.route("/big", reply(bytes(26 << 20)))
    with pytest.raises(HTTPResponseSizeExceededError):
        opened(MediaConnector(), big, "audio")


def test_errors_of_decoding_come_from_loading_and_are_not_remembered(
    opened: Open, load: Load, decodes: list[str]
) -> None:
    media = opened(MediaConnector(), _data_url(PNG[:60]), "image")
    for _ in range(2):
        with pytest.raises(InvalidMediaError):
            load(media)
    assert len(decodes) == 2
    with pytest.raises(InvalidMediaError, match="No audio stream"):
        load(opened(MediaConnector(), _data_url(CLIP)), "audio")


def test_budgets_are_charged_where_bytes_come_and_where_they_are_decoded(
    opened: Open, load: Load, server: Server
) -> None:
    downloads, decodes = Purse(len(PNG) + 5), Purse(2 * 40 * 30 * 3 + 7)
    connector = MediaConnector(download_budget=downloads, decoded_budget=decodes)
    media = opened(connector, server.route("/a", reply(PNG)))
    assert downloads.left == 5
    assert decodes.left == 2 * 40 * 30 * 3 + 7
    load(media)
    load(media)
    assert (downloads.left, decodes.left) == (5, 7)
    with pytest.raises(LimitExceededError):
        load(media)


# The cache of bytes.


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_opened_is_stored_once_it_has_decoded(
    opened: Open, load: Load, server: Server, directory: Path
) -> None:
    url = server.route("/a.mp4", reply(CLIP))
    media = opened(MediaConnector(), url)
    cache = get_media_cache(directory, 5120 << 20, 24 * 3600.0)
    assert cache is not None
    assert not cache.path(url).exists()
    with pytest.raises(InvalidMediaError):
        load(media, "audio")
    assert not cache.path(url).exists()
    load(media)
    load(media)
    assert cache.path(url).read_bytes() == CLIP
    assert load(opened(MediaConnector(), url))[0].any()
    assert server.count() == 1


def test_what_comes_out_of_the_cache_and_does_not_decode_is_forgotten(
    opened: Open, load: Load, server: Server, directory: Path
) -> None:
    url = server.route("/a.png", reply(PNG))
    directory.mkdir()
    cache = get_media_cache(directory, 5120 << 20, 24 * 3600.0)
    assert cache is not None
    cache.put(url, PNG[:60])
    media = opened(MediaConnector(), url, "image")
    assert server.count() == 0
    with pytest.raises(InvalidMediaError):
        load(media)
    assert load(opened(MediaConnector(), url, "image")).size == (40, 30)
    assert server.count() == 1
    media = opened(MediaConnector(), url, "image")
    load(media)
    with pytest.raises(InvalidMediaError):
        load(media, "audio")
    assert cache.path(url).exists(), "it is a picture, and no sound, as it was"


def test_opening_shares_the_download_with_whoever_fetches(server: Server) -> None:
    go_on = threading.Event()

    def behave(request: Any) -> None:
        assert go_on.wait(30)
        reply(PNG)(request)

    url = server.route("/a", behave)

    async def main() -> None:
        tasks = [
            asyncio.ensure_future(MediaConnector().open_async(url)),
            asyncio.ensure_future(MediaConnector().fetch_image_async(url)),
            asyncio.ensure_future(MediaConnector().open_async(url)),
        ]
        await asyncio.to_thread(server.wait_for, 1)
        go_on.set()
        first, image, second = await asyncio.gather(*tasks)
        assert first.content_hash == second.content_hash == content_hash(PNG)
        assert image.size == first.load().size

    asyncio.run(main())
    assert server.count() == 1


def test_something_else_at_the_url_is_another_handle(opened: Open, server: Server) -> None:
    url = server.route("/a", in_turn(reply(PNG), reply(CLIP)))
    assert opened(MediaConnector(), url).content_hash != opened(MediaConnector(), url).content_hash


# Sources.


def test_a_source_is_named_by_what_says_that_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    connector = MediaConnector()

    def handle(validator: str, data: bytes = CLIP, name: str = "http://a/b.mp4") -> Media:
        source = CountingSource(data, validator, name)
        return Opening(connector, name, "video", None).load_source(source)

    media = handle('"v1"')
    assert media.content_hash_of == "source"
    assert media.content_hash.startswith("source-")
    assert media.content_hash == handle('"v1"').content_hash
    others = [
        handle('"v2"'),
        handle('"v1"', CLIP + b"x"),
        handle('"v1"', name="http://a/c.mp4"),
        handle(""),
        handle(""),
    ]
    assert len({each.content_hash for each in (media, *others)}) == 6
    assert (media.size, media.modality) == (len(CLIP), "video")
    frames, metadata = media.load(num_frames=3)
    expected, of_expected = MediaConnector({"video": {"num_frames": 3}}).fetch_video(_data_url(CLIP))
    assert np.array_equal(frames, expected)
    assert metadata == of_expected


def test_what_has_no_validator_is_not_taken_for_what_was_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "_cache", decoded.DecodedCache(0, unit="bytes"))
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "64")
    other = clip(frames=12, seed=3)
    data = [CLIP.ljust(max(len(CLIP), len(other)), b"\0"), other.ljust(max(len(CLIP), len(other)), b"\0")]
    for validator, hits in (("", 0), ('"same"', 1)):
        found = []
        for each in data:
            source = CountingSource(each, validator)
            found.append(Opening(MediaConnector(), "http://a/b", "video", None).load_source(source).load()[0])
        assert np.array_equal(*found) == bool(hits)
        assert decoded._cache.stats().hits == hits


# Whatever else one does with objects.


def test_it_travels(opened: Open) -> None:
    media = opened(MediaConnector(), _data_url(PNG))
    media.load()
    for other in (copy.deepcopy(media), pickle.loads(pickle.dumps(media))):
        assert (other.content_hash, other.modality) == (media.content_hash, "image")
        assert other.load().media == media.load().media


def test_what_it_shows_of_itself_holds_no_bytes(opened: Open) -> None:
    shown = repr(opened(MediaConnector(), _data_url(CLIP)))
    assert shown.endswith(f"video, {len(CLIP)} bytes)")
    assert len(shown) < 150
