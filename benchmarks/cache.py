"""The cost of the byte cache: a put into a large directory against one into a small one, and a get.

python benchmarks/cache.py [--entries 100000] [--puts 2000] [--directory DIRECTORY]

On ext4 wait five minutes between two runs, or name a directory on another file system: it keeps clear of
inodes deleted lately, and after a run has deleted 100 000 of them it looks half a millisecond for a free one.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from _machine import describe, seconds

from mmmedia.cache import MediaCache

BODY = os.urandom(4000)
NO_LIMIT = 2**50


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


def fill(cache: MediaCache, entries: int) -> None:
    """Fill a directory the way vLLM would have left it: files, and nothing known about them."""
    cache.directory.mkdir(parents=True)
    for number in range(entries):
        cache.path(url(number)).write_bytes(BODY)


def microseconds(times: list[float]) -> str:
    cuts = statistics.quantiles(times, n=100)
    return (
        f"median {statistics.median(times) * 1e6:7.1f} us, 95 % {cuts[94] * 1e6:7.1f} us, "
        f"mean {statistics.fmean(times) * 1e6:7.1f} us, longest {max(times) * 1e3:6.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--puts", type=int, default=2000)
    parser.add_argument("--directory", type=Path, help="where to put the caches; default: the temp directory")
    options = parser.parse_args()
    print(describe())
    work = Path(tempfile.mkdtemp(prefix="mmmedia-benchmark-", dir=options.directory))
    try:
        small = MediaCache(work / "small", max_bytes=NO_LIMIT, ttl_secs=3600)
        large = MediaCache(work / "large", max_bytes=NO_LIMIT, ttl_secs=3600)
        fill(small, 100)
        fill(large, options.entries)
        print(f"\nfirst put, which takes stock of {options.entries} entries: ", end="")
        print(f"{seconds(lambda: large.put(url(-1), BODY)) * 1e3:.0f} ms")

        # In turn, so that a slow spell of the machine meets both. The small one stays small.
        times: dict[str, list[float]] = {"small": [], "large": [], "full": [], "get": [], "read": []}
        for number in range(options.entries, options.entries + options.puts):
            times["small"].append(seconds(partial(small.put, url(number), BODY)))
            times["large"].append(seconds(partial(large.put, url(number), BODY)))
            small.discard(url(number))
        ratio = statistics.median(times["large"]) / statistics.median(times["small"])
        print(f"put, {100:7} entries: {microseconds(times['small'])}")
        print(f"put, {options.entries:7} entries: {microseconds(times['large'])}")
        print(f"ratio of the medians: {ratio:.2f} (at most 2)")

        full = MediaCache(work / "large", max_bytes=large.stats.bytes, ttl_secs=3600)
        start = options.entries + options.puts
        for number in range(start, start + options.puts):
            times["full"].append(seconds(partial(full.put, url(number), BODY)))
        print(f"put, full budget:     {microseconds(times['full'])}; {full.stats.evictions} evictions")

        for number in range(start, start + options.puts):
            path = large.path(url(number))
            times["read"].append(seconds(path.read_bytes))
            times["get"].append(seconds(partial(large.get, url(number))))
        print(f"get:                  {microseconds(times['get'])}")
        print(f"plain read:           {microseconds(times['read'])}")
    finally:
        began = time.perf_counter()
        shutil.rmtree(work)
        print(f"(cleaned up in {time.perf_counter() - began:.1f} s)")


if __name__ == "__main__":
    main()
