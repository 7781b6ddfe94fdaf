"""A stand-in for vLLM: the names that the plug-in calls, doing the least that a test can see.

Written for these tests; what a real vLLM does is compared in `tests/integrations/vllm_real`.
"""

import base64
import importlib
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

PLUGIN = "mmmedia.integrations.vllm"


class Registry:
    def __init__(self) -> None:
        self.classes: dict[str, Any] = {}

    def register(self, name: str) -> Any:
        def add(cls: Any) -> Any:
            self.classes[name] = cls
            return cls

        return add

    def load(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.classes[name](*args, **kwargs)


class VLLMError(Exception):
    pass


class VLLMValidationError(VLLMError):
    def __init__(self, message: str, *, parameter: str | None = None, value: Any = None) -> None:
        super().__init__(message)
        self.parameter, self.value = parameter, value


class VLLMUnprocessableEntityError(VLLMValidationError):
    pass


class GracefulHTTPError(VLLMError):
    def __init__(self, message: str, http_status: HTTPStatus) -> None:
        super().__init__(message)
        self.http_status = http_status


class HTTPResponseSizeExceededError(VLLMValidationError):
    def __init__(self, max_bytes: int, received_bytes: int) -> None:
        super().__init__(f"{received_bytes} of {max_bytes}", parameter="audio_filesize_mb")


class MediaRequestDownloadSizeExceededError(ValueError):
    pass


class Budget:
    """Both of vLLM's budgets, as far as anybody charges them."""

    def __init__(self, limit: int = 1 << 30, error: type[Exception] = ValueError) -> None:
        self.used, self.limit, self.error = 0, limit, error

    def charge(self, size: int) -> None:
        if self.used + size > self.limit:
            raise self.error(f"{size} bytes are too much")
        self.used += size


@dataclass
class MediaWithBytes:
    media: Any
    original_bytes: bytes
    io_config: dict[str, Any] | None = None


class VideoSourceMetadata(NamedTuple):
    total_frames_num: int
    original_fps: float
    duration: float


class VideoTargetMetadata(NamedTuple):
    num_frames: int
    fps: float
    max_duration: float


class VideoLoader:
    """A loader that can be told its codec, and the base of one that can't."""

    read = "by OpenCV"

    @classmethod
    def _prepare_source(cls, source: Any) -> Any:
        return source._replace(original_fps=source.original_fps or 24.0)

    @classmethod
    def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
        step = max(source.total_frames_num // target.num_frames, 1)
        # Twice the last, which OpenCV reads once; NumPy's numbers, as loaders have them.
        indices = np.arange(kwargs.get("start", 0), source.total_frames_num, step)
        return [*indices, indices[-1]]

    @classmethod
    def read_frames(cls, cap: Any, frame_idx: list[int], total_frames_num: int) -> Any:
        raise AssertionError("nobody has a capture here")

    @classmethod
    def load_bytes(cls, data: bytes, num_frames: int = -1, *, backend: str = "opencv", **kwargs: Any) -> Any:
        return decode_video(backend, cls, data, num_frames, kwargs)


class NamesOpenCV(VideoLoader):
    @classmethod
    def load_bytes(cls, data: bytes, num_frames: int = -1, **kwargs: Any) -> Any:
        return decode_video("opencv", cls, data, num_frames, kwargs)


class ReadsByItself(NamesOpenCV):
    @classmethod
    def read_frames(cls, cap: Any, frame_idx: list[int], total_frames_num: int) -> Any:
        raise AssertionError("nobody has a capture here")


def decode_video(backend: str, loader: Any, data: bytes, num_frames: int, kwargs: dict[str, Any]) -> Any:
    options = {"frame_recovery": True} if kwargs.pop("frame_recovery", False) else {}
    name = "vllm.multimodal.video_decoders"
    if backend not in getattr(importlib.import_module(name), "_BACKEND_OPTION_DEFAULTS", ("opencv",)):
        raise ValueError(f"no codec {backend}")
    decode = getattr(importlib.import_module(f"{name}.{backend}"), f"decode_{backend}")
    target = VideoTargetMetadata(num_frames, -1, 300)
    frames, source, wanted, valid = decode(loader, data, target, kwargs, **options)
    return frames, {"backend": backend, "source": source, "wanted": wanted, "frames_indices": valid}


def decode_opencv(loader: Any, data: bytes, target: Any, kwargs: Any, *, frame_recovery: bool = False) -> Any:
    """Says only that it was called."""
    return f"OpenCV, {frame_recovery=}", None, [], []


class VideoMediaIO:
    loaders: dict[str, type[VideoLoader]] = {  # noqa: RUF012
        "of the model": VideoLoader,
        "names opencv": NamesOpenCV,
        "reads by itself": ReadsByItself,
    }

    def __init__(self, num_frames: int = 32, **kwargs: Any) -> None:
        self.video_loader = self.loaders[kwargs.pop("video_backend", "of the model")]()
        self.num_frames, self.kwargs = num_frames, kwargs

    def get_max_bytes(self) -> int | None:
        return None

    def load_bytes(self, data: bytes) -> MediaWithBytes:
        return MediaWithBytes(
            self.video_loader.load_bytes(data, num_frames=self.num_frames, **self.kwargs), data
        )

    def load_base64(self, media_type: str, data: str) -> MediaWithBytes:
        assert isinstance(data, str)
        if media_type == "video/jpeg":
            return MediaWithBytes(data.split(","), data.encode())
        return self.load_bytes(base64.b64decode(data))


class AudioMediaIO:
    max_bytes = 1000

    def get_max_bytes(self) -> int:
        return self.max_bytes

    def load_bytes(self, data: bytes) -> tuple[str, int]:
        if len(data) > self.max_bytes:
            raise VLLMValidationError("too large", parameter="audio_filesize_mb")
        if data == b"memory":
            raise MemoryError(data)
        return "sound", len(data)

    def load_base64(self, media_type: str, data: str) -> tuple[str, int]:
        return self.load_bytes(base64.b64decode(data))


class MediaConnector:
    def __init__(
        self,
        media_io_kwargs: Any = None,
        *,
        allowed_local_media_path: str = "",
        allowed_media_domains: list[str] | None = None,
        **budgets: Any,
    ) -> None:
        self.media_io_kwargs, self.budgets = media_io_kwargs or {}, budgets

    def load_from_url(self, url: str, media_io: Any, *, fetch_timeout: float | None = None) -> Any:
        raise AssertionError("vLLM's own")

    def fetch_audio(self, audio_url: str) -> Any:
        return self.load_from_url(audio_url, AudioMediaIO(), fetch_timeout=10)

    def fetch_video(self, video_url: str, *, video_processor: str | None = None) -> Any:
        options = dict(self.media_io_kwargs.get("video") or {})
        return self.load_from_url(video_url, VideoMediaIO(**options), fetch_timeout=30)


def open_image(file: io.BytesIO) -> Image.Image:
    return Image.open(file)


_CONTENTS: dict[str, dict[str, Any]] = {
    "vllm": {"__version__": "0.33.0"},
    "vllm.connections": {
        each.__name__: each for each in (HTTPResponseSizeExceededError, MediaRequestDownloadSizeExceededError)
    },
    "vllm.exceptions": {
        each.__name__: each
        for each in (VLLMError, VLLMValidationError, VLLMUnprocessableEntityError, GracefulHTTPError)
    },
    "vllm.multimodal": {},
    "vllm.multimodal.image": {"open_image": open_image},
    "vllm.multimodal.media": {each.__name__: each for each in (MediaWithBytes, VideoMediaIO, AudioMediaIO)},
    "vllm.multimodal.media.connector": {"MediaConnector": MediaConnector},
    "vllm.multimodal.video": {"VideoLoader": VideoLoader},
    "vllm.multimodal.video_decoders": {},
    "vllm.multimodal.video_decoders.base": {"VideoSourceMetadata": VideoSourceMetadata},
    "vllm.multimodal.video_decoders.opencv": {},
}


@contextmanager
def standing_in() -> Iterator[dict[str, ModuleType]]:
    """Give the modules of the stand-in, which is what `import vllm` finds inside."""
    modules = {name: ModuleType(name) for name in _CONTENTS}
    for name, module in modules.items():
        vars(module).update(_CONTENTS[name], __path__=[])
    registry = Registry()
    registry.register("http")(MediaConnector)
    modules["vllm.multimodal.media.connector"].MEDIA_CONNECTOR_REGISTRY = registry  # type: ignore[attr-defined]
    modules["vllm.multimodal.video_decoders"]._BACKEND_OPTION_DEFAULTS = {"opencv": {}}  # type: ignore[attr-defined]
    modules["vllm.multimodal.video_decoders.opencv"].decode_opencv = decode_opencv  # type: ignore[attr-defined]
    hidden = _take_out()
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        _take_out()
        sys.modules.update(hidden)


def _take_out() -> dict[str, ModuleType]:
    """Take vLLM, and what was imported for it, out of the process."""
    names = [
        name for name in sys.modules if name.partition(".")[0] == "vllm" or name.startswith(f"{PLUGIN}.")
    ]
    for name in names:
        package, _, module = name.rpartition(".")
        if package == PLUGIN:
            vars(sys.modules[package]).pop(module, None)
    return {name: sys.modules.pop(name) for name in names}
