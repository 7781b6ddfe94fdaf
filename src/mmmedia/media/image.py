"""`ImageMediaIO`, pictures as PIL images, and `ImageEmbeddingMediaIO`."""

import io
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from PIL import IcoImagePlugin, Image, ImageFile, ImageOps

from mmmedia import envs
from mmmedia._quiet import quiet
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MediaError,
    UnsupportedMediaError,
)
from mmmedia.image import (
    WHITE,
    convert_image_mode,
    flatten_alpha,
    has_alpha_channel,
    reduce_to_pixels,
    rgba_to_rgb,
    size_within,
)
from mmmedia.media.base import MediaIO, MediaWithBytes, decode_base64, encode_base64
from mmmedia.media.embedding import EmbeddingMediaIO

# What Pillow hands to outside programs (EPS to Ghostscript, WMF to the system), to drivers that others
# install (the stubs), or to itself again with any of these (IPTC opens what it carries).
_REFUSED_FORMATS: Final = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})
_ORIENTATION_TAG: Final = 0x0112
_PNG_SIZE: Final = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", re.DOTALL)
_JPEG2000_SIZE: Final = re.compile(rb"\xff\x4f\xff\x51.{4}(.{4})(.{4})(.{4})(.{4})", re.DOTALL)
_TURNS: Final[dict[Any, Image.Transpose]] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageEmbeddingMediaIO(EmbeddingMediaIO):
    """Loads the embedding of an image; see `EmbeddingMediaIO`."""

    modality = "image_embedding"


class ImageMediaIO(MediaIO[MediaWithBytes[Image.Image]]):
    """Loads pictures: fully decoded PIL images, together with the bytes they came from.

    Of animations and of files with several pages the first picture is loaded.

    Args:
        image_mode: the mode of the result; ``None`` keeps that of the file.
        **kwargs: kept in the attribute `kwargs`. These are used, ``None`` counting as not given:

            * ``rgba_background_color`` (default white): three integers 0..255; what RGBA is composited
              over when it becomes RGB.
            * ``exif_transpose`` (default off): turn the picture as its EXIF orientation says.
            * ``flatten_alpha`` (default off): composite LA, PA and transparency entries of palettes, RGB
              and grey as well, wherever `image_mode` has no alpha.
            * ``max_pixels`` (default off): decode at the largest size of the same aspect whose area is at
              most this; JPEG at less cost than in full.

    Raises:
        InvalidArgumentError: (a `ValueError`) a keyword has a value that can't be used.

    >>> io = ImageMediaIO(max_pixels=50)
    >>> text = io.encode_base64(Image.new("RGB", (20, 10), "red"))
    >>> io.load_base64("image/png", text).media.size
    (10, 5)
    """

    modality = "image"

    def __init__(self, image_mode: str | None = "RGB", **kwargs: Any) -> None:
        super().__init__()
        self.image_mode = image_mode
        self.kwargs = kwargs
        self.rgba_background_color = _color(kwargs.get("rgba_background_color"))
        self.exif_transpose = _switch("exif_transpose", kwargs.get("exif_transpose"))
        self.flatten_alpha = _switch("flatten_alpha", kwargs.get("flatten_alpha"))
        self.max_pixels = _count("max_pixels", kwargs.get("max_pixels"))

    def load_bytes(self, data: bytes) -> MediaWithBytes[Image.Image]:
        """Decode a picture.

        Raises:
            InvalidMediaError: (a `ValueError`) "Failed to load image: …": not a picture, truncated, broken,
                or of a format that Pillow leaves to other programs.
            LimitExceededError: (a `ValueError`) more pixels than `VLLM_MAX_IMAGE_PIXELS` by its header;
                nothing is decoded then.
        """
        return MediaWithBytes(self._load(data), data)

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes[Image.Image]:  # noqa: ARG002 the name is the interface
        """Decode a picture from base64 text; `media_type` is ignored, the bytes tell.

        Raises:
            InvalidMediaError: (a `ValueError`) bad base64, and all that `load_bytes` raises.
        """
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> MediaWithBytes[Image.Image]:
        """Decode a picture from a file.

        Raises:
            OSError: the file can't be read, and all that `load_bytes` raises.
        """
        return self.load_bytes(Path(filepath).read_bytes())

    def encode_base64(
        self, media: Image.Image | MediaWithBytes[Image.Image], *, image_format: str = "PNG"
    ) -> str:
        """Encode a picture, in `image_mode`, as a file of `image_format`, as base64.

        Raises:
            UnsupportedMediaError: (a `NotImplementedError`) Pillow writes no such format.
            InvalidArgumentError: (a `ValueError`) the format can't hold such a picture.
        """
        Image.preinit()
        if image_format.upper() not in Image.SAVE:
            Image.init()
        if image_format.upper() not in Image.SAVE:
            raise UnsupportedMediaError(f"Pillow writes no images of the format {image_format[:64]!r}.")
        file = io.BytesIO()
        try:
            self._convert_image_mode(media).save(file, image_format)
        except (OSError, ValueError, struct.error) as error:
            raise InvalidArgumentError(f"Failed to encode image as {image_format}: {error}") from error
        return encode_base64(file.getvalue())

    def _convert_image_mode(self, image: Image.Image | MediaWithBytes[Image.Image]) -> Image.Image:
        """Return the image in `image_mode`, itself if it is already."""
        if isinstance(image, MediaWithBytes):
            image = image.media
        if self.image_mode is None:
            return image
        if self.flatten_alpha and not has_alpha_channel(self.image_mode):
            image = flatten_alpha(image, self.rgba_background_color)
        if image.mode == "RGBA" and self.image_mode == "RGB":
            return rgba_to_rgb(image, self.rgba_background_color)
        return convert_image_mode(image, self.image_mode)

    def _load(self, data: bytes) -> Image.Image:
        try:
            with quiet():
                image = _open(data)
                _check_pixels(*image.size)
                if self.max_pixels is not None:
                    # The decoder of JPEG gives 1/2, 1/4 and 1/8 for less than the whole; others ignore it.
                    image.draft(None, size_within(image.size, self.max_pixels))
                image.load()
                return self._finish(image)
        except MediaError:
            raise
        except Exception as error:  # noqa: BLE001 what parsers raise on the bytes of a stranger is not listed
            _refuse(_brief(error))

    def _finish(self, image: Image.Image) -> Image.Image:
        if self.exif_transpose:
            image = _turned(image)
        if self.max_pixels is not None:
            image = reduce_to_pixels(image, self.max_pixels)
        try:
            return self._convert_image_mode(image)
        except ValueError as error:
            _refuse(f"mode {image.mode} to {self.image_mode}: {_brief(error)}")


def _refuse(reason: str) -> NoReturn:
    raise InvalidMediaError(f"Failed to load image: {reason}") from None


def _brief(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0] or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


def _open(data: bytes) -> ImageFile.ImageFile:
    """Read the header of a picture by the first of Pillow's formats that knows it.

    `Image.open` itself would warn and raise by its own limit of pixels, which is one for the whole process,
    and says of a broken picture only that it is none.
    """
    if not data:
        _refuse("no data.")
    reason = f"the {len(data)} bytes are of no format that is read."
    beginning = data[:16]
    for name in _format_names(beginning):
        factory, accept = Image.OPEN[name]
        try:
            accepted = accept is None or accept(beginning)
            if not accepted or isinstance(accepted, str):
                reason = accepted or reason  # a text says which library is missing
                continue
            if name in _REFUSED_FORMATS:
                reason = reason if accept is None else f"{name} is not read: Pillow leaves it to others."
                continue
            _check_icon_pixels(name, data)
            image = factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as `Image.open` goes on
            reason = reason if accept is None else f"broken {name}: {_brief(error)}"
            continue
        if any(tile[0] == "fits_gzip" for tile in image.tile):
            _refuse("compressed FITS is not read: Pillow inflates it whatever its size.")
        return image
    _refuse(reason)


def _format_names(beginning: bytes) -> Iterator[str]:
    """Give the formats in the order in which Pillow asks them: the common ones, then all.

    What begins as a JPEG is first taken for one. Those that come before would not have it, and most are.
    """
    Image.preinit()
    tried: set[str] = set()
    if beginning.startswith(b"\xff\xd8\xff") and "JPEG" in Image.OPEN:
        tried.add("JPEG")
        yield "JPEG"
    for register_formats in (Image.preinit, Image.init):
        register_formats()
        for name in [name for name in Image.ID if name not in tried]:
            tried.add(name)
            yield name


def _check_pixels(width: int, height: int) -> None:
    pixels, limit = width * height, envs.VLLM_MAX_IMAGE_PIXELS
    if pixels > limit > 0:
        raise LimitExceededError(
            f"The image has {width} x {height} = {pixels} pixels, more than the {limit} that "
            f"VLLM_MAX_IMAGE_PIXELS allows."
        )


def _check_icon_pixels(format_name: str, data: bytes) -> None:
    """Check the pictures inside an icon, which may be larger than it says, and which Pillow loads unasked."""
    if format_name not in ("ICO", "ICNS"):
        return
    for width, height in _PNG_SIZE.findall(data):
        _check_pixels(int.from_bytes(width), int.from_bytes(height))
    for width, height, left, top in _JPEG2000_SIZE.findall(data):
        _check_pixels(
            int.from_bytes(width) - int.from_bytes(left), int.from_bytes(height) - int.from_bytes(top)
        )
    if format_name == "ICO":
        for entry in IcoImagePlugin.IcoFile(io.BytesIO(data)).entry[:1]:
            if data[entry.offset : entry.offset + 4] == b"\x28\0\0\0":  # a bitmap and, below it, its mask
                width, height = struct.unpack_from("<ii", data, entry.offset + 4)
                _check_pixels(abs(width), abs(height) // 2)


def _turned(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says; EXIF data that can't be read says nothing."""
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


def _color(value: object) -> Sequence[int]:
    if value is None:
        return WHITE
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(
            isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value
        )
    ):
        raise InvalidArgumentError(
            f"rgba_background_color must be a list or tuple of 3 integers 0..255, got {value!r:.64}."
        )
    return value


def _switch(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be True or False, got {value!r:.64}.")
    return bool(value)


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgumentError(f"{name} must be a positive integer, got {value!r:.64}.")
    return value
