"""The cache of one directory: get, put, and what else is done with a URL's entry."""
# Plain strings and os calls: on this path a Path would cost as much as the system call.
# ruff: noqa: PTH103, PTH105, PTH108, PTH119

import contextlib
import functools
import logging
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmmedia.cache.account import Account, CacheStats, Directory
from mmmedia.cache.checking import problems
from mmmedia.cache.eviction import Life, is_scan_due, scan
from mmmedia.cache.files import (
    READ,
    Label,
    charge,
    charge_of,
    create_temp,
    read_all,
    remove,
    write_all,
)
from mmmedia.cache.names import absolute, entry_name, partial_name, remembered_entry_name

logger = logging.getLogger(__name__)

_LONG_URL = 512  # characters, from which on the name of its entry is not remembered


@dataclass(frozen=True)
class StaleEntry:
    """An expired entry that its server may confirm: its bytes and what to ask with.

    Attributes:
        data: The bytes as they were downloaded.
        etag: For the request header `If-None-Match`; empty if the server gave none.
        last_modified: For `If-Modified-Since`; empty if the server gave none.
    """

    data: bytes
    etag: str = ""
    last_modified: str = ""

    @property
    def validators(self) -> dict[str, str]:
        """What to ask the server with, by the names of those two."""
        return {"etag": self.etag, "last_modified": self.last_modified}


class MediaCache:
    """A directory of downloaded bytes, by URL.

    Nothing about the directory raises: what can't be read is a miss, what can't be written is a warning.
    Instances are safe to share between threads and survive a fork. A copy, also one in another process, has
    counters of its own.

    Args:
        directory: Where the entries live; made when first written to.
        max_bytes: The budget of all entries together. Each counts at least 4096.
        ttl_secs: The life of an entry in seconds, from its download.
        clock: Gives the time in seconds since the epoch.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     cache = MediaCache(directory, max_bytes=2**20, ttl_secs=3600)
        ...     cache.get("https://example.org/cat.jpg") is None
        ...     cache.put("https://example.org/cat.jpg", b"a photo")
        ...     cache.get("https://example.org/cat.jpg")
        True
        True
        b'a photo'
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_bytes: int,
        ttl_secs: float,
        clock: Callable[[], float] = time.time,
    ):
        self.directory = Path(absolute(directory))
        self.max_bytes = max_bytes
        self.ttl_secs = ttl_secs
        self._clock = clock
        self._shared = Directory(str(self.directory))

    def __reduce__(self) -> tuple[Any, ...]:
        limits: dict[str, Any] = {"max_bytes": self.max_bytes, "ttl_secs": self.ttl_secs}
        return functools.partial(type(self), str(self.directory), clock=self._clock, **limits), ()

    def __repr__(self) -> str:
        return f"MediaCache({str(self.directory)!r}, max_bytes={self.max_bytes}, ttl_secs={self.ttl_secs})"

    def with_limits(self, max_bytes: int, ttl_secs: float) -> "MediaCache":
        """Return a cache of another budget and time to live, that shares the directory and the counters."""
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        other.max_bytes = max_bytes
        other.ttl_secs = ttl_secs
        return other

    def path(self, url: str) -> Path:
        """Return the file that holds, or would hold, a URL's entry."""
        return Path(self._path(url))

    def _path(self, url: str) -> str:
        name = remembered_entry_name(url) if len(url) <= _LONG_URL else entry_name(url)
        return f"{self._shared.path}/{name}"

    def _partial_path(self, path: str) -> str:
        """Return where the partial entry stands beside the entry at a path."""
        return f"{self._shared.path}/{partial_name(os.path.basename(path))}"

    def get(self, url: str, *, max_size: int | None = None) -> bytes | None:
        """Return the bytes stored for a URL, which counts as a use, or None.

        Args:
            url: The URL as it was given to `put`.
            max_size: Take an entry of more bytes for a miss, without reading it.
        """
        entry = self._read(self._path(url), max_size, stale=False)
        self._shared.count("misses" if entry is None else "hits")
        return None if entry is None else entry.data

    def get_stale(self, url: str, *, max_size: float | None = None) -> StaleEntry | None:
        """Return the expired entry of a URL, if its server can be asked whether it is still good, or None.

        Entries that were stored with an `ETag` or `Last-Modified` are kept for this up to twice the
        time to live, unless the budget needs their room. Counts neither as hit nor as miss, nor as a use.

        Args:
            url: The URL as it was given to `put`.
            max_size: Leave an entry of more bytes alone.
        """
        return self._read(self._path(url), max_size, stale=True)

    def put(self, url: str, data: bytes, *, etag: str = "", last_modified: str = "") -> bool:
        """Store the bytes downloaded from a URL, in place of what was there.

        Empty data and data longer than the whole budget are not stored; what can't be written is
        a warning in the log.

        Args:
            url: Where the bytes came from.
            data: The bytes.
            etag: The response's `ETag`, if any.
            last_modified: The response's `Last-Modified`, if any.

        Returns:
            Whether it was stored.
        """
        if not 0 < len(data) <= self.max_bytes:
            return False
        label = Label.of(data, etag, last_modified)
        path = self._path(url)
        try:
            try:
                self._store(path, data, label)
            except FileNotFoundError:  # the directory is not there yet, or no more
                os.makedirs(self._shared.path, exist_ok=True)
                self._store(path, data, label)
        except OSError as error:
            self._warn(error)
            return False
        self._shared.put_failed = False
        self._shared.count("puts")
        return True

    def _warn(self, error: OSError) -> None:
        """Log that an entry could not be stored."""
        # Once, not once per download: a full disk stays full for a while.
        level = logging.DEBUG if self._shared.put_failed else logging.WARNING
        self._shared.put_failed = True
        logger.log(level, "Media cache %s: an entry could not be stored: %s", self.directory, error)

    def refresh(self, url: str) -> bool:
        """Begin the life of an entry anew, after its server said that it is still good (304).

        Returns:
            Whether there was an entry.
        """
        try:
            file = os.open(self._path(url), READ)
        except OSError:
            return False
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                return False
            self._set_times(file)
        except OSError:
            return False
        finally:
            os.close(file)
        return True

    def discard(self, url: str) -> None:
        """Forget a URL, also what is there of it in blocks: its bytes turned out not to decode."""
        path = self._path(url)
        self._discard(path)
        self._discard(self._partial_path(path))

    def evict(self, exclude: Path | None = None) -> None:
        """Bring the directory within its budget, the least recently used entries first, and sweep it.

        `put` does so by itself when it is due. Also removes what has expired and temp files of writers
        that are no more, and takes stock of entries that others added or removed.

        Args:
            exclude: An entry to leave in place.
        """
        with contextlib.suppress(OSError), self._shared.locked() as file:
            self._scan(file, keep=None if exclude is None else exclude.name)

    @property
    def stats(self) -> CacheStats:
        """The counters now. Cheap: the size is as accounted, not counted anew."""
        account = None
        with contextlib.suppress(OSError), self._shared.locked() as file:
            account = self._shared.account(file)
            if account is None:
                account = scan(self._shared, file, self._life(), max_bytes=None)
        account = account or Account(0, 0, 0)
        return CacheStats(**self._shared.counts(), bytes=account.total_bytes, entries=account.entries)

    def check(self) -> list[str]:
        """Compare the files with the account, the budget and their own labels.

        It reads every entry, while others go on using the directory. Files that somebody added or removed by
        hand, and what a killed process left, are problems until the next scan: see `evict`.

        Returns:
            A sentence for each problem, empty if all is well. Whatever is met there, it raises nothing.

        Example:
            >>> import tempfile
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     cache = MediaCache(directory, max_bytes=2**20, ttl_secs=3600)
            ...     cache.put("https://example.org/cat.jpg", b"a photo")
            ...     print(cache.check())
            ...     cache.path("https://example.org/cat.jpg").unlink()
            ...     print(*cache.check())
            True
            []
            the account says 1 entries of 4096 bytes, there are 0 of 0
        """
        return problems(self._shared, self.max_bytes)

    def _life(self) -> Life:
        return Life(self.ttl_secs, self._clock())

    def _set_times(self, file: int, downloaded_ns: int | None = None) -> None:
        """Note a use of an open entry, and its download if that is not given."""
        now = int(self._clock() * 1e9)
        os.utime(file, ns=(now, now if downloaded_ns is None else downloaded_ns))

    def _read(self, path: str, max_size: float | None, *, stale: bool) -> StaleEntry | None:
        """Read an entry of the wanted kind, fresh or stale, and drop it if it is of no use to anyone."""
        try:
            file = os.open(path, READ)
        except OSError:  # not there; or a symbolic link, which is not ours
            return None
        try:
            status = os.fstat(file)
            limit = self.max_bytes if max_size is None else min(max_size, self.max_bytes)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                return None
            label, life = Label.on(file), self._life()
            is_fresh = life.is_fresh(status)
            is_kept = is_fresh or life.may_be_confirmed(status, label)
            if not is_fresh and not stale:
                self._shared.count("expiries")
            if not is_kept:
                self._discard(path, status)
            if not is_kept or is_fresh == stale:
                return None
            data = read_all(file, status.st_size)
            if not data or (label is not None and not label.describes(data)):
                self._shared.count("corruptions")
                self._discard(path, status)
                return None
            if not stale:
                with contextlib.suppress(OSError):  # another user's file
                    self._set_times(file, status.st_mtime_ns)
        except OSError:
            return None
        finally:
            os.close(file)
        return StaleEntry(data, label.etag, label.last_modified) if label else StaleEntry(data)

    def _store(self, path: str, data: bytes, label: Label) -> None:
        """Write a temp file and publish it under its name."""
        temp, file = create_temp(self._shared.path)
        try:
            write_all(file, data)
            label.stick(file)
            self._set_times(file)
            with self._shared.locked() as directory:
                self._publish(directory, temp, path, charge(len(data)), self._partial_path(path))
        except BaseException:
            remove(temp)
            raise
        finally:
            os.close(file)  # last: until here the lock on the file tells others that its writer lives

    def _publish(self, file: int, temp: str, path: str, taken: int, partial: str = "") -> None:
        """Give a temp file its name, in the directory that is open and locked.

        Args:
            file: the directory.
            temp: the temp file.
            path: its name.
            taken: what it takes of the budget.
            partial: the partial entry that it replaces, if there is one.
        """
        account = self._shared.account(file)
        if account is not None:
            # Before the file: a process killed in between leaves the account too high, not too low.
            account = account.with_entry(taken, charge_of(path))
            self._shared.set_account(file, account)
        os.replace(temp, path)
        if partial and (freed := charge_of(partial)) is not None and remove(partial) and account is not None:
            account = account.without_entry(freed)
            self._shared.set_account(file, account)
        if (
            account is None
            or account.total_bytes > self.max_bytes
            or is_scan_due(account, is_shared=self._shared.shares_account)
        ):
            self._scan(file, keep=os.path.basename(path))

    def _scan(self, file: int, keep: str | None) -> None:
        scan(self._shared, file, self._life(), max_bytes=self.max_bytes, keep=keep)

    def _discard(self, path: str, found: os.stat_result | None = None) -> None:
        """Remove an entry, unless it has meanwhile been replaced by another than the one found."""
        with contextlib.suppress(OSError), self._shared.locked() as file:
            status = os.lstat(path)
            if found is not None and not os.path.samestat(status, found):
                return
            freed = charge_of(path)
            os.unlink(path)
            account = self._shared.account(file)
            if account is not None and freed is not None:
                self._shared.set_account(file, account.without_entry(freed))
