"""Files of pictures opened with Pillow, without what Pillow would do unasked.

Nothing is handed to outside programs or stub drivers, no limit of the whole process is touched, and what
surrounds a picture (texts, profiles, thumbnails, depth and gain maps) never costs the picture.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final, NoReturn

from PIL import IcoImagePlugin, Image, ImageFile

from mmmedia import envs
from mmmedia.containers import described
from mmmedia.errors import InvalidMediaError, LimitExceededError

# What Pillow hands to outside programs (EPS to Ghostscript, WMF to the system), to drivers that others
# install (the stubs), or to itself again with any of these (IPTC opens what it carries).
_REFUSED_FORMATS: Final = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})
_PNG_SIZE: Final = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", re.DOTALL)
_JPEG2000_SIZE: Final = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4})", re.DOTALL)

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_MAX_TEXT: Final = 1 << 20  # bytes of one, after inflating; Pillow refuses the picture for more
_MAX_TEXTS: Final = 16 << 20  # bytes of all

# Brands of HEIF (ISO/IEC 23008-12): files of HEVC pictures, of AV1 pictures, which Pillow reads, and of any.
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset({b"mif1", b"msf1"})


def open_picture(data: bytes) -> ImageFile.ImageFile:
    """Return a picture, of no more pixels than may be, whose header is read and whose pixels are not.

    Raises:
        InvalidMediaError: (a `ValueError`) "Failed to load image: …": of no format that is read.
        LimitExceededError: (a `ValueError`) it, or what an icon carries, has too many pixels.
        Exception: whatever Pillow's parsers raise on broken files.
    """
    picture = _open_heif(data) if is_heif(data) else _open(data)
    check_pixels(*picture.size)
    return picture


def refuse(reason: str, cause: Exception | None = None) -> NoReturn:
    """Raise the error of every picture that can't be loaded.

    Raises:
        InvalidMediaError: (a `ValueError`) always.
    """
    raise InvalidMediaError(f"Failed to load image: {reason}") from cause


def brief(error: Exception) -> str:
    """Return what an error says, in one line of at most 200 characters."""
    text = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def is_heif(data: bytes) -> bool:
    """Whether a file is a HEIF picture of the kind that phones make, by its brands."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4]), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, length, 4))}
    if brands & _HEIC_BRANDS:
        return True
    return data[8:12] in _HEIF_BRANDS and not brands & _AVIF_BRANDS


def without_large_texts(data: bytes) -> bytes:
    """Return a PNG without texts and profiles over 1 MiB, nor any once 16 MiB of them have gone by.

    Itself where it has none of that size, or is no PNG.
    """
    if not data.startswith(_PNG_MAGIC):
        return data
    kept, begin, at, total = [], 0, len(_PNG_MAGIC), 0
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind in _PNG_TEXTS:
            size = _text_size(kind, data[at + 8 : end - 4]) if total < _MAX_TEXTS else _MAX_TEXTS
            total += size
            if size > _MAX_TEXT:
                kept.append(data[begin:at])
                begin = end
        at = end
    return b"".join([*kept, data[begin:]]) if kept else data


def _text_size(kind: bytes, body: bytes) -> int:
    """The size of a text or profile, inflated if it is compressed, as far as that is up to the limit."""
    _, _, rest = body.partition(b"\0")  # behind the keyword, or the name of the profile
    is_compressed = kind in (b"zTXt", b"iCCP")
    rest = rest[1:] if is_compressed else rest
    if kind == b"iTXt":
        is_compressed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[-1]  # behind the language, and the keyword in it
    if not is_compressed:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(rest, _MAX_TEXT + 1))
    except zlib.error:
        return len(body)


def _open_heif(data: bytes) -> ImageFile.ImageFile:
    """Read the header of a HEIF file; its primary picture is the one, upright."""
    try:
        plugin: Any = import_module("pillow_heif.as_plugin")  # not `register_heif_opener`, which is for all
    except ImportError:
        refuse("HEIF (HEIC) is read where pillow-heif is installed: pip install mmmedia[heif].")
    try:
        image: ImageFile.ImageFile = plugin.HeifImageFile(io.BytesIO(data), "")
    except SyntaxError as error:
        refuse(f"broken HEIF: {brief(error)}")
    return image


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header of a picture by the first of Pillow's formats that knows it.

    `Image.open` itself would warn and raise by its own limit of pixels, which is one for the whole process,
    and says of a broken picture only that it is none.
    """
    if not data:
        refuse("no data.")
    reason, beginning = "", data[:16]
    for name in _format_names():
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept is None or accept(beginning)
            if not accepted or isinstance(accepted, str):
                reason = accepted or reason  # a text says which library is missing
                continue
            if name in _REFUSED_FORMATS:
                reason = reason if accept is None else f"{name} is not read: Pillow leaves it to others."
                continue
            if name in ("ICO", "ICNS"):
                _check_icon_pixels(name, data)
            image = factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as `Image.open` goes on
            if accept is not None and not described(data):
                reason = f"broken {name}: {brief(error)}"
            continue
        if name == "FITS" and any(tile[0] == "fits_gzip" for tile in image.tile):
            refuse("compressed FITS is not read: Pillow inflates it whatever its size.")
        return image
    refuse(reason or f"the {len(data)} bytes are of no format that is read.{described(data)}")


def _format_names() -> Iterator[str]:
    """Give the formats in the order in which Pillow asks them: the common ones, then all."""
    tried: set[str] = set()
    for register_formats in (Image.preinit, Image.init):
        register_formats()
        for name in list(Image.ID):
            if name in tried:
                continue
            tried.add(name)
            yield name


def check_pixels(width: int, height: int) -> None:
    """Refuse a picture of more pixels than the operator admits.

    Raises:
        LimitExceededError: (a `ValueError`) more than `VLLM_MAX_IMAGE_PIXELS`.
    """
    pixels, limit = width * height, envs.VLLM_MAX_IMAGE_PIXELS
    if pixels > limit > 0:
        raise LimitExceededError(
            f"The image has {width} x {height} = {pixels} pixels, which exceed the {limit} that "
            f"VLLM_MAX_IMAGE_PIXELS allows."
        )


def _check_icon_pixels(format_name: str, data: bytes) -> None:
    """Check the pictures inside an icon, which may be larger than it says, and which Pillow loads unasked."""
    for width, height in _PNG_SIZE.findall(data):
        check_pixels(int.from_bytes(width), int.from_bytes(height))
    for width, height, left, top in _JPEG2000_SIZE.findall(data):
        check_pixels(
            int.from_bytes(width) - int.from_bytes(left), int.from_bytes(height) - int.from_bytes(top)
        )
    if format_name == "ICO":
        for entry in IcoImagePlugin.IcoFile(io.BytesIO(data)).entry[:1]:
            if data[entry.offset : entry.offset + 4] == b"\x28\0\0\0":  # a bitmap and, below it, its mask
                width, height = struct.unpack_from("<ii", data, entry.offset + 4)
                check_pixels(abs(width), abs(height) // 2)
