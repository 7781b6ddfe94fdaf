"""The planner: from wanted frames to spans of packets, and what decoding them costs. Pure functions.

Positions are those of packets in decode order. An access point is a packet from which decoding may start:
everything displayed at or after it comes out as in one pass from the beginning.
"""

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Flags = Sequence[bool] | npt.NDArray[Any]
Times = Sequence[int] | npt.NDArray[Any]

# Costs in units of decoding one frame.
CONVERT = 0.8  # to RGB, into the array
SKIP = 0.02  # handing over a packet that the decoder passes by
START = 0.5  # a fresh decoder
# One pass by OpenCV uses all cores on one stream, at a loss.
PARALLEL_EFFICIENCY = 0.85


@dataclass(frozen=True)
class Span:
    """Packets `start` to `stop` (excluded), decoded in one go for the sake of the frames `wanted`."""

    start: int
    stop: int
    wanted: tuple[int, ...]

    def cost(self, disposable: Flags) -> float:
        """What decoding the span costs, in frames; `disposable` frames count only where wanted."""
        kept = sum(not disposable[position] for position in range(self.start, self.stop))
        shown = sum(bool(disposable[position]) for position in self.wanted)
        passed = self.stop - self.start - kept - shown
        return START + kept + shown + SKIP * passed + CONVERT * len(self.wanted)


# Pixels that one pass decodes in less time than it takes to find out whether to do otherwise.
_SHORT = 20_000_000


def may_pay(wanted: Sequence[int], last: int, pixels: int) -> bool:
    """Whether it is worth an index to find out: the pass is long, and most of it is not asked for.

    >>> may_pay(range(30), last=29, pixels=854 * 480), may_pay([0, 5999], last=5999, pixels=854 * 480)
    (False, True)
    """
    return (last + 1) * pixels > _SHORT and len(wanted) < 0.6 * (last + 1)


def plan_spans(wanted: Iterable[int], pts: Times, access_points: Sequence[int]) -> list[Span]:
    """Group wanted frames by the access point that they need.

    Args:
        wanted: decode positions of the wanted frames.
        pts: presentation timestamps by decode position, unique.
        access_points: ascending decode positions, in ascending order of display; the first frame is one.

    Returns:
        Spans that don't overlap, in decode order, which together hold every wanted position once.

    >>> plan_spans([1, 5, 6], pts=[0, 1, 2, 3, 4, 5, 6], access_points=[0, 4])
    [Span(start=0, stop=2, wanted=(1,)), Span(start=4, stop=7, wanted=(5, 6))]
    """
    shown = [pts[position] for position in access_points]
    spans: list[Span] = []
    for position in sorted(set(wanted)):
        # A leading picture stands behind its access point but is shown before it, and needs the one before.
        behind = bisect.bisect_right(access_points, position)
        start = access_points[bisect.bisect_right(shown, pts[position], hi=behind) - 1]
        stop = position + 1
        found: tuple[int, ...] = (position,)
        # A start inside the span before would decode twice what that span decodes anyway.
        while spans and start < spans[-1].stop:
            before = spans.pop()
            start, found = min(start, before.start), before.wanted + found
        spans.append(Span(start, stop, found))
    return spans


def makespan(costs: Iterable[float], workers: int) -> float:
    """The time that `workers` take for jobs of these costs, the longest job first."""
    loads = [0.0] * max(1, workers)
    for cost in sorted(costs, reverse=True):
        loads[loads.index(min(loads))] += cost
    return max(loads)


def sequential_cost(last: int, wanted: int) -> float:
    """What one pass up to frame `last` costs, in frames."""
    return last + 1 + CONVERT * wanted


def seeking_pays(spans: Sequence[Span], disposable: Flags, last: int, workers: int) -> bool:
    """Whether decoding the spans takes less work than one pass, and no more time.

    >>> spans = plan_spans([0, 500], pts=range(1000), access_points=range(0, 1000, 250))
    >>> seeking_pays(spans, [False] * 1000, last=999, workers=2)
    True
    """
    costs = [span.cost(disposable) for span in spans]
    wanted = sum(len(span.wanted) for span in spans)
    sequential = sequential_cost(last, wanted)
    in_time = makespan(costs, workers) <= sequential / max(1.0, workers * PARALLEL_EFFICIENCY)
    return sum(costs) < 0.9 * sequential and in_time
