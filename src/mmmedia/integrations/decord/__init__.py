"""decord's `VideoReader`, on this library's decoders; decord itself is not needed.

Import `VideoReader` and `cpu` from here; or call `install` first, for code that imports them from decord and
that you don't want to change.

>>> import io
>>> from mmmedia.cli import scene
>>> reader = VideoReader(io.BytesIO(scene.clip()), ctx=cpu(0))
>>> len(reader), reader.get_batch([0, 10]).asnumpy().shape, reader[-1].shape
(192, (2, 288, 512, 3), (288, 512, 3))
"""

import sys

from mmmedia.integrations.decord import base, bridge, logging
from mmmedia.integrations.decord.base import Context, DECORDError, cpu, gpu
from mmmedia.integrations.decord.reader import VideoReader

__all__ = [
    "Context", "DECORDError", "VideoReader", "__version__", "base", "bridge", "cpu", "gpu", "install",
    "logging",
]  # fmt: skip

__version__ = "0.6.0"
"""The release of decord that this stands in for."""


def install() -> None:
    """Make ``import decord`` in this process mean this module.

    Modules that have imported decord before keep the one they have.
    """
    for name in ("", ".base", ".bridge", ".logging"):
        sys.modules[f"decord{name}"] = sys.modules[f"{__name__}{name}"]
