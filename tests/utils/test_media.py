"""Media as URLs and back, in one call."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia import utils
from mmmedia.media import MediaWithBytes


def picture(mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (6, 4), "red")


@pytest.mark.parametrize(
    ("name", "kind"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("TGA", "image/tga")]
)
def test_pictures(name: str, kind: str) -> None:
    """A format that Python knows no media type of is called by its name."""
    url = utils.encode_image_url(picture(), format=name)
    assert url.partition(";")[0] == f"data:{kind}"
    assert utils.fetch_image(url).size == (6, 4)


def test_mode_of_a_picture() -> None:
    """RGB unless told otherwise; `None` keeps that of the picture."""
    url = utils.encode_image_url(picture("L"), image_mode=None)
    assert utils.fetch_image(url, {"image_mode": None}).mode == "L"
    assert utils.fetch_image(utils.encode_image_url(picture("L")), {"image_mode": None}).mode == "RGB"
    wrapped = MediaWithBytes(picture(), b"")
    assert utils.encode_image_base64(wrapped) == utils.encode_image_base64(picture())
    with pytest.raises(NotImplementedError):
        utils.encode_image_url(picture(), format="VHS")


@pytest.mark.parametrize(("name", "kind"), [("FLAC", "audio/flac"), ("CAF", "audio/caf")])
def test_sounds(name: str, kind: str) -> None:
    wave = np.linspace(-1, 1, 800, dtype=np.float32)
    url = utils.encode_audio_url(wave, 16_000, format=name)
    assert url.partition(";")[0] == f"data:{kind}"
    found, rate = utils.fetch_audio(url)
    assert rate == 16_000
    assert np.abs(found - wave).max() < 1e-3
    assert utils.encode_audio_url(wave, 16_000).startswith("data:audio/")


def test_videos() -> None:
    frames = np.full((3, 16, 16, 3), 128, np.uint8)
    url = utils.encode_video_url(frames)
    assert url.startswith("data:video/jpeg;base64,")
    found, metadata = utils.fetch_video(url, {"num_frames": 2})
    assert (found.shape, metadata["frames_indices"]) == ((2, 16, 16, 3), [0, 1])
    with pytest.raises(NotImplementedError):
        utils.encode_video_url(frames, format="GIF")


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_local_files_are_refused(modality: str) -> None:
    fetch: Any = getattr(utils, f"fetch_{modality}")
    with pytest.raises(RuntimeError, match="allowed-local-media-path"):
        fetch("file:///etc/passwd")


def test_what_is_encoded_is_a_file() -> None:
    from mmmedia.media.base import decode_base64

    assert Image.open(io.BytesIO(decode_base64(utils.encode_image_base64(picture())))).format == "PNG"
