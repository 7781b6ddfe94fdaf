"""All video processors of transformers: tensors of frames that were sampled and decoded here."""

import inspect
from importlib import import_module
from pathlib import Path

import pytest

from mmmedia.integrations.transformers import (
    decode_columns,
    install,
    uninstall,
    videos,
)
from support import needs
from support.clips import clip

needs.torchvision()
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from support import whole_videos  # noqa: E402  # after what it needs

CLIP = clip(frames=40, gop=16, bframes=2, width=112, height=96)
SHORT = clip(frames=33, gop=9, bframes=2, width=80, height=64)
FAIL = {
    "Ernie4_5_VLMoeVideoProcessor": "it downloads a font",
    "NemotronH_Omni_Reasoning_V3VideoProcessor": "it has no defaults",
}
"""Processors that can't be used by themselves, and why."""
BOTH = {"SmolVLMVideoProcessor": {"num_frames": 8, "fps": 8}}
"""Processors that must be told both."""
FILES = Path(transformers.__file__).parent.glob("models/*/video_processing_*.py")
MODELS = sorted({path.parent.name for path in FILES} - {"auto"})


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "clip.mp4"
    file.write_bytes(CLIP)
    return str(file)


def classes(model: str) -> list[type]:
    module = import_module(f"transformers.models.{model}.video_processing_{model}")
    return [
        each
        for each in vars(module).values()
        if inspect.isclass(each)
        and each.__module__ == module.__name__
        and hasattr(each, "sample_frames")
        and each.__name__ not in FAIL
    ]


def answer(call, *args, **options):
    """What a call returns, as tensors by name; or the type of its error."""
    try:
        found = call(*args, return_tensors="pt", **options)
    except Exception as error:
        return type(error)
    return {
        name: value if isinstance(value, torch.Tensor) else [torch.as_tensor(each) for each in value]
        for name, value in found.items()
        if name != "video_metadata"
    }


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return set(one) == set(other) and all(equal(one[name], other[name]) for name in one)
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("model", MODELS)
def test_a_processor_makes_the_same_tensors_of_frames_that_were_decoded_here(model, tmp_path, monkeypatch):
    """Compared with its own sampling of all frames; with the options it has, and with ones that are given."""
    path = str(tmp_path / "short.mp4")
    Path(path).write_bytes(SHORT)
    for kind in classes(model):
        processor = kind()
        whole_videos.use_for(processor, monkeypatch)
        rate = {"num_frames": 8} if getattr(processor, "fps", None) is None else {"fps": 8}
        for options in ({}, BOTH.get(kind.__name__, rate)):
            sampled = {**options, "do_sample_frames": True} if options else {}
            theirs = answer(processor, [path], **sampled)
            ours = answer(processor, **videos(processor, [path], **options))
            assert isinstance(theirs, dict), (theirs, options)
            assert equal(theirs, ours)


def test_those_that_fail_by_themselves_still_do():
    for name in FAIL:
        processor = getattr(transformers, name)()
        assert isinstance(answer(processor, **videos(processor, [CLIP])), type)


def test_there_are_as_many_processors_as_when_this_was_tried():
    assert sum(len(classes(model)) for model in MODELS) >= 31


def test_install_has_processors_decode_by_this(path):
    processor = transformers.VideoMAEVideoProcessor()
    before = transformers.video_utils.load_video
    expected = processor(return_tensors="pt", **videos(processor, [path], num_frames=8))
    install()
    try:
        install()
        got = processor([path], num_frames=8, do_sample_frames=True, return_tensors="pt")
        assert torch.equal(got["pixel_values"], expected["pixel_values"])
        _, metadata = transformers.video_utils.load_video(path, backend="torchcodec", num_frames=3)
        assert metadata.video_backend == "mmmedia"
    finally:
        uninstall()
        uninstall()
    assert transformers.video_utils.load_video is before
    assert "mmmedia" not in transformers.video_utils.VIDEO_DECODERS


# Datasets.


def test_a_transform_of_datasets(path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"video": [path, path], "label": [0, 1]})
    rows = rows.cast_column("video", datasets.Video(decode=False)).with_transform(
        decode_columns(video={"num_frames": 3, "resize": 56})
    )
    assert rows[1]["label"] == 1
    assert rows[:]["video"][0].shape == (3, 48, 56, 3)
    assert rows[0]["video_metadata"]["frames_indices"] == [0, 19, 39]
