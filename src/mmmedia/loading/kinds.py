"""Whether a file is a picture, a video or a sound, by its bytes."""

from pathlib import Path
from typing import Any

from mmmedia.loading.media_ios import AudioIO, VideoIO
from mmmedia.loading.streams import opened
from mmmedia.media.base import MediaIO, decode_base64
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.kinds import Kind, kind_by_head, kind_by_streams


def kind_of(data: bytes | Path) -> Kind:
    r"""Return what a file is, or that at a path, by its head; a GIF is a picture.

    Raises:
        InvalidMediaError: (a `ValueError`) it is none of these.

    >>> kind_of(b"\x89PNG\r\n\x1a\n"), kind_of(b"fLaC\0")
    ('image', 'audio')
    """
    kind = kind_by_head(data if isinstance(data, bytes) else _head(data))
    if kind is None:
        with opened(data) as container:
            kind = kind_by_streams(container)
    return kind


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 16)


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
