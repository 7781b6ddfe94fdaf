"""Sparse tensors that strangers sent, made dense: the names of `vllm.utils.sparse_utils`."""

from typing import TYPE_CHECKING

from mmmedia.errors import LimitExceededError
from mmmedia.exceptions import VLLMValidationError
from mmmedia.tensors import (
    check_dense_bytes,
    checked_sparse_tensors as check_sparse_tensor_invariants_threadsafe,
)

if TYPE_CHECKING:
    import torch

__all__ = ["check_sparse_tensor_invariants_threadsafe", "safe_to_dense"]


def safe_to_dense(tensor: object, *, parameter: str) -> "torch.Tensor":
    """Return a tensor as a dense one, if it is not too large for that.

    Args:
        tensor: what was sent as an embedding.
        parameter: the name of what it came in, such as "image_embeds".

    Raises:
        VLLMValidationError: (a `ValueError`) no tensor, or of more dense bytes than
            `VLLM_MAX_EMBED_DECODE_BYTES`; nothing of that size is allocated then.

    >>> import torch
    >>> safe_to_dense(torch.sparse_coo_tensor([[1]], [2.0], (3,)), parameter="image_embeds")
    tensor([0., 2., 0.])
    """
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise VLLMValidationError(
            f"{parameter}: expected a torch.Tensor, got a {type(tensor).__name__}.", parameter=parameter
        )
    try:
        check_dense_bytes(tuple(tensor.shape), tensor.element_size())
    except LimitExceededError as error:
        raise VLLMValidationError.around(error, str(error), parameter=parameter, value=None) from error
    return tensor.to_dense()
