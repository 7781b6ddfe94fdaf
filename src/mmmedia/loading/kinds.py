"""Whether a file is a picture, a video or a sound, by its bytes."""

from pathlib import Path
from typing import Any, Literal

from mmmedia import containers
from mmmedia.loading.media_ios import AudioIO, VideoIO
from mmmedia.loading.streams import opened
from mmmedia.media.base import MediaIO, decode_base64
from mmmedia.media.image import ImageMediaIO

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


def kind_of(data: bytes | Path) -> Kind:
    r"""Return what a file is, or that at a path, by its head; a GIF is a picture.

    Raises:
        InvalidMediaError: (a `ValueError`) it is none of these.

    >>> kind_of(b"\x89PNG\r\n\x1a\n"), kind_of(b"fLaC\0")
    ('image', 'audio')
    """
    head = data if isinstance(data, bytes) else _head(data)
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    if head.startswith(_PICTURES) or is_webp or (head[4:8] == b"ftyp" and head[8:12] in _PICTURE_BRANDS):
        return "image"
    name = containers.identify(head)
    if name in _SOUNDS:
        return "audio"
    if name in _MAY_BE_EITHER:
        with opened(data) as container:
            pictures = any(not _is_cover(each) for each in container.streams.video)
            return "video" if pictures or not container.streams.audio else "audio"
    return "video"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 16)


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


class AnyIO(MediaIO[Any]):
    """Loads whatever it is, as the functions for its kind do.

    Args:
        image: for pictures.
        video: for videos.
        audio: for sounds.
    """

    modality = "video"  # whose time-out is the longest

    def __init__(self, image: ImageMediaIO, video: VideoIO, audio: AudioIO) -> None:
        self._ios: dict[str, MediaIO[Any]] = {"image": image, "video": video, "audio": audio}

    def load_bytes(self, data: bytes) -> Any:
        """Load a file."""
        kind = kind_of(data)
        media = self._ios[kind].load_bytes(data)
        return media.media if kind == "image" else media

    def load_base64(self, media_type: str, data: str) -> Any:
        """Load a file in base64; JPEGs for the media type "video/jpeg"."""
        if media_type.strip().lower() == "video/jpeg":
            return self._ios["video"].load_base64(media_type, data)
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> Any:
        """Load a file from a path."""
        kind = kind_of(Path(filepath))
        media = self._ios[kind].load_file(filepath)
        return media.media if kind == "image" else media
