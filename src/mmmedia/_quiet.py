"""Silence for warnings about strangers' files, in one thread at a time.

`warnings.catch_warnings` swaps the filters of the whole process, so that two threads decoding at once leave
them in disorder. Here one filter stays in place, and asks which thread is warning.
"""

import threading
import warnings
from typing import Any, cast


class _QuietThreads(threading.local):
    """Stands where a warnings filter has its message pattern; matches all that a quiet thread warns of."""

    depth = 0

    def match(self, _text: str) -> bool:
        return self.depth > 0


_THREADS = _QuietThreads()
_FILTER: Any = ("ignore", _THREADS, Warning, None, 0)


class quiet:  # noqa: N801  # reads as what it does
    """Ignore the warnings of this thread inside the block, under any filters, and only them.

    >>> with quiet():
    ...     warnings.warn("the file of a stranger is odd")
    """

    def __enter__(self) -> None:
        filters = cast("list[Any]", warnings.filters)
        if not filters or filters[0] is not _FILTER:  # a test runner has its own list for each test
            filters.insert(0, _FILTER)
        _THREADS.depth += 1

    def __exit__(self, *_: object) -> None:
        _THREADS.depth -= 1
