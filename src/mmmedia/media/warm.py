"""`warm_up`: all that the first fetch would import, imported before it."""

import importlib
import pkgutil

from mmmedia import metrics
from mmmedia.errors import InvalidArgumentError

_ALWAYS = (
    "mmmedia.media.connector",
    "mmmedia.media.sharing",
    "mmmedia.connections.blocking",
    "mmmedia.connections.on_loop",
)
# Also what PyAV and NumPy import when it is first used.
_LAZILY = ("av", "av.subtitles.stream", "numpy.ma")
_BY_MODALITY = {
    "image": ("mmmedia.media.image",),
    "audio": ("mmmedia.media.audio", "mmmedia.containers", "soundfile", *_LAZILY),
    "video": ("mmmedia.media.video", "mmmedia.containers", "mmmedia.video", "cv2", *_LAZILY),
}


def warm_up(*modalities: str) -> None:
    """Import what is otherwise imported by the first fetch, sync and async, and start no thread.

    Call it before forking: a process that is forked while another thread imports may wait for ever for what
    that thread was importing, in the child, where it does not run. The first request also takes less time.

    Args:
        modalities: "image", "audio", "video"; none of them for all.

    Raises:
        InvalidArgumentError: (a `ValueError`) another word.

    >>> warm_up("image")
    """
    for modality in modalities:
        if modality not in _BY_MODALITY:
            raise InvalidArgumentError(f"Unknown modality {modality!r}: expected image, audio or video.")
    metrics.register()
    for name in _ALWAYS:
        importlib.import_module(name)
    for modality in modalities or _BY_MODALITY:
        for name in _BY_MODALITY[modality]:
            _import_whole(name)
    if not modalities or "image" in modalities or "video" in modalities:
        from PIL import Image

        Image.init()


def _import_whole(name: str) -> None:
    """Import a module, or a package of ours with all its modules."""
    module = importlib.import_module(name)
    if name.startswith("mmmedia.") and hasattr(module, "__path__"):
        for found in pkgutil.walk_packages(module.__path__, f"{name}."):
            importlib.import_module(found.name)
