"""The caches of this process: one for each directory, budget and time to live."""

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from mmmedia import metrics
from mmmedia.cache.account import COUNTERS, CacheStats
from mmmedia.cache.names import absolute
from mmmedia.cache.store import MediaCache

logger = logging.getLogger(__name__)

# Without a lock: what is there is never changed, and `setdefault` of a dict happens at once.
_first: dict[str, MediaCache] = {}  # by directory
_caches: dict[tuple[str, int, float], MediaCache] = {}
_warned: set[str] = set()


def get_media_cache(directory: str | os.PathLike[str], max_bytes: int, ttl_secs: float) -> MediaCache | None:
    """Return the cache of this process for a directory, made if need be.

    Calls with the same arguments give the same object. Calls with another budget or time to live give
    another one that shares its counters.

    Args:
        directory: Where the entries live.
        max_bytes: The budget of all entries together.
        ttl_secs: The life of an entry in seconds, from its download.

    Returns:
        The cache, or None with a warning if the directory can't be made or written. That is not
        remembered: the next call tries again.
    """
    path = absolute(directory)
    key = (path, max_bytes, ttl_secs)
    if (cache := _caches.get(key)) is not None:
        return cache
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", path)
    except OSError as error:
        if path not in _warned:
            _warned.add(path)
            logger.warning("No media cache: VLLM_MEDIA_CACHE=%s can't be used: %s", path, error)
        return None
    _warned.discard(path)
    first = _first.setdefault(path, MediaCache(path, max_bytes=max_bytes, ttl_secs=ttl_secs))
    return _caches.setdefault(key, first.with_limits(max_bytes, ttl_secs))


def all_stats() -> dict[str, CacheStats]:
    """Return the stats of every directory that this process has opened by `get_media_cache`, by its path."""
    return {path: cache.stats for path, cache in list(_first.items())}


def _samples() -> Iterator[metrics.Sample]:
    for directory, stats in all_stats().items():
        for name in COUNTERS:
            yield metrics.Sample(f"mmmedia_cache_{name}_total", (directory,), getattr(stats, name))
        yield metrics.Sample("mmmedia_cache_bytes", (directory,), stats.bytes)
        yield metrics.Sample("mmmedia_cache_entries", (directory,), stats.entries)


metrics.register_source(_samples)
