"""`EmbeddingMediaIO`, the common part of image, audio and video embeddings: tensors that strangers sent."""

from pathlib import Path
from typing import TYPE_CHECKING

from mmmedia import envs
from mmmedia.errors import LimitExceededError, NotATensorError
from mmmedia.exceptions import VLLMValidationError
from mmmedia.media.base import MediaIO, decode_base64, encode_base64
from mmmedia.media.isolation import apart
from mmmedia.tensors import dump_tensor, load_tensor

if TYPE_CHECKING:
    import torch


class EmbeddingMediaIO(MediaIO["torch.Tensor"]):
    """Loads a `torch.Tensor`, dense, on the CPU, from a ``torch.save`` archive or a NumPy array.

    What is accepted, what is refused and how it is told apart: `mmmedia.tensors.load_tensor`.
    """

    def load_bytes(self, data: bytes) -> "torch.Tensor":
        """Return the tensor in `data`; errors as in `mmmedia.tensors.load_tensor`.

        What is no tensor, or too large, is a `VLLMValidationError` (400) as well, but with
        ``MMMEDIA_COMPAT=0.20``.
        """
        return self._load(data)

    def load_base64(self, media_type: str, data: str) -> "torch.Tensor":  # noqa: ARG002 the name is the interface
        """Return the tensor in base64 text; `media_type` is ignored.

        Raises:
            InvalidMediaError: (a `ValueError`) bad base64, and all that `load_bytes` raises.
        """
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> "torch.Tensor":
        """Return the tensor in a file; with the suffix ``.npy`` it must be a NumPy array.

        Raises:
            OSError: the file can't be read, and all that `load_bytes` raises.
        """
        return self._load(Path(filepath).read_bytes(), Path(filepath).suffix)

    def _load(self, data: bytes, suffix: str = "") -> "torch.Tensor":
        try:
            return _load_tensor(suffix, data)
        except (LimitExceededError, NotATensorError) as error:
            if envs.MMMEDIA_COMPAT == "0.20":
                raise
            parameter = f"{self.modality.partition('_')[0]}_embeds"
            text = f"{parameter} must be a torch.Tensor that is not too large. {error}"
            raise VLLMValidationError.around(error, text, parameter=parameter, value=None) from error

    def encode_base64(self, media: "torch.Tensor") -> str:
        """Return a ``torch.save`` archive of the tensor as base64."""
        return encode_base64(dump_tensor(media))


@apart("tensor")
def _load_tensor(suffix: str, data: bytes) -> "torch.Tensor":
    return load_tensor(data, suffix=suffix)
