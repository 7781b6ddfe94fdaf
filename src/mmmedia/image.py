"""Pixel modes, depths and sizes of PIL images."""

import math
from collections.abc import Sequence
from os import PathLike
from typing import IO, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mmmedia import envs
from mmmedia._quiet import quiet
from mmmedia.errors import InvalidArgumentError

WHITE = (255, 255, 255)

ALLOWED_IMAGE_FORMATS: Final = (
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO",
    "IM", "IMT", "IPTC", "JPEG", "JPEG2000", "MCIDAS", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD",
    "QOI", "SGI", "SPIDER", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM", "XVTHUMB",
)  # fmt: skip
"""Pillow's names of the formats that vLLM opens: those that Pillow decodes by itself."""

# IPTC opens what it carries, whatever the format of that.
_OPENED_FORMATS: Final = [name for name in ALLOWED_IMAGE_FORMATS if name != "IPTC"]

_ORIENTATION_TAG: Final = 0x0112
# Where Pillow keeps EXIF and XMP data, from which it reads the orientation. TIFF it turns by itself.
ORIENTATION_SOURCES: Final = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})
_TURNS: Final[dict[Any, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Modes whose pixels are numbers of colours: their mean is no colour.
_INDEXED_MODES = ("1", "P", "PA")
_TRANSPARENCY_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "I;16")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
# Greys of more than 8 bits. Pillow's own conversions clamp them: all above 255 becomes white.
_DEEP_MODES: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_BLOCK: Final = 1 << 20  # pixels that are scaled at a time, as 64-bit numbers


class Depth(NamedTuple):
    """What the numbers of a deep grey image mean.

    Attributes:
        black: the sample that is black.
        white: the sample that is white; below `black` where zero is white.
        decoded: what the decoder makes of a sample of `white`; it scales by that. `None`: it does not.
    """

    black: int
    white: int
    decoded: int | None = None


def rgba_to_rgb(image: Image.Image, background_color: Sequence[int] = WHITE) -> Image.Image:
    """Composite an RGBA image over a plain background.

    Args:
        image: an image of mode RGBA.
        background_color: red, green and blue, each 0..255.

    >>> half_black = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    >>> rgba_to_rgb(half_black).getpixel((0, 0))
    (127, 127, 127)
    """
    red, green, blue = background_color
    flat = Image.new("RGB", image.size, (red, green, blue))
    flat.paste(image, mask=image)  # a mask of mode RGBA is its alpha
    return flat


def open_image(fp: str | PathLike[str] | IO[bytes]) -> Image.Image:
    """Open a picture, of no format that Pillow leaves to other programs; pixels are read later.

    `mmmedia.media.ImageMediaIO` knows more of what strangers send.

    Raises:
        PIL.UnidentifiedImageError: (an `OSError`) of no format that is opened.
    """
    with quiet():
        return Image.open(fp, formats=_OPENED_FORMATS)


def normalize_image(image: Image.Image) -> Image.Image:
    """Return a picture upright, as its EXIF orientation says, and in RGB, over white where transparent.

    >>> normalize_image(Image.new("LA", (2, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    return convert_image_mode(turned_upright(image), "RGB")


def turned_upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; EXIF data that can't be read says nothing."""
    if ORIENTATION_SOURCES.isdisjoint(image.info):
        return image
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION_TAG))
    except Exception:  # noqa: BLE001 broken EXIF data must not cost the picture
        return image
    if turn is None:
        return image
    try:
        return ImageOps.exif_transpose(image)  # also takes the orientation out of the EXIF data
    except Exception:  # noqa: BLE001 broken EXIF data can't be rewritten
        turned = image.transpose(turn)
        turned.info.pop("exif", None)
        return turned


def convert_image_mode(
    image: Image.Image, to_mode: str, background_color: Sequence[int] = WHITE
) -> Image.Image:
    """Convert an image to another mode.

    Whatever is transparent becomes RGB over the background; with ``MMMEDIA_COMPAT=0.20`` that of RGBA. The
    same mode gives the same object back otherwise. Greys of 16 and 32 bits are scaled, by `to_8_bits`. The
    rest is Pillow's `convert`.

    Args:
        image: any image.
        to_mode: a mode of Pillow.
        background_color: red, green and blue, each 0..255.

    Raises:
        InvalidArgumentError: (a `ValueError`) floats, which have no scale, are to become something else.

    >>> grey = Image.new("L", (2, 2))
    >>> convert_image_mode(grey, "L") is grey, convert_image_mode(grey, "RGB").mode
    (True, 'RGB')
    """
    if to_mode == "RGB":
        if envs.MMMEDIA_COMPAT != "0.20":
            image = flatten_alpha(image, background_color)
        elif image.mode == "RGBA":
            return rgba_to_rgb(image, background_color)
    return change_mode(image, to_mode)


def change_mode(image: Image.Image, to_mode: str) -> Image.Image:
    """Convert an image without regard to transparency; otherwise as `convert_image_mode`."""
    if image.mode == to_mode:
        return image
    if not is_deep(to_mode) and envs.MMMEDIA_COMPAT != "0.20":
        if image.mode == "F":
            raise InvalidArgumentError(
                "pixels that are floating-point numbers have no scale that says what is white; "
                "load them with image_mode=None, and scale them"
            )
        if is_deep(image.mode):
            image = to_8_bits(image)
            if image.mode == to_mode:
                return image
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes) and "A" not in to_mode.upper():
        # Without alpha Pillow drops the transparency of a palette, and warns; dropped first, it doesn't.
        image = image.copy()
        del image.info["transparency"]
    return image.convert(to_mode)


def flatten_alpha(image: Image.Image, background_color: Sequence[int] = WHITE) -> Image.Image:
    """Composite whatever transparency an image has over a plain background.

    Knows alpha channels (RGBA, LA, PA, premultiplied or not) and transparency entries (palette, RGB, grey of
    any depth). An image without any is returned as it is, else the result is RGB.

    >>> flatten_alpha(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode not in _TRANSPARENCY_MODES or not image.has_transparency_data:
        return image
    if is_deep(image.mode):
        image = to_8_bits(image)
    if image.mode == "La":
        image = image.convert("LA")
    return rgba_to_rgb(image if image.mode == "RGBA" else image.convert("RGBA"), background_color)


def has_alpha_channel(mode: str) -> bool:
    """Whether images of this mode have an alpha channel."""
    return mode in _ALPHA_MODES


def is_deep(mode: str) -> bool:
    """Whether images of this mode have more than 8 bits a sample: integers of 16 and 32 bits, and floats."""
    return mode == "F" or mode in _DEEP_MODES


def to_8_bits(image: Image.Image, depth: Depth | None = None) -> Image.Image:
    """Scale a grey image of 16 or 32 bits to 8, rounded to nearest.

    Args:
        image: an image of integers, of a mode such as I;16 or I.
        depth: what its numbers mean; `None`: all 16 bits count, and of 32 as many as `depth_of` finds.

    Returns:
        An image of mode L, or LA where one grey is declared transparent. What else is known of the image
        (EXIF data, profile) goes on.

    >>> to_8_bits(Image.new("I;16", (1, 1), 0x8080)).getpixel((0, 0))
    128
    """
    samples = np.asarray(image)
    grey = Image.fromarray(scale_to_8_bits(samples, depth or depth_of(samples)))
    info = dict(image.info)
    key = info.pop("transparency", None)
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(samples == key, np.uint8(0), np.uint8(255))))
    grey.info = info
    return grey


def depth_of(samples: npt.NDArray[np.integer[Any]]) -> Depth:
    """Return what integers mean of which nothing is known but their type and themselves.

    Unsigned numbers of 16 bits range over all of them. Those of 32 bits, which no camera makes, are a wide
    container: they have the least of 8, 16 and 32 bits that holds them all. Signed numbers range from zero
    where none is below.

    >>> depth_of(np.uint16([7])), depth_of(np.int32([0, 65535])), depth_of(np.int16([-1, 9]))
    (Depth(black=0, white=65535, decoded=None), Depth(black=0, white=65535, decoded=None), \
Depth(black=-32768, white=32767, decoded=None))
    """
    kind = np.iinfo(samples.dtype)
    lowest, highest = int(samples.min()), int(samples.max())
    if lowest < 0:
        bits = 16 if kind.bits == 16 or (lowest >= -(1 << 15) and highest < 1 << 15) else 32
        return Depth(-(1 << bits - 1), (1 << bits - 1) - 1)
    if kind.bits == 16 or highest > 0xFFFF:
        return Depth(0, int(kind.max))
    return Depth(0, 0xFF if highest <= 0xFF else 0xFFFF)


def scale_to_8_bits(samples: npt.NDArray[np.integer[Any]], depth: Depth) -> npt.NDArray[np.uint8]:
    """Scale integers ``(height, width)`` to 0..255, black to 0 and white to 255, rounded to nearest.

    >>> scale_to_8_bits(np.uint16([[0, 2048, 4095]]), Depth(0, 4095))
    array([[  0, 128, 255]], dtype=uint8)
    """
    scaled = np.empty(samples.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, samples.shape[1]))
    by_table = samples.dtype.kind == "u" and samples.dtype.itemsize == 2
    table = _scale(np.arange(1 << 16), depth) if by_table else None
    for start in range(0, len(samples), rows):
        block = samples[start : start + rows]
        scaled[start : start + rows] = _scale(block, depth) if table is None else table[block]
    return scaled


def _scale(samples: npt.NDArray[np.integer[Any]], depth: Depth) -> npt.NDArray[np.uint8]:
    """The same by arithmetic."""
    exact = samples.astype(np.float64)
    if depth.decoded is not None:
        exact = np.rint(exact * depth.white / depth.decoded)
    scaled = np.rint((exact - depth.black) * 255 / (depth.white - depth.black))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def rescale_image_size(image: Image.Image, size_factor: float, transpose: int = -1) -> Image.Image:
    """Resize both sides by `size_factor`, rounded down, then turn or mirror.

    Args:
        image: any image.
        size_factor: new length by old length.
        transpose: a number of `PIL.Image.Transpose`; below 0: none.

    >>> rescale_image_size(Image.new("RGB", (10, 5)), 0.5, transpose=Image.Transpose.ROTATE_90).size
    (2, 5)
    """
    new_width = int(image.width * size_factor)
    new_height = int(image.height * size_factor)
    image = image.resize((new_width, new_height))
    return image.transpose(Image.Transpose(transpose)) if transpose >= 0 else image


def size_within(size: tuple[int, int], max_pixels: int) -> tuple[int, int]:
    """Return the largest size of the same aspect whose area is at most `max_pixels`.

    Sides are rounded down, but are at least 1; a size that fits is returned as it is.

    >>> size_within((4000, 3000), 750_000)
    (1000, 750)
    """
    width, height = size
    if width * height <= max_pixels:
        return size
    new_width = max(1, math.isqrt(max_pixels * width // height))
    new_height = max(1, math.isqrt(max_pixels * height // width))
    # Where one side was raised to 1 the other one must give way.
    return min(new_width, max_pixels // new_height or 1), min(new_height, max_pixels // new_width or 1)


def reduce_to_pixels(image: Image.Image, max_pixels: int) -> Image.Image:
    """Scale an image down, by the mean over areas, until it has at most `max_pixels`; see `size_within`.

    An image that fits is returned as it is. Palettes are resolved first, to RGB, or RGBA where they have
    transparency; bilevel images become grey.

    Raises:
        InvalidArgumentError: (a `ValueError`) `max_pixels` is below 1.
    """
    if max_pixels < 1:
        raise InvalidArgumentError(f"max_pixels must be a positive integer, got {max_pixels}.")
    target = size_within(image.size, max_pixels)
    if target == image.size:
        return image
    if image.mode in _INDEXED_MODES:
        to_mode = "L" if image.mode == "1" else "RGBA" if image.has_transparency_data else "RGB"
        image = image.convert(to_mode)
    factor = image.width // target[0], image.height // target[1]
    is_whole = (target[0] * factor[0], target[1] * factor[1]) == image.size
    if is_whole and not image.mode.startswith("I;16"):
        return image.reduce(factor)  # the same means, four times as fast
    return image.resize(target, Image.Resampling.BOX)
