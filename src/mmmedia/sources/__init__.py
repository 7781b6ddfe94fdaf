"""Sources: things of known size that are read in pieces."""

from mmmedia.sources.base import Source

__all__ = ["Source"]
