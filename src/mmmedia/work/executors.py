"""Pools of threads that belong to the whole process: made at first use, and made anew in a forked child."""

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmmedia.work.fork import afresh_in_child


class _Executor(ThreadPoolExecutor):
    """A pool of threads that says whether it takes more work."""

    is_shut_down = False

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.is_shut_down = True
        super().shutdown(wait, cancel_futures=cancel_futures)


class ProcessPool:
    """One pool of threads for the process.

    At the end of the process what it has begun is finished, and what waits is dropped.

    Args:
        name: what its threads are called.
        workers: returns how many threads it may have, an integer; asked when the pool is made.

    >>> pool = ProcessPool("mmmedia-example", lambda: 2)
    >>> pool.executor().submit(len, "four").result()
    4
    """

    def __init__(self, name: str, workers: Callable[[], Any]) -> None:
        self._name, self._workers = name, workers
        self._begin()
        afresh_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._executor: _Executor | None = None

    def executor(self) -> ThreadPoolExecutor:
        """Return the pool; a new one if somebody has shut it down."""
        with self._lock:
            if self._executor is None or self._executor.is_shut_down:
                self._executor = pool = _Executor(self._workers(), self._name)
                # The interpreter would first finish all work that is queued; `_register_atexit` runs before.
                register = getattr(threading, "_register_atexit", atexit.register)
                register(lambda: self._drop(pool))
            return self._executor

    def named(self, namespace: dict[str, Any], name: str) -> ThreadPoolExecutor:
        """Return what a module has under a name: this pool from now on, where it has nothing."""
        pool: ThreadPoolExecutor = namespace.get(name) or namespace.setdefault(name, self.executor())
        return pool

    def _drop(self, pool: ThreadPoolExecutor) -> None:
        # In a child, which has none of its threads, its locks may be held for ever.
        if self._executor is pool:
            pool.shutdown(wait=False, cancel_futures=True)
