"""The names of `vllm.multimodal.video_decoders`: `decode_video`, which decoder has which options, limits.

What they are made of stands in `mmmedia.video.decoders` and `mmmedia.video.codecs`.
"""

from importlib import import_module  # noqa: F401  # by which decoders are found

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
