"""Whether a file is a picture, a video or a sound, by its bytes."""

from typing import Any, Literal

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.media.isolation import apart
from mmmedia.sources import Window
from mmmedia.video.piecewise.tracks import kind_by_tables

Kind = Literal["image", "video", "audio"]

_SOUNDS = frozenset(
    {
        "wav", "w64", "aiff", "iff", "au", "caf", "flac", "mp3", "aac", "ac3", "eac3", "dts", "amr", "ape",
        "tta", "wv", "mpc", "mpc8", "dsf", "voc", "truehd", "tak",
    }
)  # fmt: skip
_MAY_BE_EITHER = frozenset(
    {"mov", "matroska", "ogg", "asf", "avi", "mpegts", "mpeg", "flv", "nut", "rm", "gxf"}
)
_PICTURES = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0",
    b"qoif", b"8BPS", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51",
)  # fmt: skip
_PICTURE_BRANDS = frozenset({b"avif", b"heic", b"heix", b"mif1"})
_HEAD = 1 << 16


def kind_of(data: bytes) -> Kind:
    r"""Return what a file is; a GIF is a picture.

    Raises:
        InvalidMediaError: (a `ValueError`) it is none of these.

    >>> kind_of(b"\x89PNG\r\n\x1a\n"), kind_of(b"fLaC\0")
    ('image', 'audio')
    """
    return kind_by_head(data) or _kind_by_opening(data)


@apart("kind")
def _kind_by_opening(data: bytes) -> Kind:
    with containers.open_av(data) as container:
        return kind_by_streams(container)


def kind_by_reading(window: Window) -> Kind | None:
    """Return what is behind a source, by its first bytes and its tables; `None`: all of it has to tell.

    Raises:
        MediaError: as of `Source.read`.
    """
    head = window.head(0, _HEAD)
    try:
        return kind_by_head(head) or kind_by_tables(window)
    except InvalidMediaError:  # of which more may have to be seen
        return None


def kind_by_head(head: bytes) -> Kind | None:
    """Return what a file is, by its first bytes; `None` if its streams have to tell; see `kind_of`."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if head.startswith(_PICTURES) or is_webp or (head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS):
        return "image"
    name = containers.identify(head)
    if name in _SOUNDS:
        return "audio"
    return None if name in _MAY_BE_EITHER else "video"


def kind_by_streams(container: Any) -> Kind:
    """Return what a file is, by what FFmpeg finds in it."""
    has_pictures = bool(containers.moving_pictures(container))
    return "video" if has_pictures or not container.streams.audio else "audio"
