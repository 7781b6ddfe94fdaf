"""`MediaIO`, what every kind of media is loaded through, and `MediaWithBytes`, what some of them load to."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pybase64

from mmmedia.errors import InvalidMediaError

T = TypeVar("T")

_WHITE_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


@dataclass
class MediaWithBytes(Generic[T]):
    """A decoded object together with the bytes it was decoded from.

    It stands in for `media` where attributes are read and where NumPy makes an array of it. Special
    methods (``__len__``, ``__deepcopy__``, …) are its own, so that it copies and pickles as a whole.

    Attributes:
        media: the decoded object.
        original_bytes: the encoded bytes, as they came.

    >>> from PIL import Image
    >>> picture = MediaWithBytes(Image.new("RGB", (4, 2)), b"...")
    >>> picture.size, np.asarray(picture).shape
    ((4, 2), (2, 4, 3))
    """

    media: T
    original_bytes: bytes = field(repr=False)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return `media` as an array; `dtype` and `copy` mean what they mean to `numpy.asarray`."""
        if copy is None:  # NumPy 1 knows no other case, nor the argument
            return np.asarray(self.media, dtype=dtype)
        return np.asarray(self.media, dtype=dtype, copy=copy)

    def __getattr__(self, name: str) -> Any:  # only called for what is not found on the object itself
        # An instance that is being unpickled or copied has no media yet, and is asked for special methods.
        is_special = name.startswith("__") and name.endswith("__")
        if not is_special and name not in ("media", "original_bytes"):
            try:
                return getattr(self.media, name)
            except AttributeError:
                kind = f"{type(self).__name__!r} of {type(self.media).__name__!r}"
                raise AttributeError(f"{kind} has no attribute {name!r}", name=name, obj=self) from None
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}", name=name, obj=self)


class MediaIO(ABC, Generic[T]):
    """Loads one kind of media to `T` from bytes, from base64 text or from a file.

    Subclasses name the loaded type: ``class MyIO(MediaIO[MyType])``.

    Attributes:
        modality: what kind of media it loads, by which decodes are counted in `mmmedia.metrics`.
    """

    modality: ClassVar[str] = "other"

    @classmethod
    def merge_kwargs(
        cls, default_kwargs: Mapping[str, Any] | None, runtime_kwargs: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Return the keywords for one request: those of the engine, overridden by those of the request.

        The merge is shallow and its result a new dict; ``None`` counts as empty.

        >>> MediaIO.merge_kwargs({"fps": 2, "num_frames": 8}, {"num_frames": 4})
        {'fps': 2, 'num_frames': 4}
        """
        return {**(default_kwargs or {}), **(runtime_kwargs or {})}

    def get_max_bytes(self) -> int | None:
        """Return how many bytes it takes at most, `None` for no limit but those of the settings.

        The connector downloads no more.
        """
        return None

    @abstractmethod
    def load_bytes(self, data: bytes) -> T:
        """Load from the encoded bytes."""

    @abstractmethod
    def load_base64(self, media_type: str, data: str) -> T:
        """Load from base64 text.

        Args:
            media_type: the media type of the data URL it stood in, such as ``image/png``; may be empty.
            data: the text after the comma of that URL.
        """

    @abstractmethod
    def load_file(self, filepath: Path) -> T:
        """Load from a file.

        The connector does not: it reads the file that it has checked, and calls `load_bytes`.
        """


def decode_base64(data: str | bytes) -> bytes:
    r"""Decode base64 at memory speed: the standard alphabet, padded.

    White space is skipped (encoders wrap lines). Anything else out of place is refused, however late it
    comes, rather than dropped, which would shift all that follows.

    Raises:
        InvalidMediaError: (a `ValueError`) a character outside the alphabet, or wrong padding.

    >>> decode_base64("bW1t\nZWRpYQ==")
    b'mmmedia'
    """
    try:
        return pybase64.b64decode(data, validate=True)
    except ValueError:
        text = data if isinstance(data, str) else bytes(data).decode("latin-1")
    packed = _WHITE_SPACE.sub("", text)
    bad = _NOT_BASE64.search(packed)
    if bad is None:
        try:
            return pybase64.b64decode(packed, validate=True)
        except ValueError:
            reason = "wrong padding"
    else:
        reason = f"character {bad.start()} is not in the standard alphabet"
    raise InvalidMediaError(f"Invalid base64 data: {reason} ({len(packed)} characters).") from None


def encode_base64(data: bytes) -> str:
    """Encode as base64: the standard alphabet, padded, on one line.

    >>> encode_base64(b"mmmedia")
    'bW1tZWRpYQ=='
    """
    return pybase64.b64encode_as_string(data)
