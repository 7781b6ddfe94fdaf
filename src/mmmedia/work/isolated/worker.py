"""A worker: takes a task, does it, and says what came of it; once more for the next.

It believes its parent, who may send it pickled objects. Its parent believes nothing of what it says.
"""

import importlib
import logging
import mmap
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from mmmedia import envs
from mmmedia.work import watch
from mmmedia.work.isolated import door, memory, wire
from mmmedia.work.isolated.files import Files
from mmmedia.work.isolated.place import enter

Asking = Callable[..., Any]

_MOST_WORDS: Final = 4000
_MOST_RECORDS: Final = 16


@dataclass
class Errand:
    """What a handler is given.

    Attributes:
        data: the encoded file.
        pickled: what else its parent sent.
        descriptors: of open files that it may read, for as long as it is under way.
        ask: asks the parent: the name of a question and what goes with it, as `wire.pack` takes it; returns
            the answer.
    """

    data: bytes
    pickled: bytes
    descriptors: list[int]
    ask: Asking


class RefusedError(BaseException):
    """The parent's answer to a question was an error of its own, which it remembers."""


def begin(descriptor: int, parent: int, memory_mib: int) -> NoReturn:
    """Become a worker, in a child that was just forked; never returns.

    Args:
        descriptor: the socket that leads to the parent.
        parent: the number of the process that forked this one.
        memory_mib: what it may allocate.
    """
    import socket

    status = 1
    try:
        os.setsid()
        door.name_process()
        door.end_with_parent(parent)
        door.keep_only(descriptor)
        with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
            file.write("500")  # rather a worker than the engine
        enter()
        held = door.shut(memory_mib)
        serve(wire.Wire(socket.socket(fileno=descriptor), trusts=True), held)
        status = 0
    finally:
        os._exit(status)


def serve(line: wire.Wire, held: list[str]) -> None:
    """Do what comes, until the parent closes its end.

    Args:
        line: leads to the parent.
        held: the layers of the door that are in force.
    """
    with suppress(wire.BrokenWireError):
        line.send({"ready": held})
        segments: dict[int, Any] = {}
        files = Files()
        while True:
            message, pickled, descriptors = line.receive()
            for number in message["drop"]:
                segments.pop(number, None)
            try:
                _Errands(line, segments, files).do(message, pickled, descriptors)
            finally:
                for descriptor in descriptors[1:]:
                    os.close(descriptor)
            files.let_go()


class _Errands:
    """One task, and what is said meanwhile."""

    def __init__(self, line: wire.Wire, segments: dict[int, Any], files: Files) -> None:
        self._line, self._segments, self._files = line, segments, files
        self._asking = threading.Lock()

    def do(self, message: dict[str, Any], pickled: bytes, descriptors: list[int]) -> None:
        """Do a task and say what came of it."""
        heard = _Listener()
        arrays: list[Any] = []
        try:
            door.limit_cpu(message["cpu_seconds"])
            if (logger := logging.getLogger("mmmedia")).level != message["log_level"]:
                logger.setLevel(message["log_level"])  # which forgets what all loggers have found out
            watch.note_stalled(message["stalled"])
            handler = _function(message["handler"])
            _set_environment(message["environment"])
            with heard, envs.at_most(message["ceilings"]):
                (data,) = self._files.opened(descriptors[0], [message["length"]])
                value = handler(Errand(data, pickled, descriptors[1:], self._ask))
            answer = {"answer": wire.pack(value, arrays), "arrays": wire.describe(arrays)}
            del value
        except wire.BrokenWireError:
            raise
        except RefusedError:
            answer, arrays = {"refused": True}, []
        except BaseException as error:  # noqa: BLE001  # the parent's to judge
            answer, arrays = {"error": told(error)}, []
        stalled = [kind for kind in watch.stalled() if kind not in message["stalled"]]
        announced = wire.described(wire.describe(arrays))
        spare = message.get("spare")
        if arrays and spare is not None and memory.fits(wire.places(announced)[1], spare["size"]):
            memory.put(arrays, announced, self._segments[spare["segment"]])
            answer["filled"] = spare["segment"]
        self._line.send({**answer, "records": heard.records, "stalled": stalled})
        if arrays and "filled" not in answer:
            self._hand_over(arrays, announced)

    def _hand_over(self, arrays: list[Any], announced: list[wire.Described]) -> None:
        grant, _, descriptors = self._line.receive()
        number = grant["segment"]
        if descriptors:
            self._segments[number] = memory.mapped(descriptors[0], grant["size"], mmap.MAP_SHARED)
            os.close(descriptors[0])
        memory.put(arrays, announced, self._segments[number])
        self._line.send({"filled": number})

    def _ask(self, question: str, *values: Any) -> Any:
        with self._asking:  # decoders have several threads
            self._line.send({"ask": question, "values": wire.pack(list(values), [])})
            reply, _, descriptors = self._line.receive()
        if reply.get("refused"):
            raise RefusedError
        parts = self._files.opened(descriptors[0], reply["lengths"]) if descriptors else []
        return wire.unpack(reply["reply"], parts)


def _set_environment(variables: Mapping[str, str]) -> None:
    """Give settings the values that they have in the parent."""
    for name in _set - variables.keys():
        os.environ.pop(name, None)
    os.environ.update(variables)
    _set.clear()
    _set.update(variables)


_set: set[str] = set()


class _Listener(logging.Handler):
    """Keeps what this library logs, for the parent to log."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[list[Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.records) < _MOST_RECORDS:
            text = record.getMessage()[:_MOST_WORDS]
            self.records.append([record.name, record.levelno, text])

    def __enter__(self) -> None:
        logging.getLogger("mmmedia").addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("mmmedia").removeHandler(self)


def _function(name: str) -> Callable[[Errand], Any]:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found  # type: ignore[no-any-return]


def _words(error: BaseException) -> str:
    is_quoted = isinstance(error, KeyError) and len(error.args) == 1  # whose text is a key
    return str(error.args[0] if is_quoted else error)


def _is_of_memory(error: BaseException | None) -> bool:
    """Say whether an error came of memory that could not be had, whatever a decoder has made of it."""
    while error is not None:
        # OpenCV's own number for it is -4.
        if isinstance(error, MemoryError) or getattr(error, "code", None) == -4:
            return True
        error = error.__cause__ or error.__context__
    return False


def nothing(*_: object) -> None:
    """Do nothing: what a worker is asked that is only tried."""


def told(error: BaseException) -> dict[str, Any]:
    """Return what the parent is told of an error: its kinds, the nearest first, its words, some attributes.

    >>> from mmmedia.errors import LimitExceededError
    >>> told(LimitExceededError("too large"))["kinds"][:2]
    ['LimitExceededError', 'MediaError']
    """
    attributes = {}
    for name in ("parameter", "value", "reason"):
        value = getattr(error, name, None)
        if value is None or isinstance(value, bool | int | float | str):
            attributes[name] = value[:_MOST_WORDS] if isinstance(value, str) else value
    if _is_of_memory(error):
        return {"kinds": ["MemoryError"], "words": "", "attributes": {}}
    return {
        "kinds": [kind.__name__ for kind in type(error).__mro__][:16],
        "words": (_words(error) or type(error).__name__)[:_MOST_WORDS],
        "attributes": attributes,
    }
