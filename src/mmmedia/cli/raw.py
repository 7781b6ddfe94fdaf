"""The bytes behind a source, as they are; and a clip of some of them."""

from pathlib import Path

from mmmedia import containers
from mmmedia.cli.progress import Report
from mmmedia.cli.sources import load, opened
from mmmedia.errors import InvalidMediaError
from mmmedia.media.base import MediaIO, SourceMediaIO, decode_base64
from mmmedia.sources import Source
from mmmedia.video.excerpts import Choice, Excerpt, excerpt

_ARCHIVES = (b"PK", b"\x1f\x8b")  # which hold tensors


class RawMediaIO(MediaIO[bytes]):
    """Loads any media to their bytes; what is a page or a text is refused, so that no cache holds one.

    >>> RawMediaIO().load_base64("image/gif", "R0lGODlh")
    b'GIF89a'
    """

    def load_bytes(self, data: bytes) -> bytes:
        """Return the bytes.

        Raises:
            InvalidMediaError: (a `ValueError`) there are none, or they are a page or a text.
        """
        if not data:
            raise InvalidMediaError("It is empty.")
        if (what := containers.described(data)) and not data.startswith(_ARCHIVES):
            raise InvalidMediaError(f"No media.{what}")
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:  # noqa: ARG002  # the interface
        """Return the bytes that base64 text stands for; errors as of `load_bytes`."""
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> bytes:
        """Return the bytes of a file; errors as of `load_bytes`."""
        return self.load_bytes(filepath.read_bytes())


class CutIO(SourceMediaIO[Excerpt]):
    """Loads a video to a clip of what some of its frames need.

    Args:
        indices: as of `mmmedia.video.excerpt`.
    """

    modality = "video"

    def __init__(self, indices: Choice) -> None:
        self._indices = indices

    def load_bytes(self, data: bytes) -> Excerpt:
        """Cut it out of a file; errors as of `mmmedia.video.excerpt`."""
        return excerpt(RawMediaIO().load_bytes(data), self._indices)

    def load_base64(self, media_type: str, data: str) -> Excerpt:  # noqa: ARG002  # the interface
        """Cut it out of a file in base64."""
        return self.load_bytes(decode_base64(data))

    def load_source(self, source: Source) -> Excerpt:
        """Cut it out of what is read in pieces."""
        return excerpt(source, self._indices)


def read(source: str, report: Report) -> bytes:
    """Return the bytes of a path, a URL or standard input.

    Raises:
        InvalidMediaError: (a `ValueError`) there are none, or they are a page or a text.
        OSError: they can't be read; as `MediaConnector.load_from_url` for URLs.
    """
    return load(opened(source), RawMediaIO(), report)
