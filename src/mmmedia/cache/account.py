"""One directory as this process sees it: its lock, its account, its counters."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mmmedia.cache.files import get_attribute, lock, set_attribute, unlock
from mmmedia.work.fork import afresh_in_child

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheStats:
    """Counters of this process since it opened the directory, and the size of the directory.

    Attributes:
        hits: Calls of `get` that returned bytes.
        misses: Calls of `get` that returned None, for whatever reason.
        puts: Entries written.
        evictions: Entries removed because the budget was exceeded.
        expiries: Entries found to be older than the time to live.
        corruptions: Entries and blocks found damaged: not of the length or checksum they were stored with.
        partial_hits: Reads of a source in pieces of which everything was there.
        partial_misses: Reads of which something was fetched.
        block_bytes: Bytes of the blocks that such reads found there.
        bytes: What the entries count together, at least 4096 each, whichever process wrote them.
        entries: How many there are, partial ones among them.
    """

    hits: int = 0
    misses: int = 0
    puts: int = 0
    evictions: int = 0
    expiries: int = 0
    corruptions: int = 0
    partial_hits: int = 0
    partial_misses: int = 0
    block_bytes: int = 0
    bytes: int = 0
    entries: int = 0


COUNTERS = tuple(name for name in CacheStats.__dataclass_fields__ if name not in ("bytes", "entries"))
"""What is counted as it happens."""


class Account(NamedTuple):
    """What all processes know together about a directory."""

    total_bytes: int  # what all entries take of the budget
    entries: int
    changes: int  # entries written since the last scan

    def with_entry(self, charge: int, replaced: int | None) -> "Account":
        """Return it with a further entry, or with one in place of another of which the charge is given."""
        return Account(
            max(0, self.total_bytes + charge - (replaced or 0)),
            self.entries + (replaced is None),
            self.changes + 1,
        )

    def with_growth(self, number_of_bytes: int) -> "Account":
        """Return it after an entry has grown."""
        return Account(max(0, self.total_bytes + number_of_bytes), self.entries, self.changes + 1)

    def without_entry(self, charge: int) -> "Account":
        """Return it with an entry less."""
        return Account(max(0, self.total_bytes - charge), max(0, self.entries - 1), self.changes)

    def dumps(self) -> bytes:
        """Return it as an attribute holds it."""
        return " ".join(map(str, self)).encode()

    @classmethod
    def loads(cls, text: bytes) -> "Account | None":
        """Return what an attribute holds, None if that makes no sense."""
        try:
            account = cls(*map(int, text.split()))
        except (TypeError, ValueError):
            return None
        return account if min(account) >= 0 else None


class Directory:
    """A cache directory, shared by all caches that `get_media_cache` gives for it.

    Args:
        path: absolute; it need not be there.

    Attributes:
        path: the same.
        put_failed: whether the last put failed, and a warning was logged.
        shares_account: whether the account is that of all processes; False where directories have no
            attributes, as far as that is known.
    """

    def __init__(self, path: str):
        self.path = path
        self.put_failed = False
        self.shares_account = True
        self._own_account: Account | None = None
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._locked_file: int | None = None
        self._lock = threading.Lock()
        self._counts_lock = threading.Lock()
        afresh_in_child(self._begin_afresh)

    def _begin_afresh(self) -> None:
        """Forget what threads of the process that this one was forked from are doing."""
        self._lock = threading.Lock()
        self._counts_lock = threading.Lock()
        file, self._locked_file = self._locked_file, None
        if file is not None:
            # Else the directory would stay locked, were the parent killed, for as long as this process lives.
            with contextlib.suppress(OSError):
                os.close(file)

    def count(self, name: str, number: int = 1) -> None:
        """Count one, or some, of what `CacheStats` counts."""
        with self._counts_lock:
            self._counts[name] += number

    def counts(self) -> dict[str, int]:
        """Return all counters, by name."""
        with self._counts_lock:
            return self._counts.copy()

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Hold the directory against all other threads and processes; gives its descriptor.

        Where it can't be locked in time the account may become wrong, until the next scan.

        Raises:
            OSError: there is no such directory, or it can't be opened.
        """
        with self._lock:
            file = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._locked_file = file
            try:
                if not lock(file):
                    logger.debug("Cache directory %s can't be locked; its size may be misjudged.", self.path)
                yield file
            finally:
                unlock(file)
                self._locked_file = None
                os.close(file)

    def account(self, file: int) -> Account | None:
        """Return the account, None if nobody has scanned this directory yet. Call it `locked`."""
        if not self.shares_account:
            return self._own_account
        text = get_attribute(file)
        return None if text is None else Account.loads(text)

    def set_account(self, file: int, account: Account) -> None:
        """Have it be the account. Call it `locked`."""
        if self.shares_account and not set_attribute(file, account.dumps()):
            self.shares_account = False
        self._own_account = account
