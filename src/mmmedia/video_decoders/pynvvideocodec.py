"""NVIDIA's decoder through PyNvVideoCodec."""

from mmmedia.video.codecs.pynvvideocodec import pool_of, read

__all__ = ["pool_of", "read"]
