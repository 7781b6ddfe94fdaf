"""Whatever it is, by its bytes."""

from pathlib import Path
from typing import Any

from mmmedia.loading.media_ios import AudioIO, VideoIO
from mmmedia.media.base import MediaIO, SourceMediaIO, decode_base64
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.kinds import kind_by_reading, kind_of
from mmmedia.sources import FileSource, Source, Window, WindowSource


class AnyIO(SourceMediaIO[Any]):
    """Loads whatever it is, as the functions for its kind do.

    Args:
        image: for pictures.
        video: for videos.
        audio: for sounds.
    """

    modality = "video"  # whose time-out is the longest

    def __init__(self, image: ImageMediaIO, video: VideoIO, audio: AudioIO) -> None:
        self._video = video
        self._ios: dict[str, MediaIO[Any]] = {"image": image, "video": video, "audio": audio}

    @property
    def smallest_source(self) -> int:
        """Bytes below which a source is read whole."""
        return self._video.smallest_source

    def fetch_mode(self) -> str:
        """Return "auto", "never" or "always", as of videos."""
        return self._video.fetch_mode()

    def load_bytes(self, data: bytes) -> Any:
        """Load a file."""
        kind = kind_of(data)
        return _bare(kind, self._ios[kind].load_bytes(data))

    def load_base64(self, media_type: str, data: str) -> Any:
        """Load a file in base64; JPEGs for the media type "video/jpeg"."""
        if media_type.strip().lower() == "video/jpeg":
            return self._ios["video"].load_base64(media_type, data)
        return self.load_bytes(decode_base64(data))

    def load_source(self, source: Source) -> Any:
        """Load through a source, of which all is read but of videos."""
        window = Window(source)
        if kind_by_reading(window) == "video":
            return self._video.load_source(WindowSource(window))
        return self.load_bytes(window.all())

    def load_file(self, filepath: Path) -> Any:
        """Load a file from a path."""
        if not Path(filepath).is_file():  # a pipe, or none
            return self.load_bytes(Path(filepath).read_bytes())
        with FileSource(filepath) as source:
            if (kind := kind_by_reading(Window(source))) is None:
                return self.load_bytes(source.read_all())
        return _bare(kind, self._ios[kind].load_file(filepath))


def _bare(kind: str, media: Any) -> Any:
    return media.media if kind == "image" else media
