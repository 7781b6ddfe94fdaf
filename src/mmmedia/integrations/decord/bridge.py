"""Of what kind the arrays are that readers return: "native", which is NumPy's, or "torch"."""

from typing import Any

import numpy as np

from mmmedia.errors import InvalidArgumentError

_BRIDGES = ("native", "torch")
_current = "native"


class Array(np.ndarray):
    """An array of NumPy with the method by which decord's own become one."""

    def asnumpy(self) -> "np.ndarray[Any, Any]":
        """Return it as a plain array."""
        return self.view(np.ndarray)


def set_bridge(new_bridge: str) -> None:
    """Choose what readers of this process return: "native" or "torch".

    Raises:
        InvalidArgumentError: (a `ValueError`) another of decord's bridges, or none of them.
    """
    global _current  # noqa: PLW0603 - decord's is one for the process, too
    if new_bridge not in _BRIDGES:
        raise InvalidArgumentError(f"bridge {new_bridge!r}: expected one of {', '.join(_BRIDGES)}.")
    _current = new_bridge


def reset_bridge() -> None:
    """Return to "native"."""
    set_bridge("native")


def bridge_out(array: "np.ndarray[Any, Any]") -> Any:
    """Return an array as what the bridge says."""
    if _current == "torch":
        import torch

        return torch.from_numpy(array)
    return array.view(Array)
