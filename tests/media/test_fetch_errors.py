"""What a failed download is to an engine: vLLM's own errors, and those of requests and aiohttp as well."""

import asyncio
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from PIL import Image

from mmmedia.connections import MediaRequestDownloadBudget, http_status
from mmmedia.errors import LimitExceededError, RefusedURLError
from mmmedia.exceptions import (
    HTTPResponseSizeExceededError,
    MediaDownloadSizeExceededError,
    VLLMUnprocessableEntityError,
    VLLMValidationError,
)
from mmmedia.media.connector import MediaConnector, _wrap_media_fetch_error
from support.server import Server, reply

URL = "http://example.org/a.png"


def status_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError(f"{status} error", response=response)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (status_error(404), "HTTP 404 error"),
        (status_error(403), "HTTP 403 error"),
        (requests.exceptions.InvalidURL("no host"), "Invalid URL"),
        (ValueError("label too long"), "Invalid URL"),
        (MediaDownloadSizeExceededError(10, 12), "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"),
    ],
)
def test_the_clients_faults(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are 422 with the URL as the value, remain what they were, and survive pickling."""
    wrapped = _wrap_media_fetch_error(URL, error)
    assert isinstance(wrapped, VLLMUnprocessableEntityError)
    assert isinstance(wrapped, type(error))
    assert message in str(wrapped)
    assert (wrapped.parameter, wrapped.value, http_status(wrapped)) == ("image_url", URL, 422)
    assert wrapped.__cause__ is error
    copy = pickle.loads(pickle.dumps(wrapped))
    assert isinstance(copy, VLLMUnprocessableEntityError)
    assert (str(copy), copy.value) == (str(wrapped), URL)
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert _wrap_media_fetch_error(URL, error) is error


@pytest.mark.parametrize(
    "error",
    [
        *map(status_error, (408, 429, 500, 503)),
        requests.Timeout(),
        TimeoutError(),
        RefusedURLError("private"),
        VLLMValidationError("no"),
        HTTPResponseSizeExceededError(2, 3),
        KeyError("x"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:30],
)
def test_all_others_are_unchanged(error: Exception) -> None:
    """What may heal, what says its status itself, and what is nobody's fault."""
    assert _wrap_media_fetch_error(URL, error) is error


class Poor:
    def charge(self, num_bytes: int) -> None:
        raise ValueError("an engine's own")


def sync_image(connector: MediaConnector, url: str) -> Any:
    return connector.fetch_image(url)


def async_image(connector: MediaConnector, url: str) -> Any:
    return asyncio.run(connector.fetch_image_async(url))


@pytest.mark.parametrize("load", [sync_image, async_image])
def test_by_the_connector(load: Callable[..., Any], server: Server, tmp_path: Path) -> None:
    """The download is translated, decoding is not; a request's budget is."""
    with pytest.raises(VLLMUnprocessableEntityError, match="HTTP 404 error") as caught:
        load(MediaConnector(), server.url("/missing"))
    assert isinstance(caught.value, requests.HTTPError | aiohttp.ClientResponseError)
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(path)
    url = server.route("/a.png", reply(path.read_bytes()))
    with pytest.raises(VLLMUnprocessableEntityError, match="too many for one request") as caught:
        load(MediaConnector(download_budget=MediaRequestDownloadBudget(10)), url)
    assert isinstance(caught.value, LimitExceededError)
    with pytest.raises(ValueError, match=r"^an engine's own$") as own:
        load(MediaConnector(download_budget=Poor()), url)
    assert not isinstance(own.value, VLLMUnprocessableEntityError)
    with pytest.raises(ValueError, match="Failed to load image") as broken:
        load(MediaConnector(), server.route("/b.png", reply(b"none")))
    assert not isinstance(broken.value, VLLMUnprocessableEntityError)
