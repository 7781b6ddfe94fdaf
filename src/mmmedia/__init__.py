"""Getting media into multimodal models: fetch safely, decode exactly, hand over arrays.

Names are loaded when they are first used, so that ``import mmmedia`` stays light.

>>> import mmmedia
>>> "qwen3_vl" in mmmedia.VIDEO_LOADER_REGISTRY
True
"""

import lazy_loader as _lazy

from mmmedia._version import __version__ as __version__

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
