"""Budgets: all media of one request under one ceiling, before memory is spent."""

import asyncio
import base64
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmmedia import envs
from mmmedia.errors import LimitExceededError
from mmmedia.media.base import MediaDecodedBudget, MediaIO, MediaWithBytes
from mmmedia.media.budget import MediaBudget, Share, size_of
from mmmedia.media.connector import MediaConnector
from support.clips import clip


def _data_url(size: tuple[int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_many_threads_never_take_more_than_there_is() -> None:
    share = Share("decoded", 1000)

    def take(_: int) -> int:
        try:
            share.charge(7)
        except LimitExceededError:
            return 0
        return 7

    with ThreadPoolExecutor(8) as pool:
        taken = sum(pool.map(take, range(1000)))
    assert taken == share.used == 994
    assert share.remaining == 6


@pytest.mark.parametrize("ceiling", [None, 0, -1])
def test_without_a_ceiling_only_counts_are_kept(ceiling: int | None) -> None:
    budget = MediaBudget(max_decoded_bytes=ceiling)
    MediaConnector(budget=budget).fetch_image(_data_url((10, 10)))
    assert (budget.decoded.used, budget.decoded.remaining) == (300, None)
    assert budget.download.used > 0
    assert repr(budget).startswith("MediaBudget(downloaded: ")


def test_the_media_of_one_request_share_the_ceiling() -> None:
    budget = MediaBudget(max_decoded_bytes=1000, max_download_bytes=10_000)

    async def main() -> list[object]:
        connectors = [MediaConnector(budget=budget) for _ in range(5)]
        urls = [_data_url((10, 10))] * 5
        fetches = (each.fetch_image_async(url) for each, url in zip(connectors, urls, strict=True))
        return await asyncio.gather(*fetches, return_exceptions=True)

    results = asyncio.run(main())
    assert sum(isinstance(result, LimitExceededError) for result in results) == 2
    assert budget.decoded.used == 900
    with pytest.raises(LimitExceededError, match=r"downloaded bytes would exceed the MediaBudget"):
        MediaConnector(budget=MediaBudget(max_download_bytes=10)).fetch_image(_data_url((10, 10)))


def _embedding() -> str:
    pytest.importorskip("torch")
    file = io.BytesIO()
    np.save(file, np.zeros((100, 100), np.float32))
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize(
    "load",
    [
        lambda connector: connector.fetch_image(_data_url((2000, 2000))),
        lambda connector: connector.fetch_image_embedding(_embedding()),
    ],
    ids=["image", "embedding"],
)
def test_what_does_not_fit_is_refused_by_its_header(load: Callable[[MediaConnector], object]) -> None:
    budget = MediaBudget(max_decoded_bytes=1000)
    with pytest.raises(LimitExceededError, match=r"VLLM_MAX_.* has 1000 decoded bytes left"):
        load(MediaConnector(budget=budget))
    assert budget.decoded.used == 0


def test_decodes_of_one_request_wait_for_each_other() -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    class Counting(MediaIO[np.ndarray]):
        def load_base64(self, media_type: str, data: str) -> np.ndarray:
            nonlocal at_once, most
            with lock:
                at_once += 1
                most = max(most, at_once)
            assert envs.VLLM_MAX_VIDEO_DECODE_BYTES <= 1000
            result = np.zeros(10, np.uint8)
            with lock:
                at_once -= 1
            return result

        def load_bytes(self, data: bytes) -> np.ndarray:
            raise AssertionError

        def load_file(self, filepath: Path) -> np.ndarray:
            raise AssertionError

    connector = MediaConnector(budget=MediaBudget(max_decoded_bytes=1000))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: connector.load_from_url("data:;base64,AAAA", Counting()), range(50)))
    assert most == 1
    assert connector.decoded_budget.used == 500


def test_limits_are_lowered_in_one_context_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with envs.at_most({"VLLM_MAX_IMAGE_PIXELS": 7}):
        assert envs.VLLM_MAX_IMAGE_PIXELS == 7
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "5")
        assert envs.VLLM_MAX_IMAGE_PIXELS == 5
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "0")
        assert envs.VLLM_MAX_IMAGE_PIXELS == 7
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: envs.VLLM_MAX_IMAGE_PIXELS).result() == 0
    assert envs.VLLM_MAX_IMAGE_PIXELS == 0


def test_a_budget_of_vllm_is_charged_as_vllm_does() -> None:
    """Pictures by 4 bytes a pixel, frames by their bytes, JPEG sequences by picture, embeddings not."""
    budget = MediaDecodedBudget()
    connector = MediaConnector({"video": {"num_frames": 2}}, decoded_budget=budget)
    connector.fetch_image(_data_url((10, 10)))
    assert budget.used == 400
    jpeg = _data_url((8, 6)).partition(",")[2]
    connector.fetch_video("data:video/jpeg;base64," + ",".join([jpeg] * 3))
    assert budget.used == 400 + 2 * 8 * 6 * 4
    connector.fetch_image_embedding(_embedding())
    assert budget.used == 400 + 2 * 8 * 6 * 4
    before = budget.used
    frames, _ = connector.fetch_video("data:;base64," + base64.b64encode(clip()).decode())
    assert budget.used == before + frames.nbytes


def test_a_video_is_as_large_as_its_frames() -> None:
    """Also where it is wrapped with its bytes."""
    frames = np.zeros((2, 3, 4, 3), np.uint8)
    assert size_of(MediaWithBytes((frames, {"fps": 2}), b"clip")) == frames.nbytes


def test_a_reservation_that_nobody_made_is_no_way_around_the_limit() -> None:
    budget = MediaDecodedBudget(100)
    with pytest.raises(LimitExceededError):
        budget.settle(200, 150)
    assert budget.used == 0
