"""The server process, as its parent knows it: started, told to fork, listened to, ended."""

import contextlib
import json
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING, Any, Final

from mmmedia.errors import DecoderUnavailableError
from mmmedia.work.isolated import server
from mmmedia.work.isolated.place import IS_POSSIBLE

if TYPE_CHECKING:
    from collections.abc import Callable

_END_SECONDS: Final = 5.0
_MESSAGE: Final = 1 << 16
_PASSED: Final = (
    "PATH", "LANG", "TZ", "PYTHONHOME", "PYTHONPATH", "PYTHONHASHSEED", "LD_LIBRARY_PATH", "LD_PRELOAD",
)  # fmt: skip
"""Variables of the environment that it has as well; others may hold secrets."""
_PASSED_PREFIXES: Final = ("LC_", "OPENCV_", "AV_", "NUMBA_", "MALLOC_", "OMP_")
_OWN: Final = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "8", "PILLOW_BLOCKS_MAX": "8"}
"""It must have one thread, as it forks; threads of a worker don't need 64 MiB of addresses each; and the next
picture takes the 128 MiB that the last one had, which need not be cleared by the system."""


def environment() -> dict[str, str]:
    """Return the environment of the server and its workers: nothing that may be a secret."""
    return {
        **{name: value for name, value in os.environ.items()
           if name in _PASSED or name.startswith(_PASSED_PREFIXES)},
        **_OWN,
    }  # fmt: skip


class Forker:
    """A server process.

    Args:
        prepare: the function that imports what workers need, as ``module:name``.
        hear: is called, in a thread of its own, with this and with what the server says; `{}`: it has gone.

    Raises:
        DecoderUnavailableError: (a `RuntimeError`) this system has no such processes.
    """

    def __init__(self, prepare: str, hear: "Callable[[Forker, dict[str, Any]], None]") -> None:
        if not IS_POSSIBLE:
            raise DecoderUnavailableError("MMMEDIA_DECODE_PROCESSES needs Linux.")
        self._hear = hear
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            arguments = {"descriptor": theirs.fileno(), "parent": os.getpid(), "prepare": prepare}
            try:
                self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                    server.command(arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment(),
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                self._control.close()
                raise DecoderUnavailableError(f"No decode process can be started: {error}") from error
        self.is_alive = True
        threading.Thread(target=self._listen, name="mmmedia-forker", daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def fork(self, number: int, memory_mib: int) -> socket.socket:
        """Have a worker forked, and return what leads to it."""
        mine, theirs = socket.socketpair()
        with theirs:
            self._say({"fork": number, "memory_mib": memory_mib}, theirs.fileno())
        return mine

    def kill(self, number: int) -> None:
        """Have a worker killed, if it has not ended by itself."""
        self._say({"kill": number})

    def prepare(self, modules: list[str]) -> None:
        """Have modules imported for the workers to come."""
        self._say({"import": modules})

    def close(self) -> None:
        """End it and its workers, and wait until they have ended."""
        self.is_alive = False
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def abandon(self) -> None:
        """Close what a forked child has inherited of it."""
        self.is_alive = False
        self._control.close()
        self._process.returncode = 0  # so that nobody waits there for what is no child

    def _say(self, message: dict[str, Any], *descriptors: int) -> None:
        with contextlib.suppress(OSError):  # it has gone, as its workers have, which is noticed by them
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)

    def _listen(self) -> None:
        while True:
            try:
                text = self._control.recv(_MESSAGE)
            except OSError:
                text = b""
            message = json.loads(text) if text else {}
            if not message:
                self.is_alive = False
                self._control.close()
            self._hear(self, message)
            if not message:
                self._process.wait()
                return
