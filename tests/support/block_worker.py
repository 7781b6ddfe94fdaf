"""A process that reads sources through the cache: python block_worker.py COMMAND DIRECTORY ..."""

import functools
import os
import random
import signal
import sys
import threading
from typing import Any

from mmmedia.cache import BlockCacheSource, MediaCache
from mmmedia.cache.partial import BLOCK_BYTES
from support.cache_worker import forbid_attributes, fork_amid, leave_a_child, url
from support.sources import CountingSource, content

SIZE = 4 * BLOCK_BYTES + 500
BUDGET = 20 * BLOCK_BYTES
NUMBERS = 12


def body(number: int) -> bytes:
    return content(number, SIZE)


def open_cache(directory: str) -> MediaCache:
    return MediaCache(directory, max_bytes=BUDGET, ttl_secs=3600)


def source(cache: MediaCache, number: int) -> BlockCacheSource:
    return BlockCacheSource(CountingSource(body(number)), cache, url(number))


def read_some(cache: MediaCache, chance: random.Random) -> None:
    """Read some of a source, and complain of any wrong byte."""
    number = chance.randrange(NUMBERS)
    ranges = [tuple(sorted((chance.randrange(SIZE), chance.randrange(SIZE)))) for _ in range(3)]
    found = source(cache, number).read(ranges)  # type: ignore[arg-type]
    assert found == [body(number)[start:stop] for start, stop in ranges], f"wrong bytes of {number}"
    if chance.randrange(10) == 0:
        source(cache, number).become_whole()
        assert cache.get(url(number)) in (None, body(number)), f"wrong bytes of {number}"


def hammer(directory: str, seed: str, steps: str) -> None:
    """Read what two or more processes fight over."""
    cache = open_cache(directory)
    chance = random.Random(seed)
    for _ in range(int(steps)):
        read_some(cache, chance)
        if chance.randrange(20) == 0:
            cache.discard(url(chance.randrange(NUMBERS)))
    sys.stdout.write(f"{cache.stats.block_bytes}\n")


def share(directory: str, number: str, blocks: str) -> None:
    """Read a source in pieces, as another does, and tell how much was fetched."""
    cache = MediaCache(directory, max_bytes=1 << 24, ttl_secs=3600)
    data = content(int(number), int(blocks) * BLOCK_BYTES)
    inner = CountingSource(data)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    for start in range(0, len(data), 100_000):
        piece = [(start, min(start + 150_000, len(data)))]
        assert BlockCacheSource(inner, cache, url(0)).read(piece) == [data[slice(*piece[0])]]
    sys.stdout.write(f"{inner.bytes_asked}\n")


def die(directory: str, call: str, step: str, number: str) -> None:
    """Be killed when a read arrives at a system call for the so-manieth time; at a write in its middle."""
    _be_killed(call, step)
    source(open_cache(directory), int(number)).read([(0, SIZE)])


def die_whole(directory: str, call: str, step: str, number: str) -> None:
    """Be killed as a partial entry is made a whole one."""
    _be_killed(call, step)
    source(open_cache(directory), int(number)).become_whole()


def _be_killed(call: str, step: str) -> None:
    plain = getattr(os, call)
    left = [int(step)]

    def killed(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            return plain(*arguments, **options)
        if call in ("pwrite", "write"):
            plain(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:])
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(os, call, killed)


def fork(directory: str) -> None:
    """Fork while other threads are in the middle of reads: each child must be able to read."""
    cache = open_cache(directory)

    def read(chance: random.Random) -> bool:
        read_some(cache, chance)
        return True

    fork_amid(
        [functools.partial(read, random.Random(seed)) for seed in range(3)],
        lambda number: read(random.Random(number)),
        range(15),
        seconds=30,
    )


def orphan(directory: str) -> None:
    """Be in the middle of fetching, and fork a child that lives on until its input ends."""
    cache = open_cache(directory)
    inner = CountingSource(body(0))
    inner.may_go.clear()
    threading.Thread(target=BlockCacheSource(inner, cache, url(0)).read, args=[[(0, 1)]], daemon=True).start()
    inner.has_begun.wait()
    leave_a_child()


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if os.environ.get("WITHOUT_ATTRIBUTES"):
        forbid_attributes()
    commands = [hammer, share, die, die_whole, fork, orphan]
    {command.__name__: command for command in commands}[name](*rest)
