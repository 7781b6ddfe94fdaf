"""Pictures with common pixels: what is done to one is done to it alone, as if it had always had its own."""

import copy
import gc
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw, ImageOps

from mmmedia.media.base import MediaWithBytes
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.sharing import _is_safe, can_lend, twin_maker

Change = Callable[[Image.Image], object]


def _encoded(image_format: str, mode: str) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((24, 20), 80).convert(mode).save(file, image_format)
    return file.getvalue()


def _set_pixels(image: Image.Image) -> None:
    pixels = image.load()
    assert pixels is not None
    for at in range(20):
        pixels[at, at] = (9,) * len(image.getbands()) if len(image.getbands()) > 1 else 9
        assert pixels[at, at] == image.getpixel((at, at))


def _shift_hue(image: Image.Image) -> None:
    profile = ImageCms.createProfile("sRGB")
    lab = ImageCms.createProfile("XYZ")
    transform = ImageCms.buildTransform(profile, lab, image.mode, image.mode)
    ImageCms.applyTransform(image, transform, inPlace=True)


CHANGES: dict[str, Change] = {
    "putpixel": lambda image: image.putpixel(
        (1, 2), 7 if image.mode == "L" else (7,) * len(image.getbands())
    ),
    "load": _set_pixels,
    "paste": lambda image: image.paste(image.transpose(Image.Transpose.ROTATE_180), (3, 2)),
    "paste a colour": lambda image: image.paste(0, (0, 0, 9, 9)),
    "putdata": lambda image: image.putdata(list(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).getdata())),
    "putalpha": lambda image: image.putalpha(90),
    "putalpha of another": lambda image: image.putalpha(Image.new("L", image.size, 3)),
    "putpalette": lambda image: image.putpalette([1, 2, 3]) if image.mode == "L" else None,
    "frombytes": lambda image: image.frombytes(image.tobytes()[::-1]),
    "thumbnail": lambda image: image.thumbnail((10, 10)),
    "thumbnail and then": lambda image: (image.thumbnail((99, 99)), image.putpixel((0, 0), 0)),
    "alpha_composite": lambda image: (
        image.alpha_composite(image.copy(), (2, 2)) if image.mode == "RGBA" else None
    ),
    "draw": lambda image: ImageDraw.Draw(image).ellipse((2, 2, 15, 15), fill="white", outline="black"),
    "floodfill": lambda image: ImageDraw.floodfill(
        image, (3, 3), 1 if image.mode == "L" else (1,) * len(image.getbands()), thresh=99
    ),
    "exif_transpose": lambda image: ImageOps.exif_transpose(image, in_place=True),
    "colours": lambda image: _shift_hue(image) if image.mode == "RGB" else None,
    "info": lambda image: image.info.update(a=1),
    "close": lambda image: image.close(),
    "getim": lambda image: image.getim(),
}
BODIES = {
    "jpeg": _encoded("JPEG", "RGB"),
    "grey jpeg": _encoded("JPEG", "L"),
    "cmyk jpeg": _encoded("JPEG", "CMYK"),
    "png": _encoded("PNG", "RGB"),
    "png with alpha": _encoded("PNG", "RGBA"),
    "gif": _encoded("GIF", "L"),
}


def _pixels(image: Image.Image) -> Any:
    return image.mode, image.size, image.info.copy(), image.tobytes()


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("mode", ["RGB", None])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_as_on_a_picture_alone_and_shows_nowhere_else(
    change: Change, body: bytes, mode: str | None
) -> None:
    original, alone = (ImageMediaIO(mode).load_bytes(body) for _ in range(2))
    make = twin_maker(original)
    assert make is not None
    changed, other = make().media, make().media
    before = _pixels(alone.media)
    assert _pixels(changed) == before
    outcomes = []
    for image in (changed, alone.media):
        try:
            change(image)
            outcomes.append(_pixels(image))
        except Exception as error:  # the same of both
            outcomes.append((type(error), str(error)))
    assert outcomes[0] == outcomes[1]
    assert _pixels(original.media) == before
    assert _pixels(other) == before
    assert _pixels(make().media) == before


def test_pixels_are_common_until_then() -> None:
    original = ImageMediaIO().load_bytes(BODIES["jpeg"])
    make = twin_maker(original)
    assert make is not None
    twins = [make().media for _ in range(3)]
    assert all(twin.im is original.media.im for twin in twins)
    for read in (np.asarray, Image.Image.tobytes, Image.Image.getextrema, lambda image: image.resize((3, 3))):
        read(twins[0])
    assert twins[0].im is original.media.im
    twins[0].putpixel((0, 0), (1, 2, 3))
    assert twins[0].im is not original.media.im
    assert type(twins[0]) is type(twins[1])
    assert isinstance(twins[0], type(original.media))
    assert twins[1].im is original.media.im


def _through_pickle(image: Image.Image) -> Image.Image:
    unpickled: Image.Image = pickle.loads(pickle.dumps(image))  # its own
    return unpickled


def _through_old_pickle(image: Image.Image) -> Image.Image:
    unpickled: Image.Image = pickle.loads(pickle.dumps(image, protocol=0))
    return unpickled


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, _through_pickle, _through_old_pickle])
def test_copies_and_pickles_are_plain_pictures(clone: Callable[[Image.Image], Image.Image]) -> None:
    original = MediaWithBytes(Image.effect_noise((8, 8), 90), b"")
    make = twin_maker(original)
    assert make is not None
    cloned = clone(make().media)
    assert type(cloned) is Image.Image
    assert cloned == original.media
    assert cloned.im is not original.media.im


def test_what_composes_frames_in_place_is_not_lent() -> None:
    file = io.BytesIO()
    frames = [Image.effect_noise((8, 8), each) for each in (10, 90)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    assert not can_lend(Image.open(file))
    file = io.BytesIO()
    frames[0].save(file, "GIF")
    assert not can_lend(Image.open(file))
    assert can_lend(frames[0])


def test_they_equal_pictures_that_have_their_own() -> None:
    image = Image.effect_noise((8, 8), 90)
    make = twin_maker(MediaWithBytes(image, b""))
    assert make is not None
    assert image == make().media == make().media == image
    other = make().media
    other.putpixel((0, 0), 255 - other.getpixel((0, 0)))
    assert make().media != other
    assert other != make().media
    assert make().media != "picture"


def test_a_picture_that_was_changed_keeps_the_common_pixels_no_longer() -> None:
    make = twin_maker(MediaWithBytes(Image.effect_noise((8, 8), 90), b""))
    assert make is not None
    twin = make().media
    common = twin.im
    twin.putpixel((0, 0), 7)
    assert not any(common is each for each in gc.get_referents(twin))
    assert twin.readonly == 0


# A Pillow that does otherwise.


@pytest.fixture
def afresh() -> Iterator[None]:
    """The check of Pillow is made anew, and again when the test is over."""
    _is_safe.cache_clear()
    yield
    _is_safe.cache_clear()


def _do_nothing(*_: object) -> None:
    pass


@pytest.mark.usefixtures("afresh")
@pytest.mark.parametrize("change", ["putpixel", "paste", "load", "draw", "frombytes"])
def test_where_pillow_does_not_honour_readonly_nothing_is_shared(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "_ensure_mutable", _do_nothing)
    monkeypatch.setattr(Image.Image, "_copy", _do_nothing)
    first = ImageMediaIO().load_bytes(_encoded("PNG", "RGB"))
    before = first.media.tobytes()
    make = twin_maker(first)
    assert make is not None
    assert not can_lend(first.media)
    CHANGES[change](make().media)
    assert first.media.tobytes() == make().media.tobytes() == before


@pytest.mark.usefixtures("afresh")
def test_where_pillow_lacks_what_sharing_rests_on_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Image.Image, "_ensure_mutable")
    assert not can_lend(Image.new("RGB", (4, 2)))


@pytest.mark.usefixtures("afresh")
def test_this_pillow_is_safe() -> None:
    assert can_lend(Image.new("RGB", (4, 2)))
