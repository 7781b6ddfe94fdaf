"""Silence for warnings about strangers' files, in one thread or task at a time; and for decoders.

`warnings.catch_warnings` swaps the filters of the whole process, so that two threads decoding at once leave
them in disorder. Here one filter stays in place, and asks whether it is quiet where the warning comes from.
"""

import os
import warnings
from contextvars import ContextVar, Token
from typing import Any, cast

is_quiet: ContextVar[bool] = ContextVar("mmmedia_quiet", default=False)
"""Whether warnings are ignored here; see `quiet`."""


class _Anything:
    """Stands where a filter has its message pattern; matches all that is warned of where it is quiet."""

    def match(self, _text: str) -> bool:
        return is_quiet.get()


FILTER: Any = ("ignore", _Anything(), Warning, None, 0)
"""What must be the first filter where it is to be quiet; a test runner has its own list for each test."""


class quiet:  # noqa: N801  # reads as what it does
    """Ignore the warnings of this thread or task inside the block, under any filters, and only them.

    >>> with quiet():
    ...     warnings.warn("the file of a stranger is odd")
    """

    _token: Token[bool]

    def __enter__(self) -> None:
        if warnings.filters[:1] != [FILTER]:
            cast("list[Any]", warnings.filters).insert(0, FILTER)
        self._token = is_quiet.set(True)

    def __exit__(self, *_: object) -> None:
        is_quiet.reset(self._token)


def silence_decoders() -> None:
    """Have FFmpeg and OpenCV say nothing on the terminal, unless variables of theirs say otherwise.

    FFmpeg inside of OpenCV writes there past Python, several lines for every damaged file. It reads these
    variables when it first opens one, so that it is called before that.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
