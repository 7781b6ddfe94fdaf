"""How long an entry lives, which goes first, and the scan that makes room."""

import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mmmedia.cache.account import Account, Directory
from mmmedia.cache.files import Label, charge_of_status, label_at, remove, sweep
from mmmedia.cache.names import is_entry_name, is_partial_name, is_temp_name

_MANY_ENTRIES = 64  # from so many on, eviction frees more than it must, so that scans are rare:
_SPARE_PART = 32  # this part of the budget
_FEW_ENTRIES = 32  # up to so many, scanning costs less than storing
_CLOCK_SKEW_SECONDS = 5.0  # by which the clocks of two machines that share a directory may differ
_EXPIRED = float("-inf")
_FAR_SECONDS = 1e10  # ranks entries that may be confirmed, oldest first, below every fresh one


class Life(NamedTuple):
    """The life of entries, as of a moment."""

    ttl_secs: float  # how long it is, in seconds from the download
    now: float  # in seconds since the epoch

    def age(self, status: os.stat_result) -> float:
        """Return the seconds since the download; infinity if that seems to lie in the future.

        Where the clock was set back nobody knows an entry's age, and it must not live until the clock
        has caught up.
        """
        age = self.now - status.st_mtime_ns / 1e9
        return age if age >= -_CLOCK_SKEW_SECONDS else float("inf")

    def is_fresh(self, status: os.stat_result) -> bool:
        """Return whether an entry may be served."""
        return self.age(status) < self.ttl_secs

    def may_be_confirmed(self, status: os.stat_result, label: Label | None) -> bool:
        """Return whether an expired entry is kept, as its server can be asked whether it is still good."""
        can_ask = label is not None and bool(label.etag or label.last_modified)
        return can_ask and self.age(status) < 2 * self.ttl_secs

    def rank(self, path: str, status: os.stat_result) -> float:
        """Return when an entry was last used, in a way: the entry of the lowest rank is evicted first."""
        downloaded, used = status.st_mtime, status.st_atime
        if self.is_fresh(status):
            # Not the access time alone: a copying tool may have set it back, or a wrong clock far ahead.
            return max(downloaded, used) if used <= self.now + _CLOCK_SKEW_SECONDS else downloaded
        if self.may_be_confirmed(status, label_at(path)):
            return downloaded - _FAR_SECONDS
        return _EXPIRED


class Found(NamedTuple):
    """An entry, as a scan finds it."""

    name: str
    charge: int
    rank: float

    @property
    def is_expired(self) -> bool:
        """Whether it goes even if there is room."""
        return self.rank == _EXPIRED


def is_scan_due(account: Account, *, is_shared: bool) -> bool:
    """Return whether enough was written since the last scan to pay for one.

    An account that all processes share is exact but for what others than this library do in the directory.
    One of this process alone knows nothing of the other processes. Few entries are scanned each time, so that
    what has expired is gone after the next put.
    """
    return account.entries <= _FEW_ENTRIES or account.changes > account.entries // (
        2 if is_shared else _MANY_ENTRIES
    )


def scan(
    directory: Directory, file: int, life: Life, *, max_bytes: int | None, keep: str | None = None
) -> Account:
    """Count the entries, remove those that must go and abandoned temp files, and make the account anew.

    Args:
        directory: the directory, locked.
        file: its descriptor.
        life: what tells which entries have expired.
        max_bytes: the budget; None removes no entry.
        keep: the name of an entry that stays, whatever its age and the budget.

    Raises:
        OSError: the directory can't be listed.
    """
    found = list(_find(directory.path, life))
    total_bytes, entries = sum(entry.charge for entry in found), len(found)
    if max_bytes is not None:
        goal = max_bytes
        if total_bytes > goal and entries >= _MANY_ENTRIES:
            goal -= goal // _SPARE_PART
        for entry in _in_order(found):
            if not entry.is_expired and total_bytes <= goal:
                break
            if entry.name != keep and remove(f"{directory.path}/{entry.name}"):
                total_bytes -= entry.charge
                entries -= 1
                directory.count("expiries" if entry.is_expired else "evictions")
    account = Account(total_bytes, entries, 0)
    directory.set_account(file, account)
    return account


def _find(directory: str, life: Life) -> Iterator[Found]:
    """Find all entries, partial ones among them, and sweep abandoned temp files."""
    with os.scandir(directory) as items:
        for item in items:
            is_partial = False
            if is_entry_name(item.name) or (is_partial := is_partial_name(item.name)):
                try:
                    status = item.stat(follow_symlinks=False)
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    taken = charge_of_status(status, is_partial=is_partial)
                    yield Found(item.name, taken, life.rank(item.path, status))
            elif is_temp_name(item.name):
                sweep(item.path)


def _in_order(found: list[Found]) -> list[Found]:
    """Return entries in the order in which they go."""
    # By numpy: to sort 100 000, `sorted` would keep every other thread from running for 40 ms.
    order = np.argsort(np.array([entry.rank for entry in found], np.float64), kind="stable")
    return [found[index] for index in order]
