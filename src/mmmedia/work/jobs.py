"""The decode workers: one budget for the process, shared fairly by the requests that are under way."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from mmmedia import envs
from mmmedia.work.cores import usable_cores
from mmmedia.work.fork import afresh_in_child
from mmmedia.work.threads import threads

logger = logging.getLogger(__name__)

Job = Callable[[], None]

_WAKING = 0.5
"""Seconds in which a waiting request looks up."""


def worker_count() -> int:
    """The number of decode workers: the setting, or the usable cores."""
    return envs.VLLM_VIDEO_DECODE_WORKERS if envs.VLLM_VIDEO_DECODE_WORKERS > 0 else usable_cores()


class _Request:
    """The jobs of one request, and how far they are."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self.jobs: Iterator[Job] = iter(jobs)
        self.running = 0
        self.error: BaseException | None = None
        self.exhausted = False
        self.done = threading.Event()


class DecodePool:
    """Runs the jobs of many requests on a bounded number of threads, a job of each request in turn.

    Threads are at work while there is any.
    """

    def __init__(self) -> None:
        self._begin()
        # A forked child has none of the threads, and a lock that may be held by one of them.
        afresh_in_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Request] = deque()
        self._threads = 0

    @property
    def queue_length(self) -> int:
        """Requests that still have jobs to hand out."""
        return len(self._waiting)

    def run(self, jobs: Iterable[Job]) -> None:
        """Run a request's jobs and wait for them.

        The first error stops the request's other jobs, those under way excepted, and is raised here once
        these have ended; so does an exception that interrupts the waiting.
        """
        request = _Request(jobs)
        with self._lock:
            self._waiting.append(request)
            lacking = worker_count() - self._threads
        try:
            for _ in range(lacking):
                threads.start(self._work, "mmmedia-decode")
            # A Ctrl-C that comes just before the lock sleeps is not seen before it wakes.
            while not request.done.wait(_WAKING):
                pass
        except BaseException as error:
            with self._lock:
                request.error = request.error or error
                request.exhausted = True
                # There may be no worker to see to it.
                if not request.running:
                    request.done.set()
            request.done.wait()
            raise
        if request.error is not None:
            raise request.error

    def _work(self) -> None:
        with self._lock:
            # Requests that came at once have each started workers for all of the budget.
            if self._threads >= worker_count():
                return
            self._threads += 1
        while True:
            with self._lock:
                taken = self._take()
                if taken is None:
                    self._threads -= 1
                    return
            request, job = taken
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # noqa: BLE001 - handed to the request's own thread
                error = raised
            with self._lock:
                request.running -= 1
                request.error = request.error or error
                if request.error is not None:
                    request.exhausted = True
                if request.exhausted and not request.running:
                    request.done.set()

    def _take(self) -> tuple[_Request, Job] | None:
        """The next job, of the request that has waited longest for its turn."""
        while self._waiting:
            request = self._waiting.popleft()
            try:
                job = next(request.jobs) if request.error is None else None
            except StopIteration:
                job = None
            except BaseException as raised:  # noqa: BLE001 - handed to the request's own thread
                request.error, job = raised, None
            if job is not None:
                request.running += 1
                self._waiting.append(request)
                return request, job
            request.exhausted = True
            if not request.running:
                request.done.set()
        return None


decode_pool = DecodePool()
