"""The names of entries."""

import hashlib

import pytest

from mmmedia.cache import MediaCache


@pytest.mark.parametrize(
    ("address", "suffix"),
    [
        ("https://e.org/cat.jpg", ".jpg"),
        ("https://e.org/cat.JPG?x=.png#.gif", ".JPG"),
        ("https://e.org/archive.tar.gz", ".gz"),
        ("https://e.org/model.safetensors", ""),
        ("https://e.org/frames.mpegurl123", ".mpegurl123"),
        ("https://e.org/", ""),
        ("https://e.org", ""),
        ("https://e.org/.jpg", ""),
        ("https://e.org/cat.", ""),
        ("https://e.org/cat.j%70g", ""),
        ("https://e.org/cat.jp\x00", ""),
        ("https://e.org/cat.\uff4a\uff50\uff47", ""),
        ("https://e.org/cat.jpg/..", ""),
        ("https://e.org/a.b/..%2f..%2fetc", ""),
        ("https://[::1/cat.jpg", ""),
        ("\udcff.jpg", ".jpg"),
    ],
)
def test_an_entry_is_named_by_hash_and_plain_suffix(cache: MediaCache, address: str, suffix: str) -> None:
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
    assert cache.path(address) == cache.directory / (digest[:20] + suffix)
