"""Errors of one half in the terms of the other."""

import aiohttp
import pytest
import requests

from mmmedia.connections import async_error, sync_error
from mmmedia.errors import RefusedURLError

URL = "http://example.org/cat.png?signature=c0ffee"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (aiohttp.ServerDisconnectedError(), requests.ConnectionError),
        (aiohttp.ClientPayloadError("cut"), requests.ConnectionError),
        (TimeoutError("late"), requests.Timeout),
    ],
)
def test_async_errors_for_who_blocks(error: Exception, kind: type[Exception]) -> None:
    assert type(sync_error(error, URL)) is kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (requests.ConnectTimeout("late"), TimeoutError),
        (requests.ConnectionError("reset"), aiohttp.ClientConnectionError),
        (requests.exceptions.ChunkedEncodingError("cut"), aiohttp.ClientConnectionError),
    ],
)
def test_blocking_errors_for_who_awaits(error: Exception, kind: type[Exception]) -> None:
    assert type(async_error(error, URL)) is kind


def test_ours_are_the_same_for_both() -> None:
    error = RefusedURLError("no")
    assert sync_error(error, URL) is async_error(error, URL) is error
