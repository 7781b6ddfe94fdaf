"""Every setting, read from the environment each time it is used.

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
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

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
    VLLM_MAX_IMAGE_PIXELS: int
    VLLM_MAX_AUDIO_DECODE_DURATION_S: float
    VLLM_MAX_AUDIO_DECODE_BYTES: int
    VLLM_MAX_EMBED_DECODE_BYTES: int
    VLLM_MAX_VIDEO_DECODE_BYTES: int
    VLLM_MEDIA_EGRESS_BLOCK_PRIVATE: bool
    VLLM_VIDEO_DECODE: str
    VLLM_VIDEO_DECODE_TIMEOUT_S: float
    VLLM_VIDEO_DECODE_WORKERS: int
    VLLM_MM_FETCH_CONCURRENCY: int
    VLLM_MM_HASHER_ALGORITHM: str
    MMMEDIA_COMPAT: str
    MMMEDIA_VLLM_REPLACE_OPENCV: bool

Value = str | int | float | bool

# A request reads ten settings, of which hardly any is set, and `os.environ.get` takes its time to say so.
_environ = os.environ
_variables: Mapping[object, str | bytes] = getattr(_environ, "_data", {})


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
}


_ceilings: ContextVar[Mapping[str, int] | None] = ContextVar("mmmedia_ceilings", default=None)


@contextmanager
def at_most(ceilings: Mapping[str, int]) -> Iterator[None]:
    """Lower limits inside the block, in this context only: the setting of each name to at most its number."""
    token = _ceilings.set(ceilings)
    try:
        yield
    finally:
        _ceilings.reset(token)


def absent(variables: tuple[str, ...]) -> bool:
    """Say, at little cost, whether none of these environment variables exists."""
    if not _variables or os.environ is not _environ:
        return not any(variable in os.environ for variable in variables)
    return _variables.keys().isdisjoint(_keys(variables))


@functools.lru_cache(maxsize=256)
def _keys(variables: tuple[str, ...]) -> tuple[object, ...]:
    encode: Callable[[str], object] = getattr(_environ, "encodekey", str)
    return tuple(map(encode, variables))


@dataclass(frozen=True, eq=False)
class Setting:
    """One setting: its name (`VLLM_…`, or ours alone), default, how its text is read, and what it means."""

    name: str
    default: Value
    parse: Callable[[str], Value]
    meaning: str

    @functools.cached_property
    def variables(self) -> tuple[str, str]:
        """The environment variables that set it, the winning one first."""
        own = self.name.removeprefix("MMMEDIA_").removeprefix("VLLM_")
        return "MMMEDIA_" + own, self.name

    @functools.cached_property
    def keys(self) -> tuple[object, object]:
        """Those two as `os.environ` keeps them."""
        winning, other = _keys(self.variables)
        return winning, other

    @functools.cached_property
    def _last(self) -> tuple[tuple[str | bytes | None, ...], Value]:
        """What the variables were when they were last read, and what that meant."""
        return (None, None), self.default

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        return _EXPECTED[self.parse]

    def __get__(self, module: object, owner: type) -> "Value | Setting":
        """Return its value now, as an attribute of the module."""
        return self if module is None else self.read()

    def read(self) -> Value:
        """Return its value now.

        Raises:
            InvalidSettingError: (a `ValueError`) the variable's text can't be read.
        """
        if _variables and os.environ is _environ:
            winning, other = self.keys
            texts = _variables.get(winning), _variables.get(other)
            last_texts, value = self._last
            if texts != last_texts:
                value = _parsed(self, *texts)
                vars(self)["_last"] = texts, value  # as a cached property would, which this is
        else:
            value = _parsed(self, *map(os.environ.get, self.variables))
        if (ceilings := _ceilings.get()) is None:
            return value
        ceiling = ceilings.get(self.name)
        if ceiling is None or not isinstance(value, int | float):
            return value
        return min(value, ceiling) if value > 0 else ceiling


def _parsed(setting: Setting, *values: str | bytes | None) -> Value:
    """Return what a setting is when its variables have these values."""
    for variable, value in zip(setting.variables, values, strict=True):
        text = os.fsdecode(value or "")
        if not text.strip():
            continue
        try:
            return setting.parse(text)
        except (ValueError, KeyError, OverflowError):
            raise InvalidSettingError(f"{variable}={text[:64]!r}: expected {setting.expected}.") from None
    return setting.default


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
        Setting("VLLM_MM_FETCH_CONCURRENCY", 16, _count,
                "media of one request that are fetched side by side, at least one"),
        Setting("VLLM_MM_HASHER_ALGORITHM", "", _hash_algorithm,
                "blake3, sha256 or sha512; empty: blake3 where it is installed, else sha256"),
        Setting("MMMEDIA_COMPAT", "", _compat,
                "0.20: results as vLLM 0.20 gave them; empty: as they are right"),
        Setting("MMMEDIA_VLLM_REPLACE_OPENCV", False, _switch,
                "1: the plug-in for vLLM decodes also for loaders that name OpenCV in their code"),
    )
}  # fmt: skip


class _Settings(ModuleType):
    """This module, with its settings as attributes: by `__getattr__` finding them takes twice as long."""


for _name, _setting in SETTINGS.items():
    setattr(_Settings, _name, _setting)
sys.modules[__name__].__class__ = _Settings


def __getattr__(name: str) -> Value:
    setting = SETTINGS.get(name.replace("MMMEDIA_", "VLLM_", 1))
    if setting is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return setting.read()


def __dir__() -> list[str]:
    return sorted([*globals(), *SETTINGS])
