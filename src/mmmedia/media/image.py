"""`ImageMediaIO`, pictures as PIL images, and `ImageEmbeddingMediaIO`.

This is the layer that makes a picture what a person sees: upright, scaled to 8 bits a channel, and over the
background where it is transparent. Whoever comes after it, `mmmedia.pipeline` too, relies on that and does
none of it again. (`mmmedia.pipeline` also takes PIL images that a caller made, and makes RGB of those.)
"""

import io
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from PIL import Image, ImageFile

from mmmedia import envs
from mmmedia._quiet import FILTER, is_quiet
from mmmedia.errors import InvalidArgumentError, MediaError, UnsupportedMediaError
from mmmedia.image import (
    ORIENTATION_SOURCES,
    WHITE,
    change_mode,
    flatten_alpha,
    has_alpha_channel,
    is_deep,
    reduce_to_pixels,
    rgba_to_rgb,
    size_within,
    turned_upright,
)
from mmmedia.media.base import Chargeable, MediaIO, MediaWithBytes, decode_base64, encode_base64
from mmmedia.media.budget import pixel_bytes
from mmmedia.media.depth import as_seen, stored
from mmmedia.media.embedding import EmbeddingMediaIO
from mmmedia.media.isolation import apart
from mmmedia.media.picture_files import brief, check_pixels, open_picture, refuse, without_large_texts
from mmmedia.tensors import checked_sparse_tensors

MAGIC_NUMPY_PREFIX: Final = b"\x93NUMPY"
"""By which an embedding is told to be a NumPy array."""

# By vLLM's name: one lock for all embeddings.
check_sparse_tensor_invariants_threadsafe = checked_sparse_tensors
_SCALING_DECODERS: Final = ("JPEG", "MPO")
_KEPT_INFO: Final = ("exif", "icc_profile", "xmp")


class ImageEmbeddingMediaIO(EmbeddingMediaIO):
    """Loads the embedding of an image; see `EmbeddingMediaIO`."""

    modality = "image_embedding"


class ImageMediaIO(MediaIO[MediaWithBytes[Image.Image]]):
    """Loads pictures: fully decoded PIL images, together with the bytes they came from.

    Of animations and of files with several pages the first picture is loaded.

    Args:
        image_mode: the mode of the result; samples of 16 and 32 bits are scaled to the 8 bits of it.
            ``None`` keeps mode, depth and transparency of the file.
        decoded_budget: charged with 4 bytes a pixel before anything is decoded.
        **kwargs: kept in the attribute `kwargs`. These are used, ``None`` counting as not given:

            * ``rgba_background_color`` (default white): three integers 0..255; what is transparent is
              composited over it.
            * ``exif_transpose`` (default on; off with ``MMMEDIA_COMPAT=0.20``): turn the picture as its EXIF
              orientation says.
            * ``flatten_alpha`` (default on; off with ``MMMEDIA_COMPAT=0.20``): composite LA, PA and
              transparency entries of palettes, RGB and grey as well as RGBA, wherever `image_mode` has no
              alpha. Off, only RGBA is, when it becomes RGB.
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

    def __init__(
        self, image_mode: str | None = "RGB", *, decoded_budget: Chargeable | None = None, **kwargs: Any
    ) -> None:
        super().__init__()
        self.image_mode = image_mode
        self.decoded_budget = decoded_budget
        self.kwargs = kwargs
        self.rgba_background_color: Sequence[int] = WHITE
        self.max_pixels: int | None = None
        self.scale_depth = self.exif_transpose = self.flatten_alpha = envs.MMMEDIA_COMPAT != "0.20"
        for name, read in _KEYWORDS.items():
            if (value := kwargs.get(name)) is not None:
                setattr(self, name, read(name, value))

    @apart("picture")
    def load_bytes(self, data: bytes) -> MediaWithBytes[Image.Image]:
        """Decode a picture.

        Its `io_config` names the options that its pixels depend on: mode and background where it was
        converted, and any other that is not as it is by default. `None`: the bytes alone say what it is.

        Raises:
            InvalidMediaError: (a `ValueError`) "Failed to load image: …": not a picture, truncated, broken,
                or of a format that Pillow leaves to other programs.
            LimitExceededError: (a `ValueError`) more pixels than `VLLM_MAX_IMAGE_PIXELS` by its header;
                nothing is decoded then.
        """
        if warnings.filters[:1] != [FILTER]:  # `with quiet():`, without its calls
            cast("list[Any]", warnings.filters).insert(0, FILTER)
        token = is_quiet.set(True)
        try:
            image, is_converted = self._load(data)
        except MediaError:
            raise
        except _BudgetError as error:
            raise error.reason from None
        except Exception as error:  # noqa: BLE001 what parsers raise on the bytes of a stranger is not listed
            refuse(brief(error), error)
        finally:
            is_quiet.reset(token)
        return MediaWithBytes(image, data, self._config(is_converted) or None)

    def _load(self, data: bytes) -> tuple[Image.Image, bool]:
        """Decode a file, if need be without what surrounds the picture; see `_decode`."""
        is_charged = False
        try:
            picture = open_picture(data)
            if self.decoded_budget is not None:
                _charge(self.decoded_budget, picture)
                is_charged = True
            return self._decode(picture, data)
        except ValueError:
            smaller = without_large_texts(data)
            if smaller is data:
                raise
        picture = open_picture(smaller)
        if self.decoded_budget is not None and not is_charged:
            _charge(self.decoded_budget, picture)
        return self._decode(picture, smaller)

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
        is_plain = image.mode == "RGB" and "transparency" not in image.info
        if self.image_mode is None or (is_plain and self.image_mode == "RGB"):
            return image
        if self.flatten_alpha and not has_alpha_channel(self.image_mode):
            image = flatten_alpha(image, self.rgba_background_color)
        if image.mode == "RGBA" and self.image_mode == "RGB":
            return rgba_to_rgb(image, self.rgba_background_color)
        return change_mode(image, self.image_mode)

    def _config(self, is_converted: bool) -> dict[str, Any]:
        config: dict[str, Any] = {}
        if is_converted:
            config = {"image_mode": self.image_mode, "rgba_background_color": self.rgba_background_color}
        if self.max_pixels is not None:
            config["max_pixels"] = self.max_pixels
        for name in ("exif_transpose", "flatten_alpha", "scale_depth"):
            if not getattr(self, name):
                config[name] = False
        return config

    def _decode(self, picture: ImageFile.ImageFile, data: bytes) -> tuple[Image.Image, bool]:
        """Decode, and say whether what came out is not in the mode that the file has."""
        if self.max_pixels is not None and picture.format in _SCALING_DECODERS:
            # The decoder of JPEG gives 1/2, 1/4 and 1/8 for less than the whole.
            picture.draft(None, size_within(picture.size, self.max_pixels))
        image: Image.Image = picture
        if _is_plain(picture) and self.max_pixels is None:
            picture.load()
            converted = self._convert_image_mode(picture)
            return converted, converted is not picture
        if self.image_mode is None or is_deep(self.image_mode) or not self.scale_depth:
            picture.load()
        else:
            file = stored(picture, data)
            picture.load()
            image = as_seen(picture, file, data)
        is_converted = image is not picture
        if not type(picture).__module__.startswith("PIL."):
            check_pixels(*picture.size)  # libheif learns the size from the pixels
            image = _without_reader(image)
        if self.exif_transpose:
            image = turned_upright(image)
        if self.max_pixels is not None:
            image = reduce_to_pixels(image, self.max_pixels)
        try:
            converted = self._convert_image_mode(image)
        except ValueError as error:
            refuse(f"mode {image.mode} to {self.image_mode}: {brief(error)}")
        return converted, is_converted or converted is not image


class _BudgetError(Exception):
    """A budget's own error on its way past those of parsers."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


def _charge(budget: Chargeable, picture: Image.Image) -> None:
    try:
        budget.charge(pixel_bytes(picture))
    except Exception as error:
        raise _BudgetError(error) from error


def _is_plain(picture: Image.Image) -> bool:
    """Say whether the pixels are as a person sees them once they are decoded: those of most JPEGs are."""
    is_coloured = picture.format == "JPEG" and picture.mode == "RGB"
    return is_coloured and ORIENTATION_SOURCES.isdisjoint(picture.info)


def _without_reader(image: Image.Image) -> Image.Image:
    """Return the picture without its reader, nor the thumbnails and depth maps that this hangs on it."""
    plain = image.copy()
    plain.info = {name: value for name in _KEPT_INFO if (value := image.info.get(name))}
    return plain


def _color(name: str, value: object) -> Sequence[int]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(
            isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in value
        )
    ):
        raise InvalidArgumentError(f"{name} must be a list or tuple of 3 integers 0..255, got {value!r:.64}.")
    return value


def _switch(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidArgumentError(f"{name} must be True or False, got {value!r:.64}.")
    return value


def _count(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidArgumentError(f"{name} must be a positive integer, got {value!r:.64}.")
    return value


_KEYWORDS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "rgba_background_color": _color,
    "exif_transpose": _switch,
    "flatten_alpha": _switch,
    "max_pixels": _count,
}
