"""Videos for processors of transformers, sampled and decoded here."""

import inspect
import io
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.integrations.transformers import (
    decode_columns,
    install,
    load_video,
    to_metadata,
    uninstall,
    videos,
)
from mmmedia.media import MediaConnector
from mmmedia.video import OpenCVVideoBackend, read_frames
from support import needs
from support.clips import clip, read_number
from support.server import reply

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


def test_a_whole_processor_is_as_good_as_its_video_processor(path):
    processor = transformers.VideoMAEVideoProcessor()

    class Whole:
        video_processor = processor

    given = videos(Whole(), [path, Path(path), CLIP, io.BytesIO(CLIP)], num_frames=5)
    assert [frames.shape for frames in given["videos"]] == [(5, 96, 112, 3)] * 4
    assert given["do_sample_frames"] is False
    assert [metadata.frames_indices for metadata in given["video_metadata"]] == [[0, 8, 16, 24, 32]] * 4


def test_who_samples_nothing_gets_all_frames(path):
    assert len(videos(transformers.VideoMAEVideoProcessor(), [path])["videos"][0]) == 40


def test_what_is_no_video_processor_is_refused():
    with pytest.raises(InvalidArgumentError, match="dict is no processor"):
        videos({}, [])


def test_urls_are_fetched_by_the_connector(path, server):
    url = server.route("/clip.mp4", reply(CLIP))
    frames, metadata = load_video(url, num_frames=2)
    assert metadata.frames_indices == [0, 20]
    with pytest.raises(ValueError, match="allowed"):
        load_video(url, connector=MediaConnector(allowed_media_domains=["example.org"]))
    connector = MediaConnector(allowed_local_media_path=Path(path).parent)
    assert np.array_equal(load_video(Path(path).as_uri(), num_frames=2, connector=connector)[0], frames)


# load_video.


@pytest.mark.parametrize("options", [{"num_frames": 7}, {"fps": 5}, {}])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_load_video_is_transformers_own(backend, options, path):
    theirs, facts = transformers.video_utils.load_video(path, backend=backend, **options)
    frames, metadata = load_video(path, backend=backend, **options)
    assert frames.shape == theirs.shape
    assert list(metadata.frames_indices) == list(facts.frames_indices)
    assert {**metadata, "video_backend": "", "frames_indices": 0} == {
        **facts, "video_backend": "", "frames_indices": 0,
    }  # fmt: skip
    if backend == "opencv":  # PyAV's own conversion differs in single steps of 255
        assert np.array_equal(frames, theirs)


def test_frames_come_in_the_order_of_the_rule_also_repeated(path):
    seen = []

    def rule(metadata, step):
        seen.append(metadata)
        return np.array([9, 3, 3]) * step

    frames, metadata = load_video(path, sample_indices_fn=rule, step=2)
    assert [read_number(frame) for frame in frames] == [18, 6, 6]
    assert metadata.frames_indices == [18, 6, 6]
    assert (seen[0].total_num_frames, seen[0].fps, seen[0].duration) == (40, 25.0, 1.6)


def test_what_is_decoded_already_is_handed_on():
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    assert load_video(frames)[0] is frames
    assert load_video(frames)[1] == [None] * 3


def test_errors_say_what_is_wrong(path):
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        load_video(path, num_frames=2, fps=2)
    with pytest.raises(InvalidMediaError):
        load_video(b"nothing")
    with pytest.raises(ValueError, match="41"):
        load_video(path, num_frames=41)


def test_metadata_become_those_of_transformers(path):
    frames, _, source = read_frames(CLIP, [0, 1])
    _, facts = OpenCVVideoBackend.load_bytes(CLIP, num_frames=2)
    assert facts["do_sample_frames"] is False
    metadata = to_metadata(facts, frames)
    assert isinstance(metadata, transformers.video_utils.VideoMetadata)
    assert (metadata.width, metadata.height, metadata.fps) == (112, 96, source.original_fps)
    assert metadata.timestamps == [0.0, 39 / 25]
    assert to_metadata(facts).width is None


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


def test_a_decoder_by_its_name(path):
    install()
    try:
        frames, _ = transformers.video_utils.VIDEO_DECODERS["mmmedia"](path, lambda metadata: [4, 2])
    finally:
        uninstall()
    assert [read_number(frame) for frame in frames] == [4, 2]


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
