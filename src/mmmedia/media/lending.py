"""Pictures that have their pixels in common until one of them is changed.

Pillow knows pictures that are read-only, such as those over a mapped file: what changes one first gives it
pixels of its own. A picture made here is such a one, of a class that closes the few ways around that, and
turns into its plain class on the first change. A hundred requests for one picture so take the memory of one.
"""

from typing import TYPE_CHECKING, Any, cast

from PIL import Image, JpegImagePlugin, PngImagePlugin

if TYPE_CHECKING:
    from PIL._imaging import core

    _Mixed = Image.Image
else:
    _Mixed = object

# Of these it is known which of their methods change pixels; animated ones compose frames in place.
_KINDS: tuple[type[Image.Image], ...] = (
    Image.Image,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
)


class _Borrower(_Mixed):
    """Mixed into a class of Pillow: its pixels are others', too."""

    def _own(self) -> "Image.Image":
        """Take a copy of the pixels; from then on it is a plain picture."""
        self.im = self.im.copy()
        return self

    @property
    def im(self) -> "core.ImagingCore":
        return super().im

    @im.setter
    def im(self, im: "core.ImagingCore") -> None:
        self._im = im
        self.__class__ = _plain(type(self))  # type: ignore[assignment]  # which is a base of its own

    @property
    def readonly(self) -> int:
        return 1

    @readonly.setter
    def readonly(self, readonly: int) -> None:
        """Ignore who says that pixels are its own without having made them so, such as `thumbnail`."""

    def load(self) -> Any:
        if self.palette is not None and self.palette.dirty:  # it is about to be written into the pixels
            return self._own().load()
        super().load()
        return _Pixels(self)

    def frombytes(self, *args: Any, **kwargs: Any) -> None:
        self._own().frombytes(*args, **kwargs)

    def getim(self) -> Any:
        return self._own().getim()  # who has the pointer may write

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._own().__reduce_ex__(protocol)

    def __eq__(self, other: object) -> bool:
        # By their classes, Pillow would find a picture different from an equal one that has its own pixels.
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


def can_lend(image: Image.Image) -> bool:
    """Say whether other pictures may have the pixels of this one in common."""
    return type(image) in _KINDS and not getattr(image, "is_animated", False)


def borrower(kind: type[Image.Image]) -> type[Image.Image]:
    """Return the class of pictures that are of a kind, but have their pixels in common with others.

    >>> red = Image.new("RGB", (4, 2), "red")
    >>> twin = borrower(Image.Image).__new__(borrower(Image.Image))
    >>> vars(twin).update(vars(red))
    >>> twin == red, twin.im is red.im
    (True, True)
    >>> twin.putpixel((0, 0), (0, 0, 0))
    >>> red.getpixel((0, 0)), type(twin) is Image.Image
    ((255, 0, 0), True)
    """
    return _borrowers[kind]


def _plain(kind: type["_Borrower"]) -> type[Image.Image]:
    return cast("type[Image.Image]", kind.__mro__[2])


def _as_plain(image: object) -> object:
    if not isinstance(image, _Borrower):
        return image
    kind = _plain(type(image))
    plain = kind.__new__(kind)
    vars(plain).update(vars(image))
    return plain


_borrowers: dict[type[Image.Image], type[Image.Image]] = {
    kind: type(kind.__name__, (_Borrower, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
    for kind in _KINDS
}
