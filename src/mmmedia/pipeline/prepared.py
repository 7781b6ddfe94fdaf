"""What stands between preprocessing and encoders: the inputs that one content part became."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Preprocessed:
    """What one content part became for its encoder.

    Attributes:
        items: what the encoder takes, one tensor an item: (3, height, width) for a picture or for each frame
            of a clip, (patches, values) for a picture or a clip that was cut into patches, (mels, frames)
            for a sound.
        grid_thw: patches in time, height and width, where `items` holds patches.
        timestamps: seconds from the start of the clip, one for each frame; `None` for other modalities and
            where the clip's rate is not known.
    """

    items: Sequence["torch.Tensor"]
    grid_thw: tuple[int, int, int] | None = None
    timestamps: tuple[float, ...] | None = None


@runtime_checkable
class Preprocessor(Protocol):
    """What makes of one decoded medium the inputs of its encoder."""

    @property
    def fingerprint(self) -> str:
        """A name for all settings that change what `prepare` returns."""

    def prepare(self, media: Any, /) -> Preprocessed:
        """Return the inputs of the encoder."""
