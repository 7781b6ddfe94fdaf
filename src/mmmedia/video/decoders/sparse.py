"""The fast path: cut what wanted frames need into small clips, let OpenCV decode these, and prove it.

Whatever is not as expected raises `CannotSeekError`, and the sequential reference answers instead, for the
whole request.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers, envs
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders import clips, opencv, plan
from mmmedia.video.decoders.bitstreams.structure import DAMAGED, CannotSeekError, Structure
from mmmedia.video.decoders.colours import is_mapped
from mmmedia.video.decoders.fit import store
from mmmedia.video.decoders.limits import Deadline
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.plan import Span
from mmmedia.video.decoders.upright import Upright
from mmmedia.work.jobs import decode_pool, worker_count

Frames = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def workers_at_once() -> int:
    """Return by how many workers at once it is judged whether decoding by parts takes less time.

    Where many processes share the cores, what counts is the work, not how soon it is done.
    """
    return 1 if envs.MMMEDIA_VIDEO_DECODE_FOR == "throughput" else worker_count()


@dataclass(frozen=True)
class SparsePlan:
    """How to get wanted frames: the spans, and the row of the frames array for each decode position."""

    index: PacketIndex
    structure: Structure
    spans: list[Span]
    rows: dict[int, int]

    def pays(self, last: int) -> bool:
        """Whether this is cheaper than one pass by OpenCV up to the frame with the index `last`."""
        return plan.seeking_pays(self.spans, self.structure.disposable, last, workers_at_once())

    def groups(self, workers: int) -> list[list[Span]]:
        """Spread the spans over at most so many clips of about the same work; some must be a clip's first."""
        alone = self.structure.alone
        # Every decoder makes a table of its own.
        one = is_mapped(*self.index.colour[2:])
        groups: list[list[Span]] = [[] for _ in range(1 if one else max(1, workers))]
        loads = [0.0] * len(groups)
        for span in sorted(self.spans, key=lambda each: each.start - each.stop):
            if alone is not None and alone[span.start]:
                groups.append([span])
                continue
            least = loads.index(min(loads))
            groups[least].append(span)
            loads[least] += span.cost(self.structure.disposable)
        return [
            part for group in groups for part in self._joinable(sorted(group, key=lambda each: each.start))
        ]

    def _joinable(self, spans: list[Span]) -> Iterator[list[Span]]:
        """Part spans where one may not stand behind the other."""
        part: list[Span] = []
        for span in spans:
            if part and not self.structure.may_follow(part[-1].start, part[-1].stop, span.start):
                yield part
                part = []
            part.append(span)
        if part:
            yield part

    def in_one(self) -> list[Span]:
        """The spans for a single clip: those that may not follow each other are one with what is between."""
        spans: list[Span] = []
        for span in self.spans:
            if spans and not self.structure.may_follow(spans[-1].start, spans[-1].stop, span.start):
                before = spans.pop()
                spans.append(Span(before.start, span.stop, before.wanted + span.wanted))
            else:
                spans.append(span)
        return spans


def make_plan(
    index: PacketIndex, structure: Structure, positions: npt.NDArray[np.intp], *, one_clip: bool = False
) -> SparsePlan:
    """Plan for wanted frames.

    Args:
        index: the packets.
        structure: what they are to each other.
        positions: the decode positions of the wanted frames, in the order of their rows.
        one_clip: whether all must fit into a single clip.

    Raises:
        CannotSeekError: one of them stands before all access points, or is among damaged ones.
    """
    access = structure.access_points
    if one_clip and structure.alone is not None:
        first = np.arange(len(access)) == np.argmax(access)
        access = access & (first | ~structure.alone)
    points = np.flatnonzero(access)
    if (positions < points[0]).any() or (structure.ranks[positions] < structure.ranks[points[0]]).any():
        raise CannotSeekError("no key frame at the start")
    wanted = positions.tolist()
    spans = plan.plan_spans(wanted, structure.ranks, points.tolist())
    if structure.lacking is not None and any(
        structure.lacking[each.start : each.stop].any() for each in spans
    ):
        raise CannotSeekError(DAMAGED)
    return SparsePlan(index, structure, spans, {position: row for row, position in enumerate(wanted)})


def execute(
    sparse: SparsePlan,
    template: Any,
    size: tuple[int, int],
    turn: Upright,
    fitted: tuple[int, int] | None = None,
) -> tuple[Frames, int]:
    """Decode the wanted frames, and return them with how many frames were decoded for it.

    Args:
        sparse: the plan.
        template: the video's stream in its container, as FFmpeg opened it.
        size: height and width of the frames, upright.
        turn: how they are turned upright.
        fitted: height and width in which to return them; None: as they are.

    Raises:
        CannotSeekError: something was not as expected.
        LimitExceededError: (a `ValueError`) the wall-clock limit.
    """
    frames = np.empty((len(sparse.rows), *(fitted or size), 3), np.uint8)
    work = _Work(sparse, template, frames, size, turn)
    decode_pool.run([work.job(group) for group in sparse.groups(worker_count())])
    return frames, work.decoded


class _Work:
    """One request's clips, being decoded on the pool's threads."""

    def __init__(
        self, sparse: SparsePlan, template: Any, frames: Frames, size: tuple[int, int], turn: Upright
    ) -> None:
        self._sparse = sparse
        self._template = template
        self._frames = frames
        self._size = size
        self._turn = turn
        self._deadline = Deadline()
        self._lock = threading.Lock()
        self._stopped = False
        self.decoded = 0

    def job(self, spans: Sequence[Span]) -> Callable[[], None]:
        def run() -> None:
            if self._stopped:
                return
            try:
                self._decode(spans)
            except BaseException:
                # Clips under way on other threads stop at their next frame.
                self._stopped = True
                raise

        return run

    def _decode(self, spans: Sequence[Span]) -> None:
        index, structure = self._sparse.index, self._sparse.structure
        clip = clips.arrange(index, structure, spans)
        with self._lock:  # which the template is under
            encoded = clips.write(index, structure, clip, self._template, begin=clip.begin)
        try:
            own = containers.Admitted(encoded, "clip")  # nobody else's file, so there is nothing to judge
            capture = opencv.open_capture(own, threads=1, turned=self._turn == Upright())
        except InvalidMediaError:
            raise CannotSeekError("decoder error") from None
        expected = np.flatnonzero(clip.certain)
        due = iter(expected[np.argsort(clip.places[expected])].tolist())
        possible = set(clip.places[clip.possible].tolist())
        buffer = None
        for number in due:
            place = int(clip.places[number])
            if not self._advance(capture, clip, place, possible):
                return
            row = self._sparse.rows.get(int(clip.positions[number]))
            if row is not None:
                buffer = self._fill(row, capture, buffer)
        with self._lock:
            self.decoded += clip.decoded

    def _advance(self, capture: opencv.Capture, clip: clips.Clip, place: int, possible: set[int]) -> bool:
        """Grab the frame that is due; False where nobody waits for it any more."""
        import cv2

        while True:
            self._deadline.check()
            if self._stopped:
                return False
            if not capture.grab():
                raise CannotSeekError("frame missing")
            came = clip.place(capture.get(cv2.CAP_PROP_POS_MSEC))
            if came == place:
                return True
            if came not in possible:
                raise CannotSeekError("decoded otherwise than expected")

    def _fill(self, row: int, capture: opencv.Capture, buffer: Frames | None) -> Frames:
        ok, picture = capture.retrieve(buffer) if buffer is not None else capture.retrieve()
        if not ok:
            raise CannotSeekError("frame missing")
        if (*self._turn.size(*picture.shape[:2]), *picture.shape[2:]) != (*self._size, 3):
            raise CannotSeekError("frames change midway")
        store(picture, self._frames[row], self._turn)
        kept: Frames = picture
        return kept
