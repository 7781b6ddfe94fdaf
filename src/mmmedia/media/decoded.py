"""What was decoded, in memory, for whoever asks for the same again: by content and by how it is decoded.

`MMMEDIA_DECODED_CACHE_MB` says how much is kept; nothing by default. The second turn of a chat about the same
video then costs a hash of its bytes and a copy of its frames.

A decode has a name where all that it depends on is known: media IOs of this library, with its own loaders, as
they were made. Limits are no part of the name: what was decoded under a limit is handed out under any that is
as wide.
"""

import copy
import math
import operator
import secrets
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import numpy as np

from mmmedia import envs, metrics
from mmmedia.cache.memory import Abandoned, MemoryCache
from mmmedia.hashing import content_hash
from mmmedia.media.base import MediaIO, MediaWithBytes, decode_base64
from mmmedia.media.budget import size_of
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.sharing import decode_key, twin_maker
from mmmedia.sources.base import Source

JPEG_SEQUENCE = "video/jpeg"
"""The media type of comma-separated JPEGs in base64, the one that is no file in base64."""

_PART = 4  # a medium larger than the capacity over this is not kept

_LIMITS = (
    "VLLM_MAX_IMAGE_PIXELS", "VLLM_MAX_VIDEO_DECODE_BYTES", "VLLM_MAX_AUDIO_DECODE_BYTES",
    "VLLM_MAX_AUDIO_DECODE_DURATION_S", "VLLM_MAX_AUDIO_CLIP_FILESIZE_MB",
)  # fmt: skip
_OF_VIDEO_IO = frozenset({"image_io", "num_frames", "kwargs", "video_loader"})
_OF_AUDIO_IO = frozenset({"audio_backend", "decoded_budget", "kwargs"})


def media_type_of(*args: Any) -> str:
    """Return the media type by which a media IO reads what it is called with; mostly none."""
    is_sequence = len(args) == 2 and args[0].strip().lower() == JPEG_SEQUENCE
    return JPEG_SEQUENCE if is_sequence else ""


class Content(NamedTuple):
    """What is to be decoded.

    Attributes:
        data: a file, or the text of a sequence of JPEGs; `None` for a source.
        media_type: that of the sequence; empty for all else.
        source: what is read in pieces.
    """

    data: bytes | str | None
    media_type: str = ""
    source: Source | None = None

    @classmethod
    def of(cls, *args: Any) -> "Content":
        """Return what a media IO would be given.

        Args:
            args: of `load_bytes`, `load_source`, or `load_base64`.

        Raises:
            InvalidMediaError: (a `ValueError`) text that is no base64.
        """
        if len(args) == 1:
            return cls(None, source=args[0]) if isinstance(args[0], Source) else cls(args[0])
        media_type = media_type_of(*args)
        return cls(args[1], media_type) if media_type else cls(decode_base64(args[1]))

    @property
    def size(self) -> int:
        """Bytes, encoded."""
        return self.source.size if self.source is not None else len(self.data or b"")

    @property
    def encoded(self) -> bytes | None:
        """The encoded bytes that go with what they decode to; `None` of a source."""
        return self.data.encode() if isinstance(self.data, str) else self.data

    @property
    def hash(self) -> str:
        """A name for it: the `content_hash` of its bytes.

        Of a source only its key, its validator and its size are known; such a name begins with "source-".
        Without a validator nothing says what is behind it, and it is named differently each time.
        """
        if self.source is None:
            return content_hash(self.encoded)
        validator = self.source.validator or secrets.token_hex(16)
        return f"source-{content_hash([self.source.key or self.source.name, validator, self.source.size])}"

    def load(self, media_io: MediaIO[Any]) -> Any:
        """Decode it."""
        if self.source is not None:
            load: Callable[[Source], Any] | None = getattr(media_io, "load_source", None)
            return load(self.source) if load else media_io.load_bytes(self.source.read_all())
        if isinstance(self.data, str):
            return media_io.load_base64(self.media_type, self.data)
        return media_io.load_bytes(self.data or b"")


class Decoded:
    """What one decode brought, of which others may have copies.

    Args:
        media: as a media IO returned it.
        content: what it was decoded from.

    Attributes:
        media: the same, without the bytes of its content; nobody may change it once it is shared.
        nbytes: what it takes in memory, decoded.
        is_shared: whether others have, or may get, copies of it.
    """

    def __init__(self, media: Any, content: Content) -> None:
        self.nbytes = size_of(media)
        self.is_shared = False
        if type(media) is MediaWithBytes and content.source is None:
            media = MediaWithBytes(media.media, b"", media.io_config)
        self.media = media
        self._limits = limits()
        self._make: Callable[[], Any] | None = None

    def is_admitted(self) -> bool:
        """Say whether it would be decoded under the limits of now, as far as that is known."""
        return all(map(operator.ge, limits(), self._limits))

    def hand_out(self, content: Content, *, writable: bool = True) -> Any:
        """Return a medium of the caller's own: itself, if nobody else has it, or a copy.

        Args:
            content: what the caller has, to go with it.
            writable: if not, arrays are read-only views of what all share.
        """
        media = self.media
        if self.is_shared or not writable:
            if type(media) is MediaWithBytes and self._make is None:
                self._make = twin_maker(media)
            media = self._make() if self._make is not None else _copied(media, writable=writable)
        if type(media) is MediaWithBytes and (data := content.encoded) is not None:
            media.original_bytes = data
        return media


def _copied(value: Any, *, writable: bool) -> Any:
    if type(value) is MediaWithBytes:
        inner = _copied(value.media, writable=writable)
        return MediaWithBytes(inner, value.original_bytes, copy.copy(value.io_config))
    if type(value) is tuple:
        return tuple(_copied(item, writable=writable) for item in value)
    if type(value) is np.ndarray:
        # Of a view one could say that it is writable after all, if what it is a view of is.
        return value.copy() if writable else np.asarray(value.data.toreadonly())
    return copy.deepcopy(value)


class DecodedCache(MemoryCache[Decoded]):
    """What was decoded, by name, counted in bytes."""

    def get_or_decode(self, key: Hashable, decode: Callable[[], Decoded]) -> Decoded:
        """Return what is there, or what another is decoding; else what `decode` returns, and keep it.

        An error is the caller's own: others try for themselves, as it may be of a budget or a limit.
        """
        while True:
            reservation = self.reserve(key)
            if reservation.is_leader:
                try:
                    made = decode()
                except BaseException:
                    reservation.abandon()
                    raise
                made.is_shared = reservation.fulfil(made)
                return made
            try:
                found = reservation.future.result()
            except Abandoned:
                continue
            if found.is_admitted():
                return found
            made = decode()  # under a lower limit, and so of use to more
            made.is_shared = True
            self.put(key, made)
            return made


def limits() -> tuple[float, ...]:
    """Return the limits of decoding now; infinity for none."""
    read = (getattr(envs, name) for name in _LIMITS)
    return tuple(limit if limit > 0 else math.inf for limit in read)


def how(media_io: MediaIO[Any], media_type: str = "") -> Hashable | None:
    """Return what a decode depends on beside its content and the limits; `None` if that is not known.

    Args:
        media_io: what decodes.
        media_type: that of the content.
    """
    kind, state = type(media_io), vars(media_io)
    if kind is ImageMediaIO:
        return decode_key(media_io)
    if media_io.modality == "audio":
        from mmmedia.media.audio import AudioMediaIO

        is_known = kind is AudioMediaIO and state.keys() == _OF_AUDIO_IO
        return ("audio", state["audio_backend"], envs.MMMEDIA_COMPAT) if is_known else None
    if media_io.modality == "video":
        from mmmedia.media.video import VideoMediaIO

        if kind is VideoMediaIO and state.keys() == _OF_VIDEO_IO:
            return _how_video(state, media_type)
    return None


def _how_video(state: dict[str, Any], media_type: str) -> Hashable | None:
    loader, options = _our_loader(state["video_loader"]), written(state["kwargs"])
    image_io: ImageMediaIO = state["image_io"]
    image = decode_key(image_io)
    # What a sequence of JPEGs costs, a copy of its frames doesn't tell.
    is_charged = media_type and image_io.decoded_budget is not None
    if loader is None or options is None or image is None or is_charged:
        return None
    modes = envs.MMMEDIA_COMPAT, envs.VLLM_VIDEO_DECODE
    return "video", loader, repr(state["num_frames"]), options, image, media_type, *modes


def _our_loader(loader: Any) -> type | None:
    """Return the class of a loader of this library, as it was made; `None` for any other."""
    kind = type(loader)
    return kind if kind.__module__.startswith("mmmedia.") and not vars(loader) else None


def written(value: Any) -> str | None:
    """Return options in a form in which equal ones are equal, 1 and 1.0 and True not; `None` of others."""
    plain = (type(None), bool, int, float, str)
    if type(value) in plain:
        return repr(value)
    if type(value) in (list, tuple):
        parts = [written(item) for item in value]
        return None if None in parts else f"[{','.join(filter(None, parts))}]"
    if type(value) is dict and all(type(name) is str for name in value):
        parts = [written(value[name]) for name in sorted(value)]
        return None if None in parts else f"{sorted(value)}{','.join(filter(None, parts))}"
    return None


_cache = DecodedCache(0, unit="bytes", largest=0)


def decoded_cache(capacity: int | None = None) -> DecodedCache | None:
    """Return the cache of this process; `None`, and drop what it has, where it is to hold nothing.

    Args:
        capacity: the bytes that it holds from now on; `None`: as many as the setting says now.
    """
    if capacity is None:
        capacity = envs.cache_settings().decoded_bytes
    if not capacity:
        if len(_cache):
            _cache.clear()
        return None
    _cache.resize(capacity, largest=capacity // _PART)
    return _cache


def _samples() -> Iterator[metrics.Sample]:
    stats = _cache.stats()
    for name in ("hits", "misses", "evictions"):
        yield metrics.Sample(f"mmmedia_decoded_cache_{name}_total", (), getattr(stats, name))
    yield metrics.Sample("mmmedia_decoded_cache_bytes", (), stats.bytes)
    yield metrics.Sample("mmmedia_decoded_cache_entries", (), stats.entries)


metrics.register_source(_samples)
