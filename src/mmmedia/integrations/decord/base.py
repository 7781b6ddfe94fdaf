"""Where decord decodes, and what it raises."""

from dataclasses import dataclass

from mmmedia.errors import InvalidMediaError


class DECORDError(InvalidMediaError, RuntimeError):
    """A video that can't be opened or decoded, or a device that is not there."""


@dataclass(frozen=True)
class Context:
    """A device; there is only the CPU."""

    device_type: str = "cpu"
    device_id: int = 0


def cpu(device_id: int = 0) -> Context:
    """Return the CPU."""
    return Context("cpu", device_id)


def gpu(device_id: int = 0) -> Context:
    """Refuse.

    Raises:
        DECORDError: (a `RuntimeError`) always.
    """
    raise DECORDError(f"gpu({device_id}): this reader decodes on the CPU only; use cpu().")
