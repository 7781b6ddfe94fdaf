"""What a picture file says of its samples, and the picture as a person sees it.

Pillow hands out integers of 16 and 32 bits as they are stored, or scaled in its own way, and forgets how deep
the file said they are. It compares a transparent colour with samples that it has already scaled. What it
forgets is read here beside it: before the pixels are decoded (`stored`), to be used after (`as_seen`).
"""

import io
import re
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, PngImagePlugin

from mmmedia.image import Depth, depth_of, scale_to_8_bits, to_8_bits

_BITS_PER_SAMPLE: Final = 258
_PHOTOMETRIC: Final = 262
_SAMPLE_FORMAT: Final = 339
_WHITE_IS_ZERO: Final = 0
_UNSIGNED, _SIGNED = 1, 2
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_FITS_ZERO: Final = re.compile(rb"BZERO   = *([-+0-9.ED]+)")
_FITS_HEADER: Final = 2880 * 40


class Stored(NamedTuple):
    """What a file says of its samples that Pillow forgets.

    Attributes:
        format: the name that Pillow gives the format.
        depth: what the integers of a deep grey picture mean; `None`: only their type says it.
        sample_type: what the integers are where Pillow takes them for others; `None`: it does not.
        bits: bits of each channel where Pillow shifts them up to 8 bits; empty: it does not, or rightly.
        key: the colour that is transparent, as it is stored; `None`: there is none, or Pillow has it right.
        key_bits: how many bits a sample of `key` has.
        covered: the box that the first picture of an animation fills; `None`: all.
    """

    format: str | None
    depth: Depth | None = None
    sample_type: str | None = None
    bits: tuple[int, ...] = ()
    key: int | tuple[int, ...] | None = None
    key_bits: int = 8
    covered: tuple[int, int, int, int] | None = None


def stored(image: ImageFile.ImageFile, data: bytes) -> Stored:
    """Return what a file says of its samples.

    Args:
        image: the picture as Pillow has opened it, before its pixels are decoded.
        data: the file.
    """
    name = image.format
    match name:
        case "PNG":
            return _in_png(image, data)
        case "TIFF":
            return _in_tiff(image)
        case "JPEG2000":
            return _in_jpeg2000(image, data)
        case "PPM" if image.mode == "I":
            tile = image.tile[0]
            white = tile.args[1] if tile.codec_name != "raw" and isinstance(tile.args, tuple) else 0xFFFF
            return Stored(name, Depth(0, white, 0xFFFF))
        case "FITS" if image.mode == "I;16":
            zero = _FITS_ZERO.search(data, 0, _FITS_HEADER)
            is_unsigned = zero is not None and zero[1].startswith((b"32768", b"3.2768E", b"+32768"))
            return Stored(name, Depth(-(1 << 15), (1 << 15) - 1) if is_unsigned else None, "i2")
        case "GIF" if image.tile and image.tile[0].extents not in (None, (0, 0, *image.size)):
            return Stored(name, covered=image.tile[0].extents)
    return Stored(name)


def as_seen(image: Image.Image, file: Stored, data: bytes) -> Image.Image:
    """Return a decoded picture in 8 bits a channel, and with alpha where its file means that.

    Itself where Pillow has it right. Floats stay what they are.
    """
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _grey_as_seen(image, file)
    if image.mode == "La":  # which Pillow converts to nothing else
        return image.convert("LA")
    if file.bits:
        image = _spread(image, file.bits)
    if isinstance(file.key, tuple):
        return _with_alpha(image, _is_key(image, file.key, data))
    if file.key is not None:
        samples = np.asarray(image.convert("L"))
        return _with_alpha(image, samples == round(file.key * 255 / ((1 << file.key_bits) - 1)))
    if file.covered is not None:
        outside = np.ones((image.height, image.width), bool)
        left, top, right, bottom = file.covered
        outside[top:bottom, left:right] = False
        rgba = image.convert("RGBA")
        outside |= np.asarray(rgba.getchannel("A")) == 0
        return _with_alpha(rgba, outside)
    return image


def _in_png(image: Image.Image, data: bytes) -> Stored:
    """The transparent colour of PNG has the depth of the file; Pillow compares it with 8 bits."""
    bits, key = data[24], image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        return Stored("PNG", key=key & (1 << bits) - 1, key_bits=bits)
    if image.mode == "RGB" and bits == 16 and isinstance(key, tuple):
        return Stored("PNG", key=key, key_bits=16)
    return Stored("PNG")


def _in_tiff(image: Any) -> Stored:
    if image.mode not in ("I", "I;16", "I;16B"):
        return Stored("TIFF")
    tags = image.tag_v2
    bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
    is_signed = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _SIGNED
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return Stored("TIFF", Depth((1 << bits) - 1, 0))
    if bits < 16:
        return Stored("TIFF", Depth(0, (1 << bits) - 1))
    if bits == 16:
        return Stored("TIFF", sample_type="i2" if is_signed else None)
    return Stored("TIFF", sample_type=None if is_signed else "u4")


def _in_jpeg2000(image: Image.Image, data: bytes) -> Stored:
    """Pillow shifts samples, up or down, to 16 bits of grey and to 8 of all else."""
    at = data.find(_CODESTREAM)
    if at < 0:
        return Stored("JPEG2000")
    count = int.from_bytes(data[at + 40 : at + 42])
    bits = tuple((byte & 0x7F) + 1 for byte in data[at + 42 : at + 42 + 3 * min(count, 4) : 3])
    if image.mode == "I;16":
        white = (1 << bits[0]) - 1 if bits else 0xFFFF
        depth = Depth(0, white, white << 16 - bits[0]) if bits and bits[0] < 16 else None
        return Stored("JPEG2000", depth)
    if len(bits) == len(image.getbands()) and image.mode != "P" and min(bits) < 8:
        return Stored("JPEG2000", bits=bits)
    return Stored("JPEG2000")


def _grey_as_seen(image: Image.Image, file: Stored) -> Image.Image:
    if file.sample_type is None:
        return to_8_bits(image, file.depth)
    samples = np.asarray(image)
    of_type: npt.NDArray[np.integer[Any]]
    if file.sample_type == "u4":
        of_type = samples.view(np.uint32)
    else:
        of_type = samples.astype(np.uint16).view(np.int16)
    grey = Image.fromarray(scale_to_8_bits(of_type, file.depth or depth_of(of_type)))
    grey.info = dict(image.info)
    return grey


def _spread(image: Image.Image, bits: tuple[int, ...]) -> Image.Image:
    """Channels of fewer bits than 8, shifted up, as channels that reach 255."""
    table: list[int] = []
    for each in bits:
        white, shift = (1 << min(each, 8)) - 1, max(0, 8 - each)
        table += [round((sample >> shift) * 255 / white) for sample in range(256)]
    return image.point(table)


def _is_key(image: Image.Image, key: tuple[int, ...], data: bytes) -> npt.NDArray[np.bool_]:
    """Where the pixels of a PNG of 16 bits a channel have the transparent colour, in all of those bits."""
    is_key = _equals(image, [part >> 8 for part in key])
    if is_key.any():
        # Pillow keeps the first byte of each sample. Read as if the other one came first, it keeps that.
        again = PngImagePlugin.PngImageFile(io.BytesIO(data), "")
        again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
        again.load()
        is_key &= _equals(again, [part & 0xFF for part in key])
    return is_key


def _equals(image: Image.Image, color: list[int]) -> npt.NDArray[np.bool_]:
    red, green, blue = (np.asarray(band) == part for band, part in zip(image.split(), color, strict=True))
    is_equal: npt.NDArray[np.bool_] = red & green & blue
    return is_equal


def _with_alpha(image: Image.Image, is_transparent: npt.NDArray[np.bool_]) -> Image.Image:
    info = {name: value for name, value in image.info.items() if name != "transparency"}
    image = image.copy()
    image.info = info
    image.putalpha(Image.fromarray(np.where(is_transparent, np.uint8(0), np.uint8(255))))
    return image
