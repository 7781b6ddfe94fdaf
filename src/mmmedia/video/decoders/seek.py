"""The fast path: decode only the spans that hold wanted frames, on several workers, and prove the result.

Whatever is not as expected raises `CannotSeekError`, and the sequential reference answers instead, for the
whole request.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders import plan
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, Structure
from mmmedia.video.decoders.convert import Converter
from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.plan import Span
from mmmedia.work.jobs import decode_pool, worker_count

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SeekPlan:
    """How to get wanted frames: the spans, and the row of the frames array for each decode position."""

    index: PacketIndex
    structure: Structure
    spans: list[Span]
    rows: dict[int, int]

    def pays(self, last: int) -> bool:
        """Whether this is cheaper than one pass by OpenCV up to the frame with the index `last`."""
        return plan.seeking_pays(self.spans, self.structure.disposable, last, worker_count())


def make_plan(index: PacketIndex, structure: Structure, wanted: Sequence[int]) -> SeekPlan:
    """Plan for source indices, ascending and within the stream; their rows are in the same order."""
    positions = index.display_order[list(wanted)].tolist()
    access_points = np.flatnonzero(structure.access_points).tolist()
    spans = plan.plan_spans(positions, index.pts, access_points)
    return SeekPlan(index, structure, spans, {position: row for row, position in enumerate(positions)})


def execute(seek: SeekPlan, frames: Frames) -> int:
    """Fill `frames`, uint8 RGB (n, height, width, 3), and return how many frames were decoded for it.

    Raises:
        CannotSeekError: something was not as expected; the array holds rubbish then.
        LimitExceededError: (a `ValueError`) the wall-clock limit.
    """
    work = _Work(seek, frames)
    longest_first = sorted(seek.spans, key=lambda span: span.start - span.stop)
    decode_pool.run([work.job(span) for span in longest_first])
    return work.decoded


def prove_whole(index: PacketIndex) -> None:
    """Decode every packet once and see that each gives its frame, undamaged.

    Raises:
        CannotSeekError: one does not.
    """
    decoder, deadline = index.decoder(), Deadline()
    pictures = _decode_whole(index, decoder, deadline)
    if index.codec == "hevc":
        # Blocks that damage costs are left as they were in memory, without a word. A second pass, over
        # buffers that hold other pictures, shows them.
        decoder.flush_buffers()
        if _decode_whole(index, decoder, deadline, held=7) != pictures:
            raise CannotSeekError("damaged frames")


def _decode_whole(
    index: PacketIndex, decoder: "VideoCodecContext", deadline: Deadline, *, held: int = 0
) -> list[int]:
    """Decode a stream and return, for HEVC, a hash of every picture; the `held` newest frames stay alive."""
    import av

    expected = iter(index.pts[index.display_order].tolist())
    convert, row = Converter(), np.empty((index.height, index.width, 3), np.uint8)
    hashes: list[int] = []
    alive: deque[VideoFrame] = deque(maxlen=held)
    try:
        for position in range(len(index) + 1):
            deadline.check()
            for frame in decoder.decode(index.packet(position) if position < len(index) else None):
                if frame.is_corrupt or frame.pts != next(expected, None):
                    raise CannotSeekError("damaged frames")
                if index.codec == "hevc":
                    if (frame.height, frame.width) != row.shape[:2]:
                        raise CannotSeekError("frames change midway")
                    convert(frame, row)
                    hashes.append(hash(row.tobytes()))
                    alive.append(frame)
    except av.FFmpegError:
        raise CannotSeekError("decoder error") from None
    if next(expected, None) is not None:
        raise CannotSeekError("frame missing")
    return hashes


class _Work:
    """One request's spans, being decoded on the pool's threads."""

    def __init__(self, seek: SeekPlan, frames: Frames) -> None:
        self._seek = seek
        self._frames = frames
        self._deadline = Deadline()
        self._lock = threading.Lock()
        self._idle: list[tuple[VideoCodecContext, Converter]] = []
        self._stopped = False
        self.decoded = 0

    def job(self, span: Span) -> Callable[[], None]:
        def run() -> None:
            if self._stopped:
                return
            try:
                self._decode(span)
            except BaseException:
                # Spans under way on other threads stop at their next packet.
                self._stopped = True
                raise

        return run

    def _decode(self, span: Span) -> None:
        import av

        pts = self._seek.index.pts
        positions = self._to_decode(span)
        missing = {int(pts[position]): self._seek.rows[position] for position in span.wanted}
        # Leading pictures of the access point lack what they refer to, and are not counted.
        first = newest = int(pts[span.start]) - 1
        expected = int((pts[positions] > first).sum())
        with self._decoder() as (decoder, convert):
            try:
                # To the last frame, wanted or not: one that is damaged may have been referred to.
                for frame in self._frames_of(decoder, span, positions):
                    if frame.pts is None or frame.is_corrupt:
                        raise CannotSeekError("decoded otherwise than expected")
                    if frame.pts <= first:
                        continue
                    if frame.pts <= newest:
                        raise CannotSeekError("decoded otherwise than expected")
                    newest = frame.pts
                    expected -= 1
                    row = missing.pop(frame.pts, None)
                    if row is not None:
                        self._fill(row, frame, convert)
            except av.FFmpegError:
                raise CannotSeekError("decoder error") from None
        if (missing or expected) and not self._stopped:
            raise CannotSeekError("frame missing")

    def _to_decode(self, span: Span) -> list[int]:
        """All of a span but what no other frame refers to and nobody asked for."""
        kept = np.flatnonzero(~self._seek.structure.disposable[span.start : span.stop]) + span.start
        return sorted({*kept.tolist(), *span.wanted})

    def _frames_of(
        self, decoder: "VideoCodecContext", span: Span, positions: list[int]
    ) -> "Iterator[VideoFrame]":
        index, references = self._seek.index, self._seek.structure.references
        spared = references.replaceable(span.start, span.stop, span.wanted) if references else set()
        for position in positions:
            self._deadline.check()
            if self._stopped:
                return
            payload = references.stand_in(position) if references and position in spared else None
            yield from decoder.decode(index.packet(position, payload))
        with self._lock:
            self.decoded += len(positions) - len(spared)
        yield from decoder.decode(None)

    def _fill(self, row: int, frame: "VideoFrame", convert: Converter) -> None:
        target = self._frames[row]
        if (frame.height, frame.width) != target.shape[:2] or frame.format.name != self._seek.index.pix_fmt:
            raise CannotSeekError("frames change midway")
        if frame.interlaced_frame:
            raise CannotSeekError("interlaced")
        convert(frame, target)

    @contextmanager
    def _decoder(self) -> "Iterator[tuple[VideoCodecContext, Converter]]":
        """A decoder that nobody else is using; one that did its span without an error serves the next."""
        with self._lock:
            pair = self._idle.pop() if self._idle else None
        decoder, convert = pair or (self._new_decoder(), Converter())
        yield decoder, convert
        decoder.flush_buffers()
        with self._lock:
            self._idle.append((decoder, convert))

    def _new_decoder(self) -> "VideoCodecContext":
        return self._seek.index.decoder(self._seek.structure.extradata)
