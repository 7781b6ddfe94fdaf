"""The front door: one thing from wherever it is, to look at; see `load_image`, `load_video`, `load_audio`."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
