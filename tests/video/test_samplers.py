"""Which frames the loaders choose: against a recorded table, and what holds for any source whatever."""

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, UnsupportedMediaError
from mmmedia.video import (
    VIDEO_LOADER_REGISTRY,
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    VideoSourceMetadata,
    VideoTargetMetadata,
)

TABLE = json.loads((Path(__file__).parents[1] / "data" / "samplers.json").read_text())
# What arithmetic on impossible sources raised there is a ValueError that says so here.
ERRORS = {
    "ValueError": ValueError, "NotImplementedError": NotImplementedError, "ZeroDivisionError": ValueError,
    "IndexError": ValueError, "AssertionError": ValueError,
}  # fmt: skip

# What a sampler may answer instead of indices: a ValueError or a NotImplementedError of this library.
ANSWERS = (InvalidArgumentError, InvalidMediaError, LimitExceededError, UnsupportedMediaError)


def group(case: dict[str, Any]) -> str:
    mode = case.get("kwargs", case.get("args", {})).get("frame_sample_mode")
    return " ".join(filter(None, [case["loader"], case["call"], mode]))


GROUPS = {
    name: list(cases) for name, cases in itertools.groupby(sorted(TABLE["cases"], key=group), key=group)
}


def run(case: dict[str, Any]) -> Any:
    loader = VIDEO_LOADER_REGISTRY.get(case["loader"])
    if case["call"] != "compute_frames_index_to_sample":
        return getattr(loader, case["call"])(**case["args"])
    return loader.compute_frames_index_to_sample(
        VideoSourceMetadata(**case["source"]), VideoTargetMetadata(**case["target"]), **case["kwargs"]
    )


def same_numbers(recorded: dict[str, Any], got: Any) -> bool:
    """Integers to the last, floating point to a relative 1e-9."""
    got = list(got)
    if "list" in recorded:
        return len(got) == len(recorded["list"]) and close(recorded["list"], got)
    ends = close(recorded["first"], got[:8]) and close(recorded["last"], got[-8:])
    if "sha256" in recorded:
        whole = hashlib.sha256(",".join(str(int(i)) for i in got).encode()).hexdigest() == recorded["sha256"]
    else:
        whole = close([recorded["sum"]], [sum(got)])
    return len(got) == recorded["length"] and ends and whole


def close(expected: list[float], got: list[float]) -> bool:
    return all(
        a == b if isinstance(a, int) else math.isclose(a, b, rel_tol=1e-9)
        for a, b in zip(expected, got, strict=True)
    )


def agrees(case: dict[str, Any]) -> bool:
    result = case["result"]
    try:
        got = run(case)
    except Exception as error:
        return "error" in result and isinstance(error, ERRORS[result["error"]])
    if "error" in result:
        return False
    if "value" in result and "indices" in result:
        return got[0] == result["value"] and same_numbers(result["indices"], got[1])
    if "value" in result:
        return bool(got == result["value"])
    return same_numbers(result.get("indices") or result["values"], got)


@pytest.mark.filterwarnings("default:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", GROUPS)
def test_recorded_table(name: str) -> None:
    """Every recorded call gives what was recorded."""
    wrong = [case["id"] for case in GROUPS[name] if not agrees(case)]
    assert wrong == []


def test_table_is_whole() -> None:
    """All recorded cases are there, over all loaders and modes."""
    assert len(TABLE["cases"]) == 5129
    assert sum(map(len, GROUPS.values())) == 5129
    assert {case["loader"] for case in TABLE["cases"]} == {"opencv", "opencv_dynamic", "molmo2"}


def test_names_of_the_registry() -> None:
    """The three loaders are found by name."""
    assert VIDEO_LOADER_REGISTRY.get("opencv") is OpenCVVideoBackend
    assert VIDEO_LOADER_REGISTRY.get("opencv_dynamic") is OpenCVDynamicVideoBackend
    assert VIDEO_LOADER_REGISTRY.get("molmo2") is Molmo2VideoBackend


@pytest.mark.parametrize("name", [name for name in GROUPS if "compute_frames" in name])
def test_indices_are_plain_ints(name: str) -> None:
    """A list of `int`, not of NumPy's, as it is handed on as JSON."""
    for case in GROUPS[name][::25]:
        if "indices" in case["result"]:
            got = run(case)
            assert type(got) is list
            assert {type(index) for index in got} <= {int}


@pytest.mark.parametrize(
    "call",
    [
        lambda: Molmo2VideoBackend.compute_frames_index_to_sample(
            VideoSourceMetadata(9, 3.0, 3.0), VideoTargetMetadata(4, 2, 3.0), frame_sample_mode="middle"
        ),
        lambda: Molmo2VideoBackend.sample_times(3.0, 4, "middle", 2),
        lambda: Molmo2VideoBackend._sample_frames(9, 3.0, 3.0, "middle", 4, 2, 2),
    ],
)
def test_unknown_mode_is_named(call: Any) -> None:
    """The error says which mode it does not know."""
    with pytest.raises(NotImplementedError, match="'middle'"):
        call()


def test_types_of_the_helpers() -> None:
    """The helpers give arrays where code in the wild calls `tolist` or indexes by them."""
    assert Molmo2VideoBackend.get_frame_times_and_chosen_fps(2.0, 30, 4, 30.0)[1].tolist() == [0, 15]
    assert Molmo2VideoBackend.sample_times(2.0, 8, "uniform_last_frame", 1).tolist() == [0.0, 1.0, 2.0]
    sampled = Molmo2VideoBackend._sample_frames(10, 2.0, 5.0, "uniform_last_frame", 8, 1, 2)
    assert sampled.dtype.kind == "i"
    assert sampled.tolist() == [0, 2, 4, 6, 8, 9]
    every = Molmo2VideoBackend._sample_frames(3, 2.0, 1.5, None, 8, 1, 2)
    assert every.tolist() == [0, 1, 2]
    assert Molmo2VideoBackend.get_candidate_target_fps(30.0, 2) == [2.0, 6.0]
    assert Molmo2VideoBackend.get_candidate_target_fps(30.0, 2, max_fps=12) == [2.0, 6.0, 10.0]


@pytest.mark.parametrize("fps", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("loader", [OpenCVVideoBackend, OpenCVDynamicVideoBackend])
def test_rates_that_are_none(loader: Any, fps: float) -> None:
    """A request for a rate that is not finite is a ValueError that names it."""
    with pytest.raises(InvalidArgumentError, match=f"fps={fps}"):
        loader.compute_frames_index_to_sample(
            VideoSourceMetadata(9, 3.0, 3.0), VideoTargetMetadata(4, fps, 300)
        )


totals = st.integers(-10, 5000)
rates = st.one_of(
    st.floats(0.01, 240),
    st.sampled_from([0.0, -1.0, 23.976023976023978, 30000 / 1001, 1e-310, 1e-9, 1e9, 1e308, 1e12]),
    st.floats(),
)
seconds = st.one_of(st.floats(0, 1e4), st.floats())
counts = st.integers(-2, 600)
options = st.sampled_from(
    [
        (OpenCVVideoBackend, {}),
        (OpenCVDynamicVideoBackend, {}),
        (Molmo2VideoBackend, {}),
        (Molmo2VideoBackend, {"frame_sample_mode": "fps"}),
        (Molmo2VideoBackend, {"frame_sample_mode": "uniform_last_frame"}),
        (Molmo2VideoBackend, {"frame_sample_mode": "uniform_last_frame", "max_fps": None}),
    ]
)
many = settings(max_examples=150, deadline=None)


class TestAnySource:
    @many
    @given(options, totals, rates, seconds, counts, rates, seconds)
    @example((OpenCVVideoBackend, {}), 5, 1.0, math.inf, 3, 1.0, 300)
    @example((OpenCVVideoBackend, {}), 5, 1.0, math.nan, 3, 1.0, 300)
    @example((OpenCVVideoBackend, {}), 5, 1.0, 5.0, 3, math.inf, 300)
    @example((OpenCVDynamicVideoBackend, {}), 5, math.nan, 5.0, 3, 1.0, 300)
    @example((OpenCVDynamicVideoBackend, {}), 5, 1.0, 1e300, 3, 1e300, 1e308)
    @example((OpenCVDynamicVideoBackend, {}), 5, 1e-310, 0.0, 3, 2, 300)
    @example((OpenCVDynamicVideoBackend, {}), 5000, 30.0, 166.0, 3, 1e12, 300)
    @example((Molmo2VideoBackend, {"frame_sample_mode": "fps"}), 5, math.inf, 5.0, 3, 2, 300)
    @example((Molmo2VideoBackend, {"frame_sample_mode": "fps"}), 5, 30.0, 5.0, 3, math.nan, 300)
    @example((Molmo2VideoBackend, {"frame_sample_mode": "uniform_last_frame"}), 5, 1e-310, 1.0, 9, 2, 1.0)
    @example((Molmo2VideoBackend, {"frame_sample_mode": "uniform_last_frame"}), 5, math.nan, 1.0, 9, 2, 1.0)
    def test_indices_or_a_clear_error(
        self, option: Any, total: int, fps0: float, duration: float, count: int, fps: float, longest: float
    ) -> None:
        """Ascending plain ints within the source, or an error of this library: never anything else."""
        loader, kwargs = option
        source = VideoSourceMetadata(total, fps0, duration)
        try:
            indices = loader.compute_frames_index_to_sample(
                source, VideoTargetMetadata(count, fps, longest), **kwargs
            )
        except ANSWERS:
            return
        assert all(type(index) is int for index in indices)
        assert all(a <= b for a, b in itertools.pairwise(indices))
        if indices and total > 0:
            assert indices[0] >= 0
            assert indices[-1] < total
        if count > 0 and loader is not OpenCVDynamicVideoBackend and kwargs:
            assert len(indices) <= count
        if count > 0 and loader is OpenCVVideoBackend:
            assert len(indices) <= count

    @many
    @given(st.integers(1, 5000), counts, st.floats(0.01, 240), st.floats(0.01, 240))
    def test_uniform_takes_both_ends(self, total: int, count: int, fps0: float, fps: float) -> None:
        """The first frame always, the last whenever there are two, no frame twice, gaps equal within one."""
        source = VideoSourceMetadata(total, fps0, total / fps0)
        indices = OpenCVVideoBackend.compute_frames_index_to_sample(
            source, VideoTargetMetadata(count, fps, 300)
        )
        cap = min([total, *[c for c in (count,) if c > 0], math.floor(source.duration * fps)])
        assert len(indices) == max(1, cap)
        assert indices[0] == 0
        assert len(indices) == 1 or indices[-1] == total - 1
        gaps = {b - a for a, b in itertools.pairwise(indices)}
        assert not gaps or (min(gaps) > 0 and max(gaps) - min(gaps) <= 1)

    @many
    @given(st.integers(1, 300), st.floats(1, 60), st.floats(0.1, 200), st.sampled_from([0.5, 3, 300, 1e9]))
    def test_dynamic_is_the_rule(self, total: int, fps0: float, fps: float, longest: float) -> None:
        """What the bounded computation gives is what the rule written out gives."""
        duration = total / fps0
        if duration <= longest:
            expected = {min(total - 1, math.ceil(i * fps0 / fps)) for i in range(math.floor(duration * fps))}
        else:
            n = math.floor(longest * fps)
            times = [0.0] if n == 1 else [duration * i / (n - 1) for i in range(n)]
            expected = (
                {min(total - 1, math.ceil(t * fps0)) for t in times} if n < total else set(range(total))
            )
        got = OpenCVDynamicVideoBackend.compute_frames_index_to_sample(
            VideoSourceMetadata(total, fps0, duration), VideoTargetMetadata(-1, fps, longest)
        )
        if duration <= longest or len(expected) == total:
            assert got == sorted(expected)
        else:  # NumPy's even spacing rounds differently in the last digit, which the ceiling may show
            assert len(got) == pytest.approx(len(expected), abs=2)
            assert all(min(abs(a - b) for b in expected) <= 1 for a in got)

    @many
    @given(rates, rates, rates)
    def test_candidate_rates(self, fps0: float, sampling: float, longest: float) -> None:
        """Candidates divide the whole rate, are multiples of the base, and ascend; or a ValueError."""
        try:
            found = Molmo2VideoBackend.get_candidate_target_fps(fps0, sampling, min(longest, 1000))
        except ANSWERS:
            return
        assert found == sorted(set(found))
        assert all(int(fps0) % rate == 0 and rate % int(sampling) == 0 for rate in found)

    @many
    @given(seconds, counts, st.sampled_from(["fps", "uniform_last_frame", "x"]), rates, st.lists(rates))
    def test_times(self, duration: float, count: int, mode: str, fps: float, candidates: list[float]) -> None:
        """Seconds that ascend from 0 and stay within the duration, or an error of this library."""
        duration = min(duration, 1e4) if duration == duration else duration
        candidates = [min(rate, 1000) for rate in candidates]
        try:
            times = Molmo2VideoBackend.sample_times(
                duration, count, mode, min(fps, 1000), candidates
            ).tolist()
        except ANSWERS:
            return
        if duration >= 0:
            assert all(a <= b for a, b in itertools.pairwise(times))
            assert all(0 <= time <= duration for time in times)
        if mode == "fps" and count >= 0:
            assert len(times) <= count

    @many
    @given(rates, counts, totals, rates)
    def test_frames_of_a_rate(self, rate: float, count: int, total: int, fps0: float) -> None:
        """At most `max_frames` indices within the source, or a ValueError."""
        try:
            chosen, indices = Molmo2VideoBackend.get_frame_times_and_chosen_fps(rate, total, count, fps0)
        except ANSWERS:
            return
        assert chosen == rate
        assert count < 0 or len(indices) <= count
        assert all(0 <= index < total for index in indices)

    @many
    @given(rates, counts, totals, st.sampled_from(["fps", "uniform"]), st.lists(rates))
    def test_target_rate(self, fps0: float, count: int, total: int, mode: str, found: list[float]) -> None:
        """One of the candidates, or none, or a ValueError."""
        try:
            rate = Molmo2VideoBackend.get_target_fps(fps0, count, total, mode, found)
        except ANSWERS:
            return
        assert rate is None or rate in found
