"""What is in a cache directory, entry by entry."""

import os
import stat
from typing import NamedTuple

from mmmedia.cache.files import charge_of_status, label_at
from mmmedia.cache.names import is_entry_name, is_partial_name, partial_name
from mmmedia.cache.store import MediaCache


class Entry(NamedTuple):
    """One entry.

    Attributes:
        name: of its file.
        size_bytes: of it; of a partial entry what it takes of the disk.
        downloaded: when, in seconds since the epoch.
        used: when it was last used, likewise.
        is_fresh: whether it may be served; else its time to live is over.
        can_revalidate: whether its server can be asked whether it is still good.
        is_partial: whether it holds only some blocks of its source.
    """

    name: str
    size_bytes: int
    downloaded: float
    used: float
    is_fresh: bool
    can_revalidate: bool
    is_partial: bool


def entries(cache: MediaCache) -> list[Entry]:
    """Return the entries of a cache, the last used first; those that vanish meanwhile are left out.

    Raises:
        OSError: the directory can't be listed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     cache = MediaCache(directory, max_bytes=2**20, ttl_secs=3600)
    ...     cache.put("https://example.org/cat.jpg", b"a photo")
    ...     [(entry.name[-4:], entry.size_bytes, entry.is_fresh) for entry in entries(cache)]
    True
    [('.jpg', 7, True)]
    """
    life, found = cache._life(), []
    with os.scandir(cache.directory) as items:
        for item in items:
            try:
                status = item.stat(follow_symlinks=False)
            except OSError:
                continue
            is_partial = is_partial_name(item.name)
            if (is_partial or is_entry_name(item.name)) and stat.S_ISREG(status.st_mode):
                size = charge_of_status(status, is_partial=True) if is_partial else status.st_size
                label = label_at(item.path)
                can_ask = label is not None and bool(label.etag or label.last_modified)
                times = status.st_mtime, status.st_atime, life.is_fresh(status)
                found.append(Entry(item.name, size, *times, can_ask, is_partial))
    return sorted(found, key=lambda entry: (-entry.used, entry.name))


def names_of(cache: MediaCache, url: str) -> tuple[str, str]:
    """Return the names of the entry of a URL, and of its partial one; neither need be there."""
    name = cache.path(url).name
    return name, partial_name(name)
