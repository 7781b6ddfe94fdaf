"""A partial entry as part of its directory: how it begins, what room it may take, when it is of no use."""
# Plain strings and os calls, as in `store`.
# ruff: noqa: PTH103, PTH119

import itertools
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from mmmedia.cache.eviction import is_scan_due, scan
from mmmedia.cache.files import WRITE, Label, charge, charge_of_status, create_temp, remove, unlock, write_all
from mmmedia.cache.names import entry_name, partial_name
from mmmedia.cache.partial import MAX_VALIDATOR_BYTES, PartialFile, Plan, open_regular, plan_in
from mmmedia.cache.store import MediaCache
from mmmedia.work.fork import afresh_in_child

_BLOCKS_AT_A_TIME = 16  # a MiB, for which the directory is locked

_open_files: set[PartialFile] = set()


def _forget_open_files() -> None:
    """Else, were the parent killed, its claims would last for as long as this child lives."""
    while _open_files:
        _open_files.pop().forget()


afresh_in_child(_forget_open_files)


class PartialEntry:
    """An open partial entry of a cache.

    Args:
        cache: whose it is.
        path: where it is, unless it was removed since.
        file: the same, open.
    """

    def __init__(self, cache: MediaCache, path: str, file: PartialFile) -> None:
        self._cache, self._path, self.file = cache, path, file

    def read(self, blocks: Sequence[int], *, is_first: bool = False) -> dict[int, bytes]:
        """Return those of the blocks, asked for in ascending order, that are there and sound.

        Args:
            blocks: their numbers.
            is_first: count what is found, and what is found damaged.
        """
        try:
            found, damaged = self.file.read(blocks)
        except OSError:
            return {}
        if is_first:
            shared = self._cache._shared
            shared.count("partial_hits" if len(found) == len(blocks) else "partial_misses")
            shared.count("block_bytes", sum(map(len, found.values())))
            shared.count("corruptions", len(damaged))
        return found

    def write(self, blocks: Mapping[int, bytes]) -> None:
        """Keep blocks, as far as there is room; what can't be written is a warning in the log."""
        items = iter(blocks.items())
        try:
            while batch := dict(itertools.islice(items, _BLOCKS_AT_A_TIME)):
                if not self._write(batch):
                    return
        except OSError as error:
            self._cache._warn(error)

    def _write(self, blocks: Mapping[int, bytes]) -> bool:
        """Write some blocks; return False if there is no room, or the entry was removed."""
        cache, shared, file = self._cache, self._cache._shared, self.file
        if file.descriptor < 0:  # the parent's
            return False
        room = file.plan.room_of(blocks)
        with shared.locked() as directory:
            before = os.fstat(file.descriptor)
            taken = charge_of_status(before, is_partial=True)
            if not before.st_nlink or taken + room > cache.max_bytes:
                return False
            account = shared.account(directory)
            is_due = account is None or is_scan_due(account, is_shared=shared.shares_account)
            if account is None or is_due or account.total_bytes + room > cache.max_bytes:
                name = os.path.basename(self._path)
                account = scan(shared, directory, cache._life(), max_bytes=cache.max_bytes - room, keep=name)
            # Before the blocks: a process killed in between leaves the account too high, not too low.
            shared.set_account(directory, account.with_growth(room))
            try:
                file.write(blocks)
            finally:
                grown = charge_of_status(os.fstat(file.descriptor), is_partial=True) - taken
                shared.set_account(directory, account.with_growth(grown))
                _note_use(cache, file, before.st_mtime_ns)
        return True


@contextmanager
def opened_entry(cache: MediaCache, plan: Plan) -> Iterator[PartialEntry | None]:
    """Give the partial entry of a plan, begun anew where there is none of it that still lives.

    It gives `None` where nothing is to be kept: there is a whole entry, no validator, or no room; or the
    directory can't be written, which is a warning in the log.
    """
    try:
        entry = _entry(cache, plan)
    except OSError as error:
        cache._warn(error)
        entry = None
    try:
        if entry is not None:
            _open_files.add(entry.file)
        yield entry
    finally:
        if entry is not None:
            _open_files.discard(entry.file)
            # Once more: to read it was a use by the system's clock, if not by ours.
            with suppress(OSError):
                _note_use(cache, entry.file, os.fstat(entry.file.descriptor).st_mtime_ns)
            entry.file.close()


def become_whole(cache: MediaCache, plan: Plan) -> bool:
    """Put a whole entry in the place of a partial one, if all blocks are there and sound; return whether so.

    Its life goes on: it began with the first block. What can't be written is a warning in the log.
    """
    name = entry_name(plan.key)
    path = f"{cache._shared.path}/{partial_name(name)}"
    file = _open(cache, path, plan) if 0 < plan.size <= cache.max_bytes else None
    if file is None:
        return False
    _open_files.add(file)
    try:
        return file.has_all() and _copied_whole(cache, file, path, f"{cache._shared.path}/{name}")
    except OSError as error:
        cache._warn(error)
        return False
    finally:
        _open_files.discard(file)
        file.close()


def _copied_whole(cache: MediaCache, file: PartialFile, partial: str, path: str) -> bool:
    """Publish the blocks of a partial entry, one behind the other, as a whole one."""
    temp, descriptor = create_temp(cache._shared.path)
    is_published = False
    try:
        crc = 0
        for first in range(0, file.plan.blocks, _BLOCKS_AT_A_TIME):
            wanted = range(first, min(first + _BLOCKS_AT_A_TIME, file.plan.blocks))
            blocks, _ = file.read(wanted)
            if len(blocks) < len(wanted):  # damaged; who reads them next fetches them
                return False
            for block in wanted:
                write_all(descriptor, blocks[block])
                crc = zlib.crc32(blocks[block], crc)
        Label(file.plan.size, crc).stick(descriptor)
        before = os.fstat(file.descriptor)
        cache._set_times(descriptor, before.st_mtime_ns)
        with cache._shared.locked() as directory:
            if not _is_at(partial, before):  # forgotten meanwhile, or whole by another's hand
                return False
            cache._publish(directory, temp, path, charge(file.plan.size), partial)
            is_published = True
    finally:
        if not is_published:
            remove(temp)
        os.close(descriptor)
    cache._shared.count("puts")
    return True


def _is_at(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except OSError:
        return False


def _entry(cache: MediaCache, plan: Plan) -> PartialEntry | None:
    whole = entry_name(plan.key)
    path = f"{cache._shared.path}/{partial_name(whole)}"
    if not 0 < len(plan.validator.encode("utf-8", "surrogatepass")) <= MAX_VALIDATOR_BYTES:
        return None
    file = _open(cache, path, plan, is_first=True)
    if file is None:
        if plan.data_start > cache.max_bytes or _is_fresh(cache, f"{cache._shared.path}/{whole}"):
            return None
        try:
            file = _begin(cache, path, plan)
        except FileNotFoundError:  # the directory is not there yet, or no more
            os.makedirs(cache._shared.path, exist_ok=True)
            file = _begin(cache, path, plan)
        cache._shared.put_failed = False
    return PartialEntry(cache, path, file)


def _is_fresh(cache: MediaCache, path: str) -> bool:
    """Say whether there is a whole entry that may be served."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and cache._life().is_fresh(status)


def _open(cache: MediaCache, path: str, plan: Plan, *, is_first: bool = False) -> PartialFile | None:
    """Open the entry at a path, which counts as a use, if it is of the plan and still lives.

    Args:
        cache: whose it is.
        path: where it is.
        plan: what it should be of.
        is_first: count it if it is of no use.
    """
    found = open_regular(path, WRITE)
    if found is None:
        return None
    file, status = PartialFile(found[0], plan), found[1]
    is_good = False
    try:
        if not file.is_of_plan():
            if plan_in(file.descriptor) is None:
                cache._shared.count("corruptions", int(is_first))
        elif not cache._life().is_fresh(status):
            cache._shared.count("expiries", int(is_first))
        else:
            _note_use(cache, file, status.st_mtime_ns)
            is_good = True
    finally:
        if not is_good:
            file.close()
    return file if is_good else None


def _note_use(cache: MediaCache, file: PartialFile, begun_ns: int) -> None:
    """Set the times of an entry: of its beginning, which writing to it is not, and of its last use."""
    with suppress(OSError):  # another user's file
        cache._set_times(file.descriptor, begun_ns)


def _begin(cache: MediaCache, path: str, plan: Plan) -> PartialFile:
    """Put an empty entry in the place of what is there; return that of another who was faster."""
    shared = cache._shared
    temp, descriptor = create_temp(shared.path)
    file = PartialFile(descriptor, plan)
    try:
        file.begin()
        cache._set_times(descriptor)
        with shared.locked() as directory:
            if (other := _open(cache, path, plan)) is not None:
                remove(temp)
                file.close()
                return other
            cache._publish(directory, temp, path, charge_of_status(os.fstat(descriptor), is_partial=True))
        unlock(descriptor)  # nobody would sweep it under its name
    except BaseException:
        remove(temp)
        file.close()
        raise
    return file
