"""Objects of buckets (`s3://`, `gs://`, `az://`, `hf://`, …): which URLs are admitted, and reading them.

Requests are made with the credentials of this process, so that only buckets that the operator listed are
read. Credentials and endpoints are those that the stores' packages find by themselves, or what fsspec's own
configuration says (``FSSPEC_S3_ENDPOINT_URL``, ``~/.config/fsspec/``).
"""

import asyncio
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from mmmedia import envs, metrics
from mmmedia.connections import HTTPConnection, Progress, RetryPlan
from mmmedia.connections.ranges import check_source_size, gap
from mmmedia.connections.rules import policy_under_way
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidURLError,
    LimitExceededError,
    MediaError,
    MissingPackageError,
    RefusedURLError,
    RemoteFileError,
    RemoteFileNotFoundError,
)
from mmmedia.packages import missing_package
from mmmedia.sources import FsspecSource, errors_of_stores
from mmmedia.urls import MAX_URL_LENGTH, redact_url, url_scheme
from mmmedia.work.executors import ProcessPool

READ_THREADS = 32
"""Objects that are read at a time, in threads of their own: a slow store must not hold up decoding."""

OWN_SCHEMES = frozenset({"http", "https", "data", "file"})
"""Schemes that the connector itself knows."""
NEVER = frozenset(
    {
        # Files of this machine; and the web, which has rules of its own.
        *OWN_SCHEMES, "local", "asynclocal",
        # What wraps another source, chosen by the rest of the URL or by arguments.
        "simplecache", "filecache", "blockcache", "cached", "dir", "zip", "tar", "libarchive", "reference",
        "generic", "asyncwrapper", "async_wrapper", "chained",
        # Hosts and repositories, not buckets.
        "ftp", "sftp", "ssh", "smb", "webhdfs", "webdav", "hdfs", "arrow_hdfs", "jlab", "jupyter", "git",
        "github", "gist", "dask", "dbfs", "root", "dvc", "lakefs", "dropbox", "gdrive", "gmail",
    }
)  # fmt: skip
"""Schemes of fsspec that are refused, whatever is listed."""

T = TypeVar("T")

_PART_BYTES = 8 << 20
"""Of an object of which somebody wants to know how far it has been read."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<path>(?P<bucket>[^/?#\s\\]+)(?:/(?P<key>.*))?)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ObjectURL(NamedTuple):
    """A URL that names an object: the scheme in small letters, and bucket and key as fsspec takes them."""

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"


def parse_object_url(url: str) -> ObjectURL:
    """Read the URL of an object.

    Raises:
        InvalidURLError: (a `ValueError`) no such URL.
        RefusedURLError: (a `ValueError`) a chained URL, a scheme of `NEVER`, dots that lead elsewhere.

    >>> parse_object_url("S3://photos/2026/a cat.jpg")
    ObjectURL(scheme='s3', path='photos/2026/a cat.jpg')
    """
    shown = redact_url(url)
    if len(url) > MAX_URL_LENGTH or _CONTROL.search(url):
        raise InvalidURLError(f"Invalid object URL: too long, or control characters: {shown!r}.")
    if "::" in url:
        raise RefusedURLError(f"Chained URLs are refused: {shown!r}.", reason="bucket")
    scheme = url_scheme(url)
    if scheme in NEVER:
        raise RefusedURLError(f"Refused scheme {scheme!r}: it names no bucket: {shown!r}.", reason="bucket")
    match = _URL.fullmatch(url)
    if match is None or not match["key"] or match["key"].endswith("/"):
        raise InvalidURLError(f"Invalid object URL; expected <scheme>://<bucket>/<key>: {shown!r}.")
    if {".", ".."} & set(re.split(r"[/\\]", unquote(match["path"]))):
        raise RefusedURLError(f"An object's key must not have '.' or '..' in it: {shown!r}.", reason="bucket")
    return ObjectURL(scheme, match["path"])


@dataclass(frozen=True, slots=True)
class BucketList:
    """The buckets that an operator admits; see `bucket_list`."""

    prefixes: tuple[str, ...]

    def check(self, url: ObjectURL) -> None:
        """Raise `RefusedURLError` (a `ValueError`) for an object that is not below one of them."""
        if not str(url).startswith(self.prefixes):
            raise RefusedURLError(
                f"Refused {redact_url(str(url))!r}: it is in none of the allowed buckets "
                f"({', '.join(self.prefixes) or 'none'}); see VLLM_MEDIA_ALLOWED_BUCKETS.",
                reason="bucket",
            )


def bucket_list(entries: Iterable[str]) -> BucketList:
    """Read a list of buckets: `s3://photos`, `gs://clips/public` for what is below, `hf://*` for all.

    Raises:
        InvalidArgumentError: (a `ValueError`) an entry of another form, or a scheme of `NEVER`.

    >>> buckets = bucket_list(["s3://photos/public"])
    >>> buckets.check(parse_object_url("s3://photos/public/cat.jpg"))
    """
    if isinstance(entries, str):
        raise InvalidArgumentError(f"allowed_buckets must be a list of buckets, not {entries!r}.")
    prefixes = []
    for entry in entries:
        match = _URL.fullmatch(entry)
        scheme = url_scheme(entry)
        if match is None or scheme in NEVER or "::" in entry or "*" in match["path"].removeprefix("*"):
            raise InvalidArgumentError(
                f"allowed_buckets: {entry!r} is no bucket; expected one such as 's3://photos' or 'hf://*'."
            )
        path = match["path"].rstrip("/")
        prefixes.append(f"{scheme}://" if path == "*" else f"{scheme}://{path}/")
    return BucketList(tuple(prefixes))


_readers = ProcessPool("mmmedia-fsspec", lambda: READ_THREADS)


def read_object(url: str, on_progress: Progress | None = None) -> bytes:
    """Return the bytes of an object, which must be of an admitted bucket; the caller has checked that.

    Args:
        url: of the object.
        on_progress: is told how many bytes have come, and how many there are; it is read in parts for that.

    Raises:
        LimitExceededError: (a `ValueError`) it is longer than the download limit; it is not read.
        RemoteFileNotFoundError: (a `FileNotFoundError`) it is not there.
        RemoteFileDeniedError: (a `PermissionError`) the store does not admit it.
        RemoteFileError: (an `OSError`) any other failure of the store.
        MissingPackageError: (an `ImportError`) fsspec or the store's package is not installed.
    """
    source = parse_object_url(url)
    with metrics.downloading(sink := io.BytesIO()), _as_ours(source):
        _read(source, sink, on_progress)
    return sink.getvalue()


def open_object(url: str, on_progress: Progress | None = None) -> FsspecSource:
    """Return what reads an object in pieces; errors as of `read_object`, but for the limit.

    Args:
        url: of the object.
        on_progress: is told how many bytes were read, and how many there are.

    Raises:
        LimitExceededError: (a `ValueError`) it is larger than `VLLM_MAX_MEDIA_SOURCE_SIZE_MB`.
    """
    url_of = parse_object_url(url)
    with _as_ours(url_of):
        source = FsspecSource(_filesystem(url_of), url_of.path, name=str(url_of), gap=gap())
    check_source_size(source.name, source.size)
    source.on_progress = on_progress
    return source


@contextmanager
def _as_ours(source: ObjectURL) -> Iterator[None]:
    """Turn the errors of a store's package, or of its absence, into ours."""
    try:
        with errors_of_stores(redact_url(str(source))):
            yield
    except MediaError:
        raise
    except ImportError as error:
        raise missing_package(error, f"Reading {source.scheme}://") or MissingPackageError(
            f"Reading {source.scheme}:// needs a package that is not installed: {error}."
        ) from error


def _filesystem(source: ObjectURL) -> Any:
    import fsspec

    try:
        fsspec.get_filesystem_class(source.scheme)
    except ValueError:
        raise MissingPackageError(f"No installed package makes fsspec read {source.scheme}://.") from None
    return fsspec.filesystem(source.scheme)


def _read(source: ObjectURL, sink: io.BytesIO, on_progress: Progress | None) -> None:
    filesystem = _filesystem(source)
    filesystem.invalidate_cache(source.path)  # a listing kept from before may be out of date
    info: Mapping[str, Any] = filesystem.info(source.path)
    shown = redact_url(str(source))
    if info.get("type", "file") != "file":
        raise RemoteFileNotFoundError(f"{shown!r} is a {info['type']}, not an object.")
    megabytes = envs.VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB
    limit = megabytes * 1024 * 1024 if megabytes > 0 else None
    size = info.get("size")
    if size is None:
        with filesystem.open(source.path, "rb") as file:
            sink.write(file.read() if limit is None else file.read(limit + 1))
        _check_size(shown, sink.tell(), limit)
        return
    _check_size(shown, size, limit)
    if on_progress is not None:
        parts = FsspecSource(filesystem, source.path, name=str(source))  # never of two states of it
        parts.on_progress = on_progress
        bounds = [*range(0, size, _PART_BYTES), size]
        sink.writelines(parts.read([each])[0] for each in itertools.pairwise(bounds))
    elif size > 0:  # stores refuse a range of nothing
        sink.write(filesystem.cat_file(source.path, start=0, end=size))
    if sink.tell() != size:
        raise RemoteFileError(f"{shown!r} has {size} bytes, of which {sink.tell()} came.")


def _check_size(shown: str, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise LimitExceededError(
            f"{shown!r} has more than {limit} bytes; VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB sets this limit."
        )


class ObjectConnection:
    """What the connector fetches through: objects by fsspec, all else by a connection for HTTP.

    A read has as much time as all attempts of an HTTP fetch together; trying again is up to the store's own
    package.

    Args:
        http: fetches HTTP URLs.
    """

    def __init__(self, http: HTTPConnection) -> None:
        self.http = http

    def __repr__(self) -> str:
        return f"ObjectConnection({self.http!r})"

    def get_bytes(self, url: str, *, timeout: float | None = None, allow_redirects: bool = True) -> bytes:
        """Return the bytes behind a URL; errors as of `read_object`, and `TimeoutError`."""
        if url_scheme(url) in OWN_SCHEMES:
            return self.http.get_bytes(url, timeout=timeout, allow_redirects=allow_redirects)
        return _in_time(read_object, url, timeout)

    def open_object(self, url: str, *, timeout: float | None = None) -> FsspecSource:
        """Return what reads an object in pieces; errors as of the function, and `TimeoutError`."""
        return _in_time(open_object, url, timeout)

    async def async_open_object(
        self,
        url: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
    ) -> FsspecSource:
        """Return what reads an object in pieces; see `open_object`."""
        return await asyncio.to_thread(self.open_object, url, timeout=timeout)

    async def async_get_bytes(
        self,
        url: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # of one attempt
        allow_redirects: bool = True,
    ) -> bytes:
        """Return the bytes behind a URL; see `get_bytes`."""
        if url_scheme(url) in OWN_SCHEMES:
            return await self.http.async_get_bytes(url, timeout=timeout, allow_redirects=allow_redirects)
        pending = asyncio.wrap_future(_readers.executor().submit(read_object, url, _progress()))
        seconds = _longest(timeout)
        try:
            done, _ = await asyncio.wait({pending}, timeout=seconds)
            if not done:
                raise _too_long(url, seconds)
            return pending.result()
        finally:
            pending.cancel()


def _in_time(read: Callable[[str, Progress | None], T], url: str, timeout: float | None) -> T:
    """Return what a thread reads of an object, if that does not take too long."""
    pending = _readers.executor().submit(read, url, _progress())
    seconds = _longest(timeout)
    try:
        return pending.result(seconds)
    except FutureTimeoutError:
        pending.cancel()
        raise _too_long(url, seconds) from None


def _progress() -> Progress | None:
    """Return what is to be told how far a download is that begins here."""
    policy = policy_under_way.get()
    return policy.on_progress if policy is not None else None


def _longest(timeout: float | None) -> float:
    return RetryPlan(timeout, envs.VLLM_MEDIA_FETCH_MAX_RETRIES).bound_seconds


def _too_long(url: str, seconds: float) -> TimeoutError:
    return TimeoutError(f"{redact_url(url)!r} took more than {seconds:g} s; see VLLM_*_FETCH_TIMEOUT.")
