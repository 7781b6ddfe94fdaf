"""Pools of threads that belong to the whole process: made at first use, and made anew in a forked child."""

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mmmedia.work.fork import afresh_in_child


class ProcessPool:
    """One pool of threads for the process.

    At the end of the process what it has begun is finished, and what waits is dropped.

    Args:
        name: what its threads are called.
        workers: returns how many threads it may have; asked when the pool is made.

    >>> pool = ProcessPool("mmmedia-example", lambda: 2)
    >>> pool.executor().submit(len, "four").result()
    4
    """

    def __init__(self, name: str, workers: Callable[[], int]) -> None:
        self._name, self._workers = name, workers
        self._begin()
        afresh_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def executor(self) -> ThreadPoolExecutor:
        """Return the pool."""
        with self._lock:
            if self._executor is None:
                self._executor = pool = ThreadPoolExecutor(self._workers(), self._name)
                # The interpreter would first finish all work that is queued; `_register_atexit` runs before.
                register = getattr(threading, "_register_atexit", atexit.register)
                register(lambda: pool.shutdown(wait=False, cancel_futures=True))
            return self._executor
