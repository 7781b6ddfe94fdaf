"""The one fork hook: what a child process must not take over from its parent.

A fork copies the memory of a process and one of its threads. Locks that another thread held stay locked in
the child for ever, and pools believe in threads that it does not have. So whoever keeps a lock, a pool or a
socket for the whole process says here how to begin afresh.
"""

import gc
import itertools
import os
import threading
from collections.abc import Callable
from types import MethodType
from weakref import ref

Begin = Callable[[], object]

_beginnings: dict[int, Callable[[], Begin | None]] = {}
_numbers = itertools.count()
_held_over_forks: list[threading.Lock] = []
_forks = itertools.count(1)
_number_of_forks = 0


def afresh_in_child(begin: Begin) -> None:
    """Call `begin` in every process that is forked from this one, before anything else runs there.

    They are called in the order in which they were registered, so that a module finds those that it imports
    ready. Replace locks rather than releasing them: who held one is not in the child.

    Args:
        begin: takes no argument and raises nothing. A bound method does not keep its object alive.

    >>> import threading
    >>> lock = threading.Lock()
    >>> def begin() -> None:
    ...     global lock
    ...     lock = threading.Lock()
    >>> afresh_in_child(begin)
    """
    if not isinstance(begin, MethodType):
        _beginnings[next(_numbers)] = lambda: begin
        return
    number, function = next(_numbers), begin.__func__
    forget = _beginnings.pop  # held here, as at the end of the interpreter the names of modules are gone
    owner = ref(begin.__self__, lambda _: forget(number, None))
    _beginnings[number] = lambda: None if (alive := owner()) is None else MethodType(function, alive)


def none_while_held(lock: threading.Lock) -> None:
    """Have every fork wait until nobody holds `lock`; the child has it free.

    For what can't begin afresh: locks inside of libraries, which are held only by who holds this one.

    Args:
        lock: held for a short time only, and never by a thread that forks.
    """
    _held_over_forks.append(lock)


def forks() -> int:
    """Return a number that changes with every fork of this process, before it and after it."""
    return _number_of_forks


def _count() -> None:
    global _number_of_forks  # noqa: PLW0603
    _number_of_forks = next(_forks)


def _hold() -> None:
    _count()
    for lock in _held_over_forks:
        lock.acquire()


def _let_go() -> None:
    _count()  # again: what another thread began in between is in the child as well
    for lock in _held_over_forks:
        lock.release()


_is_child = False


def is_forked_child() -> bool:
    """Say whether this process was forked from one that had this library, and perhaps threads of others."""
    return _is_child


def _begin_afresh() -> None:
    global _is_child  # noqa: PLW0603
    _is_child = True
    # What is in a cycle would be freed here, a decoder among it, which waits for threads that are not here.
    gc.freeze()
    _let_go()
    for each in tuple(_beginnings.values()):
        if (begin := each()) is not None:
            begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_begin_afresh)
