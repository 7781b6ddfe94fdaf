"""Pixel modes and sizes of PIL images."""

import math
from collections.abc import Sequence

from PIL import Image

from mmmedia.errors import InvalidArgumentError

WHITE = (255, 255, 255)

# Modes whose pixels are numbers of colours: their mean is no colour.
_INDEXED_MODES = ("1", "P", "PA")
_TRANSPARENCY_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


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


def convert_image_mode(image: Image.Image, to_mode: str) -> Image.Image:
    """Convert an image to another mode.

    The same mode gives the same object back. RGBA becomes RGB over white. The rest is Pillow's `convert`.

    >>> grey = Image.new("L", (2, 2))
    >>> convert_image_mode(grey, "L") is grey, convert_image_mode(grey, "RGB").mode
    (True, 'RGB')
    """
    if image.mode == to_mode:
        return image
    if image.mode == "RGBA" and to_mode == "RGB":
        return rgba_to_rgb(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes) and "A" not in to_mode.upper():
        # Without alpha Pillow drops the transparency of a palette, and warns; dropped first, it doesn't.
        image = image.copy()
        del image.info["transparency"]
    return image.convert(to_mode)


def flatten_alpha(image: Image.Image, background_color: Sequence[int] = WHITE) -> Image.Image:
    """Composite whatever transparency an image has over a plain background.

    Knows alpha channels (RGBA, LA, PA) and transparency entries (palette, RGB, grey). An image without any
    is returned as it is, else the result is RGB.

    >>> flatten_alpha(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode not in _TRANSPARENCY_MODES or not image.has_transparency_data:
        return image
    return rgba_to_rgb(image if image.mode == "RGBA" else image.convert("RGBA"), background_color)


def has_alpha_channel(mode: str) -> bool:
    """Whether images of this mode have an alpha channel."""
    return mode in _ALPHA_MODES


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
