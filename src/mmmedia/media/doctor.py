"""What decodes here, how it is held, and what the environment has to say about it: `report`.

For people who ask what is wrong with a server: `mmmedia doctor` prints it.
"""

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from mmmedia import __version__, envs
from mmmedia.connections.environment import environment_proxy, trust
from mmmedia.errors import MediaError
from mmmedia.media import isolation
from mmmedia.urls import parse_http_url, redact_url
from mmmedia.work.cores import usable_cores

Report = dict[str, Any]

PACKAGES: Final = (
    "numpy", "pillow", "pillow-heif", "opencv-python-headless", "opencv-python", "av", "soundfile", "librosa",
    "soxr", "torch", "torchcodec", "torchaudio", "aiohttp", "requests", "urllib3", "certifi", "pybase64",
    "blake3", "fsspec", "prometheus-client", "transformers", "vllm",
)  # fmt: skip
"""Distributions whose versions matter."""

_VIDEO: Final = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "av1",
    "libdav1d",
    "mpeg4",
    "mpeg2video",
    "mjpeg",
    "prores",
    "ffv1",
)
_SOUND: Final = (
    "aac",
    "mp3",
    "mp3float",
    "opus",
    "libopus",
    "vorbis",
    "flac",
    "alac",
    "ac3",
    "wmav2",
    "pcm_s16le",
)
_PICTURES: Final = (
    "jpg",
    "jpg_2000",
    "libjpeg_turbo",
    "libtiff",
    "webp",
    "avif",
    "zlib",
    "zlib_ng",
    "littlecms2",
)
_CERTIFICATES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES: Final = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def report() -> Report:
    """Return what there is to know, as what JSON can hold.

    It starts a worker, to see how it is held, and ends it; nothing is sent to the network, and no secret is
    in it.

    Returns:
        A dict of `versions`, `codecs`, `isolation`, `settings`, `cache`, `network`, and `problems`: sentences
        about what can't work as it is set.

    >>> sorted(report())
    ['cache', 'codecs', 'isolation', 'network', 'problems', 'settings', 'versions']
    """
    problems: list[str] = []
    settings = _settings(problems)
    return {
        "versions": _versions(),
        "codecs": _codecs(problems),
        "isolation": _isolation(problems),
        "settings": settings,
        "cache": _cache(problems),
        "network": _network(problems),
        "problems": problems,
    }


def _versions() -> Report:
    found: Report = {
        "mmmedia": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": usable_cores(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _codecs(problems: list[str]) -> Report:
    found: Report = {}
    for name, ask in (("av", _ffmpeg), ("opencv", _opencv), ("soundfile", _soundfile), ("pillow", _pillow)):
        try:
            found[name] = ask()
        except (ImportError, OSError, AttributeError) as error:
            found[name] = None
            problems.append(f"{name} can't be used: {error}.")
    return found


def _ffmpeg() -> Report:
    import av

    return {
        "libraries": {name: ".".join(map(str, parts)) for name, parts in av.library_versions.items()},
        "video": [name for name in _VIDEO if name in av.codecs_available],
        "sound": [name for name in _SOUND if name in av.codecs_available],
    }


def _opencv() -> Report:
    import cv2

    lines = cv2.getBuildInformation().splitlines()
    held = ("FFMPEG", "avcodec", "avformat", "avutil", "swscale")
    found = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in found if name.strip() in held}


def _soundfile() -> Report:
    import soundfile

    return {"libsndfile": soundfile.__libsndfile_version__, "formats": sorted(soundfile.available_formats())}


def _pillow() -> Report:
    from PIL import Image, features

    Image.init()
    libraries: dict[str, str | None] = {}
    for name in _PICTURES:
        if name in features.get_supported():
            libraries[name] = features.version(name)
    try:
        importlib.import_module("pillow_heif")
        libraries["heif"] = version("pillow-heif")
    except ImportError:
        libraries["heif"] = None
    return {"libraries": libraries, "formats": sorted(Image.OPEN)}


def _isolation(problems: list[str]) -> Report:
    found: Report = {
        "processes": envs.SETTINGS["MMMEDIA_DECODE_PROCESSES"].default,
        "is_possible": False,
        "layers": [],
        "lacking": [],
        "landlock": 0,
    }
    try:
        found["processes"] = envs.MMMEDIA_DECODE_PROCESSES
        found.update(isolation.layers())
    except (MediaError, OSError, ImportError) as error:
        if found["processes"]:
            problems.append(f"Decode processes can't be started: {error}")
        return found
    if found["processes"] and found["lacking"]:
        problems.append(
            f"Decode processes do without {', '.join(found['lacking'])}, which this system lacks."
        )
    return found


def _settings(problems: list[str]) -> Report:
    found: Report = {}
    for name, setting in envs.SETTINGS.items():
        by = next((each for each in setting.variables if (os.environ.get(each) or "").strip()), None)
        try:
            value: Any = setting.read()
        except MediaError as error:
            value = None
            problems.append(str(error))
        found[name] = {"value": value, "set_by": by, "meaning": setting.meaning}
    return found


def _cache(problems: list[str]) -> Report:
    try:
        settings = envs.cache_settings()
    except MediaError:  # told with the settings
        return {"directory": None}
    if not settings.directory:
        return {"directory": None}
    path = Path(settings.directory)
    place = next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))
    is_writable = os.access(place, os.W_OK | os.X_OK)
    if not is_writable:
        problems.append(f"The cache directory {settings.directory} can't be written.")
    return {
        "directory": settings.directory,
        "is_there": path.is_dir(),
        "is_writable": is_writable,
        "max_bytes": settings.max_bytes,
        "free_bytes": shutil.disk_usage(place).free,
        "ttl_seconds": settings.ttl_seconds,
    }


def _network(problems: list[str]) -> Report:
    proxies: Report = {}
    for scheme in ("http", "https"):
        try:
            proxy = environment_proxy(parse_http_url(f"{scheme}://example.org/"))
        except MediaError as error:
            proxies[scheme] = None
            problems.append(str(error))
        else:
            proxies[scheme] = redact_url(proxy) if proxy else None
    try:
        trust()
    except MediaError as error:
        problems.append(str(error))
    return {
        "proxies": proxies,
        "proxy_variables": [name for name in _PROXIES if os.environ.get(name)],
        "no_proxy": os.environ.get("no_proxy") or os.environ.get("NO_PROXY"),
        "certificates": {name: os.environ[name] for name in _CERTIFICATES if os.environ.get(name)},
    }
