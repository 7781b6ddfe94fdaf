"""What a file is, by its bytes."""

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmmedia.errors import InvalidMediaError
from mmmedia.media.kinds import kind_of
from support.clips import clip


def _picture(name: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "JPEG2000", "AVIF"])
def test_pictures(name: str) -> None:
    assert kind_of(_picture(name)) == "image"


@pytest.mark.parametrize("name", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_sounds(name: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(8000), 8000, format=name)
    assert kind_of(file.getvalue()) == "audio"


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "avi"])
def test_videos(container: str) -> None:
    assert kind_of(clip(frames=4, container=container)) == "video"


def test_what_is_none_of_these() -> None:
    with pytest.raises(InvalidMediaError):
        kind_of(b"no media at all")
