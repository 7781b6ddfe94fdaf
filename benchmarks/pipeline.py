"""Preprocessing against Hugging Face's, in pairs: 32 photographs of 12 MP, and thirty seconds of sound.

    python benchmarks/pipeline.py [--pictures 32] [--rounds 7]

Hugging Face's image processors come in two backends, on Pillow and on torchvision; both are measured where
torchvision can be imported, so that the faster one is among them. Pictures are decoded beforehand. Each pair
first checks that the two results are equal.
"""

import argparse
import logging

import numpy as np
import torch
from _machine import describe, paired
from PIL import Image
from transformers import WhisperFeatureExtractor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmmedia.pipeline import ImagePreprocessor, LogMelExtractor


def photograph(seed: int, width: int = 4000, height: int = 3000) -> Image.Image:
    """A picture with gradients, edges and grain at every scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).resize((width, height))
    pixels = np.asarray(coarse) // 2 + rng.integers(0, 128, (height, width, 1), dtype=np.uint8)
    return Image.fromarray(pixels)


def image_processors() -> list[tuple[str, object, str]]:
    """Their name, the processor, and the backend of ours that gives the same pixels."""
    found: list[tuple[str, object, str]] = [
        ("CLIP, Pillow", CLIPImageProcessorPil(), "pillow"),
        ("SigLIP, Pillow", SiglipImageProcessorPil(size={"height": 384, "width": 384}), "pillow"),
        ("Qwen2-VL, Pillow", Qwen2VLImageProcessorPil(), "pillow"),
    ]
    try:
        import torchvision  # noqa: F401
        from transformers.models.clip.image_processing_clip import CLIPImageProcessor
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
        from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        print(f"torchvision can't be imported ({str(error)[:50]}): only Hugging Face's Pillow backend here")
        return found
    return [
        *found,
        ("CLIP, torchvision", CLIPImageProcessor(), "torch"),
        ("SigLIP, torchvision", SiglipImageProcessor(size={"height": 384, "width": 384}), "torch"),
        ("Qwen2-VL, torchvision", Qwen2VLImageProcessor(), "torch"),
    ]


def report(name: str, ours: float, theirs: float, ratio: float, difference: float) -> None:
    print(f"{name:24} {ours * 1e3:10.1f} {theirs * 1e3:14.1f} {1 / ratio:8.2f}x {difference:12.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    print(describe())
    print(f"{options.pictures} photographs of 12 MP; medians of {options.rounds} pairs")
    print(f"{'':24} {'ours, ms':>10} {'Hugging Face':>14} {'faster':>9} {'difference':>12}")
    pictures = [photograph(seed) for seed in range(options.pictures)]
    for name, processor, backend in image_processors():
        preprocessor = ImagePreprocessor.from_config(processor.to_dict(), backend=backend)
        ours = preprocessor.patches if preprocessor.patch_size else preprocessor
        got = ours(pictures[:2])
        got = got.pixel_values if preprocessor.patch_size else got
        difference = (got - processor(pictures[:2], return_tensors="pt")["pixel_values"]).abs().max()
        assert difference <= 1e-3
        timing = paired(
            lambda ours=ours: ours(pictures),
            lambda processor=processor: processor(pictures, return_tensors="pt"),
            options.rounds,
        )
        report(name, *timing, difference)
    extractor, reference = LogMelExtractor(), WhisperFeatureExtractor()
    for seconds in (5, 30):
        sound = np.random.default_rng(0).normal(0, 0.1, seconds * 16_000).astype(np.float32)

        def theirs(sound: np.ndarray = sound) -> torch.Tensor:
            return reference(sound, sampling_rate=16_000, return_tensors="pt")["input_features"][0]

        difference = (extractor(sound, 16_000) - theirs()).abs().max()
        assert difference <= 1e-3
        timing = paired(lambda sound=sound: extractor(sound, 16_000), theirs, 5 * options.rounds)
        report(f"log-mel of {seconds} s", *timing, difference)


if __name__ == "__main__":
    main()
