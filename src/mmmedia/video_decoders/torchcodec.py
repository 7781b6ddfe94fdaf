"""torchcodec, on the CPU or a GPU."""

from mmmedia.video.codecs.torchcodec import read

__all__ = ["read"]
