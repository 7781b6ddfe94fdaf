"""One decode for many: requests that shared a download also share what it decodes to.

Copying pixels takes a fiftieth of the time of decoding them. Everyone gets an object of its own, in which
nothing that can be changed is anyone else's, and which is the same as if it had been decoded for it alone.
"""

import enum
import io
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image, ImagePalette

from mmmedia import envs
from mmmedia.media.base import MediaIO, MediaWithBytes
from mmmedia.media.image import ImageMediaIO

if TYPE_CHECKING:
    import asyncio

    from mmmedia.hops import Hops

_AT_A_TIME = 16
"""Copies that one thread makes before it hands them over; others make the next ones meanwhile."""

_IMAGE_SETTINGS = ("image_mode", "rgba_background_color", "exif_transpose", "flatten_alpha", "max_pixels")
_OF_IMAGE_IO = frozenset({*_IMAGE_SETTINGS, "kwargs"})
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})


class _Unshareable(Exception):  # noqa: N818  # never leaves this module
    """Something of which it is not known how to copy it."""


def decode_key(media_io: MediaIO[Any]) -> Hashable | None:
    """Return what must be equal for two media IOs to decode to the same; `None` if that is not known.

    It is known of the pictures of this library, not of subclasses, nor of instances that were tampered with.
    """
    state = vars(media_io) if type(media_io) is ImageMediaIO else {}
    if state.keys() != _OF_IMAGE_IO:
        return None
    settings = [state[name] for name in _IMAGE_SETTINGS]
    settings[1] = tuple(settings[1])
    return (*settings, envs.VLLM_MAX_IMAGE_PIXELS)


def twin(media: Any) -> Any:
    """Return an equal object that shares nothing with it that can be changed; `None` if there is no telling.

    >>> red = MediaWithBytes(Image.new("RGB", (4, 2), "red"), b"...")
    >>> copy = twin(red)
    >>> copy.media.putpixel((0, 0), (0, 0, 0))
    >>> red.getpixel((0, 0))
    (255, 0, 0)
    """
    try:
        if type(media) is MediaWithBytes and isinstance(media.media, Image.Image):
            return MediaWithBytes(_twin_image(media.media), media.original_bytes)
    except _Unshareable:
        pass
    return None


def _twin_image(image: Image.Image) -> Image.Image:
    kind = type(image)
    if not kind.__module__.startswith("PIL."):
        raise _Unshareable
    # Not by `Image.copy`, which forgets the class, the format and what else was read from the file.
    copied = kind.__new__(kind)
    for name, value in vars(image).items():
        if name == "_im":
            vars(copied)[name] = image.im.copy()
        elif name == "_exif" and "exif" in image.info:
            vars(copied)[name] = None  # it is read from there again, by who asks
        else:
            vars(copied)[name] = _twin_value(value)
    return copied


def _twin_value(value: Any) -> Any:
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, enum.Enum):
        return value
    if kind is dict:
        return {name: item if type(item) in _IMMUTABLE else _twin_value(item) for name, item in value.items()}
    if kind is list or kind is tuple:
        if all(type(item) in _IMMUTABLE for item in value):
            return value[:]
        return kind(_twin_value(item) for item in value)
    if kind is ImagePalette.ImagePalette:
        return value.copy()
    if kind is io.BytesIO:
        file = io.BytesIO(value.getvalue())
        file.seek(value.tell())
        return file
    raise _Unshareable


@dataclass(slots=True)
class Request:
    """One of those who share.

    Attributes:
        future: where its object goes.
        load: decodes for it alone.
        charge: takes what an object costs from its budgets before it is copied; raises if that is too much.
        has_budget: whether its errors may be its own.
    """

    future: "asyncio.Future[Any]"
    load: Callable[[], Any]
    charge: Callable[[Any], object]
    has_budget: bool


class SharedDecode:
    """The decode of one download, for those who ask for the same of it.

    Args:
        hops: the threads that decode and copy.
    """

    def __init__(self, hops: "Hops") -> None:
        self._hops = hops
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._threads = 0
        self._original: Any = None
        """What nobody is given, as it may still be copied."""
        self._error: BaseException | None = None

    def join(self, request: Request) -> None:
        """Let a request have the object, or the error, by way of its future."""
        with self._lock:
            self._waiting.append(request)
            if self._threads:
                return
            self._threads += 1
        self._hops.start(self._work)

    def _work(self) -> None:
        while requests := self._take(1 if self._original is None else _AT_A_TIME):
            if self._original is None and self._error is None:
                self._decode(requests[0])
            else:
                for request in requests:
                    self._copy(request)

    def _take(self, number: int) -> list[Request]:
        """Take requests that still wait; with the last, this thread's work ends."""
        with self._lock:
            taken: list[Request] = []
            while self._waiting and len(taken) < number:
                request = self._waiting.popleft()
                if not request.future.cancelled():
                    taken.append(request)
            if not taken:
                self._threads -= 1
            elif self._waiting and self._original is not None:
                self._threads += 1
                self._hops.start(self._work)
            return taken

    def _decode(self, request: Request) -> None:
        try:
            media = request.load()
        except BaseException as error:  # noqa: BLE001  # theirs to judge
            self._hops.finish(request.future, None, error)
            if not request.has_budget:
                self._error = error
            return
        if (copied := twin(media)) is not None:  # the others may only be about to join
            self._original, media = media, copied
        self._hops.finish(request.future, media)

    def _copy(self, request: Request) -> None:
        if self._error is not None:
            self._hops.finish(request.future, None, self._error)
            return
        try:
            request.charge(self._original)
            self._hops.finish(request.future, twin(self._original))
        except BaseException as error:  # noqa: BLE001  # theirs to judge
            self._hops.finish(request.future, None, error)
