"""The server, in this process: what it is told, what it forks, what it says of its dead."""

import json
import os
import socket
import threading
import warnings
from typing import Any

import pytest

from mmmedia.errors import DecoderUnavailableError
from mmmedia.work.isolated import forker, server, wire
from mmmedia.work.isolated.pool import trial

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux")


def test_it_forks_kills_imports_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = signal.getsignal(signal.SIGCHLD)
    said: list[dict[str, Any]] = []
    ready: list[dict[str, Any]] = []

    def talk() -> None:
        def hear() -> dict[str, Any]:
            said.append(json.loads(mine.recv(1 << 16)))
            return said[-1]

        def tell(message: dict[str, Any], *descriptors: int) -> None:
            socket.send_fds(mine, [json.dumps(message).encode()], descriptors)

        hear()
        lines = []
        for number in (1, 2):
            here, there = socket.socketpair()
            with there:
                tell({"fork": number, "memory_mib": 100}, there.fileno())
            hear()
            lines.append(wire.Wire(here, trusts=False))
            ready.append(lines[-1].receive(20.0)[0])
        tell({"import": ["json", "no_such_module"]})
        hear()
        tell({"kill": 1})
        hear()
        mine.close()  # the other is ended
        for line in lines:
            with pytest.raises(wire.BrokenWireError):
                line.receive(20.0)
            line.close()

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        with theirs, warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later, as there are threads
            server.Server(theirs, os.getppid()).run()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
    thread.join()
    assert said[0] == {"up": True}
    assert [each.get("forked") for each in said[1:3]] == [1, 2]
    assert said[3:] == [{"failed": ["no_such_module"]}, {"ended": 1, "status": -9}]
    assert all("rlimits" in each["ready"] for each in ready)


def test_it_ends_when_its_parent_is_another() -> None:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    import signal

    before = signal.getsignal(signal.SIGCHLD)
    with mine, theirs:
        server.Server(theirs, 1 << 30).run()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, before)


def test_the_command_starts_this_interpreter_with_this_path() -> None:
    import sys

    command = server.command({"descriptor": 3})
    assert command[0] == sys.executable
    assert json.loads(command[-1]) == {"descriptor": 3, "path": sys.path}


def test_no_secret_of_the_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.setenv("OPENCV_LOG_LEVEL", "SILENT")
    found = forker.environment()
    assert "HF_TOKEN" not in found
    assert found["OPENCV_LOG_LEVEL"] == "SILENT"
    assert found["OPENBLAS_NUM_THREADS"] == "1"


def test_where_there_are_no_such_processes_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forker, "IS_POSSIBLE", False)
    with pytest.raises(DecoderUnavailableError, match="needs Linux"):
        trial()
    monkeypatch.setattr(forker, "IS_POSSIBLE", True)
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(DecoderUnavailableError, match="can be started"):
        trial()


def test_a_trial_says_what_is_held() -> None:
    assert "rlimits" in trial()
