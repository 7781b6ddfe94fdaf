"""Sources as people type them: paths, URLs, objects of buckets, and `-` for standard input."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mmmedia.cli.words import one_line
from mmmedia.errors import InvalidMediaError
from mmmedia.urls import redact_url, url_scheme

if TYPE_CHECKING:
    from mmmedia.cli.progress import Report
    from mmmedia.media.base import MediaIO
    from mmmedia.media.connector import MediaConnector

T = TypeVar("T")

STANDARD = "-"
"""What stands for standard input or output."""


def is_url(source: str) -> bool:
    """Say whether a source is a URL, not a path.

    >>> is_url("https://example.org/a.png"), is_url("data:image/png;base64,"), is_url("C:/a.png"), is_url("-")
    (True, True, False, False)
    """
    return "://" in source or url_scheme(source) in {"data", "file"}


def shown(source: str) -> str:
    """Return a source as it may be printed: on one line, without credentials.

    >>> shown("https://me:secret@example.org/cat.png"), shown("-")
    ('https://example.org/cat.png', 'standard input')
    """
    if source == STANDARD:
        return "standard input"
    return one_line(redact_url(source) if is_url(source) else source)


@contextlib.contextmanager
def named(source: str) -> Iterator[None]:
    """Let what fails inside be reported as about this source."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "__notes__", None):
            error.add_note(shown(source))
        raise


def standard_input() -> bytes:
    """Return all that is on standard input.

    Raises:
        InvalidMediaError: (a `ValueError`) nothing is.
    """
    data = sys.stdin.buffer.read()
    if not data:
        raise InvalidMediaError("It is empty.")
    return data


def opened(source: str) -> str | Path | bytes:
    """Return what the library takes for a source: a URL, a path, or the bytes of standard input."""
    if source == STANDARD:
        return standard_input()
    return source if is_url(source) else Path(source)


def connector_for(source: str, report: "Report | None" = None) -> "MediaConnector":
    """Return what loads a URL, under the limits and rules of the settings; of files any may be read.

    Args:
        source: the URL.
        report: is told how far downloads are.
    """
    from mmmedia.loading import sources
    from mmmedia.media.connector import MediaConnector

    if url_scheme(source) == "file":
        return MediaConnector(allowed_local_media_path="/")
    return sources.connector_for(sources.URL(source), on_progress=report and report.fetched)


def load(source: str | Path | bytes, media_io: "MediaIO[T]", report: "Report") -> T:
    """Load what was `opened` through a media IO; errors as of `MediaConnector.load_from_url`."""
    from mmmedia.loading.load import load_from
    from mmmedia.loading.sources import timeout_for

    if not isinstance(source, str):
        return load_from(source, media_io, "a file")
    return connector_for(source, report).load_from_url(source, media_io, fetch_timeout=timeout_for(media_io))
