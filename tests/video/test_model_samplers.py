"""The samplers of models: against a recorded table, against their rules written out, and for any source."""

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, UnsupportedMediaError
from mmmedia.video import VIDEO_LOADER_REGISTRY, VideoSourceMetadata, VideoTargetMetadata
from mmmedia.video.samplers import (
    SAMPLERS,
    sample_clef_omni,
    sample_embedding_gemma2,
    sample_glm5next,
    sample_glm46v,
    sample_glmga,
    sample_llava_onevision2,
    sample_minimax_m3_vl,
    sample_muse_spark,
    sample_openpangu,
    sample_qwen2_vl,
    sample_qwen3_vl,
)
from mmmedia.video.samplers.numbers import MOST_INDICES
from support.needs import torch_for

ROWS = json.loads((Path(__file__).parents[1] / "data" / "samplers-0.33.json").read_text())["cases"]
NAMES = sorted({row["sampler"] for row in ROWS})

# What a sampler may answer instead of indices, and nothing else.
ANSWERS = (InvalidArgumentError, InvalidMediaError, LimitExceededError, UnsupportedMediaError)

# Those that take a frame twice: where frames are few, or to make them even.
REPEATING = {
    "molmo2", "openpangu", "qwen2_vl", "glm46v", "glm5next", "embedding_gemma2", "clef_omni",
    "llava_onevision2",
}  # fmt: skip


def target_of(row: dict[str, Any]) -> VideoTargetMetadata:
    return VideoTargetMetadata(row["num_frames"], row["target_fps"], row["max_duration"])


def differs(row: dict[str, Any], got: list[int]) -> str | None:
    """In what an answer differs from the row."""
    if "error" in row:
        return f"{len(got)} indices, recorded {row['error']}"
    if len(got) != row["count"]:
        return f"{len(got)} indices, recorded {row['count']}"
    recorded = row.get("indices", [*row.get("head", []), *row.get("tail", [])])
    if (got if "indices" in row else [*got[:20], *got[-20:]]) != recorded:
        return f"{got[:20]}…, recorded {recorded[:20]}…"
    if "sha256" in row and hashlib.sha256(json.dumps(got).encode()).hexdigest() != row["sha256"]:
        return "another in the middle"
    return None


class TestRecordedRows:
    @pytest.mark.parametrize("name", NAMES)
    def test_loader(self, name: str) -> None:
        """Every recorded row, through the loader of that name, is what was recorded."""
        torch_for(name)
        loader = VIDEO_LOADER_REGISTRY.get(name)
        wrong = {}
        for row in (row for row in ROWS if row["sampler"] == name):
            source = loader._prepare_source(VideoSourceMetadata(row["total"], row["fps"], row["duration"]))
            try:
                got = loader.compute_frames_index_to_sample(source, target_of(row), **row["kwargs"])
            except ANSWERS as error:
                difference = None if "error" in row else repr(error)
            else:
                difference = differs(row, got)
                assert {type(index) for index in got} <= {int}
            if difference:
                wrong[f"{row['total']} at {row['fps']}, {target_of(row)}, {row['kwargs']}"] = difference
        assert wrong == {}

    @pytest.mark.parametrize("name", NAMES)
    def test_sampler(self, name: str) -> None:
        """The sampler itself, given the source as the container tells it, gives the same."""
        torch_for(name)
        for row in (row for row in ROWS if row["sampler"] == name and "error" not in row):
            source = VideoSourceMetadata(row["total"], row["fps"], row["duration"])
            assert differs(row, SAMPLERS[name](source, target_of(row), **row["kwargs"])) is None, row

    def test_table_is_whole(self) -> None:
        """All rows are there, of every sampler but two, which share their rule with "opencv"."""
        assert len(ROWS) == 769
        assert set(NAMES) == SAMPLERS.keys() - {"nemotron_vl", "pynvvideocodec"}
        assert SAMPLERS["nemotron_vl"].rule == SAMPLERS["pynvvideocodec"].rule == SAMPLERS["opencv"].rule

    def test_a_wrong_answer_would_show(self) -> None:
        """The comparison tells a changed index, one too many and one in the middle."""
        row = next(row for row in ROWS if row.get("count", 0) > 100)
        got = SAMPLERS[row["sampler"]](
            VideoSourceMetadata(row["total"], row["fps"], row["duration"]), target_of(row), **row["kwargs"]
        )
        assert differs(row, got) is None
        assert differs(row, [*got, got[-1]])
        assert differs(row, [1, *got[1:]])
        assert differs(row, [*got[:50], got[50] + 1, *got[51:]])


def walk(total: int, fps0: float, tick: float, stop: float) -> list[int]:
    """The rule of GLM's models, frame by frame."""
    picks: list[int] = []
    due = 0.0
    for i in range(total):
        if i * (1 / fps0) >= due:
            due += tick
            picks.append(i)
            if due >= stop:
                break
    return picks


def put_right(picks: list[int], total: int, count: int) -> list[int]:
    if len(picks) < count:
        return np.linspace(picks[0], picks[-1], count, dtype=int).tolist()
    return picks if len(picks) == count else np.linspace(0, total - 1, count, dtype=int).tolist()


def once(indices: list[int], *, even: bool) -> list[int]:
    found = sorted(set(indices))
    return [*found, found[-1]] if even and len(found) % 2 else found


many = settings(max_examples=100, deadline=None)
frames = st.integers(1, 3000)
source_rates = st.one_of(
    st.floats(0.5, 120), st.sampled_from([6.0, 23.976023976023978, 25.0, 29.97002997002997])
)
wanted_rates = st.one_of(st.floats(0.05, 60), st.sampled_from([0.5, 1, 2, 4, 30, 60]))


class TestRulesWrittenOut:
    """What is bounded or jumped to is what the plain rule gives."""

    @many
    @given(frames, source_rates, st.integers(1, 4))
    @example(54000, 30.0, 1)
    @example(108000, 30.0, 2)
    def test_glm46v(self, total: int, fps0: float, patch: int) -> None:
        seconds = min(total / fps0, 2400)
        rate = 3 if seconds <= 30 else 1 if seconds <= 300 else 0.5
        count = min(int(seconds * rate * patch), 640)
        if total < count:
            picks = np.linspace(0, total - 1, count, dtype=int).tolist()
        else:
            picks = put_right(walk(total, fps0, 1 / (patch * rate), int(total / fps0)), total, count)
        assert sample_glm46v(total, fps0, total / fps0, temporal_patch_size=patch) == once(picks, even=True)

    @many
    @given(frames, source_rates, wanted_rates, st.integers(1, 300), st.integers(1, 4))
    @example(108000, 30.0, 2, 2048, 2)
    def test_glm5next(self, total: int, fps0: float, fps: float, most: int, patch: int) -> None:
        count = min(int(total / fps0 * fps), most)
        if total < count:
            picks = [math.floor(i * total / count) for i in range(count)]
        else:
            picks = put_right(walk(total, fps0, 1 / (patch * fps), int(total / fps0)), total, count)
        got = sample_glm5next(total, fps0, total / fps0, fps, max_frames=most, temporal_patch_size=patch)
        assert got == once(picks, even=True)

    @many
    @given(frames, source_rates, wanted_rates, st.integers(1, 900))
    def test_glmga(self, total: int, fps0: float, fps: float, most: int) -> None:
        rate, duration = min(fps, 30), total / fps0
        count = min(int(duration * rate), most, 640, total)
        picks = put_right(walk(total, fps0, 1 / rate, duration - 1 / rate), total, count)
        assert sample_glmga(total, fps0, duration, fps, max_frames=most) == once(picks, even=False)

    @many
    @given(frames, source_rates, wanted_rates)
    def test_minimax_m3_vl(self, total: int, fps0: float, fps: float) -> None:
        expected = [0]
        while True:
            last = expected[-1]
            index = max(last + 1, math.ceil((last / fps0 + 1 / fps - 1e-4) * fps0))
            if index >= total:
                break
            expected.append(index)
        assert sample_minimax_m3_vl(total, fps0, fps) == expected

    @many
    @given(frames, source_rates, wanted_rates)
    def test_clef_omni(self, total: int, fps0: float, fps: float) -> None:
        places = (math.ceil(k * fps0 / fps - 1e-6) for k in itertools.count())
        expected = list(itertools.islice(itertools.takewhile(lambda index: index < total, places), 769))
        if len(expected) > 768:
            with pytest.raises(LimitExceededError, match="More than 768 frames"):
                sample_clef_omni(total, fps0, fps)
        else:
            assert sample_clef_omni(total, fps0, fps) == expected

    @many
    @given(
        frames,
        source_rates,
        wanted_rates,
        st.integers(1, 128),
        st.sampled_from(["uniform", "truncate", None]),
    )
    def test_embedding_gemma2(
        self, total: int, fps0: float, fps: float, most: int, strategy: str | None
    ) -> None:
        duration = total / fps0
        steps = list(range(max(1, int(duration * fps))))
        if len(steps) > most and strategy == "truncate":
            steps = steps[:most]
        elif len(steps) > most and strategy == "uniform":
            steps = np.linspace(0, len(steps) - 1, most, dtype=int).tolist()
        expected = [min(total - 1, int(i * fps0 / fps)) for i in steps]
        got = sample_embedding_gemma2(total, fps0, duration, fps, max_frames=most, overflow_strategy=strategy)
        assert got == expected

    @many
    @given(frames, source_rates, wanted_rates, st.integers(4, 1000), st.sampled_from([1, 2, 3]))
    def test_qwen2_vl_fills_patches(self, total: int, fps0: float, fps: float, most: int, patch: int) -> None:
        """A multiple of the patch, or one more where single precision steps once too often."""
        torch_for("qwen2_vl")
        if total < patch:
            return
        got = sample_qwen2_vl(total, fps0, fps, max_frames=most, temporal_patch_size=patch)
        wanted = min(max(total / fps0 * min(fps, 30), 4), min(most, 768, total) // patch * patch)
        count = int(wanted // patch * patch)
        assert len(got) in {count, count + 1}
        assert got[0] == 0
        for k, index in enumerate(got):
            assert abs(index - min(total - 1, math.floor(k * total / count))) <= 1

    @many
    @given(frames, source_rates, wanted_rates, st.integers(1, 1000), st.integers(0, 20))
    def test_qwen3_vl_takes_both_ends(
        self, total: int, fps0: float, fps: float, most: int, least: int
    ) -> None:
        """As many as the rate gives, within the limits, none of them further off than rounding."""
        got = sample_qwen3_vl(total, fps0, fps, min_frames=least, max_frames=most)
        count = min(max(int(total / fps0 * min(fps, 30)), least), most, 768, total)
        assert len(got) == count
        for k, index in enumerate(got):
            assert abs(index - k * (total - 1) / max(1, count - 1)) <= 0.5 + 1e-9


class TestTies:
    def test_halves_go_to_the_even_neighbour(self) -> None:
        """0, 2.5 and 5 are 0, 2 and 5; 0, 3.5 and 7 are 0, 4 and 7."""
        assert sample_qwen3_vl(6, 1.0, 0.5, min_frames=3) == [0, 2, 5]
        assert sample_qwen3_vl(8, 1.0, 0.375, min_frames=3) == [0, 4, 7]
        assert sample_openpangu(6, 1.0, 3, -1) == [0, 2, 5]
        assert sample_openpangu(8, 1.0, 3, -1) == [0, 4, 7]
        assert sample_llava_onevision2(10, 10.0) == [0, 3, 6, 9]

    def test_others_truncate(self) -> None:
        """3.75 of muse_spark and of glm5next is 3."""
        assert sample_muse_spark(16, 16.0, 5) == [0, 5, 10, 15]
        assert sample_glm5next(16, 16.0, 1.0, 5) == [0, 3, 7, 11, 15, 15]


class TestWhatHasNoAnswer:
    @pytest.mark.parametrize(
        ("call", "error", "text"),
        [
            (lambda: sample_qwen2_vl(1, 30.0), InvalidMediaError, "1 frames"),
            (lambda: sample_qwen2_vl(143, 0.0), InvalidMediaError, "rate is 0.0"),
            (lambda: sample_qwen2_vl(9, 1.0, max_frames=1), InvalidArgumentError, "max_frames=1"),
            (lambda: sample_qwen2_vl(9, 1.0, min_frames=-1), InvalidArgumentError, "min_frames=-1"),
            (lambda: sample_qwen2_vl(9, 1.0, temporal_patch_size=0), InvalidArgumentError, "patch_size=0"),
            (lambda: sample_qwen3_vl(9, 1.0, max_frames="8"), InvalidArgumentError, "max_frames='8'"),
            (lambda: sample_qwen3_vl(9, 1.0, max_frames=None), InvalidArgumentError, "max_frames=None"),
            (lambda: sample_qwen3_vl(9, 1.0, math.nan), InvalidArgumentError, "fps=nan"),
            (lambda: sample_qwen3_vl(9, math.inf), InvalidMediaError, "fps0=inf"),
            (lambda: sample_qwen3_vl(1 << 60, 30.0), InvalidMediaError, "claims 1152921504606846976 frames"),
            (lambda: sample_glm46v(9, 1.0, -9.0), InvalidMediaError, "-9.0 s"),
            (lambda: sample_glm46v(9, 1.0, math.nan), InvalidMediaError, "duration=nan"),
            (lambda: sample_glm5next(143, 0.0, 0), InvalidMediaError, "rate is 0.0"),
            (lambda: sample_glm5next(143, 1e-310, 5.0), InvalidMediaError, "rate is 1e-310"),
            (lambda: sample_glm5next(9, 1.0, 9.0, 0), InvalidArgumentError, "fps=0"),
            (lambda: sample_glm5next(9, 9.0, 1e15, max_frames=1 << 30), LimitExceededError, "1073741824"),
            (lambda: sample_glmga(143, 0.0, 0), InvalidMediaError, "rate is 0.0"),
            (lambda: sample_glmga(9, 1.0, 9.0, -1), InvalidArgumentError, "fps=-1"),
            (lambda: sample_openpangu(9, 1.0, -1), InvalidArgumentError, "num_frames=-1"),
            (lambda: sample_openpangu(9, 1.0, 4, 0), InvalidArgumentError, "fps=0"),
            (lambda: sample_openpangu(9, 1.0, 1 << 30, -1), LimitExceededError, "1073741824"),
            (lambda: sample_embedding_gemma2(9, 1.0, 9.0, 61), InvalidArgumentError, "fps=61"),
            (lambda: sample_embedding_gemma2(9, 1.0, 9.0, max_frames=129), InvalidArgumentError, "129"),
            (lambda: sample_embedding_gemma2(9, 1.0, 9.0, max_frames=0), InvalidArgumentError, "frames=0"),
            (
                lambda: sample_embedding_gemma2(9, 1.0, 9.0, overflow_strategy="drop"),
                InvalidArgumentError,
                "'drop'",
            ),
            (
                lambda: sample_embedding_gemma2(9, 1.0, 1e12, overflow_strategy=None),
                LimitExceededError,
                "1000000000000 frames",
            ),
            (lambda: sample_clef_omni(9, 0.0), InvalidMediaError, "rate is 0.0"),
            (lambda: sample_clef_omni(0, 30.0), InvalidMediaError, "no frames"),
            (lambda: sample_clef_omni(9, 1.0, -1), InvalidArgumentError, "fps=-1"),
            (lambda: sample_clef_omni(54000, 30.0), LimitExceededError, "longer than 384 s"),
            (lambda: sample_minimax_m3_vl(1 << 31, 30.0), LimitExceededError, "sampled"),
            (lambda: sample_minimax_m3_vl(9, 30.0, math.inf), InvalidArgumentError, "fps=inf"),
            (lambda: sample_muse_spark(9, 30.0, 10**400), InvalidArgumentError, "fps="),
            (lambda: sample_llava_onevision2(9, 1.0, num_frames=2.5), InvalidArgumentError, "2.5"),
            (lambda: sample_llava_onevision2(9, 1e-310), InvalidMediaError, "rate is 1e-310"),
        ],
    )  # fmt: skip
    def test_is_an_error_that_says_why(self, call: Any, error: type[Exception], text: str) -> None:
        """A ValueError of this library, with the number that is wrong."""
        with pytest.raises(error, match=text.replace("(", r"\(")) as caught:
            call()
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - {"qwen2_vl", "clef_omni", "opencv", "molmo2",
                                                               "nemotron_vl", "pynvvideocodec"}))  # fmt: skip
    def test_no_frames_give_none(self, name: str) -> None:
        """A source of no frames has none to take."""
        source = VideoSourceMetadata(0, 30.0, 0.0)
        assert SAMPLERS[name](source, num_frames=4) == []


totals = st.one_of(
    st.integers(-3, 5000),
    st.sampled_from([1 << 20, (1 << 20) + 1, 1 << 31, (1 << 53) + 1, 10**400, -(10**400)]),
)
any_rate = st.one_of(
    st.floats(0.01, 240),
    st.sampled_from([0.0, -1.0, -1, 1e-310, 1e-9, 1e9, 1e308, math.nan, math.inf, -math.inf, 10**400]),
)
any_seconds = st.one_of(st.floats(0, 1e5), st.floats(), st.just(0))
any_count = st.one_of(st.integers(-2, 600), st.sampled_from([1 << 31, 10**400]))
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "qwen2_vl": [{"max_frames": 64}, {"max_frames": 1 << 40}, {"temporal_patch_size": 7}],
    "qwen3_vl": [{"max_frames": 64}, {"min_frames": 8}, {"min_frames": 10**400}],
    "glm46v": [{"temporal_patch_size": 1}, {"temporal_patch_size": 10**400}],
    "glm5next": [{"max_frames": 128}, {"max_frames": 1 << 31}, {"temporal_patch_size": 1}],
    "glmga": [{"max_frames": 64}],
    "embedding_gemma2": [
        {"max_frames": 8}, {"overflow_strategy": None}, {"overflow_strategy": "truncate", "max_frames": 5},
    ],
    "molmo2": [
        {"frame_sample_mode": "fps"}, {"frame_sample_mode": "uniform_last_frame"},
        {"frame_sample_mode": "uniform_last_frame", "max_fps": None},
    ],
}  # fmt: skip


class TestAnySource:
    @pytest.mark.parametrize("name", SAMPLERS)
    @settings(max_examples=80, deadline=None)
    @given(data=st.data())
    def test_indices_or_a_clear_error(self, name: str, data: st.DataObject) -> None:
        """Ascending plain ints within the source, or an error of this library: never anything else."""
        torch_for(name)
        total = data.draw(totals)
        source = VideoSourceMetadata(total, data.draw(any_rate), data.draw(any_seconds))
        target = VideoTargetMetadata(data.draw(any_count), data.draw(any_rate), data.draw(any_seconds))
        options = data.draw(st.sampled_from([{}, *OPTIONS.get(name, [])]))
        try:
            indices = SAMPLERS[name](source, target, **options)
        except ANSWERS:
            return
        assert len(indices) <= MOST_INDICES
        assert set(map(type, indices)) <= {int}
        if len(indices) == total:
            assert indices == list(range(total)) or name in REPEATING
        else:
            pairs = itertools.pairwise(indices)
            assert all(a <= b if name in REPEATING else a < b for a, b in pairs)
        if indices and total > 0:
            assert indices[0] >= 0
            assert indices[-1] < total

    @many
    @given(frames, source_rates, wanted_rates, st.sampled_from(sorted(SAMPLERS.keys() - {"molmo2"})))
    def test_numbers_of_frames(self, total: int, fps0: float, fps: float, name: str) -> None:
        """What each promises of how many there are."""
        torch_for(name)
        source, target = VideoSourceMetadata(total, fps0, total / fps0), VideoTargetMetadata(32, fps, 300)
        try:
            count = len(SAMPLERS[name](source, target))
        except ANSWERS:
            assert name in {"qwen2_vl", "clef_omni"}
            return
        most = {
            **dict.fromkeys(("opencv", "nemotron_vl", "pynvvideocodec", "openpangu"), 32),
            "llava_onevision2": 32,
            "embedding_gemma2": 32,
            "muse_spark": 600,
            "glm46v": 640,
            "glmga": 640,
            "glm5next": 2048,
            "qwen2_vl": 769,
            "qwen3_vl": 768,
            "clef_omni": 768,
        }
        assert count <= most.get(name, total)
        if name in {"glm46v", "glm5next", "llava_onevision2"}:
            assert count % 2 == 0
        if name == "muse_spark" and count < total:
            assert count % 2 == 0
