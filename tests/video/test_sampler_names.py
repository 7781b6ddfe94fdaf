"""Samplers by name: loaders, video processors, types of models."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmmedia.errors import InvalidArgumentError
from mmmedia.video import (
    VIDEO_LOADER_REGISTRY,
    VideoSourceMetadata,
    VideoTargetMetadata,
    get_video_loader_backend_for_processor,
)
from mmmedia.video.samplers import SAMPLERS, Sampler, sampler_for
from support.needs import torch_for

SOURCE = VideoSourceMetadata(300, 30.0, 10.0)

# The video processors of each, as their models name them.
PROCESSORS = {
    "Glm4vVideoProcessor": "opencv_dynamic",
    "Molmo2VideoProcessor": "molmo2",
    "Qwen2VLVideoProcessor": "qwen2_vl",
    "Qwen3VLVideoProcessor": "qwen3_vl",
    "Cosmos3EdgeVideoProcessor": "qwen3_vl",
    "Glm46VVideoProcessor": "glm46v",
    "Glm5NextVideoProcessor": "glm5next",
    "Glm5nextVideoProcessor": "glm5next",
    "GlmgaVideoProcessor": "glmga",
    "EmbeddingGemma2VideoProcessor": "embedding_gemma2",
    "MiniMaxM3VLVideoProcessor": "minimax_m3_vl",
    "MuseSparkVideoProcessor": "muse_spark",
    "LlavaOnevision2VideoProcessor": "llava_onevision2",
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_loader_has_its_sampler(name: str) -> None:
    """A loader's name finds the sampler that the loader uses."""
    torch_for(name)
    sampler = sampler_for(name)
    assert sampler is SAMPLERS[name]
    assert sampler.name == name
    loader = VIDEO_LOADER_REGISTRY.get(name)
    target = VideoTargetMetadata(16, 1, 300)
    assert sampler(SOURCE, target) == loader.compute_frames_index_to_sample(SOURCE, target)


def test_there_are_sixteen() -> None:
    """And the registry has a loader for each, and no other."""
    assert len(SAMPLERS) == 16
    ours = {
        n for n in VIDEO_LOADER_REGISTRY if VIDEO_LOADER_REGISTRY.get(n).__module__.startswith("mmmedia.")
    }
    assert ours == SAMPLERS.keys()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_video_processor(processor: str) -> None:
    """The name of its class, the class, one of its objects, and what holds one, find its sampler."""
    kind = type(processor, (), {})
    child = type("FastVideoProcessor", (kind,), {})
    holder = SimpleNamespace(video_processor=kind())
    for what in (processor, kind, kind(), child, holder):
        assert sampler_for(what).name == PROCESSORS[processor]
    assert get_video_loader_backend_for_processor(processor) == PROCESSORS[processor]
    assert {name for sampler in SAMPLERS.values() for name in sampler.video_processors} == PROCESSORS.keys()


@pytest.mark.parametrize(
    ("model_type", "name"),
    [
        ("qwen2_5_vl", "qwen2_vl"),
        ("qwen2_5_omni", "qwen2_vl"),
        ("qwen3_5_moe", "qwen3_vl"),
        ("cosmos3_edge", "qwen3_vl"),
        ("glm4v", "opencv_dynamic"),
        ("glm5_next", "glm5next"),
    ],
)
def test_types_of_models(model_type: str, name: str) -> None:
    """A type of model, or a configuration that has one."""
    assert sampler_for(model_type).name == name
    assert sampler_for(SimpleNamespace(model_type=model_type)).name == name


def test_types_of_models_are_those_of_transformers() -> None:
    """Each type that transformers gives a processor of ours to is known here by the same sampler."""
    source = Path(pytest.importorskip("transformers").__file__).parent / "models" / "auto"
    pairs = [
        pair
        for file in ("auto_mappings.py", "video_processing_auto.py")
        for pair in re.findall(r'\("(\w+)", \{"torchvision": "(\w+)"\}\)', (source / file).read_text())
    ]
    bound = {model_type: PROCESSORS[name] for model_type, name in pairs if name in PROCESSORS}
    assert len(bound) > 20
    assert {model_type: sampler_for(model_type).name for model_type in bound} == bound


@pytest.mark.parametrize(
    "what", ["internvl", "InternVLVideoProcessor", "", None, 7, object, SimpleNamespace()]
)
def test_unknown_is_an_error_that_lists_them(what: object) -> None:
    """For another model nothing is guessed."""
    with pytest.raises(InvalidArgumentError, match=r"no sampler for .*there are: .*qwen3_vl"):
        sampler_for(what)
    assert get_video_loader_backend_for_processor("InternVLVideoProcessor") is None


class TestCalls:
    def test_defaults_are_the_samplers_own(self) -> None:
        """Without a target the sampler's defaults hold, and options win over a target."""
        assert len(sampler_for("qwen3_vl")(SOURCE)) == 20
        assert len(sampler_for("qwen3_vl")(SOURCE, fps=1)) == 10
        assert len(sampler_for("qwen3_vl")(SOURCE, VideoTargetMetadata(-1, 4, 300), fps=1)) == 10
        assert len(sampler_for("opencv")(SOURCE, num_frames=8)) == 8

    def test_what_the_rule_does_not_look_at_is_ignored(self) -> None:
        """Of a target, and of options that every loader is given."""
        plain = sampler_for("qwen3_vl")(SOURCE)
        assert sampler_for("qwen3_vl")(SOURCE, num_frames=3, max_duration=1) == plain
        assert sampler_for("glm46v")(SOURCE, fps=float("nan")) == sampler_for("glm46v")(SOURCE)

    def test_none_is_not_given(self) -> None:
        """An option of `None` leaves the target's, and a target's `None` the sampler's own."""
        sampler = sampler_for("embedding_gemma2")
        asked = VideoTargetMetadata(-1, 2, 300)
        assert sampler(SOURCE, asked, fps=None) == sampler(SOURCE, asked)
        assert sampler(SOURCE, VideoTargetMetadata(None, None, None)) == sampler(SOURCE)  # type: ignore[arg-type]
        assert sampler(SOURCE, fps=None, num_frames=None) == sampler(SOURCE)
        # Where None says something, it is taken at its word.
        assert len(sampler(SOURCE._replace(duration=99.0), overflow_strategy=None)) == 99

    def test_unknown_options_are_named(self) -> None:
        """A slip of the pen is told, with what there is."""
        with pytest.raises(InvalidArgumentError, match=r"'qwen3_vl' takes no max_frame; .* max_frames"):
            sampler_for("qwen3_vl")(SOURCE, max_frame=3)

    def test_what_has_to_be_given(self) -> None:
        """openPangu's rule needs a number of frames."""
        with pytest.raises(InvalidArgumentError, match="needs num_frames"):
            sampler_for("openpangu")(SOURCE)

    def test_options_and_defaults(self) -> None:
        """They can be looked up."""
        assert sampler_for("qwen2_vl").options == {
            "fps": 2, "min_frames": 4, "max_frames": 768, "temporal_patch_size": 2,
        }  # fmt: skip
        assert sampler_for("molmo2").options["frame_sample_mode"] is None

    def test_a_sampler_of_ones_own(self) -> None:
        """The class serves other rules too."""

        def every_third(total: int, *, first: int = 0) -> list[int]:
            return list(range(first, total, 3))

        assert Sampler("thirds", every_third)(VideoSourceMetadata(9, 1.0, 9.0), first=1) == [1, 4, 7]


def documented(page: str) -> dict[str, str]:
    rows: dict[str, Any] = {}
    for line in page.splitlines():
        if found := re.match(r"\| `(\w+)` \|(.*)", line):
            rows[found[1]] = rows.get(found[1], "") + found[2]
    return rows


def test_documentation_names_all_with_their_defaults() -> None:
    """The table of the page has a row for each, with its processors and every keyword and default."""
    rows = documented((Path(__file__).parents[2] / "docs" / "samplers.md").read_text())
    assert rows.keys() == SAMPLERS.keys()
    for sampler in SAMPLERS.values():
        row = rows[sampler.name]
        assert [name for name in sampler.video_processors if f"`{name}`" not in row] == []
        told = {
            name: f"{name}={default!r}"
            for name, default in sampler.options.items()
            if not isinstance(default, type) and default is not None
        }
        assert [text for text in told.values() if text.replace("'", '"') not in row] == [], sampler.name
