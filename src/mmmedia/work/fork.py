"""The one fork hook: what a child process must not take over from its parent.

A fork copies the memory of a process and one of its threads. Locks that another thread held stay locked in
the child for ever, and pools believe in threads that it does not have. So whoever keeps a lock, a pool or a
socket for the whole process says here how to begin afresh.
"""

import os
from collections.abc import Callable
from types import MethodType
from weakref import WeakMethod, ref

Begin = Callable[[], object]

_beginnings: list[Callable[[], Begin | None]] = []


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
    _beginnings.append(WeakMethod(begin) if isinstance(begin, MethodType) else lambda: begin)
    if len(_beginnings) % 64 == 0:  # objects come and go
        _beginnings[:] = [each for each in _beginnings if not isinstance(each, ref) or each() is not None]


def _begin_afresh() -> None:
    for each in tuple(_beginnings):
        if (begin := each()) is not None:
            begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_afresh)
