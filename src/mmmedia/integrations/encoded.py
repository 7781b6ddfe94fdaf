"""Encoded bytes of whatever an adapter is handed: a path, a URL, bytes, an open file."""

from pathlib import Path
from typing import TYPE_CHECKING

from mmmedia.loading.sources import URL, Source, connector_for, located, read_path, refused, timeout_for
from mmmedia.media.base import MediaIO, decode_base64

if TYPE_CHECKING:
    from mmmedia.media.connector import MediaConnector


class _AsItIs(MediaIO[bytes]):
    """Loads the encoded bytes of a video."""

    modality = "video"

    def load_bytes(self, data: bytes) -> bytes:
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:  # noqa: ARG002  # the bytes say it
        return decode_base64(data)

    def load_file(self, filepath: Path) -> bytes:
        return filepath.read_bytes()


def encoded_video(source: Source, connector: "MediaConnector | None" = None) -> bytes:
    """Return the bytes of an encoded video.

    Args:
        source: a path, a URL, bytes, or an open file. A path is the caller's own; a URL keeps every limit.
        connector: what fetches URLs, `file:` ones too; None: a new one, with the policy of the settings.

    Raises:
        MediaError: it can't be had; of the network the errors of `MediaConnector.load_from_url`.
    """
    if connector is not None and isinstance(source, str) and "://" in source:
        source = URL(source)
    else:
        source = located(source)
    if source is None:
        raise refused(source, "a video")
    if not isinstance(source, URL):
        return read_path(source) if isinstance(source, Path) else bytes(source)
    media_io = _AsItIs()
    loader = connector or connector_for(source)
    return loader.load_from_url(str(source), media_io, fetch_timeout=timeout_for(media_io))
