"""What surrounds a picture in its file never costs the picture; HEIF through its extra."""

import copy
import io
import pickle
import random
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mmmedia.errors import InvalidMediaError, LimitExceededError, MediaError
from mmmedia.media.image import ImageMediaIO
from mmmedia.media.picture_files import is_heif, without_large_texts

MIB = 1 << 20
COLORS = ((200, 30, 30), (30, 30, 200))


def two_colors(mode: str = "RGB") -> Image.Image:
    """The first colour, and the second in the upper left quarter."""
    image = Image.new("RGB", (96, 64), COLORS[0])
    image.paste(COLORS[1], (0, 0, 48, 32))
    return image.convert(mode)


# ------------------------------------------------------------------------------------------- texts of PNG


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes, after: bytes = b"") -> bytes:
    """A PNG with chunks before its pixels, and behind them."""
    file = io.BytesIO()
    two_colors().save(file, "PNG")
    data = file.getvalue()
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunks) + data[at:-12] + after + data[-12:]


LARGE = bytes(range(256)) * (8 * MIB // 256)
TEXTS = {
    "iCCP": chunk(b"iCCP", b"a profile\0\0" + zlib.compress(LARGE)),
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
    "iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LARGE)),
    "iTXt in a language": chunk(b"iTXt", b"Comment\0\1\0de\0Kommentar\0" + zlib.compress(LARGE)),
    "iTXt not compressed": chunk(b"iTXt", b"Comment\0\0\0\0\0" + LARGE),
    "tEXt of 70 MiB": chunk(b"tEXt", b"Comment\0" + b"x" * (70 * MIB)),
    "many": b"".join(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(MIB - 20))) for _ in range(80)),
}


@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_a_png_with_large_texts_loads(case: str, is_behind: bool) -> None:
    """Nobody asked for the text; the pixels and the bytes are what they were."""
    data = png_with(after=TEXTS[case]) if is_behind else png_with(TEXTS[case])
    loaded = ImageMediaIO().load_bytes(data)
    assert loaded.tobytes() == two_colors().tobytes()
    assert loaded.original_bytes is data


def test_small_texts_beside_a_large_one_stay() -> None:
    """So does the orientation that stands in one of them."""
    xmp = b'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    small = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    loaded = ImageMediaIO().load_bytes(png_with(TEXTS["zTXt"], small, chunk(b"tEXt", b"Title\0a picture")))
    assert loaded.size == (64, 96)
    assert loaded.info["Title"] == "a picture"


def test_texts_that_are_cut_or_no_texts_are_let_be() -> None:
    for body in (b"", b"key", b"key\0", b"key\0\0", b"key\0\0no zlib", b"\0" * 9, zlib.compress(LARGE)):
        for kind in (b"zTXt", b"iCCP", b"iTXt", b"tEXt"):
            data = png_with(chunk(kind, body))
            assert without_large_texts(data) is data
    assert without_large_texts(b"no PNG") == b"no PNG"
    cut = png_with(TEXTS["zTXt"])[:200]
    with pytest.raises(InvalidMediaError):
        ImageMediaIO().load_bytes(cut)


def test_a_broken_png_keeps_its_own_error() -> None:
    """The second look is for texts alone; and a bomb among them inflates 16 MiB at most."""
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 * MIB)))
    data = png_with(*[bomb] * 50)
    data = data[:-40] + bytes(40)
    with pytest.raises(InvalidMediaError, match="Failed to load image: "):
        ImageMediaIO().load_bytes(data)


def test_pillows_own_limits_are_left_alone() -> None:
    """They are of the whole process."""
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    ImageMediaIO().load_bytes(png_with(TEXTS["iCCP"]))
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)


# --------------------------------------------------------------------------------------------------- HEIF


def heic(*images: Image.Image, exif: bytes = b"", **options: Any) -> bytes:
    """A HEIC file; an orientation in the EXIF data is written in HEIF's own way as well, as phones do."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file, held = io.BytesIO(), pillow_heif.HeifFile()
    for image in images:
        held.add_from_pillow(image)
        if exif:
            held[0].info["exif"] = exif
    held.save(file, **{"quality": -1, "chroma": 444, **options})
    return file.getvalue()


def seen(loaded: Any, x: int, y: int) -> Any:
    return pytest.approx(loaded.getpixel((x, y)), abs=4)


def test_heic() -> None:
    """As RGB, with its bytes; it copies and pickles, and hangs on to nothing of its reader."""
    data = heic(two_colors())
    loaded = ImageMediaIO().load_bytes(data)
    assert (loaded.mode, loaded.size, type(loaded.media)) == ("RGB", (96, 64), Image.Image)
    assert loaded.original_bytes is data
    assert (seen(loaded, 90, 60), seen(loaded, 5, 5)) == COLORS
    assert loaded.info == {}
    for other in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        assert other.tobytes() == loaded.tobytes()
    assert ImageMediaIO("L", max_pixels=24).load_bytes(data).size == (6, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_upright(orientation: int) -> None:
    """libheif turns it; the EXIF data then says that nothing is left to turn, so nobody does it twice."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = two_colors()
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    expected = ImageMediaIO().load_bytes(file.getvalue())
    for exif_transpose in (True, False):
        loaded = ImageMediaIO(exif_transpose=exif_transpose).load_bytes(heic(image, exif=exif.tobytes()))
        assert loaded.size == expected.size
        assert np.abs(np.asarray(loaded, int) - np.asarray(expected, int)).mean() < 4
        assert loaded.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize("primary", [0, 1, 2])
def test_of_a_burst_the_primary_picture(primary: int) -> None:
    shades = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (10, 120, 240)]
    loaded = ImageMediaIO().load_bytes(heic(*shades, primary_index=primary))
    assert np.asarray(loaded).mean() == pytest.approx((10, 120, 240)[primary], abs=3)


def test_heic_transparency_and_gain_map() -> None:
    """An auxiliary picture that is alpha shows the background; another one, as of HDR, changes nothing."""
    image = two_colors("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    data = heic(image)
    loaded = ImageMediaIO(rgba_background_color=(7, 8, 9)).load_bytes(data)
    assert loaded.getpixel((5, 5)) == (7, 8, 9)
    alpha = b"urn:mpeg:hevc:2015:auxid:1"
    assert alpha in data
    gain = data.replace(alpha, b"urn:com:apple:aux:gainmap".ljust(len(alpha), b"\0"))
    loaded = ImageMediaIO().load_bytes(gain)
    assert (seen(loaded, 90, 60), seen(loaded, 5, 5)) == COLORS


def test_heic_of_10_bits() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    ramp = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64, 1).repeat(3, axis=2)
    file, held = io.BytesIO(), pillow_heif.HeifFile()
    held.add_frombytes("RGB;16", (64, 64), ramp.tobytes())
    held.save(file, quality=-1, chroma=444)
    loaded = np.asarray(ImageMediaIO().load_bytes(file.getvalue()), int)
    assert np.abs(loaded - ramp / 257).max() < 4


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        data = b"\0\0\0\x18ftyp" + brand + bytes(4) + b"miafheic" + bytes(100)
        with pytest.raises(
            ValueError, match=r"Failed to load image: HEIF \(HEIC\) .* pip install mmmedia\[heif\]"
        ):
            ImageMediaIO().load_bytes(data)


def test_avif_is_pillows() -> None:
    """Also where its brand is the one of all HEIF files."""
    file = io.BytesIO()
    two_colors().save(file, "AVIF")
    data = file.getvalue()
    assert not is_heif(data)
    assert not is_heif(data[:8] + b"mif1" + data[12:])
    assert ImageMediaIO().load_bytes(data[:8] + b"mif1" + data[12:]).size == (96, 64)


def test_heic_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    data = heic(two_colors())
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(96 * 64))
    assert ImageMediaIO().load_bytes(data).size == (96, 64)
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(96 * 64 - 1))
    with pytest.raises(LimitExceededError, match="96 x 64"):
        ImageMediaIO().load_bytes(data)


def test_a_heic_that_says_it_is_smaller_than_it_is() -> None:
    """Its pixels are not decoded into more than it said."""
    data = bytearray(heic(Image.new("RGB", (2048, 2048)), quality=10))
    at = data.index(b"ispe")
    data[at + 8 : at + 16] = struct.pack(">II", 8, 8)
    with pytest.raises(InvalidMediaError, match=r"Failed to load image: .*(size|limit)"):
        ImageMediaIO().load_bytes(bytes(data))


def test_broken_heic_is_an_error_of_ours() -> None:
    data = heic(two_colors())
    chance = random.Random(0)
    for length in (16, 40, 200, len(data) - 10):
        with pytest.raises(InvalidMediaError, match="Failed to load image: "):
            ImageMediaIO().load_bytes(data[:length])
    data = heic(two_colors("RGBA"), two_colors())
    for _ in range(200):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(data))] = chance.randrange(256)
        try:
            loaded = ImageMediaIO().load_bytes(bytes(damaged))
        except MediaError:
            continue
        assert loaded.mode == "RGB"
