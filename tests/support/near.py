"""A worker that is not far: in a thread of this process, and so without its door."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mmmedia.work.isolated import door, wire, worker
from mmmedia.work.isolated.pool import Pool, Task, Worker, _Told


@contextmanager
def worker_nearby() -> Iterator[Worker]:
    mine, theirs = socket.socketpair()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(door, "limit_cpu", lambda seconds: None)
        thread = threading.Thread(target=worker.serve, args=(wire.Wire(theirs, trusts=True), ["rlimits"]))
        thread.start()
        near = Worker(1, mine, 0)
        try:
            yield near
        finally:
            near.close()
            thread.join(20)
            theirs.close()
    assert not thread.is_alive()


def run_nearby(near: Worker, task: Task) -> object:
    try:
        return Pool()._converse(near, task)
    except _Told as told:
        raise told.error from None
