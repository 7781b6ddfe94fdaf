"""The steps of pixels on their way to an encoder: read, made RGB, resized, cropped, on several threads."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.image import convert_image_mode
from mmmedia.media.base import MediaWithBytes
from mmmedia.pipeline.sizes import ExactSize, size_rule

TORCH_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
_WORTH_THREADS = 1 << 20  # pixels; below it starting threads costs more than they save

Picture = Image.Image | npt.NDArray[np.uint8]


def single_pictures(images: object) -> Iterator[Picture]:
    """Yield one or several pictures as PIL images and uint8 (height, width, channels) arrays.

    Raises:
        InvalidArgumentError: (a `ValueError`) what is no picture, or lists in lists.
        InvalidMediaError: (a `ValueError`) pixels that are NaN.
    """
    if isinstance(images, (list, tuple)):
        for image in images:
            found = list(single_pictures(image))
            if len(found) != 1 or isinstance(image, (list, tuple)):
                raise InvalidArgumentError("Expected a flat list of single pictures.")
            yield found[0]
        return
    if isinstance(images, MediaWithBytes):
        images = images.media
    if isinstance(images, Image.Image):
        yield images
        return
    if "torch" in sys.modules and isinstance(images, sys.modules["torch"].Tensor):
        images = images.detach().cpu().numpy()
    if not isinstance(images, np.ndarray):
        raise InvalidArgumentError(
            "Expected PIL images or uint8 arrays of pixels, not "
            f"{type(images).__module__}.{type(images).__qualname__}."
        )
    if images.dtype.kind == "f" and np.isnan(images).any():
        raise InvalidMediaError(f"NaN pixels in a {images.dtype} array of shape {images.shape}.")
    if images.dtype != np.uint8:
        raise InvalidArgumentError(f"Pixels must be uint8 in 0..255, not {images.dtype}.")
    if images.ndim == 2:
        images = images[:, :, None]
    if images.ndim not in (3, 4) or images.shape[-1] not in (1, 3, 4):
        raise InvalidArgumentError(
            "Pixels must have the shape (height, width[, channels]) or (n, height, width, channels) with "
            f"1, 3 or 4 channels, not {images.shape}."
        )
    yield from images if images.ndim == 4 else (images,)


def height_width(picture: Picture) -> tuple[int, int]:
    """Return the height and width of a picture in pixels."""
    if isinstance(picture, Image.Image):
        return picture.height, picture.width
    return picture.shape[0], picture.shape[1]


def to_rgb(picture: Picture) -> Image.Image | npt.NDArray[np.uint8]:
    """Return a picture in three channels, transparency over white; itself if the media IO made it so.

    Raises:
        InvalidMediaError: (a `ValueError`) it can't be read, or its pixels are NaN.
    """
    if isinstance(picture, Image.Image):
        try:
            if picture.mode == "F" and np.isnan(np.asarray(picture)).any():
                raise InvalidMediaError("NaN pixels in an image of mode F.")
            if "A" in picture.getbands() or picture.info.get("transparency") is not None:
                layer = picture.convert("RGBA")
                return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
            return convert_image_mode(picture, "RGB")
        except OSError as error:
            raise InvalidMediaError(f"Failed to load image: {error}") from error
    if picture.shape[2] == 3:
        return picture
    if picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    alpha = picture[:, :, 3:] / 255
    return np.round(alpha * picture[:, :, :3] + (1 - alpha) * 255).astype(np.uint8)


def resize_with_pillow(
    rgb: Image.Image | npt.NDArray[np.uint8], target: tuple[int, int], resample: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Return pixels (height, width, 3) of the target's height and width, as Pillow resamples them.

    Raises:
        InvalidMediaError: (a `ValueError`) the picture can't be read.
    """
    if height_width(rgb) != target:
        image = rgb if isinstance(rgb, Image.Image) else Image.fromarray(np.ascontiguousarray(rgb))
        try:
            rgb = image.resize(target[::-1], resample)
        except OSError as error:  # a lazily read picture shows its damage here
            raise InvalidMediaError(f"Failed to load image: {error}") from error
    return np.asarray(rgb)


def resize_with_torch(
    rgb: Image.Image | npt.NDArray[np.uint8], target: tuple[int, int], resample: Image.Resampling
) -> npt.NDArray[np.uint8]:
    """Return pixels (height, width, 3) of the target's height and width, as torch resamples them."""
    import torch

    # torch resizes channels-last uint8 several times faster than planes, to the same pixels; a copy,
    # because the arrays of PIL images can't be written to and torch warns of that.
    pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None]
    if tuple(pixels.shape[-2:]) != target:
        pixels = torch.nn.functional.interpolate(pixels, target, mode=TORCH_MODES[resample], antialias=True)
    resized: npt.NDArray[np.uint8] = pixels[0].permute(1, 2, 0).numpy()
    return resized


def centre_crop(
    pixels: npt.NDArray[np.uint8], crop: tuple[int, int], *, pad_first: bool
) -> npt.NDArray[np.uint8]:
    """Return (height, width) cut from the middle, with black around what is smaller.

    Where the margins can't be equal, Hugging Face's Pillow processors put the odd row of padding before the
    picture and its torchvision processors after it (`pad_first`).
    """
    slices, padding = [], []
    for have, want in zip(pixels.shape[:2], crop, strict=True):
        start = max(0, (have - want) // 2)
        slices.append(slice(start, start + want))
        missing = max(0, want - have)
        before = missing // 2 if pad_first else -(-missing // 2)
        padding.append((before, missing - before))
    cut = pixels[tuple(slices)]
    return np.pad(cut, [*padding, (0, 0)]) if any(map(any, padding)) else cut


def crop_size(crop: object) -> tuple[int, int]:
    """Return the height and width of a crop, in whichever form it was given.

    Raises:
        InvalidArgumentError: (a `ValueError`) no exact size.
    """
    rule = ExactSize(crop, crop) if isinstance(crop, int) else size_rule(crop)
    if not isinstance(rule, ExactSize):
        raise InvalidArgumentError(f"crop must be (height, width), not {crop!r}.")
    return rule.height, rule.width


def run_all(
    write: Callable[[Picture, npt.NDArray[np.float32]], None],
    pictures: Sequence[Picture],
    outs: Iterable[npt.NDArray[np.float32]],
) -> None:
    """Run `write` on every picture, on several threads where that pays: resizing releases the GIL."""
    area = sum(height * width for height, width in map(height_width, pictures))
    workers = min(len(pictures), os.cpu_count() or 1, envs.VLLM_MEDIA_LOADING_THREAD_COUNT)
    if workers < 2 or area < _WORTH_THREADS:
        for picture, out in zip(pictures, outs, strict=True):
            write(picture, out)
        return
    # A pool of its own, for its life is this call's: nothing to shut down, nothing that a fork leaves dead.
    with ThreadPoolExecutor(workers, thread_name_prefix="mmmedia-preprocess") as pool:
        for _ in pool.map(write, pictures, outs):
            pass
