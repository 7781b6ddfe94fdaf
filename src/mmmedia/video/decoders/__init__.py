"""Decoders: how to get the frames of a video by their index in display order.

`opencv` is the reference, sequential reading; `packets` and `bitstreams` say what a
stream holds. No decoder knows a sampler.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
