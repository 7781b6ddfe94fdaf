"""Sources in decode processes: a worker asks for pieces, and its parent reads them, who alone may.

So limits, budgets, time-outs and errors are those of the source that the parent has.
"""

from collections.abc import Callable
from typing import Any, Final

from mmmedia.sources import Ranges, Source, Window
from mmmedia.work.isolated.wire import BrokenWireError

_TOLD: Final = ("size", "validator", "name", "key", "gap", "ahead")
_WHOLE: Final = "whole"
_MOST_TIMES: Final = 4
"""How often a worker may read all of it, in pieces and as a whole."""


def known(source: Source) -> bytes:
    """Return what is known of a source's bytes: all, its first, or none."""
    return source.head if source.whole is None else source.whole


def known_by(source: Source) -> bytes | None:
    """Return what a source is told from others by; None: by its contents, which are all there."""
    if source.whole is not None:
        return None
    if source.validator:
        return source.identity
    return "\0".join(("mmmedia-source", source.key or source.name, str(source.size))).encode(
        "utf-8", "surrogateescape"
    )


class LentSource:
    """A source that a worker reads by asking.

    Args:
        source: which.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._window = source, Window(source)
        self._sent = 0

    def told(self) -> dict[str, Any]:
        """Return what a worker is told of it beforehand."""
        told = {name: getattr(self._source, name) for name in _TOLD}
        return {**told, "has_whole": self._source.whole is not None}

    def read(self, ranges: Any) -> Any:
        """Answer with the bytes of some stretches, or with all, where these came in place of them.

        Raises:
            BrokenWireError: these are no stretches that a worker asks for.
            Exception: as of `Source.read`.
        """
        self._window.need(self._judged(ranges))
        if self._source.whole is not None:
            return {_WHOLE: self._source.whole}
        return [self._window.piece(start, stop) for start, stop in ranges]

    def read_all(self) -> bytes:
        """Answer with all bytes.

        Raises:
            BrokenWireError: it has them.
            Exception: as of `Source.read`.
        """
        self._send(self._source.size)
        return self._window.all()

    def _judged(self, ranges: Any) -> list[tuple[int, int]]:
        if not isinstance(ranges, list):
            raise BrokenWireError("stretches that are none")
        end = 0
        for each in ranges:
            match each:
                case (int() as start, int() as stop) if end <= start <= stop <= self._source.size:
                    end = stop
                case _:
                    raise BrokenWireError("stretches that are none")
        self._send(sum(stop - start for start, stop in ranges))
        return ranges

    def _send(self, count: int) -> None:
        self._sent += count
        if self._sent > _MOST_TIMES * self._source.size:
            raise BrokenWireError("stretches that it has")


class AskedSource(Source):
    """A source, in a worker, that its parent reads.

    Args:
        ask: asks the parent.
        told: what the parent has told of it.
    """

    remembers = True
    has_whole: bool

    def __init__(self, ask: Callable[..., Any], told: dict[str, Any]) -> None:
        self._ask = ask
        vars(self).update(told)

    def take(self, data: bytes) -> None:
        """Take what is `known` of it."""
        if self.has_whole:
            self.whole = data
        else:
            self.head = data

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches; see `Source.read`."""
        if self.whole is None:
            found = self._ask("read", [(int(start), int(stop)) for start, stop in ranges])
            if not isinstance(found, dict):
                return list(found)
            self.whole = found[_WHOLE]
        assert self.whole is not None
        return [self.whole[start:stop] for start, stop in ranges]

    def read_all(self) -> bytes:
        """Return all of it."""
        if self.whole is None:
            self.whole = self._ask("read_all")
        return self.whole
