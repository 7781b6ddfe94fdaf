"""Video: samplers (which frames), decoders (how to get them), loaders (a sampler on a decoder, by name)."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
