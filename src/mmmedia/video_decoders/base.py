"""What decoders and samplers tell each other."""

from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import numpy.typing as npt

from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata

if TYPE_CHECKING:
    import torch

DecodedFrames: TypeAlias = Union[npt.NDArray[np.uint8], "torch.Tensor"]  # a name that is not loaded
"""uint8 RGB (n, height, width, 3)."""

__all__ = ["DecodedFrames", "VideoSourceMetadata", "VideoTargetMetadata"]
