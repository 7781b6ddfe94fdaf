"""The process that forks workers: it imports what they need, has one thread, and decodes nothing.

It is started afresh, so that it does not depend on the caller's `__main__`, on its threads, or on how it was
started itself. Messages of its parent: ``{"fork": number, …}`` with a socket for the new worker,
``{"kill": number}``, ``{"import": modules}``; what it forks after those has them. It says ``up``, ``forked``,
``ended`` and ``failed``, of modules. When its parent goes, it goes, and its workers with it.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from mmmedia.work.isolated import door, worker

NAME = b"mmmedia-forker"
_MESSAGE = 1 << 16
_LOOK_UP = 2.0
"""Seconds after which it looks whether its parent is still there, should nobody say so."""


class Server:
    """Forks, and counts its dead.

    Args:
        control: a socket of packets that leads to the parent.
        parent: the parent's number.
    """

    def __init__(self, control: socket.socket, parent: int) -> None:
        self._control, self._parent = control, parent
        self._numbers: dict[int, int] = {}

    def run(self) -> None:
        """Serve until the parent goes."""
        reads, writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        self._say({"up": True})
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(reads, select.POLLIN)
        try:
            self._serve(poll, reads)
        finally:
            self._end_all()

    def _serve(self, poll: select.poll, reads: int) -> None:
        while os.getppid() == self._parent:
            ready = [descriptor for descriptor, _ in poll.poll(_LOOK_UP * 1000)]
            if reads in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(reads, 4096)
                self._reap()
            if self._control.fileno() in ready and not self._obey():
                return

    def _end_all(self) -> None:
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._numbers:
            os.waitpid(pid, 0)

    def _obey(self) -> bool:
        text, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
        if not text:
            return False
        message = json.loads(text)
        if "fork" in message:
            self._fork(message, descriptors[0])
        elif "kill" in message:
            for pid, number in self._numbers.items():
                if number == message["kill"]:
                    os.kill(pid, signal.SIGKILL)
        elif "import" in message:
            self._say({"failed": _import(message["import"])})
            gc.freeze()
        return True

    def _fork(self, message: dict[str, Any], descriptor: int) -> None:
        mine = os.getpid()
        pid = os.fork()
        if not pid:
            _become_worker(descriptor, mine, message["memory_mib"])
        os.close(descriptor)
        self._numbers[pid] = message["fork"]
        self._say({"forked": message["fork"], "pid": pid})

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if (number := self._numbers.pop(pid, None)) is not None:
                self._say({"ended": number, "status": os.waitstatus_to_exitcode(status)})

    def _say(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the parent has gone, and the next look-up sees it
            self._control.send(json.dumps(message).encode())


def _become_worker(descriptor: int, parent: int, memory_mib: int) -> NoReturn:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    worker.begin(descriptor, parent, memory_mib)


def _import(modules: list[str]) -> list[str]:
    """Import modules for the workers to come, and return those that can't be."""
    failed = []
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException:  # noqa: BLE001  # whatever a module does while it is imported
            failed.append(name)
    return failed


def main(arguments: dict[str, Any]) -> None:
    """Be the server.

    Args:
        arguments: `descriptor` of the control socket, number of the `parent`, and the function `prepare` that
            imports what workers need, as ``module:name``.
    """
    door.name_process(NAME)
    control = socket.socket(fileno=arguments["descriptor"])
    module, _, name = arguments["prepare"].partition(":")
    getattr(importlib.import_module(module), name)()
    gc.collect()
    gc.freeze()  # so that the collector of a worker leaves the pages alone that it shares
    Server(control, arguments["parent"]).run()


BOOT = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.path[:] = arguments["path"]
from mmmedia.work.isolated.server import main
main(arguments)
"""
"""What the interpreter is started with."""


def command(arguments: dict[str, Any]) -> list[str]:
    """Return the command line that starts the server."""
    return [sys.executable, "-c", BOOT, json.dumps({**arguments, "path": sys.path})]
