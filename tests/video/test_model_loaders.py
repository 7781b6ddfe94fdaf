"""The loaders of models: their sampler on the decoders, and what each does with the frames afterwards."""

import importlib.util
import json
from typing import Any

import cv2
import numpy as np
import pytest

from mmmedia import video
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import (
    VIDEO_LOADER_REGISTRY,
    Glm5NextVideoBackend,
    ModelVideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    VideoBackend,
    VideoLoader,
    VideoSourceMetadata,
    VideoTargetMetadata,
)
from mmmedia.video.samplers import SAMPLERS
from support.captures import ScriptedCapture, numbers
from support.clips import clip, read_number
from support.needs import torch_for

# The classes of vLLM by the names of their loaders.
CLASSES = {
    "opencv": "VideoBackend",
    "pynvvideocodec": "PyNvVideoCodecVideoBackend",
    "opencv_dynamic": "DynamicVideoBackend",
    "molmo2": "Molmo2VideoBackend",
    "nemotron_vl": "NemotronVLVideoBackend",
    "openpangu": "OpenCVDynamicOpenPanguVideoBackend",
    "qwen2_vl": "Qwen2VLVideoBackend",
    "qwen3_vl": "Qwen3VLVideoBackend",
    "glm46v": "GLM46VVideoBackend",
    "glm5next": "Glm5NextVideoBackend",
    "glmga": "GLMGAVideoBackend",
    "embedding_gemma2": "EmbeddingGemma2VideoBackend",
    "clef_omni": "ClefOmniVideoBackend",
    "minimax_m3_vl": "MiniMaxM3VideoBackend",
    "muse_spark": "MuseSpark1xOmniVideoBackend",
    "llava_onevision2": "LlavaOnevision2VideoBackend",
}
MODELS = sorted(CLASSES.keys() - {"opencv", "opencv_dynamic", "molmo2", "pynvvideocodec"})


def replace(monkeypatch: pytest.MonkeyPatch, total: int, fps: float) -> None:
    """Let whoever opens a capture get one of so many frames."""
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ScriptedCapture(total, fps=fps))


def load(name: str, data: bytes = b"x", **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
    return VIDEO_LOADER_REGISTRY.get(name).load_bytes(data, **options)  # type: ignore[attr-defined, no-any-return]


def test_names() -> None:
    """Every class is found by its loader's name and by its own; the two of the first release are the same."""
    assert {name: getattr(video, kind) for name, kind in CLASSES.items()} == {
        name: VIDEO_LOADER_REGISTRY.get(name) for name in CLASSES
    }
    assert video.VideoBackend is OpenCVVideoBackend
    assert video.DynamicVideoBackend is OpenCVDynamicVideoBackend
    assert all(issubclass(VIDEO_LOADER_REGISTRY.get(name), VideoLoader) for name in CLASSES)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", [None, "pyav"])
def test_frames_are_those_of_the_sampler(name: str, backend: str | None) -> None:
    """Of a real clip the frames that the rule names are there, with metadata that can be sent as JSON."""
    torch_for(name)
    frames, metadata = load(name, clip(frames=64), num_frames=8, backend=backend)
    fps = {"openpangu": 2, "qwen2_vl": 2, "qwen3_vl": 2, "glmga": 2, "clef_omni": 2, "minimax_m3_vl": 1}.get(
        name, -1
    )
    source = VideoSourceMetadata(64, 25.0, 2.56)
    wanted = SAMPLERS[name](source, VideoTargetMetadata(8, fps, 300))
    assert metadata.pop("original_video_bytes", None) == (clip(frames=64) if name == "nemotron_vl" else None)
    read = sorted(set(wanted))
    padding = [read[-1]] if name in {"clef_omni", "glmga"} and len(read) % 2 else []
    assert [read_number(frame) for frame in frames] == read + padding
    codec = "opencv_dynamic" if name == "openpangu" else backend or "opencv"
    assert metadata == {
        "total_num_frames": 64,
        "fps": 25.0,
        "duration": 2.56,
        "video_backend": codec + ("_llava_onevision2" if name == "llava_onevision2" else ""),
        "frames_indices": read + (padding if name == "clef_omni" else []),
        "do_sample_frames": False,
    }
    assert json.loads(json.dumps(metadata)) == metadata


@pytest.mark.parametrize("name", MODELS)
def test_one_dict_for_all_loaders(name: str) -> None:
    """Keywords that a sampler does not know are ignored, `None` is the default, and options reach it."""
    torch_for(name)
    data = clip(frames=64)
    plain = load(name, data, num_frames=8)
    other = load(
        name, data, num_frames=8, fps=None, max_duration=None, sampling_fps=9, image_mode="RGB", zoo=1
    )
    assert other[0].tobytes() == plain[0].tobytes()
    assert other[1] == plain[1]


@pytest.mark.parametrize(
    ("name", "options", "indices"),
    [
        ("qwen2_vl", {"fps": 9, "max_frames": 6}, [0, 10, 21, 32, 42, 53]),
        ("qwen3_vl", {"fps": 1, "min_frames": 3}, [0, 32, 63]),
        ("glm46v", {"temporal_patch_size": 1}, [0, 9, 17, 25, 34, 42, 50]),
        ("glm5next", {"max_frames": 2}, [0, 63]),
        ("glmga", {"max_frames": 2}, [0, 63]),
        ("embedding_gemma2", {"fps": 4, "max_frames": 3, "overflow_strategy": "truncate"}, [0, 6, 12]),
        ("openpangu", {"num_frames": 3, "fps": -1}, [0, 32, 63]),
        ("llava_onevision2", {"num_frames": 4, "fps": 9}, [0, 21, 42, 63]),
    ],
)
def test_options(name: str, options: dict[str, Any], indices: list[int]) -> None:
    """The keywords of each, through `VideoMediaIO`, as an engine gives them."""
    torch_for(name)
    io = VideoMediaIO(ImageMediaIO(), video_backend=name, **{"num_frames": 32, **options})
    assert io.load_bytes(clip(frames=64))[1]["frames_indices"] == indices


def test_a_bad_option_is_told() -> None:
    """As a ValueError, with its value."""
    with pytest.raises(InvalidArgumentError, match="max_frames='many'"):
        load("qwen3_vl", clip(), max_frames="many")
    with pytest.raises(InvalidArgumentError, match="num_frames=-1"):
        load("openpangu", clip())


class TestAfterDecoding:
    def test_unknown_rate_counts_as_24(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the sampler of Qwen 3, and in the metadata."""
        replace(monkeypatch, 96, 0.0)
        frames, metadata = load("qwen3_vl")
        assert (metadata["fps"], len(frames)) == (24.0, 8)
        with pytest.raises(InvalidMediaError, match="rate is 0"):
            load("qwen2_vl")

    def test_glmga_pads_frames_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An odd number is made even by the last frame; the metadata name it once."""
        replace(monkeypatch, 30, 10.0)
        frames, metadata = load("glmga", fps=1)
        assert numbers(frames) == [0, 5, 10, 10]
        assert metadata["frames_indices"] == [0, 5, 10]

    def test_clef_omni_pads_both(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The last frame, and its index."""
        replace(monkeypatch, 30, 10.0)
        frames, metadata = load("clef_omni", fps=1)
        assert numbers(frames) == metadata["frames_indices"] == [0, 10, 20, 20]
        frames, metadata = load("clef_omni", fps=0.5)
        assert numbers(frames) == metadata["frames_indices"] == [0, 20]

    def test_embedding_gemma2_repeats(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A frame that the sampler names twice is there twice; the processor is not to sample again."""
        replace(monkeypatch, 4, 1.0)
        frames, metadata = load("embedding_gemma2", fps=2)
        assert numbers(frames) == metadata["frames_indices"] == [0, 0, 1, 1, 2, 2, 3, 3]
        frames, metadata = load("embedding_gemma2", fps=1)
        assert numbers(frames) == metadata["frames_indices"] == [0, 1, 2, 3]
        assert metadata["do_sample_frames"] is False
        assert {type(index) for index in metadata["frames_indices"]} == {int}

    def test_embedding_gemma2_repeats_what_was_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A frame that failed is missing as often as it was wanted."""
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: ScriptedCapture(4, fps=1.0, retrieve_fails={1}))
        frames, metadata = load("embedding_gemma2", fps=2)
        assert numbers(frames) == metadata["frames_indices"] == [0, 0, 2, 2, 3, 3]

    def test_other_repetitions_collapse(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sequential reading gives a frame once, however often it is wanted."""
        replace(monkeypatch, 4, 1.0)
        frames, metadata = load("openpangu", num_frames=9, fps=-1)
        assert numbers(frames) == metadata["frames_indices"] == [0, 1, 2, 3]
        assert metadata["do_sample_frames"] is True

    def test_recovery(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`frame_recovery` puts the next readable frame in the place of one that fails."""
        monkeypatch.setattr(
            cv2, "VideoCapture", lambda *_: ScriptedCapture(40, fps=10.0, retrieve_fails={10})
        )
        frames, metadata = load("minimax_m3_vl", frame_recovery=True)
        assert numbers(frames) == metadata["frames_indices"] == [0, 11, 20, 30]

    def test_openpangu_is_always_opencv(self) -> None:
        """A `backend` in the one dict for all loaders changes nothing."""
        plain = load("openpangu", clip(), num_frames=4)
        for backend in ("pyav", "opencv", None):
            assert load("openpangu", clip(), num_frames=4, backend=backend)[1] == plain[1]


class TestNvidia:
    def test_missing_package_is_named(self) -> None:
        """Without PyNvVideoCodec the loader says what it needs."""
        if importlib.util.find_spec("PyNvVideoCodec") is not None:
            pytest.skip("it is installed")
        with pytest.raises(MissingPackageError, match="PyNvVideoCodec"):
            load("pynvvideocodec", clip())

    def test_backend_is_forced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever `backend` says, NVDEC is what is asked for."""
        asked = []
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
        monkeypatch.setattr(
            OpenCVVideoBackend, "load_bytes", lambda *args, **kwargs: asked.append((args, kwargs))
        )
        load("pynvvideocodec", b"x", num_frames=3, backend="opencv")
        assert asked == [((b"x",), {"num_frames": 3, "backend": "pynvvideocodec"})]


class TestOwnLoaders:
    def test_of_a_sampler(self) -> None:
        """A loader is a sampler and a default."""

        class Slow(ModelVideoBackend):
            sampler = SAMPLERS["minimax_m3_vl"]
            default_fps = 0.5

        assert Slow.load_bytes(clip(frames=64))[1]["frames_indices"] == [0, 50]

    def test_a_source_prepared(self) -> None:
        """What a loader makes of the source is what its sampler gets, and what the metadata say."""

        class Doubled(OpenCVVideoBackend):
            @classmethod
            def _prepare_source(cls, source: VideoSourceMetadata) -> VideoSourceMetadata:
                return source._replace(duration=source.duration * 2)

        metadata = Doubled.load_bytes(clip(), fps=2)[1]
        assert metadata["duration"] == 4.8
        assert len(metadata["frames_indices"]) == 9

    def test_preparing_changes_nothing_that_is_known(self) -> None:
        """A source with rate and duration is left as it is; one without a duration is given one."""
        source = VideoSourceMetadata(60, 25.0, 2.4)
        for name in CLASSES:
            assert VIDEO_LOADER_REGISTRY.get(name)._prepare_source(source) == source
        for name in ("opencv_dynamic", "glm46v", "glmga"):
            prepared = VIDEO_LOADER_REGISTRY.get(name)._prepare_source(source._replace(duration=0))
            assert prepared.duration == 3

    def test_a_suffix(self) -> None:
        """It stands behind the decoder's name."""

        class Mine(VideoBackend):
            _sampling_suffix = "_mine"

        for backend in ("opencv", "pyav"):
            assert Mine.load_bytes(clip(), 3, backend=backend)[1]["video_backend"] == f"{backend}_mine"

    def test_metadata_of_its_own(self) -> None:
        """What a loader makes of the metadata is what comes with the frames."""

        class Named(VideoBackend):
            @classmethod
            def create_hf_metadata(cls, source: Any, valid_frame_indices: Any, video_backend: str) -> Any:
                return {**super().create_hf_metadata(source, valid_frame_indices, video_backend), "by": "me"}

        assert Named.load_bytes(clip(), 3)[1]["by"] == "me"


class Seeking(ScriptedCapture):
    """A capture that also seeks."""

    seeks = 0

    def read(self) -> tuple[bool, Any]:
        return self.retrieve() if self.grab() else (False, None)

    def set(self, prop: int, value: float) -> bool:
        assert prop == cv2.CAP_PROP_POS_FRAMES
        self.grabs = int(value)
        self.seeks += 1
        return True


class TestGlm5Next:
    def test_short_gaps_are_grabbed_and_long_ones_sought(self) -> None:
        capture = Seeking(400, retrieve_fails={203})
        frames, valid = Glm5NextVideoBackend.read_frames(capture, [200, 5, 5, 203, 68, 69, 134], 400)
        assert numbers(frames) == valid == [5, 68, 69, 134, 200]
        assert capture.seeks == 3  # to the first, to 134, and to 200

    def test_loading_does_not_seek(self) -> None:
        """A capture's seeking may miss, and the ways of this library do not."""
        data = clip(frames=90, gop=30)
        frames, metadata = Glm5NextVideoBackend.load_bytes(data, fps=0.6)
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
        assert len(frames) > 1


def test_glm_5_chooses_under_its_older_name_too() -> None:
    kind = Glm5NextVideoBackend
    found = kind._sample_frame_indices(300, 30.0, 10.0, target_fps=2, max_frame_count=16)
    source, target = VideoSourceMetadata(300, 30.0, 10.0), VideoTargetMetadata(-1, 2, -1)
    assert found == kind.compute_frames_index_to_sample(source, target, max_frames=16)
    assert len(found) == 16
    assert kind._sample_frame_indices(300, 30.0, 10.0)
