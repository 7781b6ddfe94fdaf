"""Pictures and clips come out as from the Hugging Face processors, whatever their shape and mode."""

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError
from mmmedia.media.base import MediaWithBytes
from mmmedia.media.image import ImageMediaIO
from mmmedia.pipeline import (
    CLIP_MEAN,
    CLIP_STD,
    ExactSize,
    ImagePreprocessor,
    PixelBudget,
    ShortestEdge,
    VideoPreprocessor,
    frame_timestamps,
)
from mmmedia.pipeline.sizes import size_rule

CONFIGS = {
    "clip": (CLIPImageProcessorPil, {}),
    "clip, crop greater than size": (
        CLIPImageProcessorPil,
        {"size": {"shortest_edge": 37}, "crop_size": {"height": 50, "width": 51}},
    ),
    "clip as first published": (CLIPImageProcessorPil, {"size": 64, "crop_size": 32, "resample": 3}),
    "clip, not normalised": (CLIPImageProcessorPil, {"size": 40, "crop_size": 24, "do_normalize": False}),
    "clip, not rescaled": (CLIPImageProcessorPil, {"size": 40, "crop_size": 24, "do_rescale": False}),
    "clip, not cropped": (
        CLIPImageProcessorPil,
        {"size": {"shortest_edge": 30, "longest_edge": 60}, "do_center_crop": False},
    ),
    "siglip": (SiglipImageProcessorPil, {}),
    "siglip, bilinear": (SiglipImageProcessorPil, {"size": {"height": 33, "width": 71}, "resample": 2}),
    "siglip, as it is": (SiglipImageProcessorPil, {"do_resize": False}),
    "qwen2-vl": (Qwen2VLImageProcessorPil, {"max_pixels": 28 * 28 * 64}),
    "qwen2-vl, few pixels": (
        Qwen2VLImageProcessorPil,
        {"size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 20}},
    ),
    "qwen2-vl, other patches": (
        Qwen2VLImageProcessorPil,
        {"patch_size": 16, "merge_size": 3, "temporal_patch_size": 1, "max_pixels": 48 * 48 * 20},
    ),
}
SIZES = [(160, 120), (120, 161), (1, 1), (3, 2), (1, 90), (90, 1), (223, 225), (260, 13), (28, 28)]
MODES = ["RGB", "L", "RGBA", "LA", "1", "P", "CMYK", "I"]
VALUE_RANGE = 2.0  # normalised values span more; the bound is on the safe side


def photograph(width, height, mode="RGB", seed=0):
    """A picture with edges, gradients and grain."""
    rng = np.random.default_rng([seed, width, height])
    yy, xx = np.mgrid[0:height, 0:width]
    base = 127 + 80 * np.sin(xx / 7 + yy / 11)[..., None] * np.array([1, -1, 0.5, 1])
    pixels = np.clip(base + rng.normal(0, 25, (height, width, 4)), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    return image if mode == "RGBA" else image.convert("LA" if mode == "LA" else "RGB").convert(mode)


def theirs(processor, images):
    return processor(images, return_tensors="np")


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("processor", "config"), CONFIGS.values(), ids=CONFIGS)
def test_pictures_of_odd_shapes_and_modes_come_out_as_from_hugging_face(processor, config, size):
    reference = processor(**config)
    ours = ImagePreprocessor.from_config(reference.to_dict())
    for mode in MODES if size == SIZES[0] else ["RGB"]:
        image = photograph(*size, mode)
        expected = theirs(reference, image)
        if processor is Qwen2VLImageProcessorPil:
            got, grid = ours.patches(image)
            assert grid.tolist() == expected["image_grid_thw"].tolist()
            assert ours.grid_thw(image.height, image.width) == tuple(grid[0].tolist())
        else:
            got = ours(image)
            assert ours.output_size(image.height, image.width) == tuple(got.shape[-2:])
        assert got.dtype == torch.float32
        assert tuple(got.shape) == expected["pixel_values"].shape
        assert np.abs(got.numpy() - expected["pixel_values"]).max() <= 1e-6 * VALUE_RANGE


def test_a_large_photograph_comes_out_as_from_hugging_face():
    """Large enough for the threads, and for every rounding to have its chance."""
    images = [photograph(1201, 907, seed=seed) for seed in range(3)]
    reference = CLIPImageProcessorPil()
    got = ImagePreprocessor.from_config(reference.to_dict())(images)
    assert np.abs(got.numpy() - theirs(reference, images)["pixel_values"]).max() <= 1e-6


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_arrays_and_tensors_come_out_as_from_hugging_face(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, channels), dtype=np.uint8)
    reference = SiglipImageProcessorPil(size={"height": 20, "width": 24})
    ours = ImagePreprocessor.from_config(reference.to_dict())
    expected = theirs(reference, pixels)["pixel_values"]
    assert np.abs(ours(pixels).numpy() - expected).max() <= 1e-6
    assert torch.equal(ours(torch.from_numpy(pixels)), ours(pixels))
    assert torch.equal(ours(np.stack([pixels, pixels]))[1:], ours(pixels))
    if channels == 1:
        assert torch.equal(ours(pixels[:, :, 0]), ours(pixels))


def test_too_flat_for_qwen_is_refused_as_there():
    reference = Qwen2VLImageProcessorPil()
    with pytest.raises(ValueError, match="aspect ratio"):
        theirs(reference, photograph(402, 2))
    with pytest.raises(
        InvalidArgumentError, match="aspect ratio of a 402x2 picture is 201; it must not exceed 200"
    ):
        ImagePreprocessor.from_config(reference.to_dict()).patches(photograph(402, 2))


def test_clips_come_out_as_their_frames_do():
    """Qwen2-VL's patches over time, put together by hand from what its processor makes of each frame."""
    config = {"size": {"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 12}}
    reference = Qwen2VLImageProcessorPil(**config)
    ours = VideoPreprocessor.from_config(reference.to_dict())
    for count in (1, 2, 3, 6):
        frames = np.stack([np.asarray(photograph(90, 70, seed=seed)) for seed in range(count)])
        single = [theirs(reference, frame) for frame in frames]
        single += single[-1:] * (count % 2)  # the last frame is repeated to fill its patch
        patches = [item["pixel_values"].reshape(-1, 3, 2, 14 * 14) for item in single]
        expected = np.concatenate(
            [
                np.stack((first[:, :, 0], second[:, :, 1]), axis=2).reshape(len(first), -1)
                for first, second in zip(patches[::2], patches[1::2], strict=True)
            ]
        )
        got, grid = ours.patches(frames)
        assert grid.tolist() == [[len(single) // 2, *single[0]["image_grid_thw"][0, 1:].tolist()]]
        assert np.abs(got.numpy() - expected).max() <= 1e-6
        prepared = ours.prepare((frames, {}))
        assert prepared.grid_thw == tuple(grid[0].tolist())
        assert torch.equal(prepared.items[0], got)


def test_clips_come_out_as_from_the_video_processor_of_hugging_face():
    pytest.importorskip("torchvision", reason="Hugging Face's video processors need it", exc_type=Exception)
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    reference = Qwen2VLVideoProcessor(size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 12})
    frames = np.stack([np.asarray(photograph(90, 70, seed=seed)) for seed in range(3)])
    expected = reference(frames, return_tensors="pt", cap_pixels_per_frame=False)
    got, grid = VideoPreprocessor.from_config(reference.to_dict()).patches(frames)
    assert torch.equal(grid, expected["video_grid_thw"])
    assert (got - expected["pixel_values_videos"]).abs().max() <= 1e-6


@pytest.mark.parametrize(("resample", "mode"), [(2, "bilinear"), (3, "bicubic")])
def test_the_torch_backend_is_what_the_torchvision_processors_compute(resample, mode):
    """They resize uint8 planes with torch, pad and crop, and fold 1/255 into mean and std."""
    ours = ImagePreprocessor(
        30, Image.Resampling(resample), crop=(24, 50), mean=CLIP_MEAN, std=CLIP_STD, backend="torch"
    )
    image = photograph(101, 73)
    planes = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
    resized = torch.nn.functional.interpolate(planes, (30, 41), mode=mode, antialias=True)
    padded = torch.nn.functional.pad(resized, (4, 5))[:, :, 3:27]
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None] * 255, torch.tensor(CLIP_STD)[:, None, None] * 255
    assert torch.allclose(ours(image), (padded.float() - mean) / std, atol=1e-6)
    near, far = (
        dataclasses.replace(ours, crop=None, backend=backend)(image) for backend in ("torch", "pillow")
    )
    assert (near - far).abs().max() < 0.2


def test_the_backend_follows_the_processor_that_the_configuration_names():
    size = {"height": 8, "width": 8}
    for config, backend in [
        ({"image_processor_type": "SiglipImageProcessor", "size": size}, "pillow"),
        ({"image_processor_type": "SiglipImageProcessorFast", "size": size}, "torch"),
        ({"video_processor_type": "Qwen2VLVideoProcessor"}, "torch"),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 8}, "pillow"),
    ]:
        assert ImagePreprocessor.from_config(config).backend == backend
    assert ImagePreprocessor.from_config(config, backend="torch").backend == "torch"


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    edge=st.integers(1, 500),
    longest=st.none() | st.integers(1, 900),
    bounds=st.tuples(st.integers(1, 10**6), st.integers(0, 10**6)),
    unit=st.sampled_from([1, 14, 28, 32]),
)
def test_sizes_are_those_of_hugging_face(height, width, edge, longest, bounds, unit):
    if longest is None:
        shape = np.broadcast_to(np.uint8(0), (3, height, width))
        expected = get_resize_output_image_size(
            shape, edge, default_to_square=False, input_data_format="channels_first"
        )
    else:
        expected = get_size_with_aspect_ratio((height, width), edge, longest)
    assert ShortestEdge(edge, longest).target(height, width) == tuple(expected)
    budget = PixelBudget(bounds[0], sum(bounds), unit)
    if max(height, width) <= 200 * min(height, width):
        expected = smart_resize(height, width, unit, budget.min_pixels, budget.max_pixels)
        assert budget.target(height, width) == expected


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        (None, None),
        (5, ShortestEdge(5)),
        ((4, 6), ExactSize(4, 6)),
        ([4, 6], ExactSize(4, 6)),
        ({"shortest_edge": 3, "longest_edge": None}, ShortestEdge(3)),
        ({"min_pixels": 4, "max_pixels": 9, "multiple_of": 2}, PixelBudget(4, 9, 2)),
        (ExactSize(1, 2), ExactSize(1, 2)),
    ],
)
def test_sizes_are_given_in_many_forms(size, rule):
    assert size_rule(size) == rule


@pytest.mark.parametrize(
    "size", [0, -1, True, 2.5, "224", (1,), (0, 3), {"height": 3}, {"width": 3, "edge": 4},
             {"shortest_edge": "3"}, {"min_pixels": 9, "max_pixels": 4}],
)  # fmt: skip
def test_sizes_of_no_known_form_are_refused(size):
    with pytest.raises(InvalidArgumentError, match=r"positive integer|A size must be|must not be less"):
        ImagePreprocessor(size)


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"mean": (0.5, 0.5)}, "mean must be three"),
        ({"mean": "abc"}, "mean must be three"),
        ({"mean": object()}, "mean must be a number or three"),
        ({"std": (1, 0, 1)}, "std must not be zero"),
        ({"std": (1, float("nan"), 1)}, "std must be three finite"),
        ({"rescale": 0}, "rescale must be a positive number"),
        ({"resample": 9}, "Unknown resample 9"),
        ({"crop": 2.5}, "A size must be"),
        ({"crop": {"shortest_edge": 4}}, "crop must be"),
        ({"patch_size": 0}, "patch_size must be a positive integer"),
        ({"backend": "cuda"}, "Unknown backend 'cuda'"),
        ({"backend": "torch", "resample": Image.Resampling.LANCZOS}, "torch backend has no LANCZOS"),
    ],
)
def test_fields_out_of_place_are_refused(fields, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        ImagePreprocessor(8, **fields)


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        ("clip", "dictionary of a preprocessor_config.json, not str"),
        ({}, "names no image_processor_type"),
        ({"image_processor_type": "SamImageProcessor"}, "'SamImageProcessor' is not known"),
        ({"image_processor_type": "Qwen2VLImageProcessor", "size": 5}, "shortest_edge and longest_edge"),
        (
            {"image_processor_type": "Qwen2VLImageProcessor", "size": {"height": 5}},
            "shortest_edge and longest",
        ),
        (
            {"image_processor_type": "CLIPImageProcessor", "size": {"min_pixels": 1, "max_pixels": 2}},
            "size must",
        ),
    ],
)
def test_configurations_of_another_kind_are_refused(config, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        ImagePreprocessor.from_config(config)


def test_configurations_without_a_type_are_told_by_their_keys():
    for reference in (CLIPImageProcessorPil(), SiglipImageProcessorPil(), Qwen2VLImageProcessorPil()):
        config = reference.to_dict()
        expected = ImagePreprocessor.from_config(config)
        del config["image_processor_type"]
        assert ImagePreprocessor.from_config(config) == expected
    qwen = {"image_processor_type": "Qwen2VLImageProcessor"}
    for size in ({"min_pixels": 4, "max_pixels": 9}, {"shortest_edge": 4, "longest_edge": 9}):
        assert ImagePreprocessor.from_config({**qwen, "size": size}).size == PixelBudget(4, 9, 28)
    assert (
        ImagePreprocessor.from_config({"image_processor_type": "CLIPImageProcessor", "mean": None}).mean
        == CLIP_MEAN
    )


@pytest.mark.parametrize(
    ("picture", "error", "fragment"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), InvalidMediaError, "NaN pixels in a float32 array"),
        (
            Image.fromarray(np.full((4, 4), np.nan, np.float32)),
            InvalidMediaError,
            "NaN pixels in an image of mode F",
        ),
        (np.zeros((4, 4, 3), np.float32), InvalidArgumentError, "must be uint8"),
        (np.zeros((3, 5, 5), np.uint8), InvalidArgumentError, r"must have the shape .* not \(3, 5, 5\)"),
        (np.zeros((1, 2, 4, 4, 3), np.uint8), InvalidArgumentError, "must have the shape"),
        (np.zeros((0, 4, 3), np.uint8), InvalidMediaError, "4x0 pixels has nothing"),
        (np.zeros((0, 4, 4, 3), np.uint8), InvalidArgumentError, "No pictures"),
        ([], InvalidArgumentError, "No pictures"),
        ([[Image.new("RGB", (2, 2))]], InvalidArgumentError, "flat list"),
        ([np.zeros((2, 4, 4, 3), np.uint8)], InvalidArgumentError, "flat list"),
        ("cat.png", InvalidArgumentError, "not builtins.str"),
    ],
)
def test_what_is_no_picture_is_refused(picture, error, fragment):
    with pytest.raises(error, match=fragment):
        ImagePreprocessor((8, 8))(picture)
    with pytest.raises(error, match=fragment):
        ImagePreprocessor(PixelBudget(16, 256, 4), patch_size=2).patches(picture)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_truncated_file_that_was_opened_lazily_is_refused(mode):
    buffer = io.BytesIO()
    photograph(64, 64, mode).save(buffer, "PNG")
    with pytest.raises(InvalidMediaError, match="Failed to load image"):
        ImagePreprocessor((8, 8))(Image.open(io.BytesIO(buffer.getvalue()[:-500])))


def test_a_thin_picture_does_not_grow_beyond_the_limit(monkeypatch):
    """A strip of 1 x 50000 would have 2.5 gigapixels with its shorter edge at 224."""
    strip = Image.new("RGB", (1, 50_000))
    with pytest.raises(
        LimitExceededError, match=r"resized to 224x11200000, .* than VLLM_MAX_IMAGE_PIXELS=178956970"
    ):
        ImagePreprocessor(224)(strip)
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "600000")
    with pytest.raises(LimitExceededError):
        ImagePreprocessor(10)(strip.resize((1, 6001)))
    assert ImagePreprocessor(10)(strip.resize((1, 6000))).shape == (1, 3, 60_000, 10)
    with pytest.raises(InvalidArgumentError, match="resized to 0x1"):
        ImagePreprocessor({"shortest_edge": 8, "longest_edge": 1})(strip.resize((1, 9)))


def test_pictures_of_different_sizes_need_each():
    pictures = [photograph(20, 10), MediaWithBytes(photograph(10, 20), b""), np.asarray(photograph(10, 10))]
    preprocessor = ImagePreprocessor(5)
    with pytest.raises(InvalidArgumentError, match=r"different sizes .* each\(\)"):
        preprocessor(pictures)
    assert [tuple(item.shape) for item in preprocessor.each(pictures)] == [(3, 5, 10), (3, 10, 5), (3, 5, 5)]
    for picture, item in zip(pictures, preprocessor.each(pictures), strict=True):
        assert torch.equal(preprocessor(picture)[0], item)


def test_patches_need_a_patch_size_and_even_edges():
    picture = photograph(20, 20)
    for preprocessor in (ImagePreprocessor(8), VideoPreprocessor(ImagePreprocessor(8))):
        with pytest.raises(InvalidArgumentError, match="cuts no patches: patch_size is None"):
            preprocessor.patches([picture])
    with pytest.raises(InvalidArgumentError, match="multiples of 8"):
        ImagePreprocessor((16, 20), patch_size=4).patches(picture)


def test_times_of_frames_travel_along():
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    prepared = VideoPreprocessor(ImagePreprocessor(4)).prepare(
        (frames, {"frames_indices": [0, 10, 25], "fps": 25})
    )
    assert prepared.timestamps == (0.0, 0.4, 1.0)
    assert [tuple(item.shape) for item in prepared.items] == [(3, 4, 4)] * 3


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"frames_indices": [0, 5], "fps": 10.0}, (0.0, 0.5)),
        ({"frames_indices": [0, 5], "fps": 0.0, "total_num_frames": 20, "duration": 4.0}, (0.0, 1.0)),
        (
            {"frames_indices": [0, 5], "fps": float("nan"), "total_num_frames": 20, "duration": 4.0},
            (0.0, 1.0),
        ),
        ({"frames_indices": [0, 5], "fps": -1.0, "duration": 0.0}, None),
        ({"frames_indices": [0, 5], "fps": None, "total_num_frames": 0, "duration": 4.0}, None),
        ({"fps": 10.0}, None),
        ({}, None),
    ],
)
def test_times_come_from_indices_and_rate(metadata, expected):
    assert frame_timestamps(metadata, 2) == expected


def test_as_many_indices_as_frames_are_expected():
    with pytest.raises(InvalidArgumentError, match="clip of 3 frames has 2 frames_indices"):
        frame_timestamps({"frames_indices": [0, 1], "fps": 1.0}, 3)


def test_fingerprints_tell_settings_apart():
    one = ImagePreprocessor(8, mean=(0.5, 0.5, 0.5))
    assert one.fingerprint == ImagePreprocessor({"shortest_edge": 8}, mean=0.5).fingerprint
    others = [
        ImagePreprocessor(9, mean=0.5), ImagePreprocessor((8, 8), mean=0.5), ImagePreprocessor(8, mean=0.4),
        ImagePreprocessor(8, mean=0.5, backend="torch"), ImagePreprocessor(8, mean=0.5, crop=(4, 4)),
        VideoPreprocessor(one),
    ]  # fmt: skip
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 7


def test_preprocessing_needs_no_transformers():
    code = (
        "import sys, mmmedia.pipeline as p; from PIL import Image; p.MultimodalPipeline; p.LogMelExtractor;"
        "assert not {'torch', 'cv2', 'librosa'} & set(sys.modules);"
        "config = {'image_processor_type': 'CLIPImageProcessor'};"
        "p.ImagePreprocessor.from_config(config)(Image.new('RGB', (9, 9)));"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_picture_of_the_media_io_is_taken_as_it_is() -> None:
    """That is the layer that turns, scales and composites; done here again, it would be done twice."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("LA", (6, 4), (0, 100))
    picture.paste((0, 255), (0, 0, 3, 4))
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    loaded = ImageMediaIO().load_bytes(file.getvalue())
    assert loaded.size == (4, 6)
    preprocess = ImagePreprocessor(ExactSize(6, 4), rescale=None)
    assert np.array_equal(preprocess([loaded])[0].permute(1, 2, 0), np.asarray(loaded))


def test_a_deep_picture_of_a_caller_is_scaled() -> None:
    """All above 255 of 65535 was white."""
    ramp = Image.fromarray(np.linspace(0, 65_535, 64, dtype=np.uint16).reshape(8, 8))
    preprocess = ImagePreprocessor(ExactSize(8, 8), rescale=None)
    assert preprocess([ramp]).mean() == pytest.approx(127.5, abs=1)
