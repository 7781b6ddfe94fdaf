"""The workers of this process: who has which, who waits, and what becomes of those that die."""

import contextlib
import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mmmedia import envs
from mmmedia.errors import DecoderDiedError, DecoderUnavailableError
from mmmedia.work import calls, watch
from mmmedia.work.isolated import files, memory, wire
from mmmedia.work.isolated.forker import Forker
from mmmedia.work.isolated.offenders import Offenders
from mmmedia.work.isolated.verdicts import Ending, ending, kinds, log, rebuilt

logger = logging.getLogger(__name__)

_START_SECONDS: Final = 120.0
_STATUS_SECONDS: Final = 5.0
_LOOK_UP: Final = 0.05
"""Seconds after which somebody who waits looks whether it is still wanted."""
_LIFE_BYTES: Final = 64 << 30
"""Encoded and decoded bytes after which a worker is replaced, as after many decodes."""
_ATTEMPTS: Final = 3
_CORES: Final = os.cpu_count() or 1
_MOST_AWAY: Final = 32
"""Workers that are waited for beyond those that decode."""
_SPENT: Final = 1 << 62
"""Decodes of a worker in which a thread is left behind."""


@dataclass
class Task:
    """What a worker is to do.

    Attributes:
        handler: the function that does it, as ``module:name``; it takes a `worker.Errand`.
        prepare: the function that imports what it needs, likewise.
        data: the encoded file.
        pickled: what else it needs.
        check: told what is answered, with `wire.Described` for arrays and bytes, before these are believed or
            have memory; raises `wire.BrokenWireError` for what can't be.
        modules: to be imported by the worker beside those of `prepare`.
        settings: those that count while it is done.
        answers: who answers the worker's questions, by name.
        waits: those of them that wait for something, while which others may decode.
        errors: the errors that a worker may speak of, by name.
        seconds: what it may take; None: for ever.
        known_by: what the file is known by, if not by its contents.
        descriptors: of open files that it may read, of which the caller keeps them open.
    """

    handler: str
    prepare: str
    data: bytes
    pickled: bytes = b""
    check: Callable[[Any], object] = bool
    modules: frozenset[str] = frozenset()
    settings: tuple[str, ...] = ()
    answers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    waits: frozenset[str] = frozenset()
    errors: Mapping[str, type[BaseException]] = field(default_factory=dict)
    seconds: float | None = None
    known_by: bytes | None = None
    descriptors: tuple[int, ...] = ()

    @property
    def file(self) -> bytes:
        """What the file is told from others by."""
        return self.data if self.known_by is None else self.known_by


class Worker:
    """A worker, as its parent knows it.

    Attributes:
        held: the layers of its door that are in force; None until it says so.
        spare: a segment that it may fill without asking.
        status: what it ended with; None: it has not, or nobody knows.
    """

    def __init__(
        self, number: int, end: socket.socket, generation: int, forker: Forker | None = None
    ) -> None:
        self.number, self.generation, self.forker = number, generation, forker
        self.line = wire.Wire(end, trusts=False)
        self.segments = memory.Segments()
        self.held: tuple[str, ...] | None = None
        self.pid = 0
        self.decodes = self.bytes = 0
        self.spare: memory.Segment | None = None
        self.status: int | None = None
        self.has_ended = threading.Event()

    def was_born(self) -> bool:
        """Say whether it has come so far as to wait for something to do."""
        if self.held is not None:
            return True
        try:
            return bool(self.line.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def close(self) -> None:
        """Let it end by itself, which it does when it has nothing to do."""
        self.line.close()
        if self.spare is not None:
            self.spare.close()
        self.segments.close()


class _Place:
    """A place in the queue.

    Args:
        is_back: whether who waits has a worker, which has what it asked for and is to go on.
    """

    def __init__(self, *, is_back: bool = False) -> None:
        self.is_back = is_back
        self.worker: Worker | None = None
        self.is_served = threading.Event()


class _Died(Exception):  # noqa: N818  # never leaves this module
    """The worker at hand is no more, or must not go on."""

    def __init__(self, why: Ending) -> None:
        super().__init__(why.reason)
        self.why = why


class _Told(Exception):  # noqa: N818  # never leaves this module
    """The worker has said its last word, and it is an error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Pool:
    """Workers, started at the first use and replaced when they die or have lived long enough."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forker: Forker | None = None
        self._workers: dict[int, Worker] = {}
        self._idle: deque[Worker] = deque()
        self._waiting: deque[_Place] = deque()
        self._offenders = Offenders()
        self._modules: set[str] = set()
        self._generation = self._number = self._away = 0
        self._is_closed = False
        self.ends: Counter[str] = Counter()
        """How workers ended, by reason."""
        self.seconds = 0.0
        """For which workers were busy, together."""
        self.held: tuple[str, ...] | None = None
        """The layers of the door, as the last worker reported them."""

    @property
    def alive(self) -> int:
        """How many workers there are."""
        return len(self._workers)

    @property
    def queue_length(self) -> int:
        """How many decodes wait for one."""
        return len(self._waiting)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes, as far as they are known."""
        with self._lock:
            return [worker.pid for worker in self._workers.values() if worker.pid]

    def run(self, task: Task) -> Any:
        """Have a task done, and return what its handler did, with arrays in shared memory.

        Raises:
            DecoderDiedError: (a `ValueError`) the worker died of it, or had to be ended.
            DecoderUnavailableError: (a `RuntimeError`) no worker can be started, or too many wait for one.
            MediaError: what the handler raised.
            Exception: what one of `answers` raised.
        """
        if self._offenders.is_barred(task.file):
            raise DecoderDiedError(
                "The file is not decoded: it ended two decode processes within the hour.", reason="known"
            )
        for _ in range(_ATTEMPTS):
            worker = self._acquire(task)
            began = time.monotonic()
            try:
                value = self._converse(worker, task)
            except _Died as died:
                self._bury(worker, died.why)
                if died.why.is_unborn:
                    continue
                self._offenders.blame(task.file)
                raise DecoderDiedError(died.why.words, reason=died.why.reason) from None
            except _Told as told:
                self._release(worker)
                raise told.error from told.error.__cause__
            except BaseException:  # in the midst of what was said
                self._bury(worker, ending("killed"))
                raise
            finally:
                self.seconds += time.monotonic() - began
            self._release(worker)
            return value
        raise DecoderUnavailableError(
            "No decode process could be started (MMMEDIA_DECODE_PROCESSES); its error is on standard error."
        )

    # -------------------------------------------------------------------------------------- conversation

    def _converse(self, worker: Worker, task: Task) -> Any:
        line, end = worker.line, None
        try:
            if worker.held is None:
                held = line.receive(_START_SECONDS)[0].get("ready")
                self._note_door(worker, held)
            self._hand_over(worker, task)
        except (wire.BrokenWireError, TimeoutError):
            raise _Died(ending("unborn")) from None
        if task.seconds is not None:
            end = time.monotonic() + task.seconds
        try:
            return self._hear(worker, task, end)
        except TimeoutError:
            raise _Died(ending("hang", seconds=task.seconds)) from None
        except wire.BrokenWireError as error:
            if str(error) not in ("the end", "ConnectionResetError", "BrokenPipeError"):
                raise _Died(ending("lie", said=str(error))) from None
            worker.has_ended.wait(_STATUS_SECONDS)
            raise _Died(ending("died", status=worker.status)) from None

    def _hand_over(self, worker: Worker, task: Task) -> None:
        worker.spare = worker.spare or worker.segments.spare()
        variables, ceilings = envs.in_force(task.settings)
        message = {
            "handler": task.handler,
            "environment": variables,
            "ceilings": ceilings,
            "cpu_seconds": 86_400 if task.seconds is None else task.seconds * _CORES,
            "log_level": logging.getLogger("mmmedia").getEffectiveLevel(),
            "stalled": watch.stalled(),
            "drop": worker.segments.dropped(),
            "length": len(task.data),
        }
        if (spare := worker.spare) is not None:
            message["spare"] = {"segment": spare.number, "size": spare.size}
        descriptor = files.sealed([task.data])
        try:
            worker.line.socket.settimeout(_START_SECONDS)
            worker.line.send(message, task.pickled, (descriptor, *task.descriptors))
        finally:
            os.close(descriptor)
        worker.decodes += 1
        worker.bytes += len(task.data)

    def _hear(self, worker: Worker, task: Task, end: float | None) -> Any:
        line = worker.line
        refusal: BaseException | None = None
        while True:
            left = None if end is None else max(end - time.monotonic(), 0.001)
            message, _, _ = line.receive(left)
            if "ask" in message:
                began = time.monotonic()
                try:
                    reply, parts = self._answer(task, message)
                except wire.BrokenWireError:
                    raise
                except Exception as failure:  # noqa: BLE001  # theirs who answer; raised in the end
                    refusal, reply, parts = failure, {"refused": True}, []
                if end is not None:
                    end += time.monotonic() - began
                self._reply(worker, reply, parts)
                continue
            log(message.get("records"))
            if stalled := kinds(message.get("stalled")):
                watch.note_stalled(stalled)
                worker.decodes = max(worker.decodes, _SPENT)
            if "answer" in message:
                return self._receive(worker, task, message, end)
            if "error" in message:
                error = rebuilt(message["error"], task.errors)
                if isinstance(error, MemoryError):
                    raise _Died(ending("memory"))
                raise _Told(error)
            if message.get("refused") is True and refusal is not None:
                raise _Told(refusal)
            raise wire.BrokenWireError("a message of no known form")

    @staticmethod
    def _reply(worker: Worker, reply: dict[str, Any], parts: list[bytes]) -> None:
        if not parts:
            worker.line.send(reply)
            return
        worker.bytes += sum(map(len, parts))
        descriptor = files.sealed(parts)
        try:
            worker.line.send(reply, b"", (descriptor,))
        finally:
            os.close(descriptor)

    def _answer(self, task: Task, message: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
        """Return what is replied to a question, and the bytes in it."""
        values = wire.unpack(message.get("values"), [])
        answer = task.answers.get(message["ask"]) if isinstance(message["ask"], str) else None
        if answer is None or not isinstance(values, list):
            raise wire.BrokenWireError("a question that nobody asks")
        parts: list[Any] = []
        is_slow = message["ask"] in task.waits
        tree = wire.pack(self._meanwhile(answer, values) if is_slow else answer(*values), parts)
        return {"reply": tree, "lengths": [len(part) for part in parts]}, parts

    def _receive(self, worker: Worker, task: Task, message: dict[str, Any], end: float | None) -> Any:
        announced = wire.described(message.get("arrays"))
        task.check(wire.unpack(message["answer"], announced))
        total = wire.places(announced)[1]
        arrays: list[Any] = []
        if announced:
            segment = self._filled(worker, message, total, end)
            if total < memory.COPIED_BELOW:
                with_segment: Any = os.pread(segment.descriptor, total, 0)
                arrays = memory.arrays_in(bytearray(with_segment), announced)
                worker.segments.give(segment)
            else:
                arrays = memory.arrays_in(worker.segments.lend(segment, total), announced)
            worker.bytes += total
        return wire.unpack(message["answer"], arrays)

    @staticmethod
    def _filled(worker: Worker, message: dict[str, Any], total: int, end: float | None) -> memory.Segment:
        """Return the segment that holds what was announced: the spare one, or another, once it is filled."""
        spare, worker.spare = worker.spare, None
        if spare is not None and message.get("filled") == spare.number and memory.fits(total, spare.size):
            return spare
        if spare is not None:
            worker.segments.give(spare)
        segment = worker.segments.take(total)
        grant = {"segment": segment.number, "size": segment.size}
        worker.line.send(grant, b"", () if segment.is_known else (segment.descriptor,))
        segment.is_known = True
        filled = worker.line.receive(None if end is None else max(end - time.monotonic(), 1.0))[0]
        if filled != {"filled": segment.number}:
            raise wire.BrokenWireError("a message of no known form")
        return segment

    def _note_door(self, worker: Worker, held: Any) -> None:
        if not isinstance(held, list) or not all(isinstance(name, str) for name in held):
            raise wire.BrokenWireError("a message of no known form")
        worker.held = tuple(held)
        if self.held != worker.held:
            self.held = worker.held
            from mmmedia.work.isolated import door

            if lacking := [name for name in door.LAYERS if name not in worker.held]:
                logger.warning(
                    "Decode processes do without %s, which this system does not give.", ", ".join(lacking)
                )

    # ------------------------------------------------------------------------------------------- the queue

    def _acquire(self, task: Task) -> Worker:
        with self._lock:
            self._fill(task)
            self._serve_waiting()
            if self._idle and self._turns() > 0:
                return self._idle.pop()  # its memory is warm
            if len(self._waiting) >= envs.MMMEDIA_DECODE_QUEUE:
                raise DecoderUnavailableError(
                    f"{len(self._waiting)} decodes wait for a process already (MMMEDIA_DECODE_QUEUE)."
                )
            place = _Place()
            self._waiting.append(place)
            if self._away:
                self._refill()
        self._await(place, lambda: self._fill_again(task))
        if place.worker is None:
            raise DecoderUnavailableError("The decode processes were shut down.")
        return place.worker

    def _await(self, place: _Place, look: Callable[[], object] = bool) -> None:
        """Wait until a place is served, and look now and then whether that can still be."""
        try:
            while not place.is_served.wait(_LOOK_UP):
                if not calls.is_wanted():
                    raise calls.unwanted()
                look()
        except BaseException:
            self._leave(place)
            raise

    def _meanwhile(self, answer: Callable[..., Any], values: list[Any]) -> Any:
        """Answer what takes its time; others may decode meanwhile, if need be in one more worker."""
        with self._lock:
            is_free = self._away < _MOST_AWAY
            if is_free:
                self._away += 1
                self._refill()
        if not is_free:
            return answer(*values)
        try:
            return answer(*values)
        finally:
            place = _Place(is_back=True)
            with self._lock:
                self._waiting.appendleft(place)
                self._serve_waiting()
            self._await(place)

    def _turns(self) -> int:
        """Return how many more may decode; with the lock."""
        return _wanted() - (len(self._workers) - len(self._idle) - self._away)

    def _leave(self, place: _Place) -> None:
        with self._lock:
            if not place.is_served.is_set():
                self._waiting.remove(place)
                self._away -= place.is_back
        if place.worker is not None:
            self._release(place.worker)

    def _fill_again(self, task: Task) -> None:
        """Start what is lacking, as after the server died while somebody waited."""
        with self._lock:
            if not self._workers:
                self._fill(task)
                self._serve_waiting()

    def _fill(self, task: Task | None = None) -> None:
        """Start the workers that are lacking; with the lock."""
        if self._is_closed:
            raise DecoderUnavailableError("The decode processes were shut down.")
        if self._forker is None or not self._forker.is_alive:
            if task is None:
                return
            self._forker = Forker(task.prepare, self._heard)
            if self._modules:
                self._forker.prepare(sorted(self._modules))
        if task is not None and not task.modules <= self._modules:
            self._forker.prepare(sorted(task.modules - self._modules))
            self._modules |= task.modules
            self._generation += 1
            for worker in tuple(self._idle):
                self._retire(worker, "renewed")
        # Beyond their number where some wait for what they asked, and others to be served.
        while len(self._workers) < _wanted() or len(self._idle) < min(len(self._waiting), self._turns()):
            self._number += 1
            end = self._forker.fork(self._number, envs.MMMEDIA_DECODE_PROCESS_MEMORY_MB)
            worker = Worker(self._number, end, self._generation, self._forker)
            self._workers[worker.number] = worker
            self._idle.append(worker)

    def _refill(self) -> None:
        """Start the workers that are lacking, as far as can be, and serve who waits; with the lock."""
        if not self._is_closed:
            try:
                self._fill()
            except OSError as error:  # no descriptors are left; who comes next tries again
                logger.warning("A decode process can't be replaced for now: %s", error)
            self._serve_waiting()

    def _release(self, worker: Worker) -> None:
        """Take back a worker that is well."""
        with self._lock:
            if worker.number not in self._workers:  # it ended just now, or all were shut down
                worker.close()
                return
            is_old = worker.decodes >= envs.MMMEDIA_DECODE_PROCESS_LIFE or worker.bytes >= _LIFE_BYTES
            is_stale = worker.generation != self._generation
            is_too_many = len(self._workers) > _wanted() + self._away
            if is_old or is_stale or is_too_many:
                self._retire(worker, "renewed")
            else:
                self._idle.append(worker)
            self._refill()

    def _serve_waiting(self) -> None:
        while self._waiting and self._turns() > 0 and (self._idle or self._waiting[0].is_back):
            place = self._waiting.popleft()
            if place.is_back:
                self._away -= 1
            else:
                place.worker = self._idle.pop()
            place.is_served.set()

    def _retire(self, worker: Worker, reason: str) -> None:
        """End a worker that nobody uses; with the lock."""
        self._forget(worker, reason)
        worker.close()
        if self._forker is not None:  # it may not be willing
            self._forker.kill(worker.number)

    def _bury(self, worker: Worker, why: Ending) -> None:
        """See to it that a worker ends, and that another takes its place."""
        with self._lock:
            self._forget(worker, why.reason)
            worker.close()
            if self._forker is not None:
                self._forker.kill(worker.number)
            if not why.is_unborn:
                self._refill()

    def _forget(self, worker: Worker, reason: str) -> None:
        if self._workers.pop(worker.number, None) is not None:
            self.ends[reason] += 1
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)

    def _heard(self, forker: Forker, message: dict[str, Any]) -> None:
        """Take note of what a server says, in the thread that listens to it; `{}`: it has gone."""
        with self._lock:
            if not message:
                for worker in tuple(self._workers.values()):
                    if worker.forker is not forker:  # there is another by now
                        continue
                    worker.has_ended.set()
                    if worker in self._idle:
                        self._retire(worker, "killed")
                return
            if failed := message.get("failed"):
                logger.debug("Decode processes do without %s, which can't be imported.", ", ".join(failed))
            number = message.get("forked", message.get("ended"))
            if number not in self._workers:  # it is not one of these any more, or said to be up
                return
            worker = self._workers[number]
            if "forked" in message:
                worker.pid = message["pid"]
                return
            worker.status = message["status"]
            worker.has_ended.set()
            if worker in self._idle:
                was_born = worker.was_born()
                self._retire(worker, ending("died", status=worker.status).reason)
                if was_born:
                    self._refill()

    # --------------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """End all workers, and wait until they have."""
        with self._lock:
            self._is_closed = True
            for worker in tuple(self._workers.values()):
                if worker in self._idle:
                    self._retire(worker, "shut down")
                else:  # who uses it hears the end
                    self._forget(worker, "shut down")
                    worker.has_ended.set()
                    with contextlib.suppress(OSError):
                        worker.line.socket.shutdown(socket.SHUT_RDWR)
            forker, self._forker = self._forker, None
            while self._waiting:
                self._waiting.popleft().is_served.set()
        if forker is not None:
            forker.close()

    def abandon(self) -> None:
        """Close what a forked child has inherited, without a word to the parent's workers."""
        self._lock = threading.RLock()
        self._is_closed = True
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._idle.clear()
        if self._forker is not None:
            self._forker.abandon()
            self._forker = None


def _wanted() -> int:
    return max(envs.MMMEDIA_DECODE_PROCESSES, 1)


def trial() -> tuple[str, ...]:
    """Start a worker, and return the layers of its door that are in force; it ends again.

    Raises:
        DecoderUnavailableError: (a `RuntimeError`) none can be started.
    """
    pool = Pool()
    try:
        here = "mmmedia.work.isolated.worker:nothing"
        pool.run(Task(here, here, b""))
        return pool.held or ()
    finally:
        pool.close()
