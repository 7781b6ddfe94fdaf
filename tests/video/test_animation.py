"""Animated pictures read as videos: damaged ones, and those that are none."""

import io

import pytest
from PIL import Image

from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.animation import Animation, animation


def _file(kind: str, frames: int, **options: object) -> bytes:
    file = io.BytesIO()
    first, *others = [Image.effect_noise((16, 12), 50 + number).convert("RGB") for number in range(frames)]
    first.save(file, kind, save_all=bool(others), append_images=others, **options)
    return file.getvalue()


def test_frames_up_to_where_it_is_damaged() -> None:
    """Nothing is made up for the others; where the first is damaged, there is nothing."""
    data = _file("PNG", 4, duration=40)
    whole = animation(data)
    assert whole is not None
    assert len(whole.durations) == 4
    last = data.rindex(b"fdAT")
    broken = data[: last + 12] + bytes(len(data) - last - 12)
    frames, valid = Animation(broken, 12, 16, whole.durations).read_frames([0, 1, 2, 3])
    assert valid == [0, 1, 2]
    assert (frames == whole.read_frames([0, 1, 2])[0]).all()
    with pytest.raises(InvalidMediaError, match="damaged"):
        Animation(data[:30] + bytes(len(data) - 30), 12, 16, whole.durations).read_frames([0])


def test_a_picture_alone_is_none() -> None:
    assert animation(_file("WEBP", 1, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")) is None
    assert animation(_file("PNG", 1)) is None
