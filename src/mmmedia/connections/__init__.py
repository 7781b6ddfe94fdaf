"""HTTP: blocking and async GET with retries, redirects and limits.

`connection` is what callers have. `exchange` says what one fetch does, by `rules`, `retries` and `failures`,
which are pure, and `environment`; `blocking` and `on_loop` do it, with requests under `deadlines` and with
aiohttp. These three are imported when they are first needed.
"""

import asyncio
import time

from mmmedia.connections.budget import MediaRequestDownloadBudget
from mmmedia.connections.connection import HTTPConnection, global_http_connection
from mmmedia.connections.environment import environment_proxy
from mmmedia.connections.failures import async_error, http_status, is_transient, status_of, sync_error
from mmmedia.connections.retries import MAX_RETRY_AFTER, TOTAL_SECONDS, RetryPlan, retry_after_seconds
from mmmedia.connections.rules import Download, FetchPolicy, Progress, fetch_policy
from mmmedia.exceptions import (
    HTTPResponseSizeExceededError,
    MediaDownloadSizeExceededError,
    MediaRequestDownloadSizeExceededError,
)

__all__ = [
    "MAX_RETRY_AFTER",
    "TOTAL_SECONDS",
    "Download",
    "FetchPolicy",
    "HTTPConnection",
    "HTTPResponseSizeExceededError",
    "MediaDownloadSizeExceededError",
    "MediaRequestDownloadBudget",
    "MediaRequestDownloadSizeExceededError",
    "Progress",
    "RetryPlan",
    "async_error",
    "asyncio",  # these two by which tests of engines shorten waiting
    "environment_proxy",
    "fetch_policy",
    "global_http_connection",
    "http_status",
    "is_transient",
    "retry_after_seconds",
    "status_of",
    "sync_error",
    "time",
]
