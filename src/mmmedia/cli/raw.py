"""The bytes behind a source, as they are."""

import re
from pathlib import Path

from mmmedia import envs
from mmmedia.cli.sources import STANDARD, connector_for, is_url, standard_input
from mmmedia.errors import InvalidMediaError
from mmmedia.media.base import MediaIO, decode_base64

_HTML = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE)


class RawMediaIO(MediaIO[bytes]):
    """Loads any media to their bytes; what is an HTML page is refused, so that no cache holds one.

    >>> RawMediaIO().load_base64("image/gif", "R0lGODlh")
    b'GIF89a'
    """

    def load_bytes(self, data: bytes) -> bytes:
        """Return the bytes.

        Raises:
            InvalidMediaError: (a `ValueError`) there are none, or they are an HTML page.
        """
        if not data:
            raise InvalidMediaError("It is empty.")
        if _HTML.match(data[:1024]):
            raise InvalidMediaError(
                "It is an HTML page, not media: the URL may be that of a page that shows them."
            )
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:  # noqa: ARG002  # the interface
        """Return the bytes that base64 text stands for; errors as of `load_bytes`."""
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> bytes:
        """Return the bytes of a file; errors as of `load_bytes`."""
        return self.load_bytes(filepath.read_bytes())


def read(source: str) -> bytes:
    """Return the bytes of a path, a URL or standard input.

    Raises:
        InvalidMediaError: (a `ValueError`) there are none, or they are an HTML page.
        OSError: they can't be read; as `MediaConnector.load_from_url` for URLs.
    """
    if source == STANDARD:
        return RawMediaIO().load_bytes(standard_input())
    if not is_url(source):
        return RawMediaIO().load_file(Path(source))
    return connector_for(source).load_from_url(
        source, RawMediaIO(), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT
    )
