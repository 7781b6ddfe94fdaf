"""`Media`: something that was fetched and is decoded when that is asked for, once."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from mmmedia.connections import sync_error
from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.media import sparse
from mmmedia.media.base import MediaIO, SourceMediaIO
from mmmedia.media.decoded import Content, Decoded, DecodedCache, how, written
from mmmedia.media.kinds import kind_by_reading, kind_of
from mmmedia.sources import Source, Window, WindowSource
from mmmedia.urls import redact_url

MODALITIES = ("image", "audio", "video")


class _Loads(Protocol):
    """The connector that opened it."""

    def _media_io(self, modality: str, kwargs: Mapping[str, Any]) -> MediaIO[Any]: ...

    def _decoded(self, media_io: MediaIO[Any], content: Content, content_hash: str) -> Decoded: ...

    def _charge_copy(self, media: object, media_io: MediaIO[Any]) -> None: ...

    def _in_pool(self, function: Callable[..., Any], *args: Any) -> Awaitable[Any]: ...


class Media:
    """What is behind a URL: its bytes are here, and it is decoded when that is asked for.

    `MediaConnector.open` makes it. Whoever holds it shares what it decodes to, for as long as it is held:
    each load returns a medium of the caller's own, which is the same as if it had been decoded for it alone.
    Thread-safe.

    Attributes:
        url: where it came from.
        modality: "image", "audio" or "video": what `load` loads it as unless told otherwise.
        content_hash: the name of its content, known before anything is decoded: what `mmmedia.content_hash`
            returns for its bytes.
        content_hash_of: "bytes"; or "source" where the bytes are not all here: then the name is made of the
            source's name, size and validator, begins with "source-", and equals that of no bytes.
        size: its encoded bytes in all.
    """

    def __init__(self, loads: _Loads, url: str, content: Content, modality: str | None = None) -> None:
        self._loads, self._content = loads, content
        self.url = url
        self.modality = modality or _modality_of(content)
        self.content_hash = content.hash
        self.content_hash_of: Literal["bytes", "source"] = "bytes" if content.source is None else "source"
        self.size = content.size
        self._decodes = DecodedCache(None)
        self._when_sound: Callable[[], object] | None = None
        self._when_unsound: Callable[[], object] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._content.source is not None:
            raise TypeError("A handle of what is read in pieces is of this process; open the URL anew.")
        return type(self), (self._loads, self.url, self._content, self.modality)

    def __repr__(self) -> str:
        return f"Media({redact_url(self.url)!r}, {self.modality}, {self.size} bytes)"

    def load(self, modality: str | None = None, /, *, copy: bool = True, **kwargs: Any) -> Any:
        """Return it decoded; decoded at most once for equal arguments, whoever holds it.

        Args:
            modality: what to load it as, if not as `self.modality`: the sound of a video by "audio".
            copy: if not, arrays are read-only views of what all share, and cost nothing. Pictures share
                their pixels, until they are changed, in either case.
            **kwargs: keywords for the media IO, over the connector's `media_io_kwargs`, such as `num_frames`,
                `start` and `end`; and what the connector's `fetch_*` takes: `image_mode`, `video_processor`.

        Returns:
            What the connector's `fetch_image`, `fetch_audio` or `fetch_video` does; errors likewise.

        Raises:
            InvalidArgumentError: (a `ValueError`) another modality.
        """
        modality = check_modality(modality) or self.modality
        media_io = self._loads._media_io(modality, kwargs)
        name = how(media_io, self._content.media_type)
        if name is None and (options := written(kwargs)) is not None:
            name = modality, options  # a loader or media IO of another make, the same at each call
        is_decoded = False

        def decode() -> Decoded:
            nonlocal is_decoded
            is_decoded = True
            try:
                return self._loads._decoded(media_io, self._content, self.content_hash)
            except Exception as error:
                if self._content.source is None:
                    raise
                translated = sparse.translated(self.url, sync_error(error, self.url))
                if translated is error:
                    raise
                raise translated from error

        try:
            found = decode() if name is None else self._decodes.get_or_decode(name, decode)
        except LimitExceededError:
            raise
        except ValueError:
            if self._when_unsound is not None and not self._decodes:
                self._when_unsound()
            raise
        if not is_decoded:
            self._loads._charge_copy(found.media, media_io)
        elif (keep := self._when_sound) is not None:
            self._when_sound = None
            keep()
        return found.hand_out(self._content, writable=copy)

    async def load_async(self, modality: str | None = None, /, *, copy: bool = True, **kwargs: Any) -> Any:
        """Return it decoded, which a thread of the pool does; see `load`."""
        return await self._loads._in_pool(functools.partial(self.load, modality, copy=copy, **kwargs))


def check_modality(modality: str | None) -> str | None:
    """Return it.

    Raises:
        InvalidArgumentError: (a `ValueError`) it is none.
    """
    if modality is not None and modality not in MODALITIES:
        raise InvalidArgumentError(f"Unknown modality {modality!r:.64}: expected image, audio or video.")
    return modality


def _modality_of(content: Content) -> str:
    is_file = isinstance(content.data, bytes)
    return kind_of(content.data) if is_file else "video"  # type: ignore[arg-type]


class Opening(SourceMediaIO[Media]):
    """Loads to a handle, so that opening goes the way of every load; nothing is decoded or stored by it.

    Args:
        loads: the connector that opens.
        url: what it opens.
        modality: what it is opened as.
        media_io: what will decode it; where nobody says what it is, what would if it is a video.
    """

    keeps_source = True

    def __init__(self, loads: _Loads, url: str, modality: str | None, media_io: MediaIO[Any]) -> None:
        self._loads, self._url, self._modality, self._media_io = loads, url, modality, media_io
        self._media: Media | None = None
        self._when_unsound: Callable[[], object] | None = None

    def get_max_bytes(self) -> int | None:
        """Return what the media IO of the modality takes."""
        return self._media_io.get_max_bytes()

    @property
    def smallest_source(self) -> int:
        """Bytes below which that media IO reads a source whole."""
        return self._media_io.smallest_source if isinstance(self._media_io, SourceMediaIO) else 0

    def fetch_mode(self) -> str:
        """Return that of the media IO; "never" for what takes no sources."""
        return self._media_io.fetch_mode() if isinstance(self._media_io, SourceMediaIO) else "never"

    def load_bytes(self, data: bytes) -> Media:
        """Return the handle of a file."""
        return self._opened(Content(data))

    def load_base64(self, media_type: str, data: str) -> Media:
        """Return the handle of what a data URL holds."""
        return self._opened(Content.of(media_type, data))

    def load_file(self, filepath: Path) -> Media:
        """Return the handle of a file."""
        return self.load_bytes(filepath.read_bytes())

    def load_source(self, source: Source) -> Media:
        """Return the handle of what is read in pieces, as the decoder asks for them.

        Where nobody says what it is, its tables tell; of what they don't tell to be a video all is read.
        """
        if self._modality is not None:
            return self._opened(Content(None, source=source))
        window = Window(source)
        if kind_by_reading(window) == "video":
            return self._opened(Content(None, source=WindowSource(window)))
        data = window.all()
        source.close()
        return self.load_bytes(data)

    def _opened(self, content: Content) -> Media:
        media = self._media = Media(self._loads, self._url, content, self._modality)
        media._when_unsound = self._when_unsound
        return media

    def opened_download(self, keep: Callable[[], object]) -> None:
        """Have what was downloaded stored by the first decode that succeeds."""
        assert self._media is not None
        self._media._when_sound = keep

    def opened_cached(self, forget: Callable[[], object]) -> None:
        """Have what comes out of the cache forgotten, should it not decode."""
        self._when_unsound = forget
