"""The cache of decoded media: the same as if decoded anew, for each its own, within its size."""

import asyncio
import base64
import copy
import gc
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmmedia.cli import scene
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.media import ImageMediaIO, MediaConnector, VideoMediaIO, decoded
from mmmedia.media.audio import AudioMediaIO
from mmmedia.media.base import MediaDecodedBudget, MediaIO, MediaWithBytes
from mmmedia.media.budget import MediaBudget
from mmmedia.video import VIDEO_LOADER_REGISTRY, OpenCVVideoBackend
from support.budgets import Purse
from support.clips import clip
from support.forking import holds_in_child
from support.server import Server, reply

CLIP = clip(frames=12)


def _data_url(data: bytes, media_type: str = "") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _png(size: tuple[int, int] = (40, 30), seed: int = 0) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _wav(seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * 8000))
    soundfile.write(file, samples, 8000, format="WAV", subtype="FLOAT")
    return file.getvalue()


SEQUENCE = VideoMediaIO(ImageMediaIO()).encode_base64(
    np.random.default_rng(0).integers(0, 256, (3, 16, 24, 3), np.uint8)
)
URLS = {
    "image": _data_url(_png()),
    "audio": _data_url(_wav()),
    "video": _data_url(CLIP),
    "sequence": f"data:video/jpeg;base64,{SEQUENCE}",
}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[decoded.DecodedCache]:
    """The cache of the process, on and empty; its counters begin at 0."""
    made = decoded.DecodedCache(0, unit="bytes", largest=0)
    monkeypatch.setattr(decoded, "_cache", made)
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "64")
    found = decoded.decoded_cache()
    assert found is made
    yield found
    gc.collect()


Fetch = Callable[..., Any]


def _fetch(kind: str, url: str, connector: MediaConnector | None = None) -> Any:
    method = "video" if kind == "sequence" else kind
    return getattr(connector or MediaConnector(), f"fetch_{method}")(url)


def _fetch_async(kind: str, url: str, connector: MediaConnector | None = None) -> Any:
    method = "video" if kind == "sequence" else kind
    return asyncio.run(getattr(connector or MediaConnector(), f"fetch_{method}_async")(url))


@pytest.fixture(params=[_fetch, _fetch_async], ids=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return request.param


def _parts(media: Any) -> tuple[np.ndarray, Any]:
    """The array of a medium, and what else there is of it."""
    if isinstance(getattr(media, "media", None), Image.Image):
        return np.asarray(media), (media.io_config, media.media.format, media.media.info)
    array, rest = media
    return array, rest


@pytest.mark.parametrize("kind", URLS)
def test_the_second_time_is_the_same_and_decodes_nothing(
    cache: decoded.DecodedCache, fetch: Fetch, kind: str
) -> None:
    first, second = (fetch(kind, URLS[kind]) for _ in range(2))
    (one, rest), (two, other_rest) = _parts(first), _parts(second)
    assert type(first) is type(second)
    assert np.array_equal(one, two)
    assert one.dtype == two.dtype
    assert rest == other_rest
    if type(first) is MediaWithBytes:
        assert first.original_bytes == second.original_bytes != b""
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.entries) == (1, 1, 1)
    assert stats.bytes == one.nbytes


@pytest.mark.parametrize("kind", ["audio", "video", "sequence"])
def test_nobody_sees_what_another_does_to_its_own(fetch: Fetch, kind: str) -> None:
    expected, rest = copy.deepcopy(_parts(fetch(kind, URLS[kind])))
    for _ in range(3):
        array, own = _parts(fetch(kind, URLS[kind]))
        assert np.array_equal(array, expected)
        assert own == rest
        array[:] = 0
        if isinstance(own, dict):
            own["frames_indices"].append(-1)
            own.clear()


def test_nobody_sees_what_another_does_to_its_picture(fetch: Fetch) -> None:
    expected = np.asarray(fetch("image", URLS["image"])).copy()
    for _ in range(3):
        picture = fetch("image", URLS["image"])
        assert np.array_equal(np.asarray(picture), expected)
        picture.media.paste((1, 2, 3), (0, 0, 40, 30))
        picture.media.info["seen"] = True


def test_the_same_bytes_are_the_same_however_they_come(
    cache: decoded.DecodedCache, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "a.mp4").write_bytes(CLIP)
    connector = MediaConnector(allowed_local_media_path=tmp_path)
    urls = [_data_url(CLIP), server.route("/a", reply(CLIP)), (tmp_path / "a.mp4").as_uri()]
    found = [connector.fetch_video(url) for url in urls]
    assert all(np.array_equal(frames, found[0][0]) for frames, _ in found)
    assert (cache.stats().hits, cache.stats().misses) == (2, 1)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("image", {"image": {"max_pixels": 100}}),
        ("image", {"image": {"rgba_background_color": [1, 2, 3]}}),
        ("image", {"image": {"exif_transpose": False}}),
        ("audio", {"audio": {"audio_backend": "pyav"}}),
        ("video", {"video": {"num_frames": 3}}),
        ("video", {"video": {"fps": 2}}),
        ("video", {"video": {"start": 0.1}}),
        ("video", {"video": {"video_backend": "opencv_dynamic"}}),
        ("video", {"video": {"backend": "pyav"}}),
        ("sequence", {"video": {"num_frames": 2}}),
        ("sequence", {"video": {"fps": 5}}),
        ("sequence", {"image": {"max_pixels": 100}}),
    ],
)
def test_whatever_it_depends_on_is_part_of_its_name(
    cache: decoded.DecodedCache, kind: str, other: dict[str, Any]
) -> None:
    _fetch(kind, URLS[kind])
    found = _fetch(kind, URLS[kind], MediaConnector(other))
    assert (cache.stats().hits, cache.stats().misses) == (0, 2)
    cache.clear()
    array, rest = _parts(_fetch(kind, URLS[kind], MediaConnector(other)))
    assert np.array_equal(_parts(found)[0], array)
    assert _parts(found)[1] == rest


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        ("image", "MMMEDIA_COMPAT", "0.20"),
        ("audio", "MMMEDIA_COMPAT", "0.20"),
        ("video", "MMMEDIA_COMPAT", "0.20"),
        ("video", "VLLM_VIDEO_DECODE", "sequential"),
        ("video", "VLLM_VIDEO_LOADER_BACKEND", "opencv_dynamic"),
    ],
)
def test_settings_that_results_depend_on_are_part_of_its_name(
    cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str, value: str
) -> None:
    _fetch(kind, URLS[kind])
    monkeypatch.setenv(variable, value)
    _fetch(kind, URLS[kind])
    assert (cache.stats().hits, cache.stats().misses) == (0, 2)
    _fetch(kind, URLS[kind])
    assert cache.stats().hits == 1


def test_options_that_compare_equal_and_are_not_the_same_are_others() -> None:
    written = [decoded.written(value) for value in (1, 1.0, True, "1", [1], {"a": 1}, {"a": 1.0}, None)]
    assert len(set(written)) == len(written)
    assert decoded.written({"a": 1, "b": [2]}) == decoded.written({"b": [2], "a": 1})
    assert decoded.written(["a,b"]) != decoded.written(["a", "b"])
    for odd in (object(), [object()], {"a": object()}, {1: 2}, np.float64(1)):
        assert decoded.written(odd) is None


class Mine(AudioMediaIO):
    """Somebody's own."""


class Other(MediaIO[bytes]):
    def load_bytes(self, data: bytes) -> bytes:
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:
        return base64.b64decode(data)

    def load_file(self, filepath: Path) -> bytes:
        return filepath.read_bytes()


def test_what_is_not_known_to_decode_alike_is_decoded_each_time(cache: decoded.DecodedCache) -> None:
    class Sampler(OpenCVVideoBackend):
        pass

    VIDEO_LOADER_REGISTRY.register("of a stranger")(Sampler)
    patched = VideoMediaIO(ImageMediaIO())
    patched.load_bytes = lambda data: data  # type: ignore[method-assign,assignment,return-value]
    for media_io in (Mine(), Other(), patched, VideoMediaIO(ImageMediaIO(), video_backend="of a stranger")):
        url = URLS["audio"] if isinstance(media_io, Mine) else URLS["video"]
        for _ in range(2):
            MediaConnector().load_from_url(url, media_io)
    assert (cache.stats().entries, cache.stats().hits) == (0, 0)


def test_what_does_not_decode_is_everyones_own_error(cache: decoded.DecodedCache, fetch: Fetch) -> None:
    for _ in range(2):
        with pytest.raises(InvalidMediaError):
            fetch("image", _data_url(b"no picture"))
    assert (cache.stats().entries, cache.stats().misses) == (0, 2)


# Sizes.


def test_what_is_larger_than_a_quarter_is_not_kept(
    cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "1")
    exact, larger = _png((512, 170)), _png((512, 171))
    assert 512 * 170 * 3 <= 1 << 18 < 512 * 171 * 3
    for data in (exact, larger):
        for _ in range(2):
            MediaConnector().fetch_image(_data_url(data))
    assert (cache.stats().entries, cache.stats().hits, cache.stats().bytes) == (1, 1, 512 * 170 * 3)


def test_the_least_recently_used_leaves(cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "1")
    urls = [_data_url(_png((512, 160), seed)) for seed in range(5)]
    for url in (*urls[:4], urls[0], urls[4]):
        MediaConnector().fetch_image(url)
    assert (cache.stats().entries, cache.stats().evictions, cache.stats().hits) == (4, 1, 1)
    MediaConnector().fetch_image(urls[0])
    assert cache.stats().hits == 2
    MediaConnector().fetch_image(urls[1])
    assert cache.stats().hits == 2


def test_the_setting_counts_at_once(cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        MediaConnector().fetch_image(_data_url(_png((512, 160), seed)))
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "1")
    assert decoded.decoded_cache() is cache
    assert cache.stats().entries == 4
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "0")
    assert decoded.decoded_cache() is None
    assert (cache.stats().entries, cache.stats().bytes) == (0, 0)
    MediaConnector().fetch_image(URLS["image"])
    assert cache.stats().entries == 0


def test_it_is_off_by_default(cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMMEDIA_DECODED_CACHE_MB")
    for _ in range(2):
        MediaConnector().fetch_image(URLS["image"])
    assert cache.stats().misses == 0


def test_clear_drops_all(cache: decoded.DecodedCache) -> None:
    MediaConnector().fetch_image(URLS["image"])
    cache.clear()
    assert (cache.stats().entries, cache.stats().bytes) == (0, 0)
    MediaConnector().fetch_image(URLS["image"])
    assert cache.stats().misses == 2


def test_the_bytes_are_not_kept_with_what_they_decode_to(cache: decoded.DecodedCache) -> None:
    MediaConnector().fetch_video(URLS["video"])
    (entry,) = cache._entries.values()
    assert entry.media.original_bytes == b""


# Limits and budgets.


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        ("image", "VLLM_MAX_IMAGE_PIXELS", "1199"),
        ("audio", "VLLM_MAX_AUDIO_DECODE_BYTES", "15999"),
        ("audio", "VLLM_MAX_AUDIO_DECODE_DURATION_S", "0.1"),
        ("video", "VLLM_MAX_VIDEO_DECODE_BYTES", "5000"),
        ("video", "VLLM_MAX_IMAGE_PIXELS", "100"),
    ],
)
def test_what_a_limit_refuses_is_refused_though_it_was_decoded(
    cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str, value: str
) -> None:
    _fetch(kind, URLS[kind])
    with monkeypatch.context() as patch:
        patch.setenv(variable, value)
        with pytest.raises(LimitExceededError):
            _fetch(kind, URLS[kind])
    _fetch(kind, URLS[kind])
    assert cache.stats().entries == 1, "and it stays for who may have it"
    with monkeypatch.context() as patch:
        patch.setenv(variable, "100000000")  # lower, or higher where there was none
        _fetch(kind, URLS[kind])
        hits = cache.stats().hits
        _fetch(kind, URLS[kind])
    assert cache.stats().hits == hits + 1
    _fetch(kind, URLS[kind])
    assert cache.stats().hits == hits + 2


@pytest.mark.parametrize("kind", URLS)
@pytest.mark.parametrize(
    "make", [lambda: Purse(10**6), lambda: MediaDecodedBudget(10**6)], ids=["plain", "vLLM's"]
)
def test_a_copy_costs_what_decoding_costs(fetch: Fetch, kind: str, make: Callable[[], Any]) -> None:
    costs = []
    for _ in range(3):
        budget = make()
        fetch(kind, URLS[kind], MediaConnector(decoded_budget=budget))
        costs.append(10**6 - budget.left if isinstance(budget, Purse) else budget.used)
    assert costs[0] > 0
    assert costs == costs[:1] * 3


@pytest.mark.parametrize("kind", URLS)
def test_who_has_too_little_left_is_refused_a_copy(fetch: Fetch, kind: str) -> None:
    fetch(kind, URLS[kind])
    with pytest.raises(LimitExceededError):
        fetch(kind, URLS[kind], MediaConnector(decoded_budget=Purse(500)))
    with pytest.raises(LimitExceededError):
        fetch(kind, URLS[kind], MediaConnector(budget=MediaBudget(max_decoded_bytes=500)))
    fetch(kind, URLS[kind])


# Threads and processes.


def test_a_crowd_decodes_once(cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()
    calls = []
    plain = VideoMediaIO.load_bytes

    def slowly(self: VideoMediaIO, data: bytes) -> Any:
        calls.append(data)
        began.set()
        assert go_on.wait(30)
        return plain(self, data)

    monkeypatch.setattr(VideoMediaIO, "load_bytes", slowly)
    with ThreadPoolExecutor(6) as pool:
        loading = [pool.submit(_fetch, "video", URLS["video"]) for _ in range(6)]
        assert began.wait(30)
        while sum(flight.waiters for flight in cache._flights.values()) < 5:
            pass
        go_on.set()
        found = [each.result(30)[0] for each in loading]
    assert len(calls) == 1
    for number, frames in enumerate(found):
        assert np.array_equal(frames, found[-1])
        if number < 5:
            frames[:] = number
    assert cache.stats().hits == 5


def test_a_poor_leader_leaves_the_decode_to_others(
    cache: decoded.DecodedCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    plain = VideoMediaIO.load_bytes

    def slowly(self: VideoMediaIO, data: bytes) -> Any:
        began.set()
        assert go_on.wait(30)
        return plain(self, data)

    monkeypatch.setattr(VideoMediaIO, "load_bytes", slowly)
    with ThreadPoolExecutor(2) as pool:
        poor = pool.submit(_fetch, "video", URLS["video"], MediaConnector(decoded_budget=Purse(5)))
        assert began.wait(30)
        rich = pool.submit(_fetch, "video", URLS["video"])
        while not any(flight.waiters for flight in cache._flights.values()):
            pass
        go_on.set()
        with pytest.raises(LimitExceededError):
            poor.result(30)
        assert rich.result(30)[0].any()


def test_a_forked_child_begins_empty_and_works(cache: decoded.DecodedCache) -> None:
    _fetch("image", URLS["image"])
    is_held = threading.Event()
    let_go = threading.Event()

    def hold() -> None:
        with cache._lock:
            is_held.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(30)

    def check() -> bool:
        is_empty = cache.stats().entries == 0
        _fetch("image", URLS["image"])
        return is_empty and cache.stats().entries == 1

    assert holds_in_child(check)
    let_go.set()
    thread.join()
    assert cache.stats().entries == 1


def test_a_long_clip_too(cache: decoded.DecodedCache) -> None:
    """With the sampler of a model."""
    url = _data_url(scene.clip())
    connector = MediaConnector({"video": {"video_backend": "qwen3_vl"}})
    first, second = connector.fetch_video(url), connector.fetch_video(url)
    assert np.array_equal(first[0], second[0])
    assert first[1] == second[1]
    assert cache.stats().hits == 1
