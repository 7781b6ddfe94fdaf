"""`MediaBudget`: what all media of one request may use up together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmmedia import envs
from mmmedia.connections.budget import Uncopied
from mmmedia.errors import LimitExceededError
from mmmedia.media.base import Chargeable, MediaIO
from mmmedia.media.embedding import EmbeddingMediaIO

Budget = Chargeable
"""What a request may still use up: a `Share`, or what an engine has for it."""


def is_reservable(budget: Budget | None) -> bool:
    """Whether a budget is charged as vLLM 0.33 does it, by the media IOs: it can settle what it reserved."""
    return hasattr(budget, "settle")


def charges_itself(media_io: MediaIO[Any], budget: Budget | None) -> bool:
    """Whether a media IO charges the budget, or what it loads is not charged, as vLLM does not."""
    own = getattr(media_io, "decoded_budget", None)
    return is_reservable(budget) and (own is budget or isinstance(media_io, EmbeddingMediaIO))


def pixel_bytes(media: Any) -> int:
    """Return what a picture costs where `ImageMediaIO` charges for it, whatever its mode."""
    width, height = media.size
    return int(width * height * 4)


def own_charge(media: Any) -> int:
    """Return what a medium costs where its media IO charges for it."""
    picture = getattr(media, "media", media)
    return pixel_bytes(picture) if hasattr(picture, "getbands") else size_of(media)


class Share(Uncopied):
    """A ceiling of bytes that many charge, from any thread.

    Args:
        what: what the bytes are, for messages.
        max_bytes: the ceiling; `None` or 0 for none.

    >>> share = Share("downloaded", max_bytes=100)
    >>> share.charge(60)
    >>> share.remaining
    40
    >>> share.charge(41)
    Traceback (most recent call last):
        ...
    mmmedia.errors.LimitExceededError: 41 more downloaded bytes would exceed the MediaBudget of this \
request: 60 of 100 are used.
    """

    def __init__(self, what: str, max_bytes: int | None) -> None:
        self.what = what
        self.max_bytes = max_bytes if max_bytes and max_bytes > 0 else None
        self.used = 0
        self._lock = threading.Lock()
        self._decoding = threading.Lock()

    @property
    def remaining(self) -> int | None:
        """The bytes left, `None` without a ceiling."""
        return None if self.max_bytes is None else self.max_bytes - self.used

    def charge(self, number_of_bytes: int) -> None:
        """Take so many bytes, or none.

        Raises:
            LimitExceededError: (a `ValueError`) there are not so many left.
        """
        with self._lock:
            if self.max_bytes is not None and self.used + number_of_bytes > self.max_bytes:
                raise LimitExceededError(
                    f"{number_of_bytes} more {self.what} bytes would exceed the MediaBudget of this request: "
                    f"{self.used} of {self.max_bytes} are used."
                )
            self.used += number_of_bytes

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """Decode inside: one after the other, with what is left as the limit of every media IO.

        So what would not fit is refused by its header, before memory is spent on it.
        """
        if self.max_bytes is None:
            yield
            return
        with self._decoding:
            left = max(self.max_bytes - self.used, 1)  # 0 would mean that there is no limit
            ceilings = {
                "VLLM_MAX_IMAGE_PIXELS": left,  # at least a byte each
                "VLLM_MAX_AUDIO_DECODE_BYTES": left,
                "VLLM_MAX_EMBED_DECODE_BYTES": left,
                "VLLM_MAX_VIDEO_DECODE_BYTES": left,
            }
            try:
                with envs.at_most(ceilings):
                    yield
            except LimitExceededError as error:
                raise LimitExceededError(
                    f"{error} The MediaBudget of this request has {left} {self.what} bytes left."
                ) from error


class MediaBudget:
    """What all media of one request may use up together: a budget of encoded bytes and one of decoded bytes.

    Attributes:
        download: the budget of downloaded, that is encoded, bytes.
        decoded: the budget of decoded bytes.

    Hand one to every connector of the request: ``MediaConnector(budget=MediaBudget(...))``. Encoded bytes
    count however they came, also in data URLs, files and out of the cache. Media under a ceiling of decoded
    bytes are decoded one after the other, so that together they never exceed it. It can't be copied or sent
    to another process, nor can a connector that has one: what was used there would not count here.

    Args:
        max_download_bytes: the ceiling of encoded bytes; `None` or 0 for none.
        max_decoded_bytes: the ceiling of pixels, samples and tensors in bytes; `None` or 0 for none.
    """

    def __init__(
        self, *, max_download_bytes: int | None = None, max_decoded_bytes: int | None = None
    ) -> None:
        self.download = Share("downloaded", max_download_bytes)
        self.decoded = Share("decoded", max_decoded_bytes)

    def __repr__(self) -> str:
        shares = (
            f"{share.what}: {share.used} of {share.max_bytes}" for share in (self.download, self.decoded)
        )
        return f"MediaBudget({', '.join(shares)})"


def size_of(media: object) -> int:
    """Return how many bytes a decoded object occupies, as far as its kind is known.

    >>> size_of((memoryview(b"abcd"), {"duration": 2}))
    4
    """
    if isinstance(wrapped := getattr(media, "media", None), tuple):  # a video with its bytes
        media = wrapped
    if isinstance(media, tuple | list):
        return sum(size_of(item) for item in media)
    if isinstance(size := getattr(media, "nbytes", None), int):  # arrays and tensors
        return size
    picture: Any = getattr(media, "media", media)
    if hasattr(picture, "getbands") and hasattr(picture, "size"):
        width, height = picture.size
        sample = {"1": 1, "I": 4, "F": 4, "I;16": 2}.get(picture.mode, 1)
        return int(width * height * len(picture.getbands()) * sample)
    return 0
