"""The door: which layers a system has, what is left out where one is lacking, what the filter says."""

import ctypes
import os
import platform
import resource
import struct
import subprocess
import sys
from typing import Any

import pytest

from mmmedia.work.isolated import door

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the door is Linux's")

ADMIT, DENY, NO_SUCH = 0x7FFF0000, 0x00050001, 0x00050000 | 38


def judged(machine: str, number: int, first: int = 0, architecture: int | None = None, pid: int = 7) -> int:
    """What the filter says of a system call: a BPF machine that knows the instructions it has."""
    known = door._MACHINES[machine]
    data = struct.pack("<IIQQ", number, known.audit if architecture is None else architecture, 0, first)
    program = door.seccomp_program(machine, pid)
    at, accumulator = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
            continue
        is_so = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value}[code]
        at += if_true if is_so else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_admits_computing_and_nothing_else(machine: str) -> None:
    column = door._MACHINES[machine].column
    for numbers in door._FORBIDDEN.values():
        if (number := numbers[column]) is not None:
            assert judged(machine, number) == DENY
    read, write, mmap, futex = {"x86_64": (0, 1, 9, 202), "aarch64": (63, 64, 222, 98)}[machine]
    assert {judged(machine, number) for number in (read, write, mmap, futex)} == {ADMIT}
    assert judged(machine, read, architecture=0x40000003) == DENY
    judged_ones = (door._CLONE, door._CLONE3, door._KILL, door._TGKILL, door._PRCTL, door._PRLIMIT)
    clone, clone3, kill, tgkill, prctl, prlimit = (numbers[column] for numbers in judged_ones)
    assert judged(machine, clone3) == NO_SUCH
    assert judged(machine, clone, 0x3D0F00) == ADMIT  # a thread, as glibc starts one
    assert judged(machine, clone, 17) == DENY  # a process
    assert (judged(machine, kill, 7), judged(machine, kill, 8)) == (ADMIT, DENY)
    assert (judged(machine, tgkill, 7), judged(machine, tgkill, 1)) == (ADMIT, DENY)
    assert (judged(machine, prctl, 15), judged(machine, prctl, 1)) == (ADMIT, DENY)
    assert [judged(machine, prlimit, pid) for pid in (0, 7, 1)] == [ADMIT, ADMIT, DENY]
    if machine == "x86_64":
        assert judged(machine, 0x40000000 | 41) == DENY


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_numbers_are_those_of_the_system() -> None:
    """A few, by what they do."""
    libc = ctypes.CDLL(None)
    assert door._TGKILL[0] == 234
    assert libc.syscall(39) == os.getpid()


@pytest.mark.parametrize(("version", "words"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)])
def test_all_that_a_version_of_landlock_knows_is_denied(version: int, words: int) -> None:
    rules = door.landlock_rules(version)
    assert len(rules) == 8 * words
    files = struct.unpack_from("<Q", rules)[0]
    assert files == (1 << {1: 13, 3: 15, 4: 15}.get(version, 16)) - 1


def test_what_is_possible_is_a_part_of_what_there_is() -> None:
    assert set(door.possible()) <= set(door.LAYERS)
    assert "rlimits" in door.possible()


class Recorded:
    """What was asked of the system, which is told no more than that all is well, or that nothing is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.calls: list[Any] = []

        def call(*arguments: Any) -> int:
            self.calls.append(arguments)
            if fails:
                raise OSError(1, "not here")
            return 77 if arguments[0] == door._LANDLOCK_CREATE and len(arguments) == 4 else 7

        monkeypatch.setattr(door, "_syscall", call)
        monkeypatch.setattr(door, "_prctl", lambda *arguments: call("prctl", *arguments))
        monkeypatch.setattr(resource, "setrlimit", lambda *arguments: call("setrlimit", *arguments))
        monkeypatch.setattr(os, "close", lambda descriptor: self.calls.append(("close", descriptor)))


def test_all_layers_are_put_on_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Recorded(monkeypatch)
    held = door.shut(100)
    monkeypatch.undo()
    assert held == ["rlimits", "capabilities", "landlock", "seccomp"]
    limits = {call[1]: call[2] for call in recorded.calls if call[0] == "setrlimit"}
    assert limits[resource.RLIMIT_CORE] == limits[resource.RLIMIT_FSIZE] == (0, 0)
    assert limits[resource.RLIMIT_DATA][0] >= 100 << 20
    names = [call[0] for call in recorded.calls]
    assert names.index("prctl") < names.index("setrlimit")  # no new privileges, first of all


def test_what_this_system_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    Recorded(monkeypatch, fails=True)
    monkeypatch.setattr(door, "_prctl", lambda *arguments: None)
    held, version = door.shut(100), door.landlock_version()
    monkeypatch.undo()
    assert held == ["seccomp"]
    assert version == 0


def test_of_another_machine_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    Recorded(monkeypatch)
    held, possible = door.shut(100), door.possible()
    monkeypatch.undo()
    assert held == ["rlimits", "landlock"]
    assert possible == ["rlimits"]


def test_a_child_takes_its_name_and_ends_with_its_parent() -> None:
    script = """
import os, sys
from mmmedia.work.isolated import door
door.name_process(b"mmmedia-test")
print(open("/proc/self/comm").read().strip(), flush=True)
door.limit_cpu(3.0)
door.end_with_parent(os.getppid())
door.keep_only(1)
os._exit(os.system("true"))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "mmmedia-test"
    orphan = "from mmmedia.work.isolated import door; door.end_with_parent(1 << 30); raise SystemExit(5)"
    assert subprocess.run([sys.executable, "-c", orphan], check=False).returncode == 0


def test_who_says_prctl_is_told_what_the_system_says() -> None:
    with pytest.raises(OSError, match="prctl"):
        door._prctl(99_999, 0)
    with pytest.raises(OSError, match="syscall"):
        door._syscall(99_999)
