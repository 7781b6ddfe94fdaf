"""Errors as vLLM answers them: with its status, the part of the request, and each also a `ValueError`.

vLLM's own answer stands wherever it has one. Only what it answers with 500 though the fault is the client's
or another server's is told apart.

======================================================= ====== =========
what happened                                           vLLM   with this
======================================================= ====== =========
the server of a URL answers 4xx, but 408 and 429        422    422
a download is too large; a URL can't be read            422    422
timeout, no connection, no such host, 5xx, 408, 429     500    503
media that can't be decoded, or are too large decoded   400    400
a host or path that is not allowed                      400    400
a file that is missing; file URLs where none may be     500    400
a data URL that is not base64                           501    501
======================================================= ====== =========
"""

from http import HTTPStatus
from typing import Any

from vllm import connections as vllm_connections
from vllm.exceptions import GracefulHTTPError, VLLMError, VLLMUnprocessableEntityError, VLLMValidationError

from mmmedia import exceptions
from mmmedia.connections import http_status, status_of
from mmmedia.errors import InvalidURLError, LimitExceededError, MediaError, UnsupportedMediaError
from mmmedia.exceptions import VLLMUnprocessableEntityError as RefusedByServerError
from mmmedia.urls import redact_url


class BadPartError(VLLMValidationError, ValueError):  # type: ignore[misc]  # vLLM's names have no types here
    """400: a part of the request that can't be served as it is."""


class UnprocessablePartError(VLLMUnprocessableEntityError, ValueError):  # type: ignore[misc]
    """422: a part whose media can't be had."""


class UnansweredPartError(GracefulHTTPError, ValueError):  # type: ignore[misc]
    """Any other status: 503 for what may heal, 500 for a mistake of the operator."""

    def __init__(self, message: str, status: HTTPStatus, *, parameter: str) -> None:
        super().__init__(message, status)
        self.parameter = parameter


class UnsupportedPartError(UnansweredPartError, NotImplementedError):
    """501: a form of input that neither this library nor vLLM has."""


_BAD = {HTTPStatus.BAD_REQUEST: BadPartError, HTTPStatus.UNPROCESSABLE_ENTITY: UnprocessablePartError}

# What vLLM's budgets raise: plain `ValueError`s, which its own connector answers with 422.
_DOWNLOAD_ERRORS = tuple(
    error
    for name in ("MediaDownloadSizeExceededError", "MediaRequestDownloadSizeExceededError")
    if isinstance(error := getattr(vllm_connections, name, None), type)
)


def translate(error: Exception, *, parameter: str, url: str = "") -> Exception:
    """Return what to raise to vLLM for an error of this library, of HTTP or of vLLM itself.

    Args:
        error: what was raised.
        parameter: the key of the part, such as "image_url".
        url: where the part is; shown without credentials and shortened.

    Returns:
        The error itself where vLLM knows what to do with it.
    """
    status = None if isinstance(error, VLLMError) else answer_of(error, url)
    if status is None:
        return error
    own = getattr(error, "parameter", None)
    if isinstance(own, str) and not own.endswith("_url"):  # what it is about is no URL
        parameter = own
    shown = redact_url(url) if url else None
    bad: Any = _BAD.get(status)
    if bad is not None:
        translated: Exception = bad(_message(error), parameter=parameter, value=shown)
        return translated
    # vLLM's answer of another status does not name the part by itself, as it does for those.
    about = f"parameter={parameter}, value={shown}" if shown else f"parameter={parameter}"
    kind = UnsupportedPartError if status == HTTPStatus.NOT_IMPLEMENTED else UnansweredPartError
    return kind(f"{_message(error)} ({about})", status, parameter=parameter)


def answer_of(error: Exception, url: str = "") -> HTTPStatus | None:
    """Return the status that a failure is answered with; `None`: as vLLM does by itself."""
    if isinstance(error, _DOWNLOAD_ERRORS):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    ours = http_status(error)
    if ours == HTTPStatus.SERVICE_UNAVAILABLE:
        return HTTPStatus.SERVICE_UNAVAILABLE
    if not isinstance(error, MediaError):
        if ours == HTTPStatus.UNPROCESSABLE_ENTITY:
            return HTTPStatus.UNPROCESSABLE_ENTITY
        return HTTPStatus.BAD_REQUEST if isinstance(error, ValueError) else None
    if ours >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return HTTPStatus(ours)
    if isinstance(error, UnsupportedMediaError):
        return HTTPStatus.NOT_IMPLEMENTED
    if isinstance(error, exceptions.VLLMUnprocessableEntityError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    is_of_http = url[:4].lower() == "http"
    if isinstance(error, RefusedByServerError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    if (isinstance(error, InvalidURLError) and is_of_http) or is_of_download(error):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.BAD_REQUEST


def is_of_download(error: Exception) -> bool:
    """Say whether a limit is one of downloads, and not of what they decode to: it names its setting."""
    return isinstance(error, LimitExceededError) and "DOWNLOAD_SIZE" in str(error)


def _message(error: Exception) -> str:
    """Return what to say of an error; HTTP libraries write the URL into theirs, with its query."""
    if isinstance(error, exceptions.VLLMValidationError | RefusedByServerError):
        return error.text  # vLLM's own classes say parameter and value
    if isinstance(error, MediaError | ValueError):
        return str(error)
    answer = status_of(error)
    if answer is not None:
        return f"Failed to fetch media from URL: HTTP {answer} error"
    return f"Failed to fetch media from URL: {str(error) or type(error).__name__}"
