"""What an engine is to answer when a download fails: vLLM's own error, where it is the client's fault."""

from mmmedia import envs
from mmmedia.connections import status_of
from mmmedia.errors import MediaError
from mmmedia.exceptions import (
    MediaDownloadSizeExceededError,
    MediaRequestDownloadSizeExceededError,
    VLLMUnprocessableEntityError,
)


def _wrap_media_fetch_error(url: str, exc: Exception) -> Exception:
    """Return the error to raise for one that a download ended with.

    What the client can mend is a `VLLMUnprocessableEntityError` (422) with `parameter="image_url"`, whatever
    the media, and the URL as its `value`: a server's 4xx, a download that is too large, a URL that the
    library below can't use. It is of the type of the error itself as well. Anything else is unchanged: what
    may heal (408, 429, 5xx, timeouts), this library's own errors, which have their status, and all of them
    with ``MMMEDIA_COMPAT=0.20``.

    >>> error = _wrap_media_fetch_error("http://example.org/", ValueError("bad host"))
    >>> type(error).__name__, error.text, error.http_status
    ('VLLMUnprocessableEntityError', 'Invalid URL: bad host', 422)
    """
    message = None if envs.MMMEDIA_COMPAT == "0.20" else _message(exc)
    if message is None:
        return exc
    return VLLMUnprocessableEntityError.around(exc, message, parameter="image_url", value=url)


def _message(exc: Exception) -> str | None:
    """What to say of an error that is the client's; `None` for any other."""
    if isinstance(exc, MediaDownloadSizeExceededError | MediaRequestDownloadSizeExceededError):
        return str(exc)
    if isinstance(exc, MediaError):
        return None
    status = status_of(exc)
    if status is not None:
        return None if status in (408, 429) or status >= 500 else f"HTTP {status} error: {exc}"
    return f"Invalid URL: {exc}" if isinstance(exc, ValueError) else None
