"""Objects of the stores that fsspec reads: buckets, and what else it knows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmmedia.errors import (
    MediaError,
    RemoteFileDeniedError,
    RemoteFileError,
    RemoteFileNotFoundError,
    SourceChangedError,
)
from mmmedia.sources.base import Ranges, Source, check_ranges
from mmmedia.urls import redact_url

# By what the packages of stores say that an object is still the same, the first that is there.
_VALIDATORS = ("ETag", "etag", "e_tag", "generation", "md5Hash", "content_md5", "version_id", "sha256")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


@contextmanager
def errors_of_stores(name: str) -> Iterator[None]:
    """Turn the errors of a store's package into ours; its texts may hold a signed URL or worse."""
    try:
        yield
    except (MediaError, ImportError):
        raise
    except FileNotFoundError as error:
        raise RemoteFileNotFoundError(f"{name!r} does not exist.") from error
    except PermissionError as error:
        raise RemoteFileDeniedError(f"The store does not admit {name!r}.") from error
    except Exception as error:  # each store's package has its own
        raise RemoteFileError(f"{name!r} can't be read: {type(error).__name__}.") from error


class FsspecSource(Source):
    """An object of a store, read in pieces by fsspec; whether it may be is the caller's to know.

    Args:
        filesystem: fsspec's.
        path: of the object.
        name: for messages, without credentials.
        gap: as of `Source`.

    Attributes:
        on_progress: is told, after each read, how many bytes were read by now, and how many there are.

    Raises:
        RemoteFileNotFoundError: (a `FileNotFoundError`) it is not there, a directory, or of unknown size.
        RemoteFileError: (an `OSError`) any other failure of the store.
    """

    ahead = 64 * 1024

    def __init__(self, filesystem: Any, path: str, *, name: str = "", gap: int = 256 * 1024) -> None:
        self._filesystem, self._path = filesystem, path
        self.name, self.key, self.gap = redact_url(name or path), name or path, gap
        with errors_of_stores(self.name):
            filesystem.invalidate_cache(path)  # a listing kept from before may be out of date
            info: Mapping[str, Any] = filesystem.info(path)
        size = info.get("size")
        if info.get("type", "file") != "file" or not isinstance(size, int):
            raise RemoteFileNotFoundError(f"{self.name!r} is no object of known size.")
        self.size, self.validator = size, _validator(info)
        self.on_progress: Callable[[int, int | None], object] | None = None
        self._fetched = 0

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches, all asked for at once where the store can.

        Raises:
            SourceChangedError: (an `OSError`) the object is another by now.
            RemoteFileError: (an `OSError`) a stretch came short, or any other failure of the store.
        """
        check_ranges(ranges, self.size)
        if not ranges:
            return []
        starts, stops = [start for start, _ in ranges], [stop for _, stop in ranges]
        paths = [self._path] * len(starts)
        with errors_of_stores(self.name):
            found = self._filesystem.cat_ranges(paths, starts, stops, on_error="raise")
            self._filesystem.invalidate_cache(self._path)
            is_same = _validator(self._filesystem.info(self._path)) == self.validator
        pieces = [bytes(piece) for piece in found]
        if not is_same:
            raise SourceChangedError.of(self.name)
        for piece, (start, stop) in zip(pieces, ranges, strict=True):
            if len(piece) != stop - start:
                raise RemoteFileError(f"{self.name!r} sent {len(piece)} bytes of {stop - start}.")
        self._fetched += sum(map(len, pieces))
        if self.on_progress is not None:
            self.on_progress(self._fetched, self.size)
        return pieces


def _validator(info: Mapping[str, Any]) -> str:
    found = next((str(info[key]) for key in _VALIDATORS if info.get(key)), "")
    found = found or next((str(info[key]) for key in _TIMES if info.get(key)), "")
    return f"{found}-{info.get('size')}" if found else ""
