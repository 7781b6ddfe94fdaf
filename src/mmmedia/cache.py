"""The on-disk byte cache: encoded media by URL, with a time to live and least-recently-used eviction.

One directory holds one file per URL. Any number of threads and processes may share it, also with vLLM,
whose entries are served as they stand. What is known about an entry lives in its file:

* its name: the first 20 hex digits of the URL's SHA-256, then the suffix of the URL's path if that is
  short and plain (``3b1f…9a.jpg``). A file of any other name is not ours: neither served nor deleted;
* its modification time: when it was downloaded, from which the time to live runs;
* its access time: when it was last used, which orders eviction. It is set explicitly, as file systems
  are commonly mounted so that reading does not update it;
* an extended attribute: its length and CRC-32, to notice damage, and what the server gave for asking
  whether the entry is still good (``ETag``, ``Last-Modified``). An entry without one is accepted.

What is known about the directory, the sum of its entries, lives in an extended attribute of the directory,
changed under its ``flock``: no process needs to list the directory to learn whether the budget is reached,
and a scan made by one serves all. Where the file system has no such attributes each process counts for itself
and scans more often.
"""
# Plain strings and os calls: on this path a Path would cost as much as the system call.
# ruff: noqa: PTH100, PTH103, PTH105, PTH108, PTH111, PTH119

import contextlib
import errno
import fcntl
import functools
import logging
import os
import re
import secrets
import stat
import sys
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from mmmedia import metrics

logger = logging.getLogger(__name__)

_BLOCK = 4096  # what the smallest entry counts: a million tiny files are not free
_ENTRY_NAME = re.compile(r"[0-9a-f]{20}(\.[A-Za-z0-9]{1,10})?", re.ASCII)
_PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}", re.ASCII)
_TEMP_NAME = re.compile(r"\.mmmedia-[0-9a-f]{16}\.tmp", re.ASCII)
_ATTRIBUTE = "user.mmmedia"
_LARGE = 64  # from so many entries on, eviction frees more than it must, so that scans are rare:
_SPARE = 32  # this part of the budget
_CLOCK_SKEW = 5.0  # seconds by which the clocks of two machines that share a directory may differ
_LOCK_PATIENCE = 5.0  # seconds; only a process stopped in the middle of a put makes anyone wait this long
_TEMP_AGE = 3600.0  # seconds after which a temp file counts as abandoned where files can't be locked


@dataclass(frozen=True)
class CacheStats:
    """Counters of this process since it opened the directory, and the size of the directory.

    Attributes:
        hits: Calls of `get` that returned bytes.
        misses: Calls of `get` that returned None, for whatever reason.
        puts: Entries written.
        evictions: Entries removed because the budget was exceeded.
        expiries: Entries found to be older than the time to live.
        corruptions: Entries found damaged: not of the length or checksum they were stored with.
        bytes: What the entries count together, at least 4096 each. All processes' entries are in it.
        entries: How many there are.
    """

    hits: int = 0
    misses: int = 0
    puts: int = 0
    evictions: int = 0
    expiries: int = 0
    corruptions: int = 0
    bytes: int = 0
    entries: int = 0


@dataclass(frozen=True)
class StaleEntry:
    """An expired entry that its server may confirm: its bytes and what to ask with.

    Attributes:
        data: The bytes as they were downloaded.
        etag: For the request header ``If-None-Match``; empty if the server gave none.
        last_modified: For ``If-Modified-Since``; empty if the server gave none.
    """

    data: bytes
    etag: str = ""
    last_modified: str = ""

    @property
    def validators(self) -> dict[str, str]:
        """What to ask the server with, by the names of those two."""
        return {"etag": self.etag, "last_modified": self.last_modified}


def entry_name(url: str) -> str:
    """The file name of a URL's entry.

    >>> entry_name("https://example.org/cat.jpg?size=2")
    'f996c247d8e988145e03.jpg'
    >>> entry_name("https://example.org/cat.jpg%00")
    '1b81246769c397f03e32'
    """
    try:
        suffix = PurePosixPath(urlsplit(url).path).suffix
    except ValueError:  # a malformed URL
        suffix = ""
    if not _PLAIN_SUFFIX.fullmatch(suffix):
        suffix = ""
    return sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:20] + suffix


_short_entry_name = functools.lru_cache(maxsize=4096)(entry_name)


def _absolute(directory: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(directory)))


def _charge(size: int) -> int:
    return max(size, _BLOCK)


class _Account(NamedTuple):
    """What all processes know together about a directory."""

    size: int  # of all entries, each counted at least as a block
    entries: int
    changes: int  # entries written since the last scan

    def with_entry(self, charge: int, replaced: int | None) -> "_Account":
        """Add an entry, in place of one of which the charge is given."""
        return _Account(
            max(0, self.size + charge - (replaced or 0)), self.entries + (replaced is None), self.changes + 1
        )

    def dumps(self) -> bytes:
        return " ".join(map(str, self)).encode()

    @classmethod
    def loads(cls, text: bytes) -> "_Account | None":
        try:
            account = cls(*map(int, text.split()))
        except (TypeError, ValueError):
            return None
        return account if min(account) >= 0 else None


class _Label(NamedTuple):
    """What an entry's file attribute says of it."""

    length: int
    crc32: int
    etag: str = ""
    last_modified: str = ""

    def describes(self, data: bytes) -> bool:
        return self.length == len(data) and self.crc32 == zlib.crc32(data)

    def dumps(self) -> bytes:
        return f"{self.length}\n{self.crc32}\n{self.etag}\n{self.last_modified}".encode()

    @classmethod
    def loads(cls, text: bytes) -> "_Label | None":
        try:
            length, crc32, etag, last_modified = text.decode().split("\n")
            return cls(int(length), int(crc32), etag, last_modified)
        except ValueError:
            return None


def _get_attribute(file: int) -> bytes | None:
    if sys.platform != "linux":
        return None
    try:
        return os.getxattr(file, _ATTRIBUTE)
    except OSError:
        return None


def _set_attribute(file: int, value: bytes) -> bool:
    if sys.platform != "linux":
        return False
    try:
        os.setxattr(file, _ATTRIBUTE, value)
    except OSError:
        return False
    return True


def _lock(file: int, patience: float) -> bool:
    """Take the file's lock, waiting at most so many seconds; False if there is no having it."""
    deadline = time.monotonic() + patience
    pause = 50e-6
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        except OSError:  # a file system without locks
            return False
        else:
            return True
        time.sleep(pause)
        pause = min(2 * pause, 0.005)


def _unlock(file: int) -> None:
    # Closing would not do: a process forked meanwhile has a copy of the descriptor.
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)


def _read_all(file: int, size: int) -> bytes:
    data = os.read(file, size)
    if len(data) == size:
        return data
    chunks = [data]
    while data:
        data = os.read(file, size)
        chunks.append(data)
    return b"".join(chunks)


def _write_all(file: int, data: bytes) -> None:
    written = os.write(file, data)
    while written < len(data):
        written += os.write(file, memoryview(data)[written:])


def _remove(path: str) -> bool:
    """Remove a file; True if it is gone, by whosever hand."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _sweep(path: str) -> None:
    """Remove a temp file unless somebody is still writing it: a writer holds its lock until it ends."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    except OSError:
        if time.time() - os.fstat(file).st_mtime > _TEMP_AGE:  # no locks here
            _remove(path)
    else:
        _remove(path)
    finally:
        os.close(file)


class _Directory:
    """One cache directory as this process sees it: its locks, its account, its counters."""

    def __init__(self, path: str):
        self.path = path
        self.put_failed = False
        self._counts = dict.fromkeys(("hits", "misses", "puts", "evictions", "expiries", "corruptions"), 0)
        self._own_account: _Account | None = None
        self.shares_account = True
        self.start_afresh()
        _directories_alive.add(self)

    def start_afresh(self) -> None:
        """Forget what other threads, perhaps of the process that this one was forked from, are doing."""
        self._lock = threading.Lock()
        self._counts_lock = threading.Lock()

    def count(self, name: str, number: int = 1) -> None:
        with self._counts_lock:
            self._counts[name] += number

    def counts(self) -> dict[str, int]:
        with self._counts_lock:
            return self._counts.copy()

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory against all other threads and processes; gives its descriptor."""
        with self._lock:
            file = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if not _lock(file, _LOCK_PATIENCE):
                    logger.debug("Cache directory %s can't be locked; its size may be misjudged.", self.path)
                yield file
            finally:
                _unlock(file)
                os.close(file)

    def account(self, file: int) -> _Account | None:
        """The account, or None if nobody has scanned this directory yet. Call it `locked`."""
        if not self.shares_account:
            return self._own_account
        text = _get_attribute(file)
        return None if text is None else _Account.loads(text)

    def set_account(self, file: int, account: _Account) -> None:
        if self.shares_account and not _set_attribute(file, account.dumps()):
            self.shares_account = False
        self._own_account = account


_directories_alive: "weakref.WeakSet[_Directory]" = weakref.WeakSet()


class MediaCache:
    """A directory of downloaded bytes, by URL.

    Nothing about the directory raises: what can't be read is a miss, what can't be written is a warning.
    Instances are safe to share between threads and survive a fork.

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
        self.directory = Path(_absolute(directory))
        self.max_bytes = max_bytes
        self.ttl_secs = ttl_secs
        self._clock = clock
        self._shared = _Directory(str(self.directory))

    def __repr__(self) -> str:
        return f"MediaCache({str(self.directory)!r}, max_bytes={self.max_bytes}, ttl_secs={self.ttl_secs})"

    def path(self, url: str) -> Path:
        """The file that holds, or would hold, a URL's entry."""
        return Path(self._file(url))

    def _file(self, url: str) -> str:
        # A miss is followed by a put; what is long is not kept.
        name = _short_entry_name(url) if len(url) <= 512 else entry_name(url)
        return f"{self._shared.path}/{name}"

    def get(self, url: str, *, max_size: int | None = None) -> bytes | None:
        """The bytes stored for a URL, which counts as a use, or None.

        Args:
            url: The URL as it was given to `put`.
            max_size: Take a larger entry for a miss, without reading it.
        """
        entry = self._read(self._file(url), max_size, stale=False)
        self._shared.count("misses" if entry is None else "hits")
        return None if entry is None else entry.data

    def get_stale(self, url: str, *, max_size: int | None = None) -> StaleEntry | None:
        """The expired entry of a URL, if its server can be asked whether it is still good.

        Entries that were stored with an ``ETag`` or ``Last-Modified`` are kept for this up to twice the
        time to live, unless the budget needs their room. Counts neither as hit nor as miss, nor as a use.
        """
        return self._read(self._file(url), max_size, stale=True)

    def put(self, url: str, data: bytes, *, etag: str = "", last_modified: str = "") -> bool:
        """Store the bytes downloaded from a URL, in place of what was there.

        Empty data and data longer than the whole budget are not stored; what can't be written is
        a warning in the log.

        Args:
            url: Where the bytes came from.
            data: The bytes.
            etag: The response's ``ETag``, if any.
            last_modified: The response's ``Last-Modified``, if any.

        Returns:
            Whether it was stored.
        """
        if not 0 < len(data) <= self.max_bytes:
            return False
        # Attributes are small on every file system, and this one has a line for each.
        if len(etag) + len(last_modified) > 512 or not (etag + last_modified).isprintable():
            etag = last_modified = ""
        label = _Label(len(data), zlib.crc32(data), etag, last_modified)
        path = self._file(url)
        try:
            try:
                self._store(path, data, label)
            except FileNotFoundError:  # the directory is not there yet, or no more
                os.makedirs(self._shared.path, exist_ok=True)
                self._store(path, data, label)
        except OSError as error:
            # Once, not once per download: a full disk stays full for a while.
            level = logging.DEBUG if self._shared.put_failed else logging.WARNING
            self._shared.put_failed = True
            logger.log(level, "Media cache %s: an entry could not be stored: %s", self.directory, error)
            return False
        self._shared.put_failed = False
        self._shared.count("puts")
        return True

    def refresh(self, url: str) -> bool:
        """Begin the life of an entry anew, after its server said that it is still good (304).

        Returns:
            Whether there was an entry.
        """
        try:
            file = os.open(self._file(url), _READ)
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
        """Forget a URL: its bytes turned out not to decode."""
        self._discard(self._file(url))

    def evict(self, exclude: Path | None = None) -> None:
        """Scan the directory: bring it within budget, least recently used first, and sweep it.

        `put` does so by itself when it is due. Also removes what has expired and temp files of writers
        that are no more, and takes stock of entries that others added or removed.

        Args:
            exclude: An entry to leave in place.
        """
        with contextlib.suppress(OSError), self._shared.locked() as directory:
            self._scan(directory, keep=None if exclude is None else exclude.name)

    @property
    def stats(self) -> CacheStats:
        """The counters now. Cheap: the size is as accounted, not counted anew."""
        account = None
        with contextlib.suppress(OSError), self._shared.locked() as directory:
            account = self._shared.account(directory) or self._scan(directory, evict=False)
        account = account or _Account(0, 0, 0)
        return CacheStats(**self._shared.counts(), bytes=account.size, entries=account.entries)

    def _age(self, status: os.stat_result) -> float:
        """Seconds since the download; infinite if that seems to lie in the future.

        Where the clock was set back nobody knows an entry's age, and it must not live until the clock
        has caught up.
        """
        age = self._clock() - status.st_mtime_ns / 1e9
        return age if age >= -_CLOCK_SKEW else float("inf")

    def _set_times(self, file: int, downloaded_ns: int | None = None) -> None:
        now = int(self._clock() * 1e9)
        os.utime(file, ns=(now, now if downloaded_ns is None else downloaded_ns))

    def _read(self, path: str, max_size: int | None, *, stale: bool) -> StaleEntry | None:
        """Read an entry of the wanted kind, fresh or stale, and drop it if it is of no use to anyone."""
        try:
            file = os.open(path, _READ)
        except OSError:  # not there; or a symbolic link, which is not ours
            return None
        try:
            status = os.fstat(file)
            limit = self.max_bytes if max_size is None else min(max_size, self.max_bytes)
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
                return None
            text = _get_attribute(file)
            label = None if text is None else _Label.loads(text)
            expired = self._age(status) >= self.ttl_secs
            if expired and not (stale and self._is_kept_stale(status, label)):
                if not stale:
                    self._shared.count("expiries")
                if not self._is_kept_stale(status, label):
                    self._discard(path, status)
                return None
            if stale and not expired:
                return None
            data = _read_all(file, status.st_size)
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

    def _is_kept_stale(self, status: os.stat_result, label: _Label | None) -> bool:
        can_ask = label is not None and bool(label.etag or label.last_modified)
        return can_ask and self._age(status) < 2 * self.ttl_secs

    def _store(self, path: str, data: bytes, label: _Label) -> None:
        """Write a file that nobody sees and publish it under its name."""
        temp, file = self._create_temp()
        try:
            _write_all(file, data)
            _set_attribute(file, label.dumps())
            self._set_times(file)
            self._publish(temp, path, _charge(len(data)))
        except BaseException:
            _remove(temp)
            raise
        finally:
            os.close(file)  # last: until here the lock on the file tells others that its writer lives

    def _create_temp(self) -> tuple[str, int]:
        while True:
            path = f"{self._shared.path}/.mmmedia-{secrets.token_hex(8)}.tmp"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(path, flags, 0o666)
            _lock(file, _LOCK_PATIENCE)
            if os.fstat(file).st_nlink:
                return path, file
            os.close(file)  # swept between its creation and its lock

    def _publish(self, temp: str, path: str, charge: int) -> None:
        with self._shared.locked() as directory:
            account = self._shared.account(directory)
            if account is not None:
                # Before the file: a process killed in between leaves the account too high, not too low.
                account = account.with_entry(charge, _charge_of(path))
                self._shared.set_account(directory, account)
            os.replace(temp, path)
            if account is None or account.size > self.max_bytes or self._is_scan_due(account):
                self._scan(directory, keep=os.path.basename(path))

    def _is_scan_due(self, account: _Account) -> bool:
        """Whether enough was written since the last scan to pay for one.

        An account that all processes share is exact but for what others than this library do in the
        directory. One of this process alone knows nothing of the other processes.
        """
        return account.changes > account.entries // (2 if self._shared.shares_account else _LARGE)

    def _scan(self, directory: int, *, keep: str | None = None, evict: bool = True) -> _Account:
        """Count the entries, evict what must go, and settle the account. The directory is locked."""
        now = self._clock()
        names: list[str] = []
        charges: list[int] = []
        ranks: list[float] = []
        with os.scandir(self._shared.path) as items:
            for item in items:
                if _ENTRY_NAME.fullmatch(item.name):
                    try:
                        status = item.stat(follow_symlinks=False)
                    except OSError:
                        continue
                    if stat.S_ISREG(status.st_mode):
                        names.append(item.name)
                        charges.append(_charge(status.st_size))
                        ranks.append(self._rank(item.path, status, now))
                elif _TEMP_NAME.fullmatch(item.name):
                    _sweep(item.path)
        size, entries = sum(charges), len(names)
        if evict:
            target = self.max_bytes
            if size > target and entries >= _LARGE:
                target -= target // _SPARE
            # By numpy, as sorting a long list would keep every other thread from running meanwhile.
            for index in np.argsort(np.array(ranks, np.float64), kind="stable"):
                is_expired = ranks[index] == _EXPIRED
                if not is_expired and size <= target:
                    break
                if names[index] != keep and _remove(f"{self._shared.path}/{names[index]}"):
                    size -= charges[index]
                    entries -= 1
                    self._shared.count("expiries" if is_expired else "evictions")
        account = _Account(size, entries, 0)
        self._shared.set_account(directory, account)
        return account

    def _rank(self, path: str, status: os.stat_result, now: float) -> float:
        """When an entry was last used, in a way: the entry of the lowest rank is evicted first."""
        downloaded, used = status.st_mtime, status.st_atime
        if -_CLOCK_SKEW <= now - downloaded < self.ttl_secs:
            # Not the access time alone: a copying tool may have set it back, or a wrong clock far ahead.
            return max(downloaded, used) if used <= now + _CLOCK_SKEW else downloaded
        if self._is_kept_stale(status, _label_of(path)):
            return downloaded - _FAR
        return _EXPIRED

    def _discard(self, path: str, found: os.stat_result | None = None) -> None:
        """Remove an entry, unless it has meanwhile been replaced by another than the one found."""
        with contextlib.suppress(OSError), self._shared.locked() as directory:
            status = os.lstat(path)
            if found is not None and not os.path.samestat(status, found):
                return
            os.unlink(path)
            account = self._shared.account(directory)
            if account is not None and stat.S_ISREG(status.st_mode):
                total = max(0, account.size - _charge(status.st_size))
                account = account._replace(size=total, entries=max(0, account.entries - 1))
                self._shared.set_account(directory, account)


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a planted FIFO must not block
_EXPIRED = float("-inf")
_FAR = 1e10  # seconds: ranks stale entries, oldest first, below every fresh one


def _charge_of(path: str) -> int | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return _charge(status.st_size) if stat.S_ISREG(status.st_mode) else None


def _label_of(path: str) -> _Label | None:
    try:
        file = os.open(path, _READ)
    except OSError:
        return None
    try:
        text = _get_attribute(file)
    finally:
        os.close(file)
    return None if text is None else _Label.loads(text)


_caches: dict[tuple[str, int, float], MediaCache] = {}
_directories: dict[str, _Directory] = {}
_warned: set[str] = set()
_registry_lock = threading.Lock()


def get_media_cache(directory: str | os.PathLike[str], max_bytes: int, ttl_secs: float) -> MediaCache | None:
    """The cache of this process for a directory, made if need be.

    Calls with the same arguments give the same object. Calls with another budget or time to live give
    another one that shares its counters.

    Returns:
        The cache, or None with a warning if the directory can't be made or written. That is not
        remembered: the next call tries again.
    """
    path = _absolute(directory)
    key = (path, max_bytes, ttl_secs)
    if (cache := _caches.get(key)) is not None:  # without the lock, for which every request would wait
        return cache
    with _registry_lock:
        if (cache := _caches.get(key)) is not None:
            return cache
        try:
            os.makedirs(path, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable", path)
        except OSError as error:
            if path not in _warned:
                _warned.add(path)
                logger.warning("No media cache: VLLM_MEDIA_CACHE=%s can't be used: %s", path, error)
            return None
        _warned.discard(path)
        cache = _caches[key] = MediaCache(path, max_bytes=max_bytes, ttl_secs=ttl_secs)
        cache._shared = _directories.setdefault(path, cache._shared)
        return cache


def all_stats() -> dict[str, CacheStats]:
    """The stats of every directory that this process has opened by `get_media_cache`."""
    with _registry_lock:
        caches = {cache._shared.path: cache for cache in _caches.values()}
    return {path: cache.stats for path, cache in caches.items()}


def _samples() -> Iterator[metrics.Sample]:
    for directory, stats in all_stats().items():
        for name in ("hits", "misses", "puts", "evictions", "expiries", "corruptions"):
            yield metrics.Sample(f"mmmedia_cache_{name}_total", (directory,), getattr(stats, name))
        yield metrics.Sample("mmmedia_cache_bytes", (directory,), stats.bytes)
        yield metrics.Sample("mmmedia_cache_entries", (directory,), stats.entries)


metrics.register_source(_samples)


def _after_fork() -> None:
    """Replace locks that another thread of the parent may have held."""
    global _registry_lock  # noqa: PLW0603 - a lock can't be reset, only replaced
    _registry_lock = threading.Lock()
    for directory in list(_directories_alive):
        directory.start_afresh()


os.register_at_fork(after_in_child=_after_fork)
