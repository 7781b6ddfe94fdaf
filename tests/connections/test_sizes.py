"""Limits and budgets of one fetch: what is refused, how, and before what."""

import asyncio
import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mmmedia.connections import (
    HTTPResponseSizeExceededError,
    MediaDownloadSizeExceededError,
    MediaRequestDownloadBudget,
    MediaRequestDownloadSizeExceededError,
    global_http_connection,
)
from mmmedia.exceptions import VLLMValidationError
from support.server import Server, cut, in_turn, reply

BODY = b"x" * 1000


def sync_fetch(url: str, **kwargs: Any) -> bytes:
    return global_http_connection.get_bytes(url, **kwargs)


def async_fetch(url: str, **kwargs: Any) -> bytes:
    return asyncio.run(global_http_connection.async_get_bytes(url, **kwargs))


@pytest.fixture(params=[sync_fetch, async_fetch], ids=["sync", "async"])
def fetch(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    return request.param


def test_a_kind_has_a_limit_of_its_own(fetch: Callable[..., bytes], server: Server) -> None:
    """Equal passes; more is refused by its header, as 400 for an engine."""
    url = server.route("/a", reply(BODY))
    assert fetch(url, max_bytes=1000) == BODY
    with pytest.raises(HTTPResponseSizeExceededError, match="VLLM_MAX_AUDIO_CLIP_FILESIZE_MB") as caught:
        fetch(url, max_bytes=999)
    assert isinstance(caught.value, VLLMValidationError)
    assert (caught.value.http_status, caught.value.parameter) == (400, "audio_filesize_mb")
    assert caught.value.value == 1000 / 2**20


def test_the_lower_limit_speaks(
    fetch: Callable[..., bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The download limit where it is the lower or both are equal; what comes out of gzip counts."""
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    packed = gzip.compress(bytes(2 << 20))
    url = server.route("/a", reply(packed, headers={"Content-Encoding": "gzip"}))
    for max_bytes in (None, 1 << 20, 5 << 20):
        with pytest.raises(MediaDownloadSizeExceededError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB") as caught:
            fetch(url, max_bytes=max_bytes)
        assert (caught.value.max_bytes, (caught.value.received_bytes or 0) > 1 << 20) == (1 << 20, True)
        assert caught.value.http_status == 422
    with pytest.raises(HTTPResponseSizeExceededError):
        fetch(url, max_bytes=1000)


def test_a_budget_pays_for_failed_attempts_too(
    fetch: Callable[..., bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before a body broke off has come."""
    monkeypatch.setattr("mmmedia.connections.exchange.random.uniform", lambda *_: 0.0)
    half = cut(BODY, 500)
    budget = MediaRequestDownloadBudget(1600)
    assert fetch(server.route("/a", in_turn(half, reply(BODY))), request_budget=budget) == BODY
    assert budget.used == 1500
    with pytest.raises(MediaRequestDownloadSizeExceededError, match="1500 of 1600 are used"):
        fetch(server.route("/b", reply(BODY)), request_budget=budget)
    assert budget.used == 1500


def test_the_setting_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB", "1")
    budget = MediaRequestDownloadBudget()
    budget.charge(1 << 20)
    with pytest.raises(ValueError, match="VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB"):
        budget.charge(1)
    monkeypatch.setenv("VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB", "-1")
    MediaRequestDownloadBudget().charge(1 << 50)


def test_threads_never_take_more_than_there_is() -> None:
    budget = MediaRequestDownloadBudget(1000)

    def take(_: int) -> int:
        try:
            budget.charge(7)
        except MediaRequestDownloadSizeExceededError:
            return 0
        return 7

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(1000))) == budget.used == 994
