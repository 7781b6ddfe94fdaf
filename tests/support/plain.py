"""A media IO that loads to the bytes themselves, so that all the rest is the connector's."""

from pathlib import Path

from mmmedia.media.base import MediaIO


class Plain(MediaIO[bytes]):
    """Bytes that begin with `bad` don't decode; nothing comes but by a download."""

    def load_bytes(self, data: bytes) -> bytes:
        if data.startswith(b"bad"):
            raise ValueError("undecodable")
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:
        raise AssertionError(media_type)

    def load_file(self, filepath: Path) -> bytes:
        raise AssertionError(filepath)
