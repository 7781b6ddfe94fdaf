"""Decoding in processes of its own: what a stranger's file does there, it does to nobody else.

`run` has a function called in one of `MMMEDIA_DECODE_PROCESSES` workers and returns what it made. Which
functions those are is the matter of others: here nothing is known of media. `mmmedia.media.isolation` has
the media IOs use it.

Files go in and arrays come out through shared memory (`memory`). Between the processes go short messages
(`wire`), of which those of a worker are a stranger's words: each is checked before it is believed. `server`
is a process of one thread from which workers are forked; `door` is what a worker may not do; `pool` has the
workers of this process.
"""

import atexit
import threading
from typing import TYPE_CHECKING, Any

from mmmedia.work.fork import afresh_in_child
from mmmedia.work.isolated.place import is_on

if TYPE_CHECKING:
    from mmmedia.work.isolated.pool import Pool, Task

__all__ = ["existing", "is_on", "run", "shutdown", "workers"]

_pools: "list[Pool]" = []
_making = threading.Lock()


def run(task: "Task") -> Any:
    """Have a task done in a worker; see `pool.Pool.run`."""
    return workers().run(task)


def workers() -> "Pool":
    """Return the pool of this process, made at its first use."""
    from mmmedia.work.isolated.pool import Pool

    with _making:
        if not _pools:
            _pools.append(Pool())
            atexit.register(shutdown)
        return _pools[0]


def existing() -> "Pool | None":
    """Return the pool of this process, if it has one."""
    return next(iter(tuple(_pools)), None)


def shutdown() -> None:
    """End the workers of this process; the next decode starts others."""
    while _pools:
        _pools.pop().close()


def _begin_afresh() -> None:
    """Close, in a forked child, what belongs to the workers of its parent."""
    global _making  # noqa: PLW0603
    _making = threading.Lock()
    while _pools:
        _pools.pop().abandon()


afresh_in_child(_begin_afresh)
