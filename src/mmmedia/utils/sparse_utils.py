"""Sparse tensors that strangers sent, made dense: the names of `vllm.utils.sparse_utils`."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mmmedia.errors import LimitExceededError
from mmmedia.exceptions import VLLMValidationError
from mmmedia.tensors import check_dense_bytes, checked_sparse_tensors

if TYPE_CHECKING:
    import torch


def check_sparse_tensor_invariants_threadsafe() -> AbstractContextManager[None]:
    """Return a context in which torch checks every sparse tensor that is made; one thread at a time.

    That torch checks at all is a switch of the whole process, which it sets and restores by itself.

    >>> import torch
    >>> with check_sparse_tensor_invariants_threadsafe():
    ...     torch.sparse_coo_tensor([[7]], [1.0], (2,))
    Traceback (most recent call last):
        ...
    RuntimeError: size is inconsistent with indices: for dim 0, size is 2 but found index 7
    """
    return checked_sparse_tensors()


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
