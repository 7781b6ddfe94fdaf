"""The connector `mmmedia` of vLLM: what it is asked for, fetched by this library, in vLLM's own wrappers."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from vllm.connections import HTTPResponseSizeExceededError
from vllm.multimodal.media import (
    AudioMediaIO as VLLMAudioMediaIO,
    MediaWithBytes as VLLMMediaWithBytes,
    VideoMediaIO as VLLMVideoMediaIO,
)
from vllm.multimodal.media.connector import MediaConnector as VLLMMediaConnector

from mmmedia import envs, metrics
from mmmedia.exceptions import HTTPResponseSizeExceededError as TooLargeOfItsKindError
from mmmedia.integrations.vllm import codec
from mmmedia.integrations.vllm.errors import translate
from mmmedia.media import ImageMediaIO, MediaConnector, MediaIO
from mmmedia.urls import url_scheme

if TYPE_CHECKING:
    from pathlib import Path

    from mmmedia.media import MediaWithBytes

T = TypeVar("T")

_TIMEOUTS = {
    "image": "VLLM_IMAGE_FETCH_TIMEOUT",
    "audio": "VLLM_AUDIO_FETCH_TIMEOUT",
    "video": "VLLM_VIDEO_FETCH_TIMEOUT",
}


class VLLMConnector(VLLMMediaConnector):  # type: ignore[misc]  # vLLM's names have no types here
    """Loads media for vLLM, one connector a message.

    URLs are fetched, cached and refused by `mmmedia.media.MediaConnector`. Pictures are decoded by this
    library, and so are the frames that vLLM's video loaders choose, as long as they read by a codec that can
    be named and the request names none. Sounds and embeddings are decoded by vLLM's own media IOs, as which
    decoder vLLM takes for them is a matter of what else is installed.

    Args:
        media_io_kwargs: keywords for the media IOs, by modality.
        *args: as vLLM's connector has them.
        allowed_local_media_path: the directory below which file URLs may point; empty for none.
        allowed_media_domains: the hosts that URLs may name; empty for any.
        decoded_budget: vLLM's, of what the request may decode.
        download_budget: vLLM's, of what the request may download.
        **kwargs: as vLLM's connector has them.
    """

    def __init__(
        self,
        media_io_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        *args: Any,
        allowed_local_media_path: str = "",
        allowed_media_domains: list[str] | None = None,
        decoded_budget: Any = None,
        download_budget: Any = None,
        **kwargs: Any,
    ) -> None:
        budgets = {"decoded_budget": decoded_budget, "download_budget": download_budget}
        super().__init__(
            media_io_kwargs,
            *args,
            allowed_local_media_path=allowed_local_media_path,
            allowed_media_domains=allowed_media_domains,
            **{name: budget for name, budget in budgets.items() if budget is not None},  # 0.32 has none
            **kwargs,
        )
        metrics.register()
        self._decoded_budget = decoded_budget

        where: dict[str, Any] = {
            "allowed_local_media_path": allowed_local_media_path,
            "allowed_media_domains": allowed_media_domains,
        }
        # Only what comes by HTTP counts as a download.
        self._by_http = MediaConnector(**where, download_budget=download_budget)
        self._in_place = MediaConnector(**where)

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:  # noqa: ARG002
        """Load from a URL through a media IO of vLLM.

        Args:
            url: a `data:`, `file:`, `http:` or `https:` URL.
            media_io: what decodes it.
            fetch_timeout: not used: the setting is, which this library also reads under its own prefix.

        Raises:
            BadPartError: (a `ValueError`, 400) a URL that is malformed or not allowed, media that can't be
                decoded.
            UnprocessablePartError: (a `ValueError`, 422) another server's refusal, too large a download.
            UnansweredPartError: (a `ValueError`, 503) what may heal.
        """
        modality, ours = _adapted(media_io)
        with _translating(url, modality, ours):
            return self._connector(url).load_from_url(
                url, ours, fetch_timeout=getattr(envs, _TIMEOUTS[modality])
            )

    async def load_from_url_async(
        self,
        url: str,
        media_io: Any,
        *,
        fetch_timeout: float | None = None,  # noqa: ARG002
    ) -> Any:
        """Load from a URL; see `load_from_url`."""
        modality, ours = _adapted(media_io)
        with _translating(url, modality, ours):
            return await self._connector(url).load_from_url_async(
                url, ours, fetch_timeout=getattr(envs, _TIMEOUTS[modality])
            )

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        """Load a picture, decoded by this library, in vLLM's `MediaWithBytes`."""
        picture_io = self._picture_io(image_mode)
        return _wrapped(self.load_from_url(image_url, picture_io), picture_io)

    async def fetch_image_async(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        """Load a picture; see `fetch_image`."""
        picture_io = self._picture_io(image_mode)
        return _wrapped(await self.load_from_url_async(image_url, picture_io), picture_io)

    def _connector(self, url: str) -> MediaConnector:
        is_http = isinstance(url, str) and url_scheme(url).startswith("http")
        return self._by_http if is_http else self._in_place

    def _picture_io(self, image_mode: str | None) -> ImageMediaIO:
        # vLLM's are always on; the defaults here are a setting's.
        defaults = {"image_mode": image_mode, "exif_transpose": True, "flatten_alpha": True}
        options: dict[str, Any] = {**defaults, **(self.media_io_kwargs.get("image") or {})}
        return ImageMediaIO(decoded_budget=self._decoded_budget, **options)


class _VLLMMediaIO(MediaIO[Any]):
    """A media IO of vLLM, as one of this library."""

    def __init__(self, media_io: Any) -> None:
        self._media_io = media_io

    def get_max_bytes(self) -> int | None:
        limit: Callable[[], int | None] | None = getattr(self._media_io, "get_max_bytes", None)
        return None if limit is None else limit()

    def load_bytes(self, data: bytes) -> Any:
        return self._media_io.load_bytes(data)

    def load_base64(self, media_type: str, data: str) -> Any:
        return self._media_io.load_base64(media_type, data)

    def load_file(self, filepath: "Path") -> Any:
        return self._media_io.load_file(filepath)


class _Sounds(_VLLMMediaIO):
    modality = "audio"


class _Videos(_VLLMMediaIO):
    modality = "video"


def _adapted(media_io: Any) -> tuple[str, MediaIO[Any]]:
    """Return what a media IO loads, and one of this library that does the same."""
    if isinstance(media_io, ImageMediaIO):
        return "image", media_io
    if isinstance(media_io, VLLMVideoMediaIO):
        _take_codec(media_io)
        return "video", _Videos(media_io)
    if isinstance(media_io, VLLMAudioMediaIO):
        return "audio", _Sounds(media_io)
    return "image", _VLLMMediaIO(media_io)


def _take_codec(video_io: Any) -> None:
    """Have a video decoded by this library, where its loader can be told so and nobody chose otherwise."""
    options: dict[str, Any] = video_io.kwargs
    # With another codec than OpenCV vLLM refuses recovery.
    if not codec.is_added() or options.get("frame_recovery") or "backend" in options:
        return
    if "backend" in inspect.signature(video_io.video_loader.load_bytes).parameters:
        options["backend"] = codec.NAME


@contextmanager
def _translating(url: str, modality: str, media_io: MediaIO[Any]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        limit = media_io.get_max_bytes()
        if limit is not None and isinstance(error, TooLargeOfItsKindError):
            raise HTTPResponseSizeExceededError(limit, limit + 1) from error
        shown = url if isinstance(url, str) else ""
        translated = translate(error, parameter=f"{modality}_url", url=shown)
        if translated is error:
            raise
        raise translated from error


def _wrapped(picture: "MediaWithBytes[Any]", picture_io: ImageMediaIO) -> Any:
    """Return a picture in vLLM's wrapper, with all options that its pixels depend on.

    vLLM's cache of processed media is keyed by the bytes and these.
    """
    options = {
        "image_mode": picture_io.image_mode,
        "rgba_background_color": tuple(picture_io.rgba_background_color),
        "exif_transpose": picture_io.exif_transpose,
        "flatten_alpha": picture_io.flatten_alpha,
        "max_pixels": picture_io.max_pixels,
    }
    return VLLMMediaWithBytes(picture.media, picture.original_bytes, options)
