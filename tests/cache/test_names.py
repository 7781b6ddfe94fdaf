"""The names of entries."""

import hashlib
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.cache import MediaCache, entry_name


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


@settings(deadline=None, max_examples=200)
@given(st.text("ab./?#", max_size=10))
def test_the_suffix_is_that_of_the_path(rest: str) -> None:
    """However it is found, it is what `PurePosixPath` calls the suffix."""
    url = f"http://h/{rest}"
    suffix = PurePosixPath(urlsplit(url).path).suffix
    assert entry_name(url)[20:] == (suffix if len(suffix) > 1 else "")
