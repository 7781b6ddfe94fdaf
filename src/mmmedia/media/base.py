"""`MediaIO`, what every kind of media is loaded through, and `MediaWithBytes`, what some of them load to."""

import inspect
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pybase64

from mmmedia import envs
from mmmedia.connections.budget import Uncopied
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.sources import FileSource, Source

T = TypeVar("T")

_WHITE_SPACE = re.compile(r"[ \t\n\r\f\v]+")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


@dataclass
class MediaWithBytes(Generic[T]):
    """A decoded object together with the bytes it was decoded from.

    It stands in for `media` where attributes are read, where it is unpacked or indexed, and where NumPy makes
    an array of it. Other special methods (``__len__``, ``__deepcopy__``, …) are its own, so that it copies
    and pickles as a whole.

    Attributes:
        media: the decoded object.
        original_bytes: the encoded bytes, as they came.
        io_config: the options by which `media` differs from what the bytes alone decode to; `None`: it does
            not.

    >>> from PIL import Image
    >>> picture = MediaWithBytes(Image.new("RGB", (4, 2)), b"...")
    >>> picture.size, np.asarray(picture).shape
    ((4, 2), (2, 4, 3))
    """

    media: T
    original_bytes: bytes = field(repr=False)
    io_config: dict[str, Any] | None = field(default=None, repr=False)

    def __iter__(self) -> Iterator[Any]:
        return iter(cast("Any", self.media))

    def __getitem__(self, index: Any) -> Any:
        return cast("Any", self.media)[index]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return `media` as an array; `dtype` and `copy` mean what they mean to `numpy.asarray`."""
        if copy is None:  # NumPy 1 knows no other case, nor the argument
            return np.asarray(self.media, dtype=dtype)
        return np.asarray(self.media, dtype=dtype, copy=copy)

    def __getattr__(self, name: str) -> Any:  # only called for what is not found on the object itself
        # An instance that is being unpickled or copied has no media yet, and is asked for special methods.
        is_special = name.startswith("__") and name.endswith("__")
        if not is_special and name not in ("media", "original_bytes", "io_config"):
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

    def __repr__(self) -> str:
        """Return the class with what it was given that is not as it is by default."""
        state, shown = vars(self), {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name in state and state[name] is not parameter.default and state[name] != parameter.default:
                shown[name] = state[name]
        shown.update(state.get("kwargs") or {})
        shown.pop("kwargs", None)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

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


class SourceMediaIO(MediaIO[T]):
    """A media IO that also loads through a source, of which it reads what it needs.

    Attributes:
        keeps_source: whether what it loads reads on when the request is over.
    """

    keeps_source: bool = False

    @property
    def smallest_source(self) -> int:
        """Bytes below which it is given all of them instead, unless `fetch_mode` is "always"."""
        from mmmedia.video.piecewise.reading import SMALLEST

        return 0 if self.fetch_mode() == "always" else SMALLEST

    @abstractmethod
    def load_source(self, source: Source) -> T:
        """Load through a source."""

    def load_file(self, filepath: Path) -> T:
        """Load from a file, of which no more is read than that takes; a pipe is read to its end."""
        # The path as it is given: one made of it may be another file's.
        if not os.path.isfile(filepath):  # noqa: PTH113
            with open(filepath, "rb") as pipe:  # noqa: PTH123
                return self.load_bytes(pipe.read())
        with FileSource(filepath) as source:
            if self.fetch_mode() == "never" or source.size < self.smallest_source:
                return self.load_bytes(source.read_all())
            return self.load_source(source)

    def fetch_mode(self) -> str:
        """Return "auto", "never" or "always": whether it is given sources; by the settings of videos."""
        from mmmedia.video.piecewise.reading import fetch_mode, refusal

        mode = fetch_mode(None)
        return mode if mode == "always" or refusal(mode) is None else "never"


class Chargeable(Protocol):
    """What a request may still use up, an engine's own or one of this library."""

    def charge(self, num_bytes: int, /) -> object:
        """Take so many bytes; raise if the request has used up its share."""


class Reservable(Chargeable, Protocol):
    """A budget in which what is not known before decoding can be set aside, as in `MediaDecodedBudget`."""

    def reserve(self, max_bytes: int, /) -> int:
        """Set bytes aside, and return how many."""

    def settle(self, granted: int, actual: int, /) -> object:
        """Give them back, and take what was used."""


class MediaDecodedBudget(Uncopied):
    """The bytes that all media of one request may decode to, charged from any thread.

    What is known before decoding is charged (`charge`). Where it isn't, the most that it may be is reserved,
    and settled with what it was; who finds too little left, and reservations outstanding, waits for these.

    Args:
        max_bytes: the ceiling, 0 or less for none; `None`: `VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES`.

    >>> budget = MediaDecodedBudget(100)
    >>> budget.charge(60)
    >>> granted = budget.reserve(80)
    >>> budget.settle(granted, 10)
    >>> granted, budget.used
    (40, 70)
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._limit = envs.VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES if max_bytes is None else max_bytes
        self._used = 0
        self._reserved = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        """The bytes charged and settled so far."""
        return self._used

    def charge(self, decoded_bytes: int) -> None:
        """Take so many bytes, or none; wait while only reservations of others stand in the way.

        Raises:
            LimitExceededError: (a `ValueError`) there are not so many left.
        """
        if decoded_bytes <= 0 or self._limit <= 0:
            return
        with self._changed:
            while True:
                if self._used + decoded_bytes > self._limit:
                    raise self._exceeded(decoded_bytes)
                if self._used + self._reserved + decoded_bytes <= self._limit:
                    break
                self._changed.wait()
            self._used += decoded_bytes

    def reserve(self, max_bytes: int) -> int:
        """Set bytes aside that may be needed, and return how many: fewer where fewer are left.

        Args:
            max_bytes: the most that may be needed.

        Raises:
            LimitExceededError: (a `ValueError`) none are left.
        """
        if self._limit <= 0:
            return max_bytes
        with self._changed:
            while self._used + self._reserved + max_bytes > self._limit and self._reserved:
                self._changed.wait()
            granted = min(max_bytes, self._limit - self._used - self._reserved)
            if granted <= 0 < max_bytes:
                raise self._exceeded(max_bytes)
            self._reserved += granted
            return granted

    def settle(self, reserved: int, decoded_bytes: int) -> None:
        """Give back a reservation, and take what was used of it.

        Args:
            reserved: what `reserve` returned.
            decoded_bytes: those used, 0 where decoding failed.

        Raises:
            LimitExceededError: (a `ValueError`) more than was reserved, or than is left.
        """
        if self._limit <= 0:
            return
        with self._changed:
            self._reserved -= reserved
            self._changed.notify_all()
            if decoded_bytes > reserved:
                raise LimitExceededError(
                    f"{decoded_bytes} bytes were decoded on a reservation of {reserved}; "
                    "see VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES."
                )
            if self._used + decoded_bytes > self._limit:
                raise self._exceeded(decoded_bytes)
            self._used += decoded_bytes

    def _exceeded(self, num_bytes: int) -> LimitExceededError:
        return LimitExceededError(
            f"{num_bytes} more decoded bytes are too many for one request, of which {self._used} of "
            f"{self._limit} are used (VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES)."
        )


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
