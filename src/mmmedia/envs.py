"""Every setting, read from the environment each time it is used; what a fetch goes by, once a request.

A setting is an attribute of this module under its `VLLM_` name. The environment variable of the same
name under the prefix `MMMEDIA_` wins over the one under `VLLM_`; an empty variable counts as not set.

>>> import os
>>> from mmmedia import envs
>>> os.environ["MMMEDIA_VIDEO_FETCH_TIMEOUT"] = "12.5"
>>> envs.VLLM_VIDEO_FETCH_TIMEOUT
12.5
>>> del os.environ["MMMEDIA_VIDEO_FETCH_TIMEOUT"]
>>> envs.VLLM_VIDEO_FETCH_TIMEOUT
30.0
"""

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mmmedia.errors import InvalidSettingError

if TYPE_CHECKING:
    VLLM_IMAGE_FETCH_TIMEOUT: float
    VLLM_VIDEO_FETCH_TIMEOUT: float
    VLLM_AUDIO_FETCH_TIMEOUT: float
    VLLM_MEDIA_FETCH_MAX_RETRIES: int
    VLLM_MEDIA_URL_ALLOW_REDIRECTS: bool
    VLLM_MEDIA_CACHE: str
    VLLM_MEDIA_CACHE_MAX_SIZE_MB: int
    VLLM_MEDIA_CACHE_TTL_HOURS: float
    VLLM_MEDIA_CACHE_REVALIDATE: bool
    VLLM_MEDIA_LOADING_THREAD_COUNT: int
    VLLM_VIDEO_LOADER_BACKEND: str
    VLLM_MEDIA_CONNECTOR: str
    VLLM_MEDIA_ALLOWED_BUCKETS: str
    VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB: int
    VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB: int
    VLLM_MAX_MEDIA_SOURCE_SIZE_MB: int
    MMMEDIA_SPARSE_FETCH: str
    MMMEDIA_SPARSE_GAP_KB: int
    VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES: int
    VLLM_MAX_AUDIO_CLIP_FILESIZE_MB: int
    VLLM_MAX_AUDIO_PREPROCESS_WORKERS: int
    VLLM_HTTP_MAX_REQUEST_BODY_SIZE: int
    VLLM_MAX_IMAGE_PIXELS: int
    VLLM_MAX_AUDIO_DECODE_DURATION_S: float
    VLLM_MAX_AUDIO_DECODE_BYTES: int
    VLLM_MAX_EMBED_DECODE_BYTES: int
    VLLM_MAX_VIDEO_DECODE_BYTES: int
    VLLM_MEDIA_EGRESS_BLOCK_PRIVATE: bool
    VLLM_VIDEO_DECODE: str
    VLLM_VIDEO_DECODE_TIMEOUT_S: float
    VLLM_VIDEO_DECODE_WORKERS: int
    MMMEDIA_VIDEO_DECODE_FOR: str
    VLLM_MM_FETCH_CONCURRENCY: int
    VLLM_MM_HASHER_ALGORITHM: str
    MMMEDIA_COMPAT: str
    MMMEDIA_VLLM_REPLACE_OPENCV: bool
    MMMEDIA_DECODED_CACHE_MB: int
    MMMEDIA_DECODE_PROCESSES: int
    MMMEDIA_DECODE_PROCESS_LIFE: int
    MMMEDIA_DECODE_PROCESS_MEMORY_MB: int
    MMMEDIA_DECODE_PROCESS_TIMEOUT_S: float
    MMMEDIA_DECODE_QUEUE: int

Value = str | int | float | bool


def _text(text: str) -> str:
    return text


def _integer(text: str) -> int:
    return int(text.strip())


def _count(text: str) -> int:
    return max(1, int(text.strip()))


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _seconds(text: str) -> float:
    value = _number(text)
    if value <= 0:
        raise ValueError("not positive")
    return value


def _hash_algorithm(text: str) -> str:
    name = text.strip().lower()
    if name not in ("blake3", "sha256", "sha512"):
        raise ValueError("unknown")
    return name


def _decode_mode(text: str) -> str:
    if text not in {"auto", "sequential", "seek"}:
        raise ValueError("not a mode")
    return text


def _decode_for(text: str) -> str:
    name = text.strip().lower()
    if name not in {"latency", "throughput"}:
        raise ValueError("unknown")
    return name


def _fetch_mode(text: str) -> str:
    if text not in {"auto", "never", "always"}:
        raise ValueError("not a mode")
    return text


def _compat(text: str) -> str:
    name = text.strip()
    if name not in {"0.20", "0.33"}:
        raise ValueError("unknown")
    return name


def _switch(text: str) -> bool:
    return {"0": False, "false": False, "no": False, "off": False,
            "1": True, "true": True, "yes": True, "on": True}[text.strip().lower()]  # fmt: skip


_EXPECTED: dict[Callable[[str], Value], str] = {
    _text: "a text",
    _integer: "an integer",
    _count: "an integer",
    _number: "a finite number",
    _seconds: "a positive number of seconds",
    _hash_algorithm: "blake3, sha256 or sha512",
    _compat: "0.20 or 0.33",
    _switch: "0 or 1",
    _decode_mode: "auto, sequential or seek",
    _decode_for: "latency or throughput",
    _fetch_mode: "auto, never or always",
}


_ceilings: ContextVar[Mapping[str, int] | None] = ContextVar("mmmedia_ceilings", default=None)
_defaults: ContextVar[Mapping[str, Value] | None] = ContextVar("mmmedia_defaults", default=None)


@contextmanager
def unless_set(defaults: Mapping[str, Value]) -> Iterator[None]:
    """Have other defaults inside the block, in this context only; what a variable sets still counts.

    Args:
        defaults: by the name of a setting, its value where no variable sets it.
    """
    token = _defaults.set(defaults)
    try:
        yield
    finally:
        _defaults.reset(token)


@contextmanager
def at_most(ceilings: Mapping[str, int]) -> Iterator[None]:
    """Lower limits of decoding inside the block, in this context only.

    Args:
        ceilings: by the name of a setting, what it is at most, also where it sets no limit.
    """
    token = _ceilings.set(ceilings)
    try:
        yield
    finally:
        _ceilings.reset(token)


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        name: the `VLLM_` one, or `MMMEDIA_…` of what is ours alone.
        default: its value where no variable sets it.
        parse: reads the text of a variable.
        meaning: what it means, in words.
        variables: the environment variables that set it, the winning one first.
    """

    name: str
    default: Value
    parse: Callable[[str], Value]
    meaning: str
    variables: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        own = "MMMEDIA_" + self.name.removeprefix("MMMEDIA_").removeprefix("VLLM_")
        object.__setattr__(self, "variables", tuple(dict.fromkeys((own, self.name))))

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return _EXPECTED[self.parse]

    def read(self) -> Value:
        """Return its value now.

        Raises:
            InvalidSettingError: (a `ValueError`) the variable's text can't be read.
        """
        value = self.default
        for variable in self.variables:
            text = os.environ.get(variable)
            if text and not text.isspace():
                value = self._parsed(variable, text)
                break
        else:
            if (defaults := _defaults.get()) is not None:
                value = defaults.get(self.name, value)
        if (ceilings := _ceilings.get()) is None:
            return value
        ceiling = ceilings.get(self.name)
        if ceiling is None or not isinstance(value, int | float):
            return value
        return min(value, ceiling) if value > 0 else ceiling

    def value_of(self, *texts: str | None) -> Value:
        """Return its value where its variables have these texts; errors as of `read`."""
        for variable, text in zip(self.variables, texts, strict=True):
            if text and not text.isspace():
                return self._parsed(variable, text)
        return self.default

    def _parsed(self, variable: str, text: str) -> Value:
        try:
            return self.parse(text)
        except (ValueError, KeyError, OverflowError):
            raise InvalidSettingError(f"{variable}={text[:64]!r}: expected {self.expected}.") from None


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("VLLM_IMAGE_FETCH_TIMEOUT", 5.0, _seconds, "seconds for one attempt to fetch an image"),
        Setting("VLLM_VIDEO_FETCH_TIMEOUT", 30.0, _seconds, "seconds for one attempt to fetch a video"),
        Setting("VLLM_AUDIO_FETCH_TIMEOUT", 10.0, _seconds, "seconds for one attempt to fetch a sound"),
        Setting("VLLM_MEDIA_FETCH_MAX_RETRIES", 3, _count, "attempts in all, at least one"),
        Setting("VLLM_MEDIA_URL_ALLOW_REDIRECTS", True, _switch, "follow redirects"),
        Setting("VLLM_MEDIA_CACHE", "", _text, "directory of the byte cache; empty: no cache"),
        Setting("VLLM_MEDIA_CACHE_MAX_SIZE_MB", 5120, _integer, "budget of the cache in MiB"),
        Setting("VLLM_MEDIA_CACHE_TTL_HOURS", 24.0, _number, "life of an entry in hours, from its download"),
        Setting("VLLM_MEDIA_CACHE_REVALIDATE", False, _switch,
                "1: ask the server whether an expired entry is still good, by ETag and Last-Modified"),
        Setting("VLLM_MEDIA_LOADING_THREAD_COUNT", 8, _count, "workers that decode, at least one"),
        Setting("VLLM_VIDEO_LOADER_BACKEND", "opencv", _text, "registry name of the video loader"),
        Setting("VLLM_MEDIA_CONNECTOR", "http", _text, "registry name of the connector"),
        Setting("VLLM_MEDIA_ALLOWED_BUCKETS", "", _text,
                "what the connector 'fsspec' may read, separated by commas: s3://photos,gs://clips/public"),
        Setting("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", 256, _integer, "one download in MiB; 0 or less: no limit"),
        Setting("VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB", 256, _integer,
                "all downloads of a request in MiB, for `MediaRequestDownloadBudget`; 0 or less: no limit"),
        Setting("VLLM_MAX_MEDIA_SOURCE_SIZE_MB", 0, _integer,
                "what may be read in pieces, in MiB of the whole; 0 or less: no limit"),
        Setting("MMMEDIA_SPARSE_FETCH", "auto", _fetch_mode,
                "of long videos fetch what frames need: auto (where that pays), never, always (or raise)"),
        Setting("MMMEDIA_SPARSE_GAP_KB", 0, _integer,
                "pieces no further apart than so many KiB are fetched as one; 0: as suits 100 Mbit/s, 50 ms"),
        Setting("VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES", 715827880, _integer,
                "all that a request decodes to, for `MediaDecodedBudget`; 0 or less: no limit"),
        Setting("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", 25, _integer,
                "an encoded sound in MiB, however it comes; 0 or less: no limit"),
        Setting("VLLM_MAX_AUDIO_PREPROCESS_WORKERS", max(1, min(os.cpu_count() or 1, 2)), _count,
                "for engines: workers that prepare sounds for transcription; nothing here reads it"),
        Setting("VLLM_HTTP_MAX_REQUEST_BODY_SIZE", 33554432, _integer,
                "for engines: bytes of the body of a request; nothing here reads it"),
        Setting("VLLM_MAX_IMAGE_PIXELS", 178956970, _integer,
                "width x height of an image or a video frame; 0 or less: no limit"),
        Setting("VLLM_MAX_AUDIO_DECODE_DURATION_S", 600.0, _number,
                "seconds of decoded audio; 0 or less: no limit"),
        Setting("VLLM_MAX_AUDIO_DECODE_BYTES", 268435456, _integer,
                "bytes of decoded audio; 0 or less: no limit"),
        Setting("VLLM_MAX_EMBED_DECODE_BYTES", 2147483648, _integer,
                "dense bytes that an embedding may declare; 0 or less: no limit"),
        Setting("VLLM_MAX_VIDEO_DECODE_BYTES", 4294967296, _integer,
                "bytes of the frames array of one video; 0 or less: no limit"),
        Setting("VLLM_MEDIA_EGRESS_BLOCK_PRIVATE", False, _switch,
                "1: only public addresses may be reached"),
        Setting("VLLM_VIDEO_DECODE", "auto", _decode_mode,
                "how the opencv loaders get frames: auto, sequential (the reference), or seek (or raise)"),
        Setting("VLLM_VIDEO_DECODE_TIMEOUT_S", 600.0, _number,
                "seconds of wall clock for decoding one video; 0 or less: no limit"),
        Setting("VLLM_VIDEO_DECODE_WORKERS", 0, _integer,
                "workers that decode spans of video, over all requests; 0 or less: the usable cores"),
        Setting("MMMEDIA_VIDEO_DECODE_FOR", "latency", _decode_for,
                "latency: a video soon, by all workers; throughput: by the least CPU time, for batches"),
        Setting("VLLM_MM_FETCH_CONCURRENCY", 16, _count,
                "media of one request that are fetched side by side, at least one"),
        Setting("VLLM_MM_HASHER_ALGORITHM", "", _hash_algorithm,
                "blake3, sha256 or sha512; empty: blake3 where it is installed, else sha256"),
        Setting("MMMEDIA_COMPAT", "", _compat,
                "0.20: results as vLLM 0.20 gave them; empty: as they are right"),
        Setting("MMMEDIA_VLLM_REPLACE_OPENCV", False, _switch,
                "1: the plug-in for vLLM decodes also for loaders that name OpenCV in their code"),
        Setting("MMMEDIA_DECODED_CACHE_MB", 0, _integer,
                "decoded media kept in memory, in MiB; 0 or less: none"),
        Setting("MMMEDIA_DECODE_PROCESSES", 0, _integer,
                "processes in which media IOs decode, apart from this one; 0 or less: in this process"),
        Setting("MMMEDIA_DECODE_PROCESS_LIFE", 1000, _count,
                "decodes after which such a process is replaced; 1: every file has one of its own"),
        Setting("MMMEDIA_DECODE_PROCESS_MEMORY_MB", 8192, _count,
                "memory in MiB that such a process may take, beside the results it hands over"),
        Setting("MMMEDIA_DECODE_PROCESS_TIMEOUT_S", 60.0, _seconds,
                "seconds after which such a process is ended; for videos not before the limit of their own"),
        Setting("MMMEDIA_DECODE_QUEUE", 256, _count,
                "decodes that may wait for such a process; one more is an error"),
    )
}  # fmt: skip


def __getattr__(name: str) -> Value:
    setting = SETTINGS.get(name) or SETTINGS.get(name.replace("MMMEDIA_", "VLLM_", 1))
    if setting is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return setting.read()


def in_force(names: Iterable[str]) -> tuple[dict[str, str], dict[str, int]]:
    """Return what makes settings what they are here and now, so that they are the same in another process.

    Args:
        names: the settings.

    Returns:
        Environment variables that set them to what they are here, and what `at_most` says in this context.
    """
    found, defaults, assigned = {}, _defaults.get() or {}, globals()
    for name in names:
        variables = SETTINGS[name].variables
        if name in defaults:
            found[variables[-1]] = str(defaults[name])
        found.update({each: text for each in variables if (text := os.environ.get(each, "").strip())})
        if name in assigned:  # as tests of engines do
            found[variables[0]] = str(assigned[name])
    return found, dict(_ceilings.get() or {})


class CacheSettings(NamedTuple):
    """Where bytes are cached, and how many; see `cache_settings`.

    Attributes:
        directory: that of the cache; empty for no cache.
        max_bytes: what its entries may count together.
        ttl_seconds: the life of an entry, from its download.
    """

    directory: str
    max_bytes: int
    ttl_seconds: float


class FetchSettings(NamedTuple):
    """What a fetch goes by: the settings as they were when its request began; see `fetch_settings`.

    Attributes:
        attempts: how many to make in all.
        allow_redirects: follow redirects.
        max_download_bytes: of one download; infinity for no limit.
        revalidate: ask servers whether expired entries of the cache are still good.
        block_private: let only public addresses be reached.
    """

    attempts: int
    allow_redirects: bool
    max_download_bytes: float
    revalidate: bool
    block_private: bool

    def held_to(self, max_download_bytes: int | None) -> "FetchSettings":
        """Return these, under another limit of a download if that is the lower one."""
        if max_download_bytes is None or self.max_download_bytes <= max_download_bytes:
            return self
        return self._replace(max_download_bytes=max_download_bytes)


def cache_settings() -> CacheSettings:
    """Return where and how bytes are cached from now on.

    Raises:
        InvalidSettingError: (a `ValueError`) a variable's text can't be read.
    """
    if _are_assigned(_CACHE_SETTINGS):
        return _cache_settings(*_assigned(_CACHE_SETTINGS))
    return _cache_settings_of(*map(os.environ.get, _CACHE_VARIABLES))


def fetch_settings() -> FetchSettings:
    """Return what a fetch that begins now goes by.

    Raises:
        InvalidSettingError: (a `ValueError`) a variable's text can't be read.

    >>> fetch_settings().max_download_bytes
    268435456
    """
    if _are_assigned(_FETCH_SETTINGS):
        return _fetch_settings(*_assigned(_FETCH_SETTINGS))
    return _fetch_settings_of(*map(os.environ.get, _FETCH_VARIABLES))


def decoded_cache_bytes() -> int:
    """Return how many bytes of decoded media are kept from now on; asked for at each decode.

    Raises:
        InvalidSettingError: (a `ValueError`) the variable's text can't be read.
    """
    return _decoded_cache_bytes_of(os.environ.get("MMMEDIA_DECODED_CACHE_MB"))


@functools.lru_cache(maxsize=16)
def _decoded_cache_bytes_of(text: str | None) -> int:
    megabytes = SETTINGS["MMMEDIA_DECODED_CACHE_MB"].value_of(text)
    return max(0, int(megabytes)) << 20


_CACHE_SETTINGS = ("VLLM_MEDIA_CACHE", "VLLM_MEDIA_CACHE_MAX_SIZE_MB", "VLLM_MEDIA_CACHE_TTL_HOURS")
_FETCH_SETTINGS = (
    "VLLM_MEDIA_FETCH_MAX_RETRIES",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS",
    "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB",
    "VLLM_MEDIA_CACHE_REVALIDATE",
    "VLLM_MEDIA_EGRESS_BLOCK_PRIVATE",
)
_CACHE_VARIABLES, _FETCH_VARIABLES = (
    tuple(variable for name in names for variable in SETTINGS[name].variables)
    for names in (_CACHE_SETTINGS, _FETCH_SETTINGS)
)


def _values(names: tuple[str, ...], texts: tuple[str | None, ...]) -> "list[Any]":
    """Return the values of settings when their variables have these texts."""
    return [SETTINGS[name].value_of(*texts[2 * at : 2 * at + 2]) for at, name in enumerate(names)]


def _are_assigned(names: tuple[str, ...]) -> bool:
    """Whether somebody has assigned to one of these names in this module, as tests of engines do."""
    return any(name in globals() for name in names)


def _assigned(names: tuple[str, ...]) -> "list[Any]":
    """Return the values of settings, those assigned to before those of the environment."""
    return [globals()[name] if name in globals() else SETTINGS[name].read() for name in names]


@functools.lru_cache(maxsize=16)  # which texts mean what, never what they are
def _cache_settings_of(*texts: str | None) -> CacheSettings:
    return _cache_settings(*_values(_CACHE_SETTINGS, texts))


def _cache_settings(directory: str, megabytes: int, hours: float) -> CacheSettings:
    return CacheSettings(directory, megabytes * 1024 * 1024, hours * 3600.0)


@functools.lru_cache(maxsize=16)
def _fetch_settings_of(*texts: str | None) -> FetchSettings:
    return _fetch_settings(*_values(_FETCH_SETTINGS, texts))


def _fetch_settings(
    attempts: int, allow_redirects: bool, megabytes: float, revalidate: bool, block_private: bool
) -> FetchSettings:
    max_download_bytes = megabytes * 1024 * 1024 if megabytes > 0 else math.inf
    return FetchSettings(attempts, allow_redirects, max_download_bytes, revalidate, block_private)


def __dir__() -> list[str]:
    return sorted([*globals(), *SETTINGS])
