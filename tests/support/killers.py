"""What a worker does that has gone wrong, or was taken over: told by the first word of its file."""

import ctypes
import io
import logging
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmmedia import envs
from mmmedia.errors import LimitExceededError
from mmmedia.work import watch
from mmmedia.work.isolated.worker import Errand

logger = logging.getLogger("mmmedia.killers")


def prepare() -> None:
    """Import nothing more."""


def fail() -> None:
    raise RuntimeError("this can't be prepared")


def decode(errand: Errand) -> Any:
    word, _, rest = errand.data.partition(b" ")
    return globals()[f"do_{word.decode()}"](errand, rest)


def do_echo(errand: Errand, rest: bytes) -> Any:
    return {"rest": rest, "pid": os.getpid(), "pickled": errand.pickled}


def do_array(errand: Errand, rest: bytes) -> Any:
    """As many bytes as asked for, all of the value 7."""
    return np.full(int(rest), 7, np.uint8)


def do_values(errand: Errand, rest: bytes) -> Any:
    return [
        None,
        True,
        1,
        -0.5,
        "x",
        b"y",
        (1, [2, {"a": (3,), 4: np.arange(6).reshape(2, 3)}]),
        float("inf"),
    ]


def do_limit(errand: Errand, rest: bytes) -> Any:
    raise LimitExceededError("too large")


def do_odd(errand: Errand, rest: bytes) -> Any:
    class OddError(Exception):
        pass

    raise OddError("nobody knows this")


def do_setting(errand: Errand, rest: bytes) -> Any:
    return envs.VLLM_MAX_IMAGE_PIXELS


def do_log(errand: Errand, rest: bytes) -> Any:
    logger.warning("careful:\n%s", rest.decode())


def do_stall(errand: Errand, rest: bytes) -> Any:
    watch.note_stalled([rest.decode()])


def do_ask(errand: Errand, rest: bytes) -> Any:
    return errand.ask("double", int(rest))


def weigh(errand: Errand) -> Any:
    """What its parent weighs once the file was read to its end, and what the file came to."""
    total = sum(errand.data[at] for at in range(0, len(errand.data), 4096))
    view = memoryview(errand.data)[-5:]
    return total, hash(errand.data) != 0, bytes(view), errand.ask("weigh", os.getpid())


def do_keep(errand: Errand, rest: bytes) -> Any:
    """What the ends of all files so far held, which are kept."""
    _kept.append(memoryview(errand.data)[-5:])
    return [bytes(each) for each in _kept]


_kept: list[memoryview] = []


def do_segv(errand: Errand, rest: bytes) -> Any:
    ctypes.string_at(8)


def do_opencv(errand: Errand, rest: bytes) -> Any:
    """OpenCV as it is, which any demuxer reads for, from a reader whose `seek` raises where it can't go."""
    import cv2

    reader: Any = io.BufferedReader(io.BytesIO(rest))  # OpenCV's types ask for a class of its own
    return cv2.VideoCapture(reader, cv2.CAP_FFMPEG, []).isOpened()


def do_ffmpeg(errand: Errand, rest: bytes) -> Any:
    """FFmpeg as it is, which is shown any file."""
    import av

    with av.open(io.BytesIO(rest)) as container:
        return len(container.streams)


def do_abort(errand: Errand, rest: bytes) -> Any:
    os.abort()


def do_exit(errand: Errand, rest: bytes) -> Any:
    os._exit(3)


def do_spin(errand: Errand, rest: bytes) -> Any:
    while True:
        pass


def do_sleep(errand: Errand, rest: bytes) -> Any:
    time.sleep(float(rest))
    return os.getpid()


def do_allocate(errand: Errand, rest: bytes) -> Any:
    kept = []
    while True:
        kept.append(np.ones(16 << 20, np.uint8))


def do_allocate_shared(errand: Errand, rest: bytes) -> Any:
    """Past what limits data only."""
    import mmap

    kept = []
    while True:
        kept.append(mmap.mmap(-1, 1 << 33))


def do_malloc(errand: Errand, rest: bytes) -> Any:
    """As C code does that does not look at what `malloc` returns."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        got = libc.malloc(ctypes.c_size_t(64 << 20))
        ctypes.memset(got, 1, 64 << 20)


def do_write(errand: Errand, rest: bytes) -> Any:
    """Rubbish to all descriptors there may be; the parent hears it on the wire."""
    for number in range(64):
        try:
            os.write(number, b"\xff" * 64)
        except OSError:
            continue


def do_descriptors(errand: Errand, rest: bytes) -> Any:
    """Which are open."""
    found = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def _outcome(call: Any, *args: Any) -> str:
    try:
        call(*args)
    except OSError as error:
        return type(error).__name__
    return "done"


def do_forbidden(errand: Errand, rest: bytes) -> Any:
    """What each thing that a worker must not do comes to."""
    parent = os.getppid()

    def connect() -> None:
        with socket.socket() as made:
            made.connect(("127.0.0.1", int(rest)))

    tries = {
        "read a file": (Path("/etc/passwd").read_bytes,),
        "read its environment": (Path("/proc/self/environ").read_bytes,),
        "read its parent's memory": (Path(f"/proc/{parent}/mem").read_bytes,),
        "list a directory": (os.listdir, "/"),
        "write a file": (Path("/tmp/mmmedia-killer").write_bytes, b"x"),
        "make a directory": (os.mkdir, "/tmp/mmmedia-killer-directory"),
        "remove a file": (os.unlink, "/tmp/mmmedia-killer"),
        "open a socket": (socket.socket,),
        "a pair of sockets": (socket.socketpair,),
        "connect": (connect,),
        "fork": (os.fork,),
        "run a program": (os.execv, "/bin/true", ["true"]),
        "kill its parent": (os.kill, parent, signal.SIGKILL),
        "kill all": (os.kill, -1, signal.SIGKILL),
        "memory of its own": (os.memfd_create, "x"),
        "become another": (os.setuid, 0),
        "change who may read a file": (os.fchmod, 0, 0o666),
        "go to a directory": (os.fchdir, 0),
        "own a file": (os.fchown, 0, 0, 0),
        "take its parent's turns": (os.setpriority, os.PRIO_PROCESS, parent, 19),
        "take its parent's cores": (os.sched_setaffinity, parent, {0}),
        "be first": (os.sched_setscheduler, 0, os.SCHED_BATCH, os.sched_param(0)),
        "limit its parent": (resource.prlimit, parent, resource.RLIMIT_NOFILE, (4096, 4096)),
    }
    return {what: _outcome(*call) for what, call in tries.items()}


def do_environment(errand: Errand, rest: bytes) -> Any:
    return dict(os.environ)


def do_threads(errand: Errand, rest: bytes) -> Any:
    """Threads are no processes: they may be started."""
    done: list[int] = []
    threads = [threading.Thread(target=done.append, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(done)


def do_name(errand: Errand, rest: bytes) -> Any:
    return threading.get_native_id() == os.getpid(), os.getsid(0) == os.getpid()


def do_lie(errand: Errand, rest: bytes) -> Any:
    """Say something else than workers say."""
    line = errand.ask.__self__._line  # type: ignore[attr-defined]
    answers: dict[str, Any] = {
        "nothing": {},
        "kinds": {"answer": {"z": 1}, "arrays": []},
        "number": {"answer": {"a": 5}, "arrays": []},
        "twice": {"answer": [{"a": 0}, {"a": 0}], "arrays": [["uint8", [4]]]},
        "dtype": {"answer": {"a": 0}, "arrays": [["object", [4]]]},
        "negative": {"answer": {"a": 0}, "arrays": [["uint8", [-4]]]},
        "boolean": {"answer": {"a": 0}, "arrays": [["uint8", [True]]]},
        "error": {"error": "SystemExit"},
        "refused": {"refused": True},
        "question": {"ask": "secret", "values": []},
        "records": {"answer": None, "arrays": [], "records": "many"},
    }
    name = rest.decode()
    if name == "junk":
        os.write(line.socket.fileno(), b"\x05\0\0\0\0\0\0\0hello")
    elif name == "huge":
        os.write(line.socket.fileno(), b"\xff\xff\xff\x7f\0\0\0\0")
    elif name == "pickle":
        os.write(line.socket.fileno(), b"\x02\0\0\0\x04\0\0\0{}abcd")
    elif name == "deep":
        text = b"[" * 200_000 + b"]" * 200_000
        line.socket.sendall(len(text).to_bytes(4, "little") + bytes(4) + text)
    else:
        line.send({"records": [], "stalled": [], **answers[name]})
    time.sleep(60)


def do_claim(errand: Errand, rest: bytes) -> Any:
    """Announce an array without having it."""
    line = errand.ask.__self__._line  # type: ignore[attr-defined]
    announced = [["uint8", [int(rest)]]]
    line.send({"answer": {"a": 0}, "arrays": announced, "records": [], "stalled": []})
    line.receive()
    os._exit(7)


def do_leak(errand: Errand, rest: bytes) -> Any:
    """What a caller gets is its own, whatever the worker does with its memory later."""
    return np.full(1 << 20, int(rest), np.uint8)
