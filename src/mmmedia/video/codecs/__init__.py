"""Decoders other than OpenCV and PyAV, each in a package of its own: chosen by the keyword `backend`."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
