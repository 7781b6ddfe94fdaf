"""The names of `vllm.multimodal.utils` that are about media; those of `vllm.utils` stand below it."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
