"""`Window`: what of a source has been read, so that nothing is read twice; and how stretches are joined."""

import bisect
from collections.abc import Iterable, Iterator

from mmmedia.sources.base import Ranges, Source, SourceInFront, check_ranges


def coalesced(ranges: Iterable[tuple[int, int]], gap: int = 0) -> list[tuple[int, int]]:
    """Return stretches in order, those that overlap or lie no further apart than `gap` as one.

    >>> coalesced([(90, 100), (0, 10), (5, 20), (30, 40)], gap=10)
    [(0, 40), (90, 100)]
    """
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(each for each in ranges if each[0] < each[1]):
        if joined and start <= joined[-1][1] + gap:
            joined[-1] = joined[-1][0], max(joined[-1][1], stop)
        else:
            joined.append((start, stop))
    return joined


class Window:
    """What of a source has been read.

    Attributes:
        source: that source.
        fetched: how many bytes were read of it here.

    Args:
        source: what is read.

    >>> from mmmedia.sources.local import BytesSource
    >>> window = Window(BytesSource(b"0123456789"))
    >>> window.piece(2, 4), window.piece(3, 6), window.fetched
    (b'23', b'345', 4)
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fetched = 0
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        known = source.head if source.whole is None else source.whole
        if known:
            self.put(0, known)
            self.fetched = len(known)

    @property
    def size(self) -> int:
        """Bytes of the source."""
        return self.source.size

    def missing(self, ranges: Ranges) -> list[tuple[int, int]]:
        """Return what of some stretches has not been read, joined as suits the source."""
        lacking = []
        for start, stop in coalesced(ranges):
            at = start
            for begin, end in self._there(start, stop):
                if at < begin:
                    lacking.append((at, begin))
                at = max(at, end)
            if at < stop:
                lacking.append((at, stop))
        return coalesced(lacking, self.source.gap)

    def need(self, ranges: Ranges) -> None:
        """Read what is missing of some stretches; those outside of the source are cut.

        Raises:
            MediaError: as of `Source.read`.
        """
        lacking = self.missing([(max(start, 0), min(stop, self.size)) for start, stop in ranges])
        if not lacking:
            return
        pieces = self.source.read(lacking)
        self.fetched += sum(stop - start for start, stop in lacking)
        if self.source.whole is not None:  # which came in place of a piece
            pieces, lacking = [self.source.whole], [(0, self.size)]
        for (start, _), piece in zip(lacking, pieces, strict=True):
            self.put(start, piece)

    def put(self, start: int, piece: bytes) -> None:
        """Take bytes that are known already; none of what is there reaches beyond them."""
        first = bisect.bisect_left(self._starts, start)
        last = bisect.bisect_left(self._starts, start + len(piece))
        self._starts[first:last] = [start]
        self._pieces[first:last] = [piece]

    def piece(self, start: int, stop: int) -> bytes:
        """Return a stretch, which is read if it has not been; shorter where the source ends."""
        start, stop = max(start, 0), min(stop, self.size)
        if start >= stop:
            return b""
        if self.missing([(start, stop)]):
            self.need([(start, stop)])
        parts, at = [], bisect.bisect_right(self._starts, start) - 1
        while start < stop:
            piece = self._pieces[at][start - self._starts[at] : stop - self._starts[at]]
            parts.append(piece)
            start, at = start + len(piece), at + 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def all(self) -> bytes:
        """Return all of the source, and let it keep that."""
        if self.source.whole is None:
            self.source.whole = self.source.read_all() if self.source.remembers else self.piece(0, self.size)
        return self.source.whole

    def head(self, start: int, length: int) -> bytes:
        """Return so many bytes, and read as many as suits the source behind them."""
        if self.missing([(start, min(start + length, self.size))]):
            self.need([(start, start + max(length, self.source.ahead))])
        return self.piece(start, start + length)

    def _there(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches read that overlap one, in order."""
        at = max(bisect.bisect_right(self._starts, start) - 1, 0)
        while at < len(self._starts) and self._starts[at] < stop:
            end = self._starts[at] + len(self._pieces[at])
            if end > start:
                yield self._starts[at], end
            at += 1


class WindowSource(SourceInFront):
    """A source of which some has been read, that is not read again.

    Args:
        window: what has been read; nothing is read into it any more.

    >>> from mmmedia.sources.local import BytesSource
    >>> window = Window(BytesSource(b"0123456789"))
    >>> window.need([(2, 6)])
    >>> WindowSource(window).read([(3, 5), (8, 9)])
    [b'34', b'8']
    """

    def __init__(self, window: Window) -> None:
        super().__init__(window.source)
        self._window = window

    def read(self, ranges: Ranges) -> list[bytes]:
        """Return some stretches; see `Source.read`."""
        check_ranges(ranges, self.size)
        lacking = [each for each in ranges if self._window.missing([each])]
        read = iter(self._inner.read(lacking) if lacking else ())
        return [next(read) if self._window.missing([each]) else self._window.piece(*each) for each in ranges]
