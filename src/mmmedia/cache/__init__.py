"""The on-disk byte cache: encoded media by URL, with a time to live and least-recently-used eviction.

One directory holds one file per URL. Any number of threads and processes may share it, also with vLLM,
whose entries are served as they stand. What is known about an entry lives in its file:

* its name: the first 20 hex digits of the URL's SHA-256, then the suffix of the URL's path if that is
  short and plain (`3b1f…9a.jpg`). A file of any other name is not ours: neither served nor deleted;
* its modification time: when it was downloaded, from which the time to live runs;
* its access time: when it was last used, which orders eviction. It is set explicitly, as file systems
  are commonly mounted so that reading does not update it;
* an extended attribute, its label: its length and CRC-32, to notice damage, and what the server gave for
  asking whether the entry is still good (`ETag`, `Last-Modified`). An entry without one is accepted.

What is known about the directory, the sum of its entries, lives in an extended attribute of the directory,
its account, changed under its `flock`: no process needs to list the directory to learn whether the budget is
reached, and a scan made by one serves all. Where the file system has no such attributes each process counts
for itself and scans more often.

Beside the whole entries stand partial ones, blocks of sources that are read in pieces: `BlockCacheSource`.
"""

from mmmedia.cache.account import CacheStats
from mmmedia.cache.blocks import BlockCacheSource
from mmmedia.cache.names import entry_name
from mmmedia.cache.process import all_stats, get_media_cache
from mmmedia.cache.store import MediaCache, StaleEntry

__all__ = [
    "BlockCacheSource",
    "CacheStats",
    "MediaCache",
    "StaleEntry",
    "all_stats",
    "entry_name",
    "get_media_cache",
]
