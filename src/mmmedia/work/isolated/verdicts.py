"""What became of a worker, in words; and what one says beside its answer: errors, made anew, and remarks."""

import builtins
import logging
import signal
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from mmmedia import envs, errors
from mmmedia.work.isolated.wire import BrokenWireError

_BUILTIN: Final = {
    name: getattr(builtins, name)
    for name in ("ArithmeticError", "AssertionError", "AttributeError", "FileNotFoundError", "ImportError",
                 "IndexError", "KeyError", "LookupError", "MemoryError", "NotImplementedError", "OSError",
                 "OverflowError", "PermissionError", "RecursionError", "RuntimeError", "TypeError",
                 "ValueError", "ZeroDivisionError")
}  # fmt: skip
_ATTRIBUTES: Final = ("parameter", "value", "reason")
_MOST_WORDS: Final = 8000
_RECORDS: Final = 16
_KILLED: Final = "as the system does when memory runs out"


class Ending(NamedTuple):
    """How a worker ended.

    Attributes:
        reason: one word, as in `errors.DecoderDiedError` and in metrics.
        words: a sentence.
        is_unborn: whether it ended before it was handed anything.
    """

    reason: str
    words: str
    is_unborn: bool = False


def ending(kind: str, *, status: int | None = None, seconds: float | None = None, said: str = "") -> Ending:
    """Return how a worker ended.

    Args:
        kind: "died" (with a `status`, negative for a signal), "hang", "memory", "lie", "killed" or "unborn".
        status: what the system says of a process that died; None: nothing.
        seconds: what it was allowed.
        said: what can't be.

    >>> ending("died", status=-11)
    Ending(reason='crash', words='Decoding the file crashed its process (SIGSEGV).', is_unborn=False)
    """
    if kind == "unborn":
        return Ending("unborn", "The decode process did not start.", is_unborn=True)
    if kind == "hang":
        return Ending(
            "hang",
            f"Decoding the file took longer than {seconds:g} s and its process was ended "
            "(MMMEDIA_DECODE_PROCESS_TIMEOUT_S).",
        )
    if kind == "memory":
        return Ending(
            "memory",
            f"Decoding the file takes more than the {envs.MMMEDIA_DECODE_PROCESS_MEMORY_MB} MiB that its "
            "process may have (MMMEDIA_DECODE_PROCESS_MEMORY_MB).",
        )
    if kind == "lie":
        return Ending("lie", f"The process that decoded the file answered what can't be: {said}.")
    if kind == "killed" or status is None:
        return Ending("killed", "The process that decoded the file was ended.")
    if status == -signal.SIGKILL:
        return Ending("killed", f"The process that decoded the file was killed (SIGKILL), {_KILLED}.")
    if status == -signal.SIGXCPU:
        return Ending("hang", "Decoding the file took more CPU time than it may, and its process was ended.")
    if status < 0:
        return Ending("crash", f"Decoding the file crashed its process ({_name(-status)}).")
    return Ending("crash", f"Decoding the file made its process exit with the status {status}.")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def rebuilt(said: Any, known: Mapping[str, type[BaseException]]) -> BaseException:
    """Return the error that a worker speaks of, of a known class; of another it is an `InvalidMediaError`.

    Args:
        said: what `worker.told` returned, or a stranger.
        known: classes by name, beside the common ones of Python.

    Raises:
        BrokenWireError: no such report.
    """
    match said:
        case {"kinds": [*kinds], "words": str() as words, "attributes": dict() as attributes}:
            pass
        case _:
            raise BrokenWireError("an error of no known form")
    words = words[:_MOST_WORDS]
    found = next((known.get(kind) or _BUILTIN.get(kind) for kind in kinds if _is_name(kind, known)), None)
    if found is None:
        return errors.InvalidMediaError(f"Decoding failed: {words}")
    made: BaseException = found.__new__(found, words)
    Exception.__init__(made, words)
    if issubclass(found, errors.MediaError):
        for name in _ATTRIBUTES:
            value = attributes.get(name)
            if name in attributes and (value is None or isinstance(value, bool | int | float | str)):
                setattr(made, name, value)
    return made


def _is_name(kind: Any, known: Mapping[str, type[BaseException]]) -> bool:
    return isinstance(kind, str) and (kind in known or kind in _BUILTIN)


def kinds(stalled: Any) -> list[str]:
    """Return the kinds of video of which a worker says that they stalled its decoder.

    Raises:
        BrokenWireError: no such list.
    """
    if not isinstance(stalled, list) or len(stalled) > 16 or not all(isinstance(k, str) for k in stalled):
        raise BrokenWireError("kinds that are no list")
    return [kind for kind in stalled if len(kind) <= 64 and kind.isprintable()]


def log(records: Any) -> None:
    """Log what a worker has to say, under its own name, in one line each.

    Raises:
        BrokenWireError: no such records.
    """
    if not isinstance(records, list):
        raise BrokenWireError("records that are no list")
    for record in records[:_RECORDS]:
        match record:
            case [str() as name, int() as level, str() as text] if name.startswith("mmmedia."):
                line = "".join(character if character.isprintable() else " " for character in text)
                logging.getLogger(name).log(max(0, min(level, 50)), "%s", line)
            case _:
                raise BrokenWireError("a record of no known form")
