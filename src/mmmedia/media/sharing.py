"""One decode for many: requests that shared a download also share what it decodes to.

Everyone gets an object of its own, which is the same as if it had been decoded for it alone: whatever one
does to it, nobody else's changes. The pixels are common to all until someone changes its own.

500 requests for 50 pictures take a fifth of the CPU time (`benchmarks/connector.py --without`).
"""

import enum
import functools
import io
import operator
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Protocol, cast

from PIL import Image, ImageDraw, ImagePalette, JpegImagePlugin, PngImagePlugin

from mmmedia import envs
from mmmedia.media.base import MediaIO, MediaWithBytes
from mmmedia.media.image import ImageMediaIO
from mmmedia.work.calls import holdable

if TYPE_CHECKING:
    import asyncio

    from PIL._imaging import core

    from mmmedia.work.calls import Calls
    from mmmedia.work.flight import Flight

    _Mixed = Image.Image
else:
    _Mixed = object

_AT_A_TIME = 16
"""Copies that one thread makes before it hands them over; others make the next ones meanwhile."""

_IMAGE_SETTINGS = (
    "image_mode", "rgba_background_color", "exif_transpose", "flatten_alpha", "max_pixels", "scale_depth",
)  # fmt: skip
_image_settings = operator.itemgetter(*_IMAGE_SETTINGS)
_OF_IMAGE_IO = frozenset({*_IMAGE_SETTINGS, "kwargs", "decoded_budget"})
_Core: Any = type(Image.new("L", (1, 1)).im)
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
    if state["decoded_budget"] is not None and state["max_pixels"] is not None:
        return None  # such a picture costs its full size, which a copy doesn't tell
    mode, color, *others = _image_settings(state)
    return (mode, tuple(color), *others, envs.VLLM_MAX_IMAGE_PIXELS)


def twin_maker(media: Any) -> Callable[[], Any] | None:
    """Return what makes equal objects; changes of those never show in the first, nor in each other.

    The first must not be changed from then on, as the others may have its pixels.

    Returns:
        A function without arguments; `None` if there is no telling how to copy the object.

    >>> red = MediaWithBytes(Image.new("RGB", (4, 2), "red"), b"...")
    >>> make = twin_maker(red)
    >>> twin = make()
    >>> twin.media.putpixel((0, 0), (0, 0, 0))
    >>> red.getpixel((0, 0)), make().getpixel((0, 0))
    ((255, 0, 0), (255, 0, 0))
    """
    if type(media) is not MediaWithBytes or not isinstance(media.media, Image.Image):
        return None
    data, config = media.original_bytes, media.io_config
    try:
        make_image = _image_maker(media.media)
    except _Unshareable:
        return None
    return lambda: MediaWithBytes(make_image(), data, config and dict(config))


def _image_maker(image: Image.Image) -> Callable[[], Image.Image]:
    image = cast("Image.Image", _as_plain(image))  # of a copy as of what it is a copy of
    kind = type(image)
    if not kind.__module__.startswith("PIL."):
        raise _Unshareable
    # Not by `Image.copy`, which forgets the class, the format and what else was read from the file.
    state = vars(image).copy()
    if state.get("_exif") is not None:
        state["_exif"] = None  # it is read from there again, by who asks
    copied = [(name, value, copy) for name, value in state.items() if (copy := _copier(value)) is not None]
    if is_lent := can_lend(image):
        kind = _LENT[kind]
        copied = [each for each in copied if each[0] != "_im"]

    def make() -> Image.Image:
        made: Any = kind.__new__(kind)
        attributes = vars(made)
        attributes.update(state)
        for name, value, copy in copied:
            attributes[name] = copy(value)
        if is_lent:
            made._lent = state["_im"]
        return cast("Image.Image", made)

    return make


class _Lent(_Mixed):
    """A picture whose pixels others have too, until somebody changes it: mixed into a class of Pillow.

    Pillow knows pictures that are `readonly`, as `Image.frombuffer` makes them: what changes one first gives
    it pixels of its own. Such is this one, for as long as it has the pixels it was made with, and it closes
    the ways around that which Pillow leaves: pixels set through `load`, `frombytes`, the pointer of `getim`,
    a palette on its way into the pixels, and `thumbnail`, which says that pixels are its own without having
    made them so. Its class stays what it is; it equals, copies and pickles as a picture of the class below.
    """

    # Not an attribute: those are of the picture as it was read.
    __slots__ = ("_lent",)
    _lent: "core.ImagingCore | None"

    @property
    def im(self) -> "core.ImagingCore":
        """The pixels."""
        return super().im

    @im.setter
    def im(self, im: "core.ImagingCore") -> None:
        self._im = im
        self._lent = None  # so that the others' pixels don't live for as long as this picture

    @property
    def readonly(self) -> int:
        """Whether the pixels are others' too, or of a buffer."""
        return 1 if self._im is self._lent else getattr(self._im, "readonly", 0)

    @readonly.setter
    def readonly(self, readonly: int) -> None:
        """Ignore it: what matters is whose the pixels are."""

    def load(self) -> Any:
        if self.readonly and self.palette is not None and self.palette.dirty:
            self.im = self.im.copy()
        access = super().load()
        return _Pixels(self) if self.readonly else access

    def frombytes(self, *args: Any, **kwargs: Any) -> None:
        self._ensure_mutable()
        super().frombytes(*args, **kwargs)

    def getim(self) -> Any:
        self._ensure_mutable()
        return super().getim()

    def __reduce_ex__(self, protocol: Any) -> Any:
        # In the form of later protocols, `pickle` insists on the class of the object itself.
        return _as_plain(self).__reduce_ex__(1)

    def __eq__(self, other: object) -> bool:
        # By their classes, Pillow would find a picture different from an equal one of the class below.
        return _as_plain(self).__eq__(_as_plain(other))

    __hash__ = None  # type: ignore[assignment]  # as pictures have none


class _Pixels:
    """What `load` returns: access to single pixels, which gives the picture its own when one is set."""

    def __init__(self, image: Image.Image) -> None:
        self._image = image

    def __getitem__(self, at: tuple[int, int]) -> Any:
        return self._image.im.pixel_access(1)[at]

    def __setitem__(self, at: tuple[int, int], value: Any) -> None:
        self._image._ensure_mutable()
        self._image.im.pixel_access(0)[at] = value

    getpixel, putpixel = __getitem__, __setitem__


_LENT: dict[type[Image.Image], type[Image.Image]] = {
    kind: type(kind.__name__, (_Lent, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    for kind in (Image.Image, JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile)
}
"""Of these it is known which of their methods change pixels; animated ones compose frames in place."""


def can_lend(image: Image.Image) -> bool:
    """Say whether other pictures may have the pixels of this one in common."""
    return type(image) in _LENT and not getattr(image, "is_animated", False) and _is_safe()


@functools.cache
def _is_safe() -> bool:
    """Try whether this Pillow keeps its hands off pixels that are `readonly`; if not, none are shared."""
    changes: tuple[Callable[[Any], object], ...] = (
        lambda image: image.putpixel((0, 0), (1, 2, 3, 4)),
        lambda image: image.paste((1, 2, 3, 4), (0, 0, 1, 1)),
        lambda image: image.paste(Image.new("RGBA", (1, 1), (1, 2, 3, 4)), (0, 0)),
        lambda image: image.putdata([(1, 2, 3, 4)] * 4),
        lambda image: image.putalpha(4),
        lambda image: image.alpha_composite(Image.new("RGBA", (1, 1), (1, 2, 3, 4))),
        lambda image: image.frombytes(bytes(range(1, 17))),
        lambda image: image.thumbnail((1, 1)),
        lambda image: image.load().__setitem__((0, 0), (1, 2, 3, 4)),
        lambda image: ImageDraw.Draw(image).point((0, 0), (1, 2, 3, 4)),
        lambda image: image.getim() and image.im.putpixel((0, 0), (1, 2, 3, 4)),
    )
    image, kind = Image.new("RGBA", (2, 2)), _LENT[Image.Image]
    for change in changes:
        lent: Any = kind.__new__(kind)
        try:
            vars(lent).update(vars(image))
            lent._lent = image.im
            if lent.im is not image.im or not lent.readonly:
                return False
            change(lent)
        except Exception:  # noqa: BLE001  # whatever another version raises
            return False
        if image.tobytes() != bytes(16) or lent.tobytes() == bytes(16):
            return False
    return True


def _as_plain(image: object) -> object:
    """Return a picture of the class below with the same pixels; anything else as it is."""
    if not isinstance(image, _Lent):
        return image
    kind = cast("type[Image.Image]", type(image).__mro__[2])
    plain = kind.__new__(kind)
    vars(plain).update(vars(image))
    return plain


def _copier(value: Any) -> Callable[[Any], Any] | None:
    """Return what copies a value and others like it, `None` if it can't be changed anyway."""
    kind = type(value)
    if kind in _IMMUTABLE or isinstance(value, enum.Enum):
        return None
    if kind in (dict, list, tuple):
        items = value.values() if kind is dict else value
        if _IMMUTABLE.issuperset(map(type, items)):  # tables of numbers, mostly
            return None if kind is tuple else kind.copy
    if kind is dict:
        within = {name: copy for name, item in value.items() if (copy := _copier(item)) is not None}
        return lambda items: {**items, **{name: copy(items[name]) for name, copy in within.items()}}
    if kind is list or kind is tuple:
        copiers = [_copier(item) for item in value]
        if not any(copiers):
            return None if kind is tuple else list.copy
        return lambda items: kind(
            copy(item) if copy else item for copy, item in zip(copiers, items, strict=True)
        )
    if kind in (ImagePalette.ImagePalette, _Core):
        return kind.copy  # type: ignore[no-any-return]
    if kind is io.BytesIO:
        return _copy_file
    raise _Unshareable


def _copy_file(file: io.BytesIO) -> io.BytesIO:
    copied = io.BytesIO(file.getvalue())
    copied.seek(file.tell())
    return copied


class Request(Protocol):
    """One of those who share.

    Attributes:
        future: where its object goes.
        has_budget: whether its errors may be its own.
    """

    future: "asyncio.Future[Any]"
    has_budget: bool

    def load(self) -> Any:
        """Decode for it alone."""

    def charge(self, media: Any, /) -> object:
        """Take what an object costs from its budgets before it is copied; raise if that is too much."""


class SharedDecode:
    """The decode of one download, for those who ask for the same of it, from before it has come.

    Args:
        calls: the threads that decode and copy.
    """

    def __init__(self, calls: "Calls") -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._is_open = False
        self._threads = 0
        self._original: Any = None
        """What nobody is given, as it may still be copied."""
        self._make: Callable[[], Any] | None = None
        """Makes copies of that."""
        self._error: BaseException | None = None

    def join(self, request: Request) -> None:
        """Let a request have the object, or the error, by way of its future; on the loop."""
        with self._lock:
            self._waiting.append(request)
            if self._threads or not self._is_open:
                return
            self._threads += 1
        self._start()

    def open(self, flight: "Flight[Any]") -> None:
        """Begin, as the download has landed; on the loop of those who wait."""
        with self._lock:
            self._is_open, self._error = True, flight.error
            waiting = self._waiting
            if self._error is not None:
                self._waiting = deque()
            elif waiting:
                self._threads += 1
        if self._error is not None:
            for request in waiting:
                if not request.future.done():
                    request.future.set_exception(holdable(self._error))
        elif waiting:
            self._start()

    def _start(self) -> None:
        """Set the thread to work that has just been counted."""
        try:
            self._calls.resolve(None, self._work)
        except BaseException as error:  # noqa: BLE001  # theirs who wait
            given_up: deque[Request] = deque()
            with self._lock:
                self._threads -= 1
                if not self._threads:
                    given_up, self._waiting = self._waiting, given_up
            for request in given_up:
                self._calls.finish(request.future, None, error)

    def _work(self) -> None:
        while requests := self._take(1 if self._make is None else _AT_A_TIME):
            if self._error is not None:
                self._calls.finish(requests[0].future, None, self._error)
            elif self._make is None:
                self._decode(requests[0])
            else:
                for request in requests:
                    self._copy(request, self._make)

    def _take(self, number: int) -> list[Request]:
        """Take requests that still wait; with the last, this thread's work ends."""
        helps = False
        with self._lock:
            taken: list[Request] = []
            while self._waiting and len(taken) < number:
                request = self._waiting.popleft()
                if not request.future.done():
                    taken.append(request)
            if not taken:
                self._threads -= 1
            elif self._waiting and self._make is not None:
                self._threads += 1
                helps = True
        if helps:
            self._start()
        return taken

    def _decode(self, request: Request) -> None:
        try:
            media = request.load()
        except BaseException as error:  # noqa: BLE001  # theirs to judge
            self._calls.finish(request.future, None, error)
            if not request.has_budget:
                self._error = error
            return
        if (make := twin_maker(media)) is not None:  # the others may only be about to join
            self._original, media = media, make()
            self._make = make
        self._calls.finish(request.future, media)

    def _copy(self, request: Request, make: Callable[[], Any]) -> None:
        try:
            request.charge(self._original)
            self._calls.finish(request.future, make())
        except BaseException as error:  # noqa: BLE001  # theirs to judge
            self._calls.finish(request.future, None, error)
