"""Threads that are used again.

OpenCV keeps some 900 bytes for ever of every thread that has converted colours and ends. A decode takes two
such threads or more, so in these the next call waits for the last instead.
"""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from mmmedia.work.fork import afresh_in_child

_MOST = 32
"""How many wait for work at most; others end when they have none."""
_SECONDS = 60.0
"""How long one waits for work before it ends after all."""

IDLE = "mmmedia-idle"

_Work = SimpleQueue[tuple[Callable[[], object], str]]


class Threads:
    """Threads for calls that go on for a while.

    >>> threads, done = Threads(), threading.Event()
    >>> threads.start(done.set, "mmmedia-example")
    >>> done.wait(10)
    True
    """

    def __init__(self) -> None:
        self._begin()
        afresh_in_child(self._begin)  # which has none of them

    def _begin(self) -> None:
        self._idle: list[_Work] = []

    def start(self, call: Callable[[], object], name: str) -> None:
        """Call in a thread of that name: one that waits for work, or a new one.

        Args:
            call: what to call; it raises nothing.
            name: the thread's, for as long.

        Raises:
            RuntimeError: no thread can be started.
        """
        try:
            self._idle.pop().put((call, name))
        except IndexError:
            work: _Work = SimpleQueue()
            work.put((call, name))
            threading.Thread(target=self._live, args=(work,), name=name, daemon=True).start()

    def _live(self, work: "_Work") -> None:
        thread = threading.current_thread()
        while True:
            try:
                call, thread.name = work.get(timeout=_SECONDS)
            except Empty:
                try:
                    self._idle.remove(work)
                except ValueError:  # somebody is about to send work
                    continue
                return
            call()
            del call  # what it holds is not this thread's to keep
            thread.name = IDLE
            if len(self._idle) >= _MOST:
                return
            self._idle.append(work)


threads = Threads()
