"""A process that uses a cache directory: python cache_worker.py COMMAND DIRECTORY ..., as at the end."""

import errno
import functools
import itertools
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from mmmedia.cache import MediaCache, files, get_media_cache

BUDGET = 10 * 4096
LIFE = 3600


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


def body(number: int) -> bytes:
    return random.Random(number).randbytes(1 + number * 97 % 9000)


def open_cache(directory: str) -> MediaCache:
    return MediaCache(directory, max_bytes=BUDGET, ttl_secs=LIFE)


def forbid_attributes() -> None:
    def unsupported(*_: object) -> Any:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    os.getxattr = os.setxattr = unsupported


def hammer(directory: str, seed: str, steps: str) -> None:
    """Get and put what two or more processes fight over; complain of any wrong byte or failed put."""
    cache = open_cache(directory)
    chance = random.Random(seed)
    for _ in range(int(steps)):
        number = chance.randrange(40)
        data = cache.get(url(number))
        if data is None:
            assert cache.put(url(number), body(number)), "put failed"
        else:
            assert data == body(number), f"wrong bytes for {number}"
        if chance.randrange(20) == 0:
            cache.discard(url(number))
    sys.stdout.write(f"{cache.stats.hits}\n")


def die(directory: str, call: str, number: str) -> None:
    """Be killed when a put arrives at a system call: half a write, or just before any other."""
    plain = getattr(os, call)

    def killed(*arguments: Any, **options: Any) -> None:
        if call == "write":
            plain(arguments[0], arguments[1][: len(arguments[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, call, killed)
    open_cache(directory).put(url(int(number)), body(int(number)))


def fork(directory: str) -> None:
    """Fork while other threads are in the middle of puts: each child must be able to use the cache."""
    cache = open_cache(directory)

    def put_one_more(numbers: Iterator[int]) -> None:
        number = next(numbers) % 40
        cache.put(url(number), body(number))

    fork_amid(
        [functools.partial(put_one_more, itertools.count(1)) for _ in range(3)],
        lambda number: cache.put(url(number), body(number)) and cache.stats.entries,
        range(100, 130),
        seconds=20,
    )


def fork_amid(
    works: list[Callable[[], object]], child: Callable[[int], object], numbers: range, seconds: int
) -> None:
    """While threads repeat works, fork a child for each number, and print how many of them failed."""
    stop = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()

    threads = [threading.Thread(target=repeat, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    failures = 0
    for number in numbers:
        pid = os.fork()
        if pid == 0:
            signal.alarm(seconds)  # a child that hangs on a lock dies of it
            os._exit(0 if child(number) else 1)
        failures += os.waitpid(pid, 0)[1] != 0
        if failures:
            break
    stop.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(f"{failures}\n")


def held(lock: AbstractContextManager[object]) -> None:
    """Have a thread hold a lock for as long as this process lives."""
    is_held = threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            threading.Event().wait()

    threading.Thread(target=hold, daemon=True).start()
    is_held.wait()


def fork_midst(directory: str, lock: str) -> None:
    """Fork while another thread holds a lock for good: the child must be able to do everything."""
    files._LOCK_PATIENCE_SECONDS = 0.05
    cache = get_media_cache(directory, BUDGET, LIFE)
    assert cache
    cache.put(url(0), body(0))
    held({"directory": cache._shared.locked(), "counters": cache._shared._counts_lock}[lock])
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs on a lock dies of it
        same, other = get_media_cache(directory, BUDGET, LIFE), get_media_cache(directory, BUDGET, 1)
        is_well = same is cache and other and other.put(url(1), body(1)) and same.get(url(0)) == body(0)
        cache.evict()
        os._exit(0 if is_well and cache.stats.puts == 2 and not cache.check() else 1)
    sys.stdout.write(f"{os.waitpid(child, 0)[1]}\n")
    sys.stdout.flush()


def leave_a_child() -> None:
    """Fork a child that lives on until its input ends, and wait to be killed."""
    if os.fork():
        threading.Event().wait()
    os.write(1, b"child\n")
    os.read(0, 1)
    os._exit(0)


def orphan(directory: str) -> None:
    """Hold the directory, and fork a child that lives on until its input ends."""
    cache = open_cache(directory)
    cache.put(url(0), body(0))
    held(cache._shared.locked())
    leave_a_child()


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if os.environ.get("WITHOUT_ATTRIBUTES"):
        forbid_attributes()
    {"hammer": hammer, "die": die, "fork": fork, "fork_midst": fork_midst, "orphan": orphan}[name](*rest)
