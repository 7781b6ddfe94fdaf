"""What is wrong with a cache directory, in sentences."""
# ruff: noqa: PTH119

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mmmedia.cache.account import Directory
from mmmedia.cache.files import READ, Label, charge_of, crc32_of, is_abandoned
from mmmedia.cache.names import is_entry_name, is_partial_name, is_temp_name
from mmmedia.cache.partial import BLOCK_BYTES, PartialFile, plan_in


def problems(directory: Directory, max_bytes: int) -> list[str]:
    """Return a sentence for each problem of a directory, and raise nothing, whatever is met there.

    Args:
        directory: Not locked by the caller. Its entries are counted under its lock and read without it.
        max_bytes: The budget.
    """
    try:
        with directory.locked() as file:
            account = directory.account(file)
            names = sorted(path.name for path in Path(directory.path).iterdir())
            charges = _charges(directory.path, filter(is_entry_name, names))
            partial = _charges(directory.path, filter(is_partial_name, names))
    except FileNotFoundError:  # not there yet, or no more
        return []
    except OSError as error:
        return [f"the directory can't be read: {error}"]
    found = []
    total_bytes, entries = sum(charges) + sum(partial), len(charges) + len(partial)
    # File systems take some room for themselves, when they come to it: what is where in a sparse file.
    slack = BLOCK_BYTES * len(partial)
    is_off = account is not None and abs(account.total_bytes - total_bytes) > slack
    if account is not None and (is_off or account.entries != entries):
        found.append(
            f"the account says {account.entries} entries of {account.total_bytes} bytes, "
            f"there are {entries} of {total_bytes}"
        )
    if total_bytes > max_bytes + slack:
        found.append(f"the entries take {total_bytes} bytes of a budget of {max_bytes}")
    for name in names:
        path = f"{directory.path}/{name}"
        if is_entry_name(name) or is_partial_name(name):
            if damage := _damage(path, max_bytes):
                found.append(f"{name} {damage}")
        elif is_temp_name(name) and is_abandoned(path):
            found.append(f"{name} was left by a writer that is no more")
    return found


def _charges(directory: str, names: Iterable[str]) -> list[int]:
    """Return what the regular files of these names take of the budget."""
    return [taken for name in names if (taken := charge_of(f"{directory}/{name}")) is not None]


def _damage(path: str, max_bytes: int) -> str:
    """Return what is wrong with a file of an entry's name; empty if nothing is, or it has vanished."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return "is no regular file"
        file = _open_untouched(path)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"can't be read: {error.strerror}"
    try:
        is_partial = is_partial_name(os.path.basename(path))
        return _damage_of_blocks(file) if is_partial else _damage_of_whole(file, max_bytes)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    finally:
        os.close(file)


def _damage_of_whole(file: int, max_bytes: int) -> str:
    size_bytes = os.fstat(file).st_size
    label = Label.on(file)
    if not size_bytes:
        return "is empty"
    if size_bytes > max_bytes:
        return f"is longer than the budget: {size_bytes} bytes"
    if label is not None and label.length != size_bytes:
        return f"has {size_bytes} bytes and not {label.length}, which were stored"
    if label is not None and label.crc32 != crc32_of(file):
        return "has other bytes than were stored"
    return ""


def _damage_of_blocks(file: int) -> str:
    plan = plan_in(file)
    return "does not say what it is of" if plan is None else PartialFile(file, plan).damage()


def _open_untouched(path: str) -> int:
    """Open a file so that reading it is no use of it, if it is ours."""
    try:
        return os.open(path, READ | getattr(os, "O_NOATIME", 0))
    except PermissionError:  # another user's
        return os.open(path, READ)
