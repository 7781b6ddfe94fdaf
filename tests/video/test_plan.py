"""The planner: properties over any stream, and the rules one by one."""

import bisect
from itertools import pairwise

import pytest
from hypothesis import example, given, settings, strategies as st

from mmmedia.video.decoders import plan
from mmmedia.video.decoders.plan import Span, makespan, may_pay, plan_spans, seeking_pays


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[int], list[bool], list[int]]:
    """Timestamps, access points, disposable flags, and what is wanted.

    Within a group frames stand in any order behind the access point; in an open group some of them show
    before it, though behind all that the group before shows but its own.
    """
    pts: list[int] = []
    access: list[int] = []
    clock = 0
    for _ in range(draw(st.integers(1, 8))):
        size = draw(st.integers(1, 12))
        leading = draw(st.integers(0, min(3, size - 1))) if access else 0
        access.append(len(pts))
        shown = [clock + leading, *range(clock, clock + leading)]
        rest = draw(st.permutations(range(clock + leading + 1, clock + size)))
        pts += [*shown, *rest]
        clock += size
    scale, offset = draw(st.integers(1, 1000)), draw(st.integers(-5000, 5000))
    disposable = draw(st.lists(st.booleans(), min_size=len(pts), max_size=len(pts)))
    wanted = draw(st.sets(st.integers(0, len(pts) - 1), min_size=1))
    return [scale * p + offset for p in pts], access, disposable, sorted(wanted)


@given(streams())
@settings(max_examples=400, deadline=None)
def test_spans(stream: tuple[list[int], list[int], list[bool], list[int]]) -> None:
    """What makes a plan right, for any stream and any choice."""
    pts, access, _, wanted = stream
    spans = plan_spans(wanted, pts, access)
    # Every wanted position is in one span, and nothing else is.
    assert [position for span in spans for position in span.wanted] == wanted
    for span in spans:
        # A span begins where decoding may begin, holds what it is for, and ends with it.
        assert span.start in access
        assert span.wanted[-1] == span.stop - 1
        assert all(span.start <= position < span.stop for position in span.wanted)
        # All that is wanted shows at or after the access point, or would not come out.
        assert all(pts[span.start] <= pts[position] for position in span.wanted)
    # Spans ascend and don't overlap.
    assert all(one.stop <= two.start for one, two in pairwise(spans))


@given(streams())
@settings(max_examples=200, deadline=None)
def test_no_span_begins_too_early(stream: tuple[list[int], list[int], list[bool], list[int]]) -> None:
    """A lone wanted frame is decoded from the last access point that gives it."""
    pts, access, _, wanted = stream
    for position in wanted:
        (span,) = plan_spans([position], pts, access)
        possible = [start for start in access if start <= position and pts[start] <= pts[position]]
        assert span == Span(possible[-1], position + 1, (position,))


@given(streams())
@settings(max_examples=200, deadline=None)
def test_nothing_is_decoded_twice_and_costs_add_up(
    stream: tuple[list[int], list[int], list[bool], list[int]],
) -> None:
    """A plan costs no more than its frames one by one; more wanted frames never cost less."""
    pts, access, disposable, wanted = stream
    cost = sum(span.cost(disposable) for span in plan_spans(wanted, pts, access))
    alone = [sum(s.cost(disposable) for s in plan_spans([w], pts, access)) for w in wanted]
    assert cost <= sum(alone) + 1e-9
    fewer = sum(span.cost(disposable) for span in plan_spans(wanted[:-1], pts, access))
    assert fewer <= cost + 1e-9


@given(streams(), st.integers(1, 64))
@example(([0, 1, 2], [0], [True, True, False], [0, 1]), 1)  # wanted, so not left out
@settings(max_examples=300, deadline=None)
def test_seeking_pays_the_more_the_later_and_the_more_is_left_out(
    stream: tuple[list[int], list[int], list[bool], list[int]], workers: int
) -> None:
    """A later last frame speaks for seeking, and so does what may be left out."""
    pts, access, disposable, wanted = stream
    spans = plan_spans(wanted, pts, access)
    last = len(pts) - 1
    if seeking_pays(spans, disposable, last, workers):
        assert seeking_pays(spans, disposable, last + 100, workers)
    # What may be left out makes seeking cheaper, never dearer.
    if seeking_pays(spans, [False] * len(pts), last, workers):
        assert seeking_pays(spans, disposable, last, workers)


@pytest.mark.parametrize(
    ("wanted", "pts", "access", "expected"),
    [
        ([0], range(5), [0], [Span(0, 1, (0,))]),
        ([], range(5), [0], []),
        ([4, 1, 1, 4], range(5), [0], [Span(0, 5, (1, 4))]),
        # One group each.
        ([0, 9], range(10), [0, 5], [Span(0, 1, (0,)), Span(5, 10, (9,))]),
        # Neighbours touch, but do not overlap: a seek costs next to nothing.
        ([4, 5], range(10), [0, 5], [Span(0, 5, (4,)), Span(5, 6, (5,))]),
        # A leading picture, behind its access point and shown before it, needs the one before.
        ([4], [0, 1, 2, 5, 3, 4], [0, 3], [Span(0, 5, (4,))]),
        ([3], [0, 1, 2, 5, 3, 4], [0, 3], [Span(3, 4, (3,))]),
        # Both: one span, which decodes the access point on its way.
        ([3, 4], [0, 1, 2, 5, 3, 4], [0, 3], [Span(0, 5, (3, 4))]),
        ([0, 3, 5, 6], [0, 1, 2, 5, 3, 4, 6], [0, 3], [Span(0, 7, (0, 3, 5, 6))]),
    ],
)
def test_rules(wanted: list[int], pts: list[int], access: list[int], expected: list[Span]) -> None:
    """The rules one by one."""
    assert plan_spans(wanted, list(pts), access) == expected


def test_a_span_begins_at_the_nearest_access_point() -> None:
    """In a stream of ten thousand frames too."""
    access = list(range(0, 10_000, 250))
    for span in plan_spans(range(0, 10_000, 777), range(10_000), access):
        assert span.start == access[bisect.bisect_right(access, span.wanted[0]) - 1]


def test_cost_of_a_span() -> None:
    """Frames that are decoded count in full, those passed by next to nothing, wanted ones more."""
    dull = Span(0, 10, (9,)).cost([False] * 10)
    thin = Span(0, 10, (9,)).cost([False, *[True] * 9])
    assert dull == pytest.approx(plan.START + 10 + plan.CONVERT)
    assert thin == pytest.approx(plan.START + 2 + 8 * plan.SKIP + plan.CONVERT)
    wanted = Span(0, 10, tuple(range(10))).cost([False, *[True] * 9])
    assert wanted > dull > thin


def test_makespan() -> None:
    """Jobs side by side take as long as the busiest worker."""
    assert makespan([], 4) == 0
    assert makespan([3, 1, 2], 1) == 6
    assert makespan([3, 1, 2], 2) == 3
    assert makespan([3, 1, 2], 0) == 6
    assert makespan([5, 1, 1], 16) == 5


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(1, 16))
@settings(max_examples=200, deadline=None)
def test_makespan_is_between_its_bounds(costs: list[float], workers: int) -> None:
    """No shorter than the longest job or a fair share, no longer than all of it."""
    took = makespan(costs, workers)
    assert max(max(costs), sum(costs) / workers) <= took + 1e-6
    assert took <= sum(costs) + 1e-6
    assert took <= max(costs) + sum(costs) / workers + 1e-6


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_when_seeking_pays(workers: int) -> None:
    """A few frames of a long clip: yes; all of them: no; one key frame in all: no."""
    pts, often, once = range(6000), list(range(0, 6000, 250)), [0]
    dull = [False] * 6000
    few, all_of_them = plan_spans(range(0, 6000, 1000), pts, often), plan_spans(pts, pts, often)
    assert seeking_pays(few, dull, 5999, workers)
    assert not seeking_pays(all_of_them, dull, 5999, workers)
    assert not seeking_pays(plan_spans([0, 5999], pts, once), dull, 5999, workers)


def test_one_span_is_slow_where_there_are_many_cores() -> None:
    """Half a pass saves work, but a lone worker takes longer for it than all cores for a whole one."""
    spans = plan_spans([2999, 5999], range(6000), [0, 5000])
    assert seeking_pays(spans, [False] * 6000, 5999, workers=1)
    assert not seeking_pays(spans, [False] * 6000, 5999, workers=16)


@pytest.mark.parametrize(
    ("wanted", "last", "pixels", "expected"),
    [
        (range(32), 17_999, 1280 * 720, True),
        (range(30), 59, 320 * 240, False),  # done before an index is
        ([17_999], 17_999, 320 * 240, True),
        (range(900), 899, 854 * 480, False),  # all of it
        (range(700), 899, 854 * 480, False),  # most of it
        (range(0, 900, 2), 899, 854 * 480, True),
        ([3], 3, 3840 * 2160, True),
        ([0], 0, 3840 * 2160, False),
    ],
)
def test_may_pay(wanted: list[int], last: int, pixels: int, expected: bool) -> None:
    """Known before there is an index: short passes and dense requests are left to OpenCV."""
    assert may_pay(list(wanted), last, pixels) is expected
