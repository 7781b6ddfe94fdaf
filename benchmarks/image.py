"""What `ImageMediaIO` costs beside Pillow alone, and a data URL's text beside its base64 decoding.

    python benchmarks/image.py [--rounds 15]

Each figure is the median of paired runs: both halves of a pair run right after each other.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import pybase64
from PIL import Image

from mmmedia.media.base import decode_base64
from mmmedia.media.image import ImageMediaIO


def photo(width: int, height: int) -> Image.Image:
    """A picture with the smoothness and the noise of a photograph."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 64, width // 64, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def pillow_load(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare(title: str, plain: Callable[[], object], ours: Callable[[], object], rounds: int) -> None:
    plain(), ours()
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            second, first = seconds(ours), seconds(plain)
        else:
            first, second = seconds(plain), seconds(ours)
        pairs.append((first, second))
    ratio = statistics.median(second / first for first, second in pairs)
    first, second = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    print(f"{title:<58} {first:9.2f} ms {second:9.2f} ms   x {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds

    image = photo(4000, 3000)
    jpeg, png = encode(image, "JPEG", quality=90), encode(image, "PNG", compress_level=1)
    small = encode(image.resize((400, 300)), "JPEG", quality=90)
    text = pybase64.b64encode_as_string(np.random.default_rng(1).bytes(20 << 20))
    jpeg_text = pybase64.b64encode_as_string(jpeg)
    media_io, reducing = ImageMediaIO(), ImageMediaIO(max_pixels=750_000)

    def decode_then_resize(data: bytes) -> Image.Image:
        return pillow_load(data).resize((1000, 750), Image.Resampling.BOX)

    print(f"{'':<58} {'plain':>12} {'mmmedia':>12}   ratio")
    compare(
        "12-MP JPEG: Image.open().load()",
        lambda: pillow_load(jpeg),
        lambda: media_io.load_bytes(jpeg),
        rounds,
    )
    compare(
        "12-MP PNG: Image.open().load()", lambda: pillow_load(png), lambda: media_io.load_bytes(png), rounds
    )
    compare(
        "small JPEG: Image.open().load()",
        lambda: pillow_load(small),
        lambda: media_io.load_bytes(small),
        rounds * 20,
    )
    compare(
        f"base64 of 20 MiB ({len(text) / 1e6:.0f} MB of text): b64decode",
        lambda: pybase64.b64decode(text, validate=True),
        lambda: decode_base64(text),
        rounds,
    )
    compare(
        "12-MP JPEG as base64: b64decode, then Image.open().load()",
        lambda: pillow_load(pybase64.b64decode(jpeg_text, validate=True)),
        lambda: media_io.load_base64("image/jpeg", jpeg_text),
        rounds,
    )
    compare(
        "12-MP JPEG to 0.75 MP: decode, then resize",
        lambda: decode_then_resize(jpeg),
        lambda: reducing.load_bytes(jpeg),
        rounds,
    )
    compare(
        "12-MP PNG to 0.75 MP: decode, then resize",
        lambda: decode_then_resize(png),
        lambda: reducing.load_bytes(png),
        rounds,
    )


if __name__ == "__main__":
    main()
