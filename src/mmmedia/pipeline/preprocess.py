"""Pictures and clips to the float tensors that vision encoders take: resize, crop, scale, normalise, cut up.

The rules are those of the Hugging Face image processors for CLIP, SigLIP and Qwen2-VL, which come in two
backends that differ by a grey level here and there, because Pillow and torch round their resampling filters
differently. `ImagePreprocessor.backend` chooses whose pixels to match.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError
from mmmedia.hashing import content_hash
from mmmedia.pipeline.configs import image_fields
from mmmedia.pipeline.pictures import (
    TORCH_MODES,
    Picture,
    centre_crop,
    crop_size,
    height_width,
    resize_with_pillow,
    resize_with_torch,
    run_all,
    single_pictures,
    to_rgb,
)
from mmmedia.pipeline.prepared import Preprocessed
from mmmedia.pipeline.sizes import SizeRule, check_positive, size_rule

if TYPE_CHECKING:
    import torch

Backend = Literal["pillow", "torch"]
Channels = tuple[float, float, float]
ImageLike = Any  # a PIL image, a MediaWithBytes of one, or uint8 (height, width[, 1, 3 or 4])

_NO_PATCHES = "This preprocessor cuts no patches: patch_size is None."


class PatchBatch(NamedTuple):
    """Patches as Qwen2-VL's vision tower takes them.

    Attributes:
        pixel_values: float32 (patches of all pictures, channels x temporal x height x width of a patch).
        grid_thw: int64 (pictures, 3), patches in time, height and width of each picture.
    """

    pixel_values: "torch.Tensor"
    grid_thw: "torch.Tensor"


@dataclass(frozen=True)
class ImagePreprocessor:
    """Pictures to float tensors: resize, centre crop, scale, normalise, for one model.

    Transparency is composited over white, greyscale becomes RGB.

    Attributes:
        size: what to resize to: pixels of the shortest edge, (height, width), a mapping of Hugging Face's
            kind, a rule (`ShortestEdge`, `ExactSize`, `PixelBudget`), or `None` to keep the size.
        resample: Pillow's resampling filter.
        crop: (height, width) cut from the middle after resizing, with black around what is smaller.
        rescale: factor for the values 0..255; `None`: none.
        mean: subtracted from the three channels after scaling; `None`: nothing.
        std: what the channels are then divided by; `None`: nothing.
        patch_size: edge in pixels of the square patches that `patches` and `prepare` cut the picture into;
            `None`: the picture stays whole.
        temporal_patch_size: frames in one patch; a single picture is repeated to fill it.
        merge_size: edge in patches of the square blocks whose patches stand together.
        backend: whose resampling to match: "pillow", or "torch", that of Hugging Face's torchvision
            processors, without needing torchvision.

    >>> from mmmedia.pipeline import CLIP_MEAN, CLIP_STD
    >>> clip = ImagePreprocessor(224, crop=(224, 224), mean=CLIP_MEAN, std=CLIP_STD)
    >>> clip([Image.new("RGB", (640, 480)), Image.new("L", (300, 500))]).shape
    torch.Size([2, 3, 224, 224])
    """

    size: SizeRule | int | tuple[int, int] | Mapping[str, int] | None
    resample: Image.Resampling = Image.Resampling.BICUBIC
    crop: tuple[int, int] | None = None
    rescale: float | None = 1 / 255
    mean: Channels | None = None
    std: Channels | None = None
    patch_size: int | None = None
    temporal_patch_size: int = 2
    merge_size: int = 2
    backend: Backend = "pillow"

    def __post_init__(self) -> None:
        # Whatever was given, the fields hold one form of it: they are hashed and compared.
        set_field = object.__setattr__
        set_field(self, "size", size_rule(self.size))
        try:
            set_field(self, "resample", Image.Resampling(self.resample))
        except ValueError:
            raise InvalidArgumentError(
                f"Unknown resample {self.resample!r}: expected a PIL.Image.Resampling."
            ) from None
        if self.crop is not None:
            set_field(self, "crop", crop_size(self.crop))
        set_field(self, "mean", _channels("mean", self.mean))
        set_field(self, "std", _channels("std", self.std))
        if self.std is not None and 0.0 in self.std:
            raise InvalidArgumentError(f"std must not be zero, got {self.std}.")
        if self.rescale is not None and not (math.isfinite(self.rescale) and self.rescale > 0):
            raise InvalidArgumentError(f"rescale must be a positive number, not {self.rescale!r}.")
        if self.patch_size is not None:
            check_positive(patch_size=self.patch_size)
        check_positive(temporal_patch_size=self.temporal_patch_size, merge_size=self.merge_size)
        if self.backend not in ("pillow", "torch"):
            raise InvalidArgumentError(f"Unknown backend {self.backend!r}: expected 'pillow' or 'torch'.")
        if self.backend == "torch" and self.resample not in TORCH_MODES:
            raise InvalidArgumentError(
                f"The torch backend has no {self.resample.name}: only BILINEAR and BICUBIC."
            )

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **overrides: Any) -> "ImagePreprocessor":
        """Make one from a Hugging Face ``preprocessor_config.json``: CLIP, SigLIP, Qwen2-VL and their kin.

        A key that is absent or null has the default of the processor that the configuration names.

        Args:
            config: the parsed file. Where the type is a video processor, or its name ends in "Fast", the
                backend is "torch", else "pillow".
            overrides: fields of this class that win over the configuration, such as ``backend="torch"``.

        Raises:
            InvalidArgumentError: (a `ValueError`) a configuration of another kind, or a value out of place.

        >>> config = {"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}}
        >>> ImagePreprocessor.from_config(config).output_size(480, 640)
        (384, 384)
        """
        return cls(**{**image_fields(config), **overrides})

    @property
    def fingerprint(self) -> str:
        """A name for these settings, the same in every process; part of the keys of the encoder cache."""
        return content_hash(["image", {**asdict(self), "size": [type(self.size).__name__, repr(self.size)]}])

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width that a picture of this size comes out with.

        Raises:
            InvalidArgumentError: (a `ValueError`) an empty picture, or one too flat for the size rule.
            LimitExceededError: (a `ValueError`) resized it would exceed `VLLM_MAX_IMAGE_PIXELS`.
        """
        resized = self._resized_size(height, width)
        return self.crop or resized

    def grid_thw(self, height: int, width: int, frames: int = 1) -> tuple[int, int, int]:
        """Return how many patches a picture or a clip of this size has in time, height and width.

        Raises:
            InvalidArgumentError: (a `ValueError`) this preprocessor cuts no patches, or the size that comes
                out can't be cut evenly; and as `output_size`.
        """
        return self._grid(*self.output_size(height, width), frames)

    def _grid(self, out_height: int, out_width: int, frames: int) -> tuple[int, int, int]:
        if self.patch_size is None:
            raise InvalidArgumentError(_NO_PATCHES)
        block = self.patch_size * self.merge_size
        if out_height % block or out_width % block:
            raise InvalidArgumentError(
                f"A picture of {out_width}x{out_height} pixels can't be cut into patches of "
                f"{self.patch_size} in blocks of {self.merge_size}: give a size in multiples of {block}."
            )
        return (
            -(-frames // self.temporal_patch_size),
            out_height // self.patch_size,
            out_width // self.patch_size,
        )

    def __call__(self, images: ImageLike | Sequence[ImageLike]) -> "torch.Tensor":
        """Return the pictures as one float32 tensor (n, 3, height, width).

        Args:
            images: one picture or several: PIL images, `MediaWithBytes` of them, uint8 arrays or tensors of
                shape (height, width[, 1, 3 or 4]), or one uint8 array of frames (n, height, width, channels).

        Raises:
            InvalidArgumentError: (a `ValueError`) none, pictures that come out in different sizes (`each`
                takes them), or what is no picture.
            InvalidMediaError: (a `ValueError`) a picture that can't be read, or whose pixels are NaN.
            LimitExceededError: (a `ValueError`) a picture that resized would exceed `VLLM_MAX_IMAGE_PIXELS`.
        """
        import torch

        pictures = list(single_pictures(images))
        if not pictures:
            raise InvalidArgumentError("No pictures to preprocess.")
        sizes = [self.output_size(*height_width(picture)) for picture in pictures]
        if len(set(sizes)) > 1:
            raise InvalidArgumentError(
                f"The pictures come out in different sizes (height, width): {sorted(set(sizes))[:4]}; one "
                "tensor can't hold them. Preprocess them with each(), or give an exact size."
            )
        batch = np.empty((len(pictures), 3, *sizes[0]), np.float32)
        run_all(self._write_pixels, pictures, batch)
        return torch.from_numpy(batch)

    def each(self, images: ImageLike | Sequence[ImageLike]) -> "list[torch.Tensor]":
        """Return one float32 tensor (3, height, width) for each picture; errors as on a call."""
        import torch

        pictures = list(single_pictures(images))
        pixels = [
            np.empty((3, *self.output_size(*height_width(picture))), np.float32) for picture in pictures
        ]
        run_all(self._write_pixels, pictures, pixels)
        return [torch.from_numpy(picture) for picture in pixels]

    def patches(self, images: ImageLike | Sequence[ImageLike]) -> PatchBatch:
        """Return the pictures cut into patches, and their grids, as Qwen2-VL's vision tower takes them.

        Raises:
            InvalidArgumentError: (a `ValueError`) this preprocessor cuts no patches; and as on a call.
        """
        import torch

        if self.patch_size is None:
            raise InvalidArgumentError(_NO_PATCHES)
        pictures = list(single_pictures(images))
        if not pictures:
            raise InvalidArgumentError("No pictures to preprocess.")
        grids = [self.grid_thw(*height_width(picture)) for picture in pictures]
        stops = np.cumsum([math.prod(grid) for grid in grids])
        values = np.empty((stops[-1], 3 * self.temporal_patch_size * self.patch_size**2), np.float32)
        run_all(self._write_patches, pictures, np.split(values, stops[:-1]))
        return PatchBatch(torch.from_numpy(values), torch.tensor(grids, dtype=torch.int64))

    def prepare(self, image: ImageLike) -> Preprocessed:
        """Return one picture as its encoder takes it: whole, or in patches where `patch_size` is given."""
        (pixels,) = self.each([image])
        return self._cut(pixels[None])

    def prepare_frames(self, frames: ImageLike | Sequence[ImageLike]) -> Preprocessed:
        """Return the frames of one clip: each an item, or all in patches where `patch_size` is given."""
        return self._cut(self(frames))

    def _cut(self, pixels: "torch.Tensor") -> Preprocessed:
        if self.patch_size is None:
            return Preprocessed(pixels.unbind())
        import torch

        count, _, height, width = pixels.shape
        grid = self._grid(height, width, count)
        values = self._blocks(pixels.numpy()).reshape(math.prod(grid), -1)
        return Preprocessed((torch.from_numpy(values),), grid)

    def _blocks(self, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return frames (n, 3, height, width) in the order of their patches, as a view if it can be.

        The last frame is repeated until patches are filled in time. The last axes are those of a patch.
        """
        assert self.patch_size is not None
        depth, merge, edge = self.temporal_patch_size, self.merge_size, self.patch_size
        count, channels, height, width = pixels.shape
        missing = -count % depth
        if count == 1:
            pixels = np.broadcast_to(pixels, (depth, channels, height, width))
        elif missing:
            pixels = np.concatenate((pixels, np.repeat(pixels[-1:], missing, axis=0)))
        return pixels.reshape(
            -1, depth, channels, height // (merge * edge), merge, edge, width // (merge * edge), merge, edge
        ).transpose(0, 3, 6, 4, 7, 2, 1, 5, 8)

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        if height < 1 or width < 1:
            raise InvalidMediaError(f"A picture of {width}x{height} pixels has nothing to preprocess.")
        rule = self.size
        if rule is None:
            return height, width
        assert isinstance(rule, SizeRule)
        new_height, new_width = rule.target(height, width)
        if new_height < 1 or new_width < 1:
            raise InvalidArgumentError(
                f"A picture of {width}x{height} would be resized to {new_width}x{new_height} by {rule}."
            )
        limit = envs.VLLM_MAX_IMAGE_PIXELS
        if 0 < limit < new_height * new_width:
            raise LimitExceededError(
                f"A picture of {width}x{height} would be resized to {new_width}x{new_height}, more pixels "
                f"than VLLM_MAX_IMAGE_PIXELS={limit}."
            )
        return new_height, new_width

    def _write_pixels(self, picture: Picture, out: npt.NDArray[np.float32]) -> None:
        """Preprocess one picture into `out` (3, height, width)."""
        target = self._resized_size(*height_width(picture))
        rgb = resize_with_torch if self.backend == "torch" else resize_with_pillow
        pixels = rgb(to_rgb(picture), target, self.resample)
        if self.crop is not None:
            pixels = centre_crop(pixels, self.crop, pad_first=self.backend == "torch")
        for channel, table in enumerate(_tables(self.rescale, self.mean, self.std, self.backend)):
            np.take(table, pixels[:, :, channel], out=out[channel], mode="clip")

    def _write_patches(self, picture: Picture, out: npt.NDArray[np.float32]) -> None:
        """Preprocess one picture into its patches `out` (patches, values)."""
        pixels = np.empty((1, 3, *self.output_size(*height_width(picture))), np.float32)
        self._write_pixels(picture, pixels[0])
        blocks = self._blocks(pixels)
        out.reshape(blocks.shape)[...] = blocks


def _tables(
    rescale: float | None, mean: Channels | None, std: Channels | None, backend: Backend
) -> npt.NDArray[np.float32]:
    """What each of the values 0..255 becomes in each of the three channels: float32 (3, 256)."""
    values = np.arange(256, dtype=np.float64)
    means, stds = np.array(mean or (0, 0, 0), np.float32), np.array(std or (1, 1, 1), np.float32)
    if backend == "torch" and (mean is not None or std is not None):
        # The torchvision processors fold the factor into mean and std, in single precision.
        unscale = np.float32(1.0 if rescale is None else 1.0 / rescale)
        means, stds, scaled = means * unscale, stds * unscale, values.astype(np.float32)
    else:
        scaled = (values * (1.0 if rescale is None else rescale)).astype(np.float32)
    table: npt.NDArray[np.float32] = (scaled - means[:, None]) / stds[:, None]
    return table


@dataclass(frozen=True)
class VideoPreprocessor:
    """Clips to tensors: every frame takes the way of a picture, and the times of the frames travel along.

    Attributes:
        image: what each frame goes through.

    >>> from mmmedia.pipeline import ExactSize
    >>> video = VideoPreprocessor(ImagePreprocessor(ExactSize(32, 32)))
    >>> frames = np.zeros((3, 60, 80, 3), np.uint8)
    >>> prepared = video.prepare((frames, {"frames_indices": [0, 30, 60], "fps": 30.0}))
    >>> len(prepared.items), prepared.timestamps
    (3, (0.0, 1.0, 2.0))
    """

    image: ImagePreprocessor

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **overrides: Any) -> "VideoPreprocessor":
        """Make one from the configuration of a Hugging Face image or video processor.

        Arguments and errors as in `ImagePreprocessor.from_config`. Frames are sampled by the video loader;
        what the configuration says about sampling is not read.
        """
        return cls(ImagePreprocessor.from_config(config, **overrides))

    @property
    def fingerprint(self) -> str:
        """A name for these settings, the same in every process; part of the keys of the encoder cache."""
        return content_hash(["video", self.image.fingerprint])

    def __call__(self, frames: ImageLike | Sequence[ImageLike]) -> "torch.Tensor":
        """Return the frames of one clip as float32 (n, 3, height, width); errors as `ImagePreprocessor`'s."""
        return self.image(frames)

    def patches(self, frames: ImageLike | Sequence[ImageLike]) -> PatchBatch:
        """Return one clip cut into patches across time, and its grid; the last frame is repeated as needed.

        Errors as `ImagePreprocessor.patches`.
        """
        import torch

        prepared = self.image.prepare_frames(frames)
        if prepared.grid_thw is None:
            raise InvalidArgumentError(_NO_PATCHES)
        return PatchBatch(prepared.items[0], torch.tensor([prepared.grid_thw], dtype=torch.int64))

    def prepare(self, video: tuple[Any, Mapping[str, Any]]) -> Preprocessed:
        """Return one clip as its encoder takes it.

        Args:
            video: frames and metadata, as `MediaConnector.fetch_video` returns them.
        """
        frames, metadata = video
        prepared = self.image.prepare_frames(frames)
        return Preprocessed(prepared.items, prepared.grid_thw, frame_timestamps(metadata, len(frames)))


def frame_timestamps(metadata: Mapping[str, Any], num_frames: int) -> tuple[float, ...] | None:
    """Return when each frame of a clip is shown, in seconds from its start.

    Args:
        metadata: as the video loaders give it; the times are `frames_indices` over `fps`, or, where the
            source has no rate, over `total_num_frames` by `duration`.
        num_frames: how many frames there are.

    Returns:
        One time a frame, or `None` if the metadata does not tell.

    Raises:
        InvalidArgumentError: (a `ValueError`) there are not as many indices as frames.

    >>> frame_timestamps({"frames_indices": [0, 12, 25], "fps": 25.0}, 3)
    (0.0, 0.48, 1.0)
    """
    indices, rate = metadata.get("frames_indices"), metadata.get("fps")
    if indices is None:
        return None
    if len(indices) != num_frames:
        raise InvalidArgumentError(f"A clip of {num_frames} frames has {len(indices)} frames_indices.")
    if not rate or not math.isfinite(rate) or rate < 0:
        total, duration = metadata.get("total_num_frames") or 0, metadata.get("duration") or 0
        rate = total / duration if duration > 0 and math.isfinite(duration) else 0
    return tuple(float(index / rate) for index in indices) if rate > 0 else None


def _channels(name: str, values: object) -> Channels | None:
    if values is None:
        return None
    if isinstance(values, (int, float)):
        values = (values,) * 3
    if not isinstance(values, Iterable):
        raise InvalidArgumentError(f"{name} must be a number or three, not {values!r}.")
    numbers = tuple(values)
    if len(numbers) != 3 or not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
        raise InvalidArgumentError(f"{name} must be three finite numbers, not {numbers!r}.")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
