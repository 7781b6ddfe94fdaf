"""Hugging Face ``preprocessor_config.json`` dictionaries, read into the fields of our preprocessors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmmedia.errors import InvalidArgumentError
from mmmedia.pipeline.sizes import ExactSize, PixelBudget, ShortestEdge, SizeRule, check_positive, size_rule

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Processor:
    """The defaults of one Hugging Face processor, for what a configuration leaves out."""

    size: Mapping[str, int]
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    crop: Mapping[str, int] = field(default_factory=dict)
    cuts_patches: bool = False


_CLIP = _Processor({"shortest_edge": 224}, CLIP_MEAN, CLIP_STD, crop={"height": 224, "width": 224})
_SIGLIP = _Processor({"height": 224, "width": 224})
_QWEN2_VL = _Processor(
    {"shortest_edge": 56**2, "longest_edge": 1280 * 28**2}, CLIP_MEAN, CLIP_STD, cuts_patches=True
)
_QWEN2_VL_VIDEO = _Processor(
    {"shortest_edge": 128 * 28**2, "longest_edge": 768 * 28**2}, CLIP_MEAN, CLIP_STD, cuts_patches=True
)

# By the class name in the configuration, less its ending: …ImageProcessor, …ImageProcessorFast, …
_PROCESSORS = {
    "CLIP": _CLIP,
    "Siglip": _SIGLIP,
    "Qwen2VL": _QWEN2_VL,
    "Qwen2_5_VL": _QWEN2_VL,
    "Qwen2VLVideo": _QWEN2_VL_VIDEO,
}
_ENDING = re.compile(r"(Image)?(Processor|FeatureExtractor)(Fast|Pil)?$")


def image_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `ImagePreprocessor` that the configuration of an image or video processor gives.

    Raises:
        InvalidArgumentError: (a `ValueError`) not a mapping, a processor of another kind, or a size that
            its kind does not know.
    """
    processor = _processor(config)

    def value(key: str, default: Any) -> Any:
        given = config.get(key)
        return default if given is None else given

    fields: dict[str, Any] = {
        "resample": value("resample", 3),  # bicubic in all of them
        "rescale": value("rescale_factor", 1 / 255) if value("do_rescale", True) else None,
        "mean": value("image_mean", processor.mean) if value("do_normalize", True) else None,
        "std": value("image_std", processor.std) if value("do_normalize", True) else None,
        # Video processors, and those whose name says Fast, have only ever resized with torch.
        "backend": "torch" if _resizes_with_torch(config) else "pillow",
    }
    if processor.cuts_patches:
        fields["patch_size"] = value("patch_size", 14)
        fields["temporal_patch_size"] = value("temporal_patch_size", 2)
        fields["merge_size"] = value("merge_size", 2)
        check_positive(patch_size=fields["patch_size"], merge_size=fields["merge_size"])
        size: SizeRule | None = _pixel_budget(config, processor, fields["patch_size"] * fields["merge_size"])
    else:
        size = _edges(value("size", processor.size))
        if value("do_center_crop", bool(processor.crop)):
            crop = value("crop_size", processor.crop or None)
            fields["crop"] = crop if isinstance(crop, int) else size_rule(crop)
            if isinstance(fields["crop"], ExactSize):
                fields["crop"] = (fields["crop"].height, fields["crop"].width)
    fields["size"] = size if value("do_resize", True) else None
    return fields


def _processor(config: Mapping[str, Any]) -> _Processor:
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"Expected the dictionary of a preprocessor_config.json, not {type(config).__name__}."
        )
    for key in ("image_processor_type", "video_processor_type", "feature_extractor_type"):
        if name := config.get(key):
            processor = _PROCESSORS.get(_ENDING.sub("", str(name)))
            if processor is None:
                raise InvalidArgumentError(
                    f"{key} {name!r} is not known; known are the processors of CLIP, SigLIP and "
                    "Qwen2-VL. Make an ImagePreprocessor from its fields instead."
                )
            return processor
    if "temporal_patch_size" in config or "merge_size" in config:
        return _QWEN2_VL
    if config.get("do_center_crop") or "crop_size" in config:
        return _CLIP
    if "size" in config:
        return _SIGLIP
    raise InvalidArgumentError(
        "The configuration names no image_processor_type and has no size: expected that of "
        "CLIP, SigLIP or Qwen2-VL."
    )


def _resizes_with_torch(config: Mapping[str, Any]) -> bool:
    return bool(config.get("video_processor_type")) or str(config.get("image_processor_type")).endswith(
        "Fast"
    )


def _pixel_budget(config: Mapping[str, Any], processor: _Processor, unit: int) -> PixelBudget:
    """Return Qwen2-VL's size rule, whose bounds have had three spellings over time."""
    size = config.get("size") or processor.size
    if not isinstance(size, Mapping):
        raise InvalidArgumentError(f"size must hold shortest_edge and longest_edge in pixels, not {size!r}.")
    least = config.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
    most = config.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
    if least is None or most is None:
        raise InvalidArgumentError(
            f"size must hold shortest_edge and longest_edge in pixels, not {dict(size)!r}."
        )
    return PixelBudget(least, most, unit)


def _edges(size: object) -> SizeRule | None:
    """Return the size rule of CLIP and SigLIP; a bare number is the shortest edge."""
    rule = size_rule(size)
    if not isinstance(rule, (ExactSize, ShortestEdge)):
        raise InvalidArgumentError(f"size must hold height and width, or shortest_edge, not {size!r}.")
    return rule


def mel_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `LogMelExtractor` that the configuration of Whisper's feature extractor gives.

    Raises:
        InvalidArgumentError: (a `ValueError`) not a mapping, another kind of extractor, or one that adds
            random noise (`dither`).
    """
    if not isinstance(config, Mapping):
        raise InvalidArgumentError(
            f"Expected the dictionary of a preprocessor_config.json, not {type(config).__name__}."
        )
    name = config.get("feature_extractor_type")
    if name not in (None, "WhisperFeatureExtractor") or (name is None and "feature_size" not in config):
        raise InvalidArgumentError(
            f"feature_extractor_type {name!r} is not known; known is WhisperFeatureExtractor."
        )
    if config.get("dither"):
        raise InvalidArgumentError(
            f"dither={config['dither']!r} adds random noise, so that equal sounds have "
            "different features: set it to 0."
        )
    names = {
        "sampling_rate": "sample_rate",
        "n_fft": "n_fft",
        "hop_length": "hop_length",
        "feature_size": "n_mels",
        "chunk_length": "chunk_length",
        "padding_value": "padding_value",
    }
    return {ours: config[theirs] for theirs, ours in names.items() if config.get(theirs) is not None}
