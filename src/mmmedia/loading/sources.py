"""What callers hand in: text, paths, bytes, open files; and how each is got.

A path, and a `file:` URL, that the caller writes is the caller's own: it is opened as any program opens it. A
URL of the network is held to every policy and limit, as in `MediaConnector`; of a bucket the one that the URL
names is admitted, unless `VLLM_MEDIA_ALLOWED_BUCKETS` says which are.
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from mmmedia import envs
from mmmedia.errors import (
    InvalidArgumentError,
    LocalFileError,
    LocalFileNotFoundError,
)
from mmmedia.media.base import MediaIO
from mmmedia.media.connector import MediaConnector
from mmmedia.urls import file_url_path, url_scheme

T = TypeVar("T")

Source = Any
"""`str`, a path, bytes, an open binary file; of pictures also those of Pillow and arrays."""

_OF_CONNECTOR = frozenset({"http", "https", "data"})


class URL(str):
    """A text that is the URL of something to be fetched."""

    __slots__ = ()


def located(source: Source) -> "URL | Path | bytes | None":
    """Return what a source is: a URL, a path, or bytes that are there already; None: none of these.

    Raises:
        InvalidURLError: (a `ValueError`) a `file:` URL that names no path.
        InvalidArgumentError: (a `ValueError`) a file opened as text.
    """
    if isinstance(source, str):
        scheme = url_scheme(source)
        if scheme == "file":
            return Path(file_url_path(source))
        # A single letter is a drive of Windows; a colon alone may stand in the name of a file.
        if scheme in _OF_CONNECTOR or (len(scheme) > 1 and "://" in source):
            return URL(source)
        return _path(source)
    if isinstance(source, os.PathLike):
        return _path(os.fsdecode(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source)
    if callable(getattr(source, "read", None)):
        return _read(source)
    return None


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _read(file: Any) -> bytes:
    """Return all bytes of an open file, from its start where it can be rewound; it stays where it stood."""
    where = None
    if callable(getattr(file, "seekable", None)) and file.seekable():
        where = file.tell()
        file.seek(0)
    data = file.read()
    if where is not None:
        file.seek(where)
    if isinstance(data, str):
        raise InvalidArgumentError('The file is open as text; open it with mode "rb".')
    return bytes(data)


def read_path(path: Path, *, peek: bool = False) -> bytes:
    """Return the bytes of a file.

    Args:
        path: where it is.
        peek: only try whether it can be read, and return its first byte.

    Raises:
        LocalFileNotFoundError: (a `LocalFileError` and a `FileNotFoundError`) there is none.
        LocalFileError: (an `OSError` and a `ValueError`) it can't be read, or is a device: one may never end.
    """
    if path.is_char_device() or path.is_block_device():
        raise LocalFileError(f"{str(path)!r} is a device, not a file.")
    try:
        with path.open("rb") as file:
            return file.read(1 if peek else -1)
    except FileNotFoundError:
        raise LocalFileNotFoundError(f"There is no file {str(path)!r} in {str(Path.cwd())!r}.") from None
    except IsADirectoryError:
        raise LocalFileError(f"{str(path)!r} is a directory; load_many takes the files in it.") from None
    except (OSError, ValueError) as error:
        raise LocalFileError(
            f"Cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}."
        ) from None


def connector_for(url: URL, **options: Any) -> MediaConnector:
    """Return a connector that knows the scheme of a URL.

    Args:
        url: what is to be fetched.
        **options: of the connector.

    Raises:
        MissingPackageError: (an `ImportError`) fsspec is not installed.
    """
    if url_scheme(url) in (*_OF_CONNECTOR, "file"):
        return MediaConnector(**options)
    from mmmedia.media.fsspec_connector import FsspecConnector

    if "allowed_buckets" not in options and not envs.VLLM_MEDIA_ALLOWED_BUCKETS.strip():
        options["allowed_buckets"] = [_bucket(url)]
    return FsspecConnector(**options)


def _bucket(url: URL) -> str:
    from mmmedia.media.buckets import parse_object_url

    scheme, path = parse_object_url(url)
    return f"{scheme}://{path.partition('/')[0]}"


def timeout_for(media_io: MediaIO[Any]) -> float:
    """Return the seconds for one attempt to fetch what a media IO loads."""
    if media_io.modality == "image":
        return envs.VLLM_IMAGE_FETCH_TIMEOUT
    return envs.VLLM_AUDIO_FETCH_TIMEOUT if media_io.modality == "audio" else envs.VLLM_VIDEO_FETCH_TIMEOUT


def refused(source: object, kind: str) -> InvalidArgumentError:
    """Return the error for what is no source."""
    return InvalidArgumentError(
        f"{type(source).__name__}: {kind} is loaded from a path, a URL, bytes or a file open for reading."
    )
