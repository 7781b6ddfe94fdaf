"""NVIDIA's decoder through DeepStream: its options; it is not called yet."""

from mmmedia.video.codecs.options import BACKEND_OPTIONS

OPTIONS = BACKEND_OPTIONS["deepstream"]
