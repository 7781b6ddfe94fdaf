"""`MediaConnector`: from a URL that a stranger wrote to a decoded object.

An engine makes one connector per request. What outlives a request (connections, the cache's state, the
thread pool) belongs to the process and is only referred to. What a connector does is spread over the modules
beside this one: `local` opens files, `downloads` shares downloads, `cached` asks the cache, `budget` decodes
and charges.
"""

import copy
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import unquote

from mmmedia import envs, metrics
from mmmedia.connections import HTTPConnection, Progress, global_http_connection
from mmmedia.errors import InvalidURLError, LocalFilesDisabledError, MediaError, UnsupportedMediaError
from mmmedia.exceptions import HTTPResponseSizeExceededError
from mmmedia.media import sparse
from mmmedia.media.base import MediaIO
from mmmedia.media.budget import Budget, MediaBudget, is_reservable
from mmmedia.media.cached import Goal
from mmmedia.media.downloads import SharedDownloads
from mmmedia.media.fetch_errors import _wrap_media_fetch_error  # noqa: F401  # its place in vLLM
from mmmedia.media.handles import Media, Opening, check_modality
from mmmedia.media.local import allowed_directory, opened_below
from mmmedia.options import warn_of_slips
from mmmedia.registry import ExtensionManager
from mmmedia.urls import ANY_HOST, HTTPURL, domain_list, file_url_path, parse_http_url, redact_url, url_scheme
from mmmedia.work.calls import calls_of_loop, number_waiting
from mmmedia.work.executors import ProcessPool
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    import asyncio

    import numpy as np
    import numpy.typing as npt
    import torch
    from PIL import Image
    from urllib3.util import Url

    from mmmedia.media.base import MediaWithBytes
    from mmmedia.media.image import ImageMediaIO
    from mmmedia.media.video import VideoMediaIO
    from mmmedia.options import MediaIOKwargs

T = TypeVar("T")

_BASE64 = re.compile(r";\s*base64\s*,", re.IGNORECASE)
_LONGEST_HEADER = 4096
"""Characters of a data URL in which its header ends."""

MEDIA_CONNECTOR_REGISTRY: ExtensionManager["MediaConnector"] = ExtensionManager("media connector")
"""Connectors by name; `VLLM_MEDIA_CONNECTOR` names the one that an engine makes."""

global_thread_pool: ThreadPoolExecutor
"""The workers that decode for the async methods, `VLLM_MEDIA_LOADING_THREAD_COUNT` of them."""

_loading = ProcessPool("mmmedia", envs.SETTINGS["VLLM_MEDIA_LOADING_THREAD_COUNT"].read)


def __getattr__(name: str) -> Any:
    if name == "MODALITY_IO_MAP":  # what engines look media IOs up in, and may add to
        known = {modality: _media_io_class(modality) for modality in ("audio", "image", "video")}
        return globals().setdefault(name, known)
    if name != "global_thread_pool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _loading.named(globals(), name)


# The pool of a parent has none of its threads in a forked child.
afresh_in_child(lambda: globals().pop("global_thread_pool", None))


def _queue_length() -> int:
    """Return how many calls wait for a thread of `global_thread_pool`."""
    # Nothing public tells how long the queue of an executor is.
    queue = getattr(globals().get("global_thread_pool"), "_work_queue", None)
    return max(queue.qsize() if queue is not None else 0, number_waiting())


metrics.register_gauge("mmmedia_pool_queue_length", _queue_length, "loading")


def _call(function: Callable[..., T], *args: Any) -> "asyncio.Future[T]":
    """Call in the thread pool; once the future is cancelled before a worker is free, it never runs."""
    return calls_of_loop(_loading.named(globals(), "global_thread_pool")).call(function, *args)


def merge_media_io_kwargs(
    defaults: Mapping[str, Mapping[str, Any] | None] | None,
    overrides: Mapping[str, Mapping[str, Any] | None] | None,
) -> dict[str, dict[str, Any]] | None:
    """Merge `media_io_kwargs` of an engine with those of a request, each modality by its own rule.

    Returns:
        A new dict by modality; `None` when both are empty.

    >>> merge_media_io_kwargs({"video": {"num_frames": 8}}, {"video": {"fps": 2}, "image": {"a": 1}})
    {'video': {'fps': 2}, 'image': {'a': 1}}
    """
    if not defaults and not overrides:
        return None
    defaults, overrides = defaults or {}, overrides or {}
    return {
        modality: _merge_kwargs_of(modality)(defaults.get(modality), overrides.get(modality))
        for modality in {**defaults, **overrides}
    }


def _merge_kwargs_of(modality: str) -> Callable[..., dict[str, Any]]:
    added = globals().get("MODALITY_IO_MAP", {}).get(modality)
    merge: Callable[..., dict[str, Any]] = (added or _media_io_class(modality)).merge_kwargs
    return merge


@functools.lru_cache(maxsize=16)  # an import statement takes its time even when all is loaded
def _media_io_class(modality: str) -> Any:
    if modality == "image":
        from mmmedia.media.image import ImageMediaIO

        return ImageMediaIO
    if modality == "audio":
        from mmmedia.media.audio import AudioMediaIO

        return AudioMediaIO
    if modality == "video":
        from mmmedia.media.video import VideoMediaIO

        return VideoMediaIO
    return MediaIO


MEDIA_CONNECTOR_REGISTRY.register_lazily("fsspec", "mmmedia.media.fsspec_connector")


@MEDIA_CONNECTOR_REGISTRY.register("http")
class MediaConnector(SharedDownloads):
    """Loads media from `data:`, `file:` and `http(s):` URLs.

    Every method has an `_async` twin, in which the event loop only waits: files, base64 and decoding are
    work of `global_thread_pool`.

    Args:
        media_io_kwargs: keywords for the media IOs, by modality (`image`, `audio`, `video`).
        connection: what fetches HTTP URLs: anything with `get_bytes(url, *, timeout, allow_redirects)` and
            `async_get_bytes`.
        allowed_local_media_path: the directory below which file URLs may point; empty for none.
        allowed_media_domains: the hosts that HTTP URLs and redirects may name, `*.example.org` for all below
            one; empty for any.
        decoded_budget: an object whose `charge(number_of_bytes)` is told of all decoded bytes, and raises
            when the request has used up its share. One that also has `reserve` and `settle`, as
            `MediaDecodedBudget`, is charged as vLLM does it: pictures before they are decoded, at 4 bytes a
            pixel, sounds by reserving, the frames of videos, and no embeddings.
        download_budget: the same for encoded bytes, whichever way they came.
        budget: both in one, for all connectors of a request.
        on_progress: is called with the bytes of a download that have come, and how many there will be, `None`
            where the server does not say; by who downloads, on the event loop or in the caller's thread. Who
            joins another's download is not told.

    Raises:
        InvalidArgumentError: (a `ValueError`) a path that is no directory, an entry that is no host.

    >>> import io, base64
    >>> from PIL import Image
    >>> png = io.BytesIO()
    >>> Image.new("RGB", (4, 3)).save(png, "PNG")
    >>> url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
    >>> MediaConnector().fetch_image(url).size
    (4, 3)
    """

    def __init__(
        self,
        media_io_kwargs: "MediaIOKwargs | None" = None,
        connection: HTTPConnection = global_http_connection,
        *,
        allowed_local_media_path: str | os.PathLike[str] = "",
        allowed_media_domains: Iterable[str] | None = None,
        decoded_budget: Budget | None = None,
        download_budget: Budget | None = None,
        budget: MediaBudget | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self.connection = connection
        self.media_io_kwargs: dict[str, dict[str, Any]] = {}
        for modality, kwargs in cast("Mapping[str, Any]", media_io_kwargs or {}).items():
            self.media_io_kwargs[modality] = dict(kwargs or {})
        warn_of_slips(self.media_io_kwargs)
        self.allowed_local_media_path = (
            allowed_directory(allowed_local_media_path) if allowed_local_media_path else None
        )
        self._domains = ANY_HOST if allowed_media_domains is None else domain_list(allowed_media_domains)
        self.allowed_media_domains = list(allowed_media_domains or [])
        self.decoded_budget = budget.decoded if decoded_budget is None and budget else decoded_budget
        self.download_budget = budget.download if download_budget is None and budget else download_budget
        self.on_progress = on_progress
        cache = envs.cache_settings()
        self._media_cache_dir = cache.directory
        self._media_cache_max_bytes = cache.max_bytes
        self._media_cache_ttl_secs = cache.ttl_seconds

    def __repr__(self) -> str:
        shown = {
            "media_io_kwargs": self.media_io_kwargs,
            "allowed_local_media_path": str(self.allowed_local_media_path or ""),
            "allowed_media_domains": self.allowed_media_domains,
        }
        given = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value)
        return f"{type(self).__name__}({given})"

    # Any media.

    def load_from_url(self, url: str, media_io: MediaIO[T], *, fetch_timeout: float | None = None) -> T:
        """Load from a URL through a media IO.

        Args:
            url: a `data:`, `file:`, `http:` or `https:` URL.
            media_io: what decodes it.
            fetch_timeout: seconds for the first attempt to fetch an HTTP URL; later ones have more.

        Raises:
            InvalidURLError: (a `ValueError`) none of these, or malformed.
            RefusedURLError: (a `ValueError`) a host or path that is not allowed.
            UnsupportedMediaError: (a `NotImplementedError`) a data URL that is not base64.
            LocalFilesDisabledError: (a `RuntimeError`) a file URL, and no path is allowed.
            LocalFileError: (an `OSError` and a `ValueError`) a file that can't be read.
            requests.RequestException: fetching failed; from the async twin `aiohttp.ClientError` and
                `TimeoutError`.
        """
        try:
            if (remote := self._remote(url)) is None:
                return self._load_in_place(url, media_io)
            if self._media_cache_dir:
                found, media = self._load_cached(url, remote, media_io)
                if found:
                    return media
            return self._load_remote(Goal(url, remote, fetch_timeout, envs.fetch_settings()), media_io)
        except MediaError as error:
            metrics.count_refusal(error)
            raise

    async def load_from_url_async(
        self, url: str, media_io: MediaIO[T], *, fetch_timeout: float | None = None
    ) -> T:
        """Load from a URL through a media IO; see `load_from_url`.

        Cancelling it stops a transfer at once and takes decoding that has not begun off the queue.
        """
        try:
            if (remote := self._remote(url)) is None:
                return await _call(self._load_in_place, url, media_io)
            pool = _loading.named(globals(), "global_thread_pool")
            if self._media_cache_dir:
                load: Callable[..., tuple[bool, T]] = self._load_cached
                found, media = await calls_of_loop(pool).call(load, url, remote, media_io)
                if found:
                    return media
            goal = Goal(url, remote, fetch_timeout, envs.fetch_settings())
            wanted = self._begin(goal, media_io, pool)
            while True:
                try:
                    return await wanted.future
                except Exception as error:  # noqa: BLE001  # perhaps another's
                    failure = error
                finally:
                    if wanted.flight.is_open:
                        wanted.leave()
                wanted.board_again(failure)
        except MediaError as error:
            metrics.count_refusal(error)
            raise

    def _remote(self, url: str) -> Any:
        """Return, as it was read, the URL of what may be fetched; `None` for a data or file URL.

        Raises:
            InvalidURLError: (a `ValueError`) none of these, or malformed.
            RefusedURLError: (a `ValueError`) a host that is not allowed.
        """
        scheme = url_scheme(url) if isinstance(url, str) else ""
        if scheme in ("http", "https"):
            parsed = parse_http_url(url)
            check = self._assert_url_in_allowed_media_domains
            is_own = getattr(check, "__func__", None) is not _ASSERT_DOMAIN
            if is_own or self._domains is not ANY_HOST:
                check(parsed)
            return parsed
        if scheme in ("data", "file"):
            return None
        shown = redact_url(url) if isinstance(url, str) else type(url).__name__
        raise InvalidURLError(
            f"The URL must be either a HTTP, data or file URL. Got {shown!r}. "
            "(mmmedia.load_image, load_video and load_audio also take paths.)"
        )

    def _load_in_place(self, url: str, media_io: MediaIO[T]) -> T:
        """Load from a data or file URL."""
        if url_scheme(url) == "data":
            return self._load_data_url(url, media_io)
        return self._load_file_url(url, media_io)

    def _assert_url_in_allowed_media_domains(self, url_spec: "str | Url | HTTPURL") -> None:
        """Raise `RefusedURLError` (a `ValueError`) if the host of an HTTP URL is not allowed."""
        url = url_spec if isinstance(url_spec, HTTPURL) else parse_http_url(str(url_spec))
        self._domains.check(url.host)

    def _load_data_url(self, url_spec: "str | Url", media_io: MediaIO[T]) -> T:
        """Load from `data:[<media type>][;<param>]*;base64,<data>`."""
        url = url_spec if isinstance(url_spec, str) else f"data:{(url_spec.path or '').lstrip('/')}"
        # Lists of codecs have commas as well: that of the header's end is the one after `;base64`.
        end = _BASE64.search(url, 5, _LONGEST_HEADER)
        if end is None:
            if "," not in url:
                raise InvalidURLError(f"Invalid data URL {redact_url(url)!r}: missing ','.")
            raise UnsupportedMediaError("Only base64 data URLs are supported for now.")
        media_type = url[5 : end.start()].partition(";")[0]
        self._charge_download((len(url) - end.end()) * 3 // 4)
        data = url[end.end() :]
        if "%" in data:
            data = unquote(data, errors="replace")
        return self._decode(media_io, media_io.load_base64, media_type.strip(), data)

    def _load_file_url(self, url_spec: "str | Url", media_io: MediaIO[T]) -> T:
        """Load from a file below the allowed path."""
        url = str(url_spec)
        if self.allowed_local_media_path is None:
            raise LocalFilesDisabledError(
                "allowed_local_media_path is not set: Cannot load local files without "
                "`--allowed-local-media-path`."
            )
        with opened_below(self.allowed_local_media_path, file_url_path(url)) as file:
            max_bytes = media_io.get_max_bytes() if hasattr(media_io, "get_max_bytes") else None
            if max_bytes is not None and file.size > max_bytes:
                raise HTTPResponseSizeExceededError(max_bytes, file.size)
            if sparse.is_for_file(media_io, file.size):
                return sparse.load_file(self, file.descriptor, file.name, media_io)
            self._charge_download(file.size)
            data = file.read()
        return self._decode(media_io, media_io.load_bytes, data)

    # Handles.

    def open(self, url: str, modality: str | None = None) -> Media:
        """Fetch what is behind a URL, and return a handle by which it is decoded; errors of fetching only.

        ``fetch_image(url)`` does what ``open(url, "image").load()`` does. By a handle the same bytes are
        decoded in several ways, a video's pictures and its sound, and have a name before they are decoded.
        Of a long video only the index is read here, and later what the frames need, where `fetch_video` does
        so.

        Args:
            url: a `data:`, `file:`, `http:` or `https:` URL.
            modality: "image", "audio" or "video"; `None`: as the bytes tell, of a long video the first of
                them and its index.

        Raises:
            InvalidArgumentError: (a `ValueError`) another modality.
            InvalidMediaError: (a `ValueError`) none was given, and the bytes are no media.

        >>> import io, base64
        >>> from PIL import Image
        >>> png = io.BytesIO()
        >>> Image.new("RGB", (4, 3)).save(png, "PNG")
        >>> url = "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
        >>> media = MediaConnector().open(url)
        >>> media.modality, media.size == len(png.getvalue()), media.load(image_mode="L").mode
        ('image', True, 'L')
        """
        return self.load_from_url(url, self._opening(url, modality), fetch_timeout=_fetch_timeout(modality))

    async def open_async(self, url: str, modality: str | None = None) -> Media:
        """Fetch what is behind a URL, and return a handle by which it is decoded; see `open`."""
        opening = self._opening(url, modality)
        return await self.load_from_url_async(url, opening, fetch_timeout=_fetch_timeout(modality))

    def _opening(self, url: str, modality: str | None) -> Opening:
        check_modality(modality)
        return Opening(self, url, modality, self._media_io(modality or "video", {}))

    def _media_io(self, modality: str, kwargs: Mapping[str, Any]) -> MediaIO[Any]:
        """Return the media IO of a modality, with keywords over those of the connector."""
        given = dict(kwargs)
        image_mode, video_processor = given.pop("image_mode", "RGB"), given.pop("video_processor", None)
        maker = self
        if given:
            maker = copy.copy(self)
            merged = merge_media_io_kwargs(self.media_io_kwargs, {modality: given})
            maker.media_io_kwargs = merged or {}
        if modality == "image":
            return maker._image_io(image_mode)
        return maker._audio_io() if modality == "audio" else maker._video_io(image_mode, video_processor)

    _in_pool = staticmethod(_call)

    # By modality.

    def fetch_image(self, image_url: str, *, image_mode: str | None = "RGB") -> "MediaWithBytes[Image.Image]":
        """Load an image; errors as in `load_from_url` and of `ImageMediaIO`.

        Args:
            image_url: where it is.
            image_mode: the pixel mode to convert to, `None` to keep that of the file.
        """
        return self.load_from_url(
            image_url, self._image_io(image_mode), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
        )

    async def fetch_image_async(
        self, image_url: str, *, image_mode: str | None = "RGB"
    ) -> "MediaWithBytes[Image.Image]":
        """Load an image; see `fetch_image`."""
        return await self.load_from_url_async(
            image_url, self._image_io(image_mode), fetch_timeout=envs.VLLM_IMAGE_FETCH_TIMEOUT
        )

    def fetch_audio(self, audio_url: str) -> "tuple[npt.NDArray[np.float32], float]":
        """Load a sound: the samples, 1-D float32 in [-1, 1], and their rate in Hz."""
        return self.load_from_url(audio_url, self._audio_io(), fetch_timeout=envs.VLLM_AUDIO_FETCH_TIMEOUT)

    async def fetch_audio_async(self, audio_url: str) -> "tuple[npt.NDArray[np.float32], float]":
        """Load a sound; see `fetch_audio`."""
        return await self.load_from_url_async(
            audio_url, self._audio_io(), fetch_timeout=envs.VLLM_AUDIO_FETCH_TIMEOUT
        )

    def fetch_video(
        self,
        video_url: str,
        *,
        image_mode: str | None = "RGB",
        video_processor: str | None = None,
    ) -> "MediaWithBytes[tuple[npt.NDArray[np.uint8], dict[str, Any]]]":
        """Load a video: the sampled frames, uint8 `(frames, height, width, 3)`, and their metadata.

        Args:
            video_url: where it is.
            image_mode: the pixel mode for frames that were sent as single images.
            video_processor: the class name of the model's video processor, whose loader is taken unless
                `media_io_kwargs` names one.
        """
        return self.load_from_url(
            video_url,
            self._video_io(image_mode, video_processor),
            fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT,
        )

    async def fetch_video_async(
        self,
        video_url: str,
        *,
        image_mode: str | None = "RGB",
        video_processor: str | None = None,
    ) -> "MediaWithBytes[tuple[npt.NDArray[np.uint8], dict[str, Any]]]":
        """Load a video; see `fetch_video`."""
        return await self.load_from_url_async(
            video_url,
            self._video_io(image_mode, video_processor),
            fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT,
        )

    def fetch_image_embedding(self, data: str) -> "torch.Tensor":
        """Load an image embedding from base64 text."""
        from mmmedia.media.image import ImageEmbeddingMediaIO

        return self._load_embedding(ImageEmbeddingMediaIO(), data)

    async def fetch_image_embedding_async(self, data: str) -> "torch.Tensor":
        """Load an image embedding from base64 text."""
        return await _call(self.fetch_image_embedding, data)

    def fetch_audio_embedding(self, data: str) -> "torch.Tensor":
        """Load an audio embedding from base64 text."""
        from mmmedia.media.audio import AudioEmbeddingMediaIO

        return self._load_embedding(AudioEmbeddingMediaIO(), data)

    async def fetch_audio_embedding_async(self, data: str) -> "torch.Tensor":
        """Load an audio embedding from base64 text."""
        return await _call(self.fetch_audio_embedding, data)

    def fetch_video_embedding(self, data: str) -> "torch.Tensor":
        """Load a video embedding from base64 text."""
        from mmmedia.media.video import VideoEmbeddingMediaIO

        return self._load_embedding(VideoEmbeddingMediaIO(), data)

    async def fetch_video_embedding_async(self, data: str) -> "torch.Tensor":
        """Load a video embedding from base64 text."""
        return await _call(self.fetch_video_embedding, data)

    def _load_embedding(self, media_io: MediaIO[T], data: str) -> T:
        self._charge_download(len(data) * 3 // 4)
        return self._decode(media_io, media_io.load_base64, "", data)

    def _image_io(self, image_mode: str | None) -> "ImageMediaIO":
        kwargs = {"image_mode": image_mode, **self.media_io_kwargs.get("image", {})}
        if self.decoded_budget is not None and is_reservable(self.decoded_budget):
            kwargs["decoded_budget"] = self.decoded_budget
        made: ImageMediaIO = _media_io_class("image")(**kwargs)
        return made

    def _audio_io(self) -> "MediaIO[tuple[npt.NDArray[np.float32], float]]":
        kwargs = self.media_io_kwargs.get("audio", {})
        if self.decoded_budget is not None and is_reservable(self.decoded_budget):
            kwargs = {**kwargs, "decoded_budget": self.decoded_budget}
        made: MediaIO[Any] = _media_io_class("audio")(**kwargs)
        return made

    def _video_io(self, image_mode: str | None, video_processor: str | None = None) -> "VideoMediaIO":
        kwargs = self.media_io_kwargs.get("video", {})
        if video_processor and not kwargs.get("video_backend") and envs.MMMEDIA_COMPAT != "0.20":
            from mmmedia.video.loaders import get_video_loader_backend_for_processor

            bound = get_video_loader_backend_for_processor(video_processor)
            kwargs = {**kwargs, "video_backend": bound}
        made: VideoMediaIO = _media_io_class("video")(self._image_io(image_mode), **kwargs)
        return made


def _fetch_timeout(modality: str | None) -> float:
    """Return the seconds for one attempt to fetch; the longest where nobody knows what it is."""
    name = f"VLLM_{(modality or 'video').upper()}_FETCH_TIMEOUT"
    seconds: float = getattr(envs, name)
    return seconds


_ASSERT_DOMAIN = MediaConnector._assert_url_in_allowed_media_domains
"""What subclasses may override, and then is called for every URL."""
