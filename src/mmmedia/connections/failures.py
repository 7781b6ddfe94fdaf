"""What a failure means: to whoever may try again, to an engine, and in the terms of the other half."""

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.errors import MediaError, PartError
from mmmedia.urls import HTTPURL, redact_url

if TYPE_CHECKING:
    import aiohttp
    import requests


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of requests or aiohttp reports, if it does."""
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def http_status(error: BaseException) -> int:
    """Return what an engine may answer its own client with when fetching or decoding failed.

    Errors of this library know it. Of the others, 503 stands for what may heal (time, connection, DNS, a
    server's 5xx, 408 or 429), 422 for a URL that another server answers with any other error, or in no HTTP,
    or under a certificate that is not good, 500 for the rest.

    >>> from mmmedia.errors import RefusedURLError
    >>> http_status(RefusedURLError("example.org")), http_status(TimeoutError()), http_status(KeyError())
    (400, 503, 500)
    """
    if isinstance(error, PartError) and error.__cause__ is not None:
        error = error.__cause__
    for cause in causes(error):
        if isinstance(cause, MediaError):
            return cause.http_status
    if is_transient(error):
        return 503
    return 500 if status_of(error) is None and not _is_no_server(error) else 422


def headers_of(error: BaseException) -> Mapping[str, str]:
    """Return the headers of the response that an exception of requests or aiohttp reports, if it does."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    return headers or {}


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those it came from, also where a library keeps them as `reason` or arguments."""
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        current = queue.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            queue += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


def _is_no_server(error: BaseException) -> bool:
    """Say whether what answered is no server to ask again: it speaks no HTTP, or is not whom it should be."""
    from http.client import HTTPException, IncompleteRead, RemoteDisconnected
    from ssl import SSLCertVerificationError

    kinds: tuple[type[BaseException], ...] = (HTTPException, SSLCertVerificationError)
    if urllib3 := sys.modules.get("urllib3.exceptions"):
        kinds = (*kinds, urllib3.InvalidHeader)  # of lengths that contradict each other
    return any(
        isinstance(cause, kinds) and not isinstance(cause, IncompleteRead | RemoteDisconnected)
        for cause in causes(error)
    )


def is_transient(error: BaseException) -> bool:
    """Say whether another attempt might succeed: timeouts, connections, DNS, 5xx, 429 and 408.

    >>> from mmmedia.errors import RefusedURLError
    >>> is_transient(TimeoutError()), is_transient(RefusedURLError("example.org"))
    (True, False)
    """
    if _is_no_server(error) or own_error(error) is not error or isinstance(error, MediaError):
        return False
    status = status_of(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    kinds: list[type[BaseException]] = [TimeoutError]
    if requests := sys.modules.get("requests"):
        errors = requests.exceptions
        kinds += [errors.ConnectionError, errors.Timeout, errors.ChunkedEncodingError]
    if aiohttp := sys.modules.get("aiohttp"):
        kinds += [aiohttp.ClientConnectionError, aiohttp.ClientPayloadError]
    return isinstance(error, tuple(kinds))


def own_error(error: BaseException) -> BaseException:
    """Return the error of this library that a client below wrapped into its own, or `error` itself."""
    return next((cause for cause in causes(error) if isinstance(cause, MediaError)), error)


def sync_status_error(
    status: int, reason: str, url: str | HTTPURL, headers: Mapping[str, str]
) -> "requests.HTTPError":
    """Return the error of requests for a status; it holds no connection and can be pickled."""
    import requests

    response = requests.Response()
    response.status_code, response.reason, response.url = status, reason, redact_url(str(url))
    response.headers.update(headers)
    response._content = b""
    blame = "Client Error: " if 400 <= status < 500 else "Server Error: " if status >= 500 else ""
    return requests.HTTPError(f"{status} {blame}{reason} for url: {response.url}", response=response)


def async_status_error(
    status: int, reason: str, url: str | HTTPURL, headers: Mapping[str, str]
) -> "aiohttp.ClientResponseError":
    """Return the error of aiohttp for a status; it holds no connection and can be pickled."""
    import aiohttp
    from multidict import CIMultiDict
    from yarl import URL

    goal = URL(redact_url(str(url)), encoded=True)
    nothing: Any = CIMultiDict()  # aiohttp's own is a proxy, which can't be pickled
    request = aiohttp.RequestInfo(goal, "GET", nothing, goal)
    return aiohttp.ClientResponseError(
        request, (), status=status, message=reason, headers=CIMultiDict(headers)
    )


def portable_error(error: BaseException, url: str | HTTPURL) -> BaseException:
    """Return an error of aiohttp without what can't be pickled, as TLS contexts; any other as it is."""
    import aiohttp

    portable: BaseException = error
    if isinstance(error, aiohttp.ClientResponseError):
        portable = async_status_error(error.status, error.message, url, error.headers or {})
    elif isinstance(error, aiohttp.ServerDisconnectedError):
        portable = aiohttp.ServerDisconnectedError()
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        key, *others = error.args
        if hasattr(key, "_replace"):
            portable = type(error)(key._replace(ssl=True), *others)
    if portable is not error:
        portable.__cause__ = error
    return portable


def sync_error(error: Exception, url: str | HTTPURL) -> Exception:
    """Return the error of requests that stands for one of aiohttp; any other comes back as it is.

    Who waits for a download of the other half is told in the terms of its own.
    """
    import requests

    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is not None and isinstance(error, aiohttp.ClientResponseError):
        return sync_status_error(error.status, error.message, url, error.headers or {})
    if isinstance(error, TimeoutError) and not isinstance(error, MediaError):
        return requests.Timeout(str(error))
    if aiohttp is not None and isinstance(error, aiohttp.ClientError):
        return requests.ConnectionError(str(error))
    return error


def async_error(error: Exception, url: str | HTTPURL) -> Exception:
    """Return the error of aiohttp that stands for one of requests; any other comes back as it is."""
    import aiohttp

    requests = sys.modules.get("requests")
    if requests is None or not isinstance(error, requests.RequestException):
        return error
    if isinstance(error, requests.Timeout):
        return TimeoutError(str(error))
    status = status_of(error)
    if status is None:
        return aiohttp.ClientConnectionError(str(error))
    return async_status_error(status, str(error), url, headers_of(error))
