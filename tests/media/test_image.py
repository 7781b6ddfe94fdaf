"""`ImageMediaIO`: pictures of strangers as PIL images."""

import base64
import copy
import io
import math
import pickle
import struct
import subprocess
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageFile, ImageOps

from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    MediaError,
    UnsupportedMediaError,
)
from mmmedia.media.base import MediaDecodedBudget, MediaWithBytes
from mmmedia.media.image import ImageMediaIO


def picture(mode: str = "RGB", width: int = 48, height: int = 32) -> Image.Image:
    """Gradients, all different, in every band."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    bands = np.stack([x, y, 255 - x, (x + y) / 2], axis=-1).astype(np.uint8)
    image = Image.fromarray(bands)
    if mode == "P":  # opaque
        return image.convert("RGB").convert("P")
    return image if mode == "RGBA" else image.convert(mode)


def encode(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_flood(width: int, height: int) -> bytes:
    """A PNG of so many black pixels, all rows of which are there: about a thousandth of them in bytes."""
    row = b"\0" * (1 + (width + 7) // 8)
    compressor = zlib.compressobj(9)
    pixels = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def icon(inner: bytes, side: int = 16) -> bytes:
    """An ICO file that declares a small picture and carries any."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, side, side, 0, 0, 1, 32, len(inner), 22) + inner


def pillow(data: bytes, mode: str | None = None) -> Image.Image:
    image: Image.Image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert(mode) if mode else image


class TestLoading:
    @pytest.mark.parametrize(
        ("image_format", "mode"),
        [
            ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"),
            ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("GIF", "P"), ("GIF", "RGB"), ("BMP", "RGB"),
            ("WEBP", "RGB"), ("AVIF", "RGB"), ("JPEG2000", "RGB"), ("TIFF", "RGB"),
            ("TIFF", "CMYK"), ("PPM", "RGB"), ("TGA", "RGB"), ("ICO", "RGB"),
            ("PCX", "RGB"), ("DDS", "RGB"), ("SGI", "RGB"), ("QOI", "RGB"), ("XBM", "1"),
        ],
    )  # fmt: skip
    def test_same_pixels_as_pillow(self, image_format: str, mode: str) -> None:
        """Whatever Pillow opens comes out as Pillow decodes and converts it, fully loaded, with its bytes."""
        Image.init()
        if image_format not in Image.SAVE:
            pytest.skip("this Pillow was built without the format")
        data = encode(picture(mode), image_format)
        loaded = ImageMediaIO().load_bytes(data)
        assert isinstance(loaded, MediaWithBytes)
        assert loaded.original_bytes is data
        assert (loaded.mode, loaded.size) == ("RGB", pillow(data).size)
        assert loaded.tobytes() == pillow(data, "RGB").tobytes()
        kept = ImageMediaIO(image_mode=None).load_bytes(data)
        assert (kept.mode, kept.tobytes()) == (pillow(data).mode, pillow(data).tobytes())

    def test_ycck_jpeg(self) -> None:
        """Four-band JPEGs in luma and chroma, as printers' programs write them."""
        data = bytearray(encode(picture("CMYK"), "JPEG"))
        position = data.index(b"Adobe") + 11
        assert data[position] == 0
        data[position] = 2
        loaded = ImageMediaIO().load_bytes(bytes(data))
        assert loaded.tobytes() == pillow(bytes(data), "RGB").tobytes()

    def test_right_mode_is_not_copied(self) -> None:
        """A picture that has its mode already is the very object that was decoded."""
        loaded = ImageMediaIO().load_bytes(encode(picture(), "JPEG"))
        assert isinstance(loaded.media, ImageFile.ImageFile)
        assert loaded.format == "JPEG"

    def test_from_base64_and_file(self, tmp_path: Path) -> None:
        """All three loads give the same; a file's suffix and the media type count for nothing."""
        data = encode(picture(), "PNG")
        (tmp_path / "picture.jpg").write_bytes(data)
        expected = ImageMediaIO().load_bytes(data)
        for loaded in (
            ImageMediaIO().load_file(tmp_path / "picture.jpg"),
            ImageMediaIO().load_file(str(tmp_path / "picture.jpg")),  # type: ignore[arg-type]
            ImageMediaIO().load_base64("audio/wav", base64.b64encode(data).decode()),
        ):
            assert loaded.original_bytes == data
            assert loaded.tobytes() == expected.tobytes()

    @pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_first_of_many_pictures(self, image_format: str) -> None:
        """Of an animation or a file of pages the first picture is loaded, and it copies and pickles."""
        frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
        data = encode(frames[0], image_format, save_all=True, append_images=frames[1:])
        loaded = ImageMediaIO().load_bytes(data)
        assert np.asarray(loaded)[..., 0].min() > 240
        assert np.asarray(loaded)[..., 1:].max() < 16
        for other in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
            assert other.tobytes() == loaded.tobytes()

    def test_threads_decode_the_same(self) -> None:
        """Many threads at once get each its own picture, under filters that make errors of warnings."""
        gif = encode(picture("P"), "GIF", transparency=3)
        data = [encode(picture(), "JPEG"), encode(picture("RGBA"), "PNG"), gif]
        expected = [ImageMediaIO().load_bytes(one).tobytes() for one in data]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda one: ImageMediaIO().load_bytes(one).tobytes(), data * 40))
        assert results == expected * 40


class TestKeywords:
    def test_defaults(self) -> None:
        """RGB over white, upright, no smaller than it is."""
        media_io = ImageMediaIO()
        assert (media_io.exif_transpose, media_io.flatten_alpha, media_io.max_pixels) == (True, True, None)
        assert media_io.image_mode == "RGB"
        assert tuple(media_io.rgba_background_color) == (255, 255, 255)
        assert media_io.kwargs == {}

    def test_keywords_are_kept(self) -> None:
        """Known and unknown keywords alike stay readable, as they were given."""
        kwargs = {"rgba_background_color": [1, 2, 3], "max_pixels": None, "anything": object()}
        assert ImageMediaIO("L", **kwargs).kwargs == kwargs
        assert ImageMediaIO(image_mode="L", **kwargs).image_mode == "L"

    @pytest.mark.parametrize("color", [(0, 0, 0), [255, 128, 0], (255, 255, 255)])
    def test_background_color(self, color: Any) -> None:
        """What is transparent takes the background's colour; what is opaque keeps its own."""
        image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
        image.putpixel((1, 0), (10, 20, 30, 255))
        media_io = ImageMediaIO(rgba_background_color=color)
        loaded = media_io.load_bytes(encode(image, "PNG"))
        assert media_io.rgba_background_color == color
        assert loaded.getpixel((0, 0)) == tuple(color)
        assert loaded.getpixel((1, 0)) == (10, 20, 30)

    @pytest.mark.parametrize(
        "color",
        [
            "white", 255, (255, 255), (1, 2, 3, 4), [], (1.0, 2, 3), (True, False, True), (256, 0, 0),
            (-1, 0, 0), ("1", "2", "3"), {1, 2, 3}, {"r": 1, "g": 2, "b": 3}, b"abc", (None, 1, 2), range(3),
            "x" * 1000,
        ],
        ids=lambda color: repr(color)[:30],
    )  # fmt: skip
    def test_bad_background_color(self, color: object) -> None:
        """Anything but three integers 0..255 is refused at construction."""
        with pytest.raises(
            ValueError, match=r"^rgba_background_color must be a list or tuple of 3 integers"
        ) as caught:
            ImageMediaIO(rgba_background_color=color)
        assert isinstance(caught.value, MediaError)
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        ("name", "value"),
        [("max_pixels", 0), ("max_pixels", -1), ("max_pixels", 1.5), ("max_pixels", "9"),
         ("max_pixels", True), ("exif_transpose", 1), ("exif_transpose", "yes"),
         ("flatten_alpha", "no"), ("flatten_alpha", [])],
    )  # fmt: skip
    def test_bad_values_are_refused(self, name: str, value: object) -> None:
        """A value that can't be meant is told with its name, not guessed at."""
        with pytest.raises(InvalidArgumentError, match=name):
            ImageMediaIO(**{name: value})

    @pytest.mark.parametrize(
        "name", ["rgba_background_color", "max_pixels", "exif_transpose", "flatten_alpha"]
    )
    def test_none_is_not_given(self, name: str) -> None:
        """``None`` counts as the default."""
        data = encode(picture("RGBA"), "PNG")
        expected = ImageMediaIO().load_bytes(data).tobytes()
        assert ImageMediaIO(**{name: None}).load_bytes(data).tobytes() == expected


class TestConfig:
    """`io_config`: what the pixels depend on beside the bytes."""

    def test_none_where_the_bytes_say_all(self) -> None:
        """Also where the picture was turned, as it is by default."""
        exif = Image.Exif()
        exif[0x0112] = 6
        for data in (encode(picture(), "PNG"), encode(picture(), "JPEG", exif=exif)):
            assert ImageMediaIO().load_bytes(data).io_config is None
            assert ImageMediaIO(None).load_bytes(data).io_config is None

    def test_conversion(self) -> None:
        """Mode and background, as vLLM names them, where the picture was converted."""
        data = encode(picture("RGBA"), "PNG")
        assert ImageMediaIO(rgba_background_color=[1, 2, 3]).load_bytes(data).io_config == {
            "image_mode": "RGB",
            "rgba_background_color": [1, 2, 3],
        }
        assert ImageMediaIO("RGBA").load_bytes(data).io_config is None
        deep = encode(Image.new("I;16", (2, 2), 999), "PNG")
        config = ImageMediaIO("L").load_bytes(deep).io_config
        assert config is not None
        assert config["image_mode"] == "L"
        assert ImageMediaIO(None).load_bytes(deep).io_config is None

    @pytest.mark.parametrize(
        "options", [{"max_pixels": 20}, {"exif_transpose": False}, {"flatten_alpha": False}]
    )
    def test_options_of_ours(self, options: dict[str, Any]) -> None:
        """Each that is not as it is by default."""
        assert ImageMediaIO(**options).load_bytes(encode(picture(), "PNG")).io_config == options

    def test_results_of_0_20_are_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What 0.20 makes of a file is not what 0.33 does."""
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        config = ImageMediaIO().load_bytes(encode(picture(), "PNG")).io_config
        assert config == {"exif_transpose": False, "flatten_alpha": False, "scale_depth": False}


class TestBudget:
    def test_charged_before_decoding(self) -> None:
        """4 bytes a pixel of the file, once; the budget's error is the caller's."""
        budget = MediaDecodedBudget(48 * 32 * 4)
        media_io = ImageMediaIO(decoded_budget=budget, max_pixels=10)
        assert media_io.load_bytes(encode(picture(), "JPEG")).size == (3, 2)
        assert budget.used == 48 * 32 * 4
        truncated = encode(picture(), "PNG")[:60]
        with pytest.raises(LimitExceededError, match="too many for one request"):
            media_io.load_bytes(truncated)

    def test_any_error_of_a_budget(self) -> None:
        """It is not taken for a fault of the picture."""

        class Poor:
            def charge(self, num_bytes: int) -> None:
                raise ValueError(f"no {num_bytes} bytes")

        with pytest.raises(ValueError, match=r"^no 6144 bytes$"):
            ImageMediaIO(decoded_budget=Poor()).load_bytes(encode(picture(), "PNG"))

    def test_opened_twice_charged_once(self) -> None:
        """A PNG whose texts are dropped is opened again."""
        data = encode(picture(), "PNG")
        text = png_chunk(b"tEXt", b"a\0" + b"x" * (3 << 20))
        budget = MediaDecodedBudget(48 * 32 * 4)
        ImageMediaIO(decoded_budget=budget).load_bytes(data[:-12] + text + data[-12:])
        assert budget.used == 48 * 32 * 4


class TestModes:
    def test_rgba_goes_over_the_background(self) -> None:
        """Byte for byte the picture pasted on the background by its own alpha band."""
        image = picture("RGBA")
        expected = Image.new("RGB", image.size, (0, 9, 0))
        expected.paste(image, mask=image.split()[3])
        loaded = ImageMediaIO(rgba_background_color=(0, 9, 0)).load_bytes(encode(image, "PNG"))
        assert loaded.tobytes() == expected.tobytes()

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "YCbCr", "1", "F"])
    def test_other_modes_are_pillows(self, mode: str) -> None:
        """Any mode that Pillow converts to may be asked for."""
        data = encode(picture("RGB"), "PNG")
        loaded = ImageMediaIO(image_mode=mode).load_bytes(data)
        assert (loaded.mode, loaded.tobytes()) == (mode, pillow(data, mode).tobytes())

    def test_a_mode_that_does_not_exist(self) -> None:
        """A mode that Pillow does not know is a `ValueError` that says so."""
        with pytest.raises(ValueError, match=r"Failed to load image: mode RGB to NOPE: "):
            ImageMediaIO(image_mode="NOPE").load_bytes(encode(picture(), "PNG"))

    def test_conversion_step_alone(self) -> None:
        """`_convert_image_mode` takes an image or a wrapped one, and gives the same object where it may."""
        media_io, image = ImageMediaIO(), picture()
        assert media_io._convert_image_mode(image) is image
        assert media_io._convert_image_mode(MediaWithBytes(image, b"")) is image
        assert media_io._convert_image_mode(picture("L")).mode == "RGB"
        grey = picture("L")
        assert ImageMediaIO(image_mode=None)._convert_image_mode(grey) is grey

    def test_subclasses_may_replace_the_conversion(self) -> None:
        """The conversion is a method of its own for those who need another one."""

        class Inverted(ImageMediaIO):
            def _convert_image_mode(self, image: Any) -> Image.Image:
                return ImageOps.invert(super()._convert_image_mode(image))

        data = encode(picture(), "PNG")
        assert Inverted().load_bytes(data).tobytes() == ImageOps.invert(picture()).tobytes()

    @pytest.mark.parametrize(
        ("mode", "options"),
        [("LA", {}), ("P", {"transparency": 0}), ("P", {"transparency": b"\0" * 256}),
         ("RGB", {"transparency": (0, 0, 255)}), ("L", {"transparency": 0})],
        ids=["LA", "P", "P bytes", "RGB", "L"],
    )  # fmt: skip
    def test_flatten_alpha(self, mode: str, options: dict[str, Any]) -> None:
        """All kinds of transparency show the background; with `flatten_alpha` off, Pillow's `convert`."""
        image = Image.new(mode, (4, 4))
        if mode == "RGB":
            image = Image.new("RGB", (4, 4), "blue")
        data = encode(image, "PNG", **options)
        flat = ImageMediaIO(rgba_background_color=(7, 8, 9)).load_bytes(data)
        assert flat.getpixel((0, 0)) == (7, 8, 9)
        plain = ImageMediaIO(flatten_alpha=False, rgba_background_color=(7, 8, 9)).load_bytes(data)
        assert plain.getpixel((0, 0)) != (7, 8, 9)

    def test_flatten_alpha_where_alpha_stays(self) -> None:
        """A mode with alpha, or the file's own, has nothing flattened; an opaque picture is not copied."""
        data = encode(picture("LA"), "PNG")
        assert ImageMediaIO(None, flatten_alpha=True).load_bytes(data).tobytes() == pillow(data).tobytes()
        rgba = ImageMediaIO("RGBA", flatten_alpha=True).load_bytes(data)
        assert rgba.getchannel("A").getextrema() == pillow(data).getchannel("A").getextrema()
        opaque = ImageMediaIO(flatten_alpha=True).load_bytes(encode(picture(), "PNG"))
        assert isinstance(opaque.media, ImageFile.ImageFile)
        grey = ImageMediaIO("L", flatten_alpha=True, rgba_background_color=(200, 200, 200))
        transparent = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
        assert grey.load_bytes(encode(transparent, "PNG")).getpixel((0, 0)) == 200


class TestExif:
    @pytest.mark.parametrize("orientation", range(10))
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    def test_turned_unless_told_not_to(self, orientation: int, image_format: str) -> None:
        """Off, the pixels are as stored; on, as `ImageOps.exif_transpose` turns them, and not twice."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encode(picture(), image_format, exif=exif)
        stored = ImageMediaIO(exif_transpose=False).load_bytes(data)
        assert stored.tobytes() == pillow(data, "RGB").tobytes()
        turned = ImageMediaIO().load_bytes(data)
        expected = ImageOps.exif_transpose(pillow(data, "RGB"))
        assert (turned.size, turned.tobytes()) == (expected.size, expected.tobytes())
        assert ImageOps.exif_transpose(turned.media).tobytes() == turned.tobytes()

    @pytest.mark.parametrize(
        "exif",
        [
            b"Exif\0\0garbage",
            b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
            b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\x7f\x06\0\0\0",
            b"Exif\0\0",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
        ],
    )
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("exif_transpose", [False, True])
    def test_broken_exif_costs_nothing(self, exif: bytes, image_format: str, exif_transpose: bool) -> None:
        """EXIF data that can't be read neither fails nor turns the picture, and warns of nothing."""
        data = bytearray(
            encode(picture(), image_format, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0".ljust(60))
        )
        start = data.index(b"MM\0*")
        data[start : start + len(exif) - 6] = exif[6:]
        if image_format == "PNG":
            chunk = data[start - 4 : start + struct.unpack_from(">I", data, start - 8)[0]]
            struct.pack_into(">I", data, start - 4 + len(chunk), zlib.crc32(chunk))
        loaded = ImageMediaIO(exif_transpose=exif_transpose).load_bytes(bytes(data))
        assert loaded.tobytes() == ImageMediaIO().load_bytes(encode(picture(), image_format)).tobytes()

    def test_orientation_in_exif_that_can_not_be_rewritten(self) -> None:
        """A readable orientation turns the picture although the rest of the EXIF data is broken."""
        entries = struct.pack("<HHII", 0x0112, 3, 1, 6) + struct.pack("<HHIf", 0x011A, 11, 1, math.nan)
        exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + b"\0\0\0\0"
        turned = ImageMediaIO(exif_transpose=True).load_bytes(encode(picture(), "JPEG", exif=exif))
        assert turned.size == (32, 48)
        assert "exif" not in turned.info


class TestMaxPixels:
    @pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("max_pixels", [1, 100, 1000, 12_000, 30_000, 192_000, 10**9])
    def test_size_and_pixels(self, image_format: str, max_pixels: int) -> None:
        """The largest size of the same aspect that fits, and pixels near the mean over areas."""
        data = encode(picture(width=480, height=400), image_format)
        loaded = ImageMediaIO(max_pixels=max_pixels).load_bytes(data)
        width, height = loaded.size
        assert width * height <= max_pixels
        if max_pixels >= 480 * 400:
            assert loaded.tobytes() == ImageMediaIO().load_bytes(data).tobytes()
            return
        assert (width + 1) * (height + 1) > max_pixels
        expected = pillow(data, "RGB").resize((width, height), Image.Resampling.BOX)
        difference = np.abs(np.asarray(loaded, float) - np.asarray(expected, float))
        assert difference.mean() < 3

    def test_jpeg_is_decoded_at_less_than_full_size(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The decoder itself scales: what it fills is no more than four times what was asked for."""
        decoded: list[tuple[int, int]] = []
        load = ImageFile.ImageFile.load

        def spy(self: ImageFile.ImageFile) -> Any:
            decoded.append(self.size)
            return load(self)

        monkeypatch.setattr(ImageFile.ImageFile, "load", spy)
        ImageMediaIO(max_pixels=5000).load_bytes(encode(picture(width=800, height=400), "JPEG"))
        assert decoded[0] == (100, 50)

    def test_before_conversion_and_turning(self) -> None:
        """All opt-ins together: turned, scaled, flattened."""
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encode(picture("RGBA", 80, 40), "PNG", exif=exif)
        loaded = ImageMediaIO(exif_transpose=True, flatten_alpha=True, max_pixels=800).load_bytes(data)
        assert (loaded.size, loaded.mode) == ((20, 40), "RGB")

    @pytest.mark.parametrize("mode", ["P", "1", "I;16"])
    def test_file_modes_without_means(self, mode: str) -> None:
        """Numbers of colours are resolved before they are averaged; 16-bit greys stay what they are."""
        image = picture(mode) if mode != "I;16" else picture("I").convert("I;16")
        loaded = ImageMediaIO(None, max_pixels=96).load_bytes(encode(image, "PNG"))
        assert (loaded.size, loaded.mode) == ((12, 8), {"P": "RGB", "1": "L"}.get(mode, mode))


class TestHostile:
    @pytest.mark.parametrize(
        "data", [b"", b"hello", b"\0" * 1000, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a"]
    )
    def test_no_pictures(self, data: bytes) -> None:
        """Nothing, text, zeros and bare magic numbers: one clear error."""
        with pytest.raises(ValueError, match=r"^Failed to load image: ") as caught:
            ImageMediaIO().load_bytes(data)
        assert isinstance(caught.value, InvalidMediaError)

    @pytest.mark.parametrize(
        "image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "AVIF"]
    )
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
    def test_truncated(self, image_format: str, share: float) -> None:
        """Half a picture is no picture."""
        data = encode(Image.effect_noise((64, 64), 80).convert("RGB"), image_format)
        with pytest.raises(ValueError, match=r"^Failed to load image: "):
            ImageMediaIO().load_bytes(data[: int(len(data) * share)])

    def test_broken_chunk(self) -> None:
        """A checksum that does not fit is an error, in the header and in the pixels."""
        data = encode(picture(), "PNG")
        for position in (20, data.index(b"IDAT") + 30):
            broken = bytearray(data)
            broken[position] ^= 0xFF
            with pytest.raises(ValueError, match="Failed to load image: "):
                ImageMediaIO().load_bytes(bytes(broken))

    @pytest.mark.parametrize("text", ["!!!!", "a", "aGk", "aGk=\x00", "aGk=%", "_-_-"])
    def test_bad_base64(self, text: str) -> None:
        """Bad base64 is a `ValueError`, as is base64 of something else."""
        with pytest.raises(ValueError, match="base64"):
            ImageMediaIO().load_base64("image/png", text)
        with pytest.raises(ValueError, match="Failed to load image"):
            ImageMediaIO().load_base64("image/png", "aGVsbG8=")

    @pytest.mark.parametrize(
        ("name", "data"),
        [
            ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n"),
            ("EPS", b"\xc5\xd0\xd3\xc6" + b"\x20\0\0\0\x40\0\0\0" + b"\0" * 100),
            ("WMF", b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhH", 0, 0, 9, 9, 72) + b"\0" * 8),
            ("WMF", b"\1\0\0\0" + b"\0" * 36 + b" EMF" + b"\0" * 60),
            ("BUFR", b"BUFR" + b"\0" * 40),
            ("GRIB", b"GRIB\0\0\0\1" + b"\0" * 40),
            ("HDF5", b"\x89HDF\r\n\x1a\n" + b"\0" * 40),
            ("MPEG", b"\0\0\1\xb3" + b"\x10\1\1" + b"\0" * 40),
        ],
    )
    def test_formats_of_other_programs_are_not_opened(
        self, name: str, data: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What Pillow would hand to Ghostscript or to a stub is refused by name, and nothing started."""
        monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
        with pytest.raises(ValueError, match=f"Failed to load image: {name} is not read"):
            ImageMediaIO().load_bytes(data)

    def test_iptc_can_not_carry_them_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """IPTC would open what it carries with every format there is."""
        Image.init()
        monkeypatch.setitem(Image.OPEN, "IPTC", (lambda *_: pytest.fail("opened"), None))
        with pytest.raises(ValueError, match="Failed to load image"):
            ImageMediaIO().load_bytes(b"\x1c\x03\x3c\0\2\1\0")

    def test_compressed_fits_is_refused(self) -> None:
        """What Pillow would inflate whatever comes out is not read; plain FITS is."""

        def fits(*cards: str) -> bytes:
            return "".join(f"{card:<80}" for card in (*cards, "END")).encode().ljust(2880)

        plain = fits("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 4", "NAXIS2  = 2")
        assert ImageMediaIO().load_bytes(plain + bytes(8)).size == (4, 2)
        packed = fits("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0") + fits(
            "XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 0", "NAXIS2  = 0", "ZIMAGE  = T",
            "ZCMPTYPE= 'GZIP_1  '", "ZBITPIX = 8", "ZNAXIS  = 2", "ZNAXIS1 = 4", "ZNAXIS2 = 2",
        )  # fmt: skip
        with pytest.raises(ValueError, match="compressed FITS"):
            ImageMediaIO().load_bytes(packed + bytes(8))

    def test_exceptions_of_any_kind_are_value_errors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a plugin raises, even for want of memory, reaches callers as the one error they know."""
        Image.preinit()
        for error in (
            MemoryError(),
            RecursionError("deep"),
            KeyError("x"),
            zlib.error("z"),
            AssertionError(),
        ):

            def factory(*_: object, error: BaseException = error) -> None:
                raise error

            monkeypatch.setitem(Image.OPEN, "BMP", (factory, None))
            with pytest.raises(InvalidMediaError, match="Failed to load image: "):
                ImageMediaIO().load_bytes(b"data")

    def test_missing_library_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A format whose library Pillow was built without says so."""
        Image.preinit()
        monkeypatch.setitem(Image.OPEN, "BMP", (None, lambda _: "BMP support not installed"))
        with pytest.raises(ValueError, match="BMP support not installed"):
            ImageMediaIO().load_bytes(b"BM, then enough")


class TestPixelLimit:
    def test_flood_is_refused_by_its_header(self) -> None:
        """16 000 x 16 000 pixels in a few bytes; the pixels that would follow are never looked at."""
        header = struct.pack(">IIBBBBB", 16_000, 16_000, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"never looked at")
        with pytest.raises(LimitExceededError, match=r"16000 x 16000 = 256000000 .*VLLM_MAX_IMAGE_PIXELS"):
            ImageMediaIO().load_bytes(data)

    def test_jpeg_bomb_header(self) -> None:
        """A JPEG that claims 65 500 x 65 500 pixels, also where it would be scaled down."""
        data = bytearray(encode(picture(), "JPEG"))
        position = data.index(b"\xff\xc0") + 5
        data[position : position + 4] = struct.pack(">HH", 65_500, 65_500)
        for media_io in (ImageMediaIO(), ImageMediaIO(max_pixels=100)):
            with pytest.raises(LimitExceededError, match="65500 x 65500"):
                media_io.load_bytes(bytes(data))

    @pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "ICO", "BMP"])
    def test_the_setting_is_the_limit(self, image_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Exactly as many pixels pass, one more does not; 0 and less are no limit."""
        data = encode(
            picture(width=40, height=30),
            image_format,
            **({"sizes": [(40, 30)]} if image_format == "ICO" else {}),
        )
        for limit in ("1200", "0", "-1"):
            monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", limit)
            assert ImageMediaIO().load_bytes(data).size == (40, 30)
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "1199")
        with pytest.raises(LimitExceededError, match="40 x 30"):
            ImageMediaIO().load_bytes(data)

    def test_pillows_own_limit_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pillow's limit, one for the process, neither warns nor raises here, nor is it touched."""
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        data = encode(picture(), "PNG")
        assert ImageMediaIO().load_bytes(data).size == (48, 32)
        assert Image.MAX_IMAGE_PIXELS == 100
        with pytest.raises(Image.DecompressionBombError):
            Image.open(io.BytesIO(data))

    def test_bomb_inside_an_icon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An icon that says 16 x 16 and carries more is judged by what it carries, before it is decoded."""
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100000")
        flood = png_flood(2000, 2000)
        bitmap = struct.pack("<IiiHHIIiiII", 40, 2000, 4000, 1, 8, 1, 0, 0, 0, 0, 0)
        icns = b"ic07" + struct.pack(">I", 8 + len(flood)) + flood
        codestream = b"\xff\x4f\xff\x51" + b"\0\x29\0\0" + struct.pack(">IIII", 2000, 2000, 0, 0) + b"\0" * 30
        jp2 = b"ic07" + struct.pack(">I", 8 + len(codestream)) + codestream
        for data in (
            icon(flood),
            icon(bitmap),
            b"icns" + struct.pack(">I", 8 + len(icns)) + icns,
            b"icns" + struct.pack(">I", 8 + len(jp2)) + jp2,
        ):
            with pytest.raises(LimitExceededError, match="2000 x 2000"):
                ImageMediaIO().load_bytes(data)
        assert ImageMediaIO().load_bytes(icon(png_flood(64, 64), side=64)).size == (64, 64)


class TestEncoding:
    @pytest.mark.parametrize("image_format", ["PNG", "png", "BMP", "TIFF", "PPM", "QOI"])
    def test_round_trip(self, image_format: str) -> None:
        """What is encoded without loss comes back the same, from an image or from a wrapped one."""
        media_io, image = ImageMediaIO(), picture()
        text = media_io.encode_base64(image, image_format=image_format)
        assert media_io.encode_base64(MediaWithBytes(image, b""), image_format=image_format) == text
        assert media_io.load_base64("", text).tobytes() == image.tobytes()

    def test_png_by_default_in_the_mode_of_the_io(self) -> None:
        """The result is a PNG, already converted."""
        data = base64.b64decode(ImageMediaIO("L").encode_base64(picture()))
        assert (pillow(data).format, pillow(data).mode) == ("PNG", "L")

    def test_errors(self) -> None:
        """A format that nobody writes, a mode that a format can't hold, an image without pixels."""
        with pytest.raises(UnsupportedMediaError, match="'NOPE'"):
            ImageMediaIO().encode_base64(picture(), image_format="NOPE")
        with pytest.raises(InvalidArgumentError, match=r"Failed to encode image as JPEG: .*RGBA"):
            ImageMediaIO(None).encode_base64(picture("RGBA"), image_format="JPEG")


@lru_cache
def seeds() -> tuple[bytes, ...]:
    """Small pictures of every format that Pillow writes."""
    Image.init()
    data = [encode(picture("RGBA", 12, 8), "PNG"), encode(picture("P", 12, 8), "GIF", transparency=1)]
    for image_format in sorted(set(Image.SAVE) - {"PDF", "EPS", "IM", "PALM", "MSP", "XBM"}):
        try:
            data.append(encode(picture("RGB", 12, 8), image_format))
        except (OSError, ValueError):
            continue
    return tuple(data)


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_mutations_load_or_are_value_errors(data: st.DataObject) -> None:
    """Any damage to any format ends in a picture or in the one error, under every opt-in."""
    damaged = bytearray(data.draw(st.sampled_from(seeds())))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, min(len(damaged) - 1, 200)))
        damaged[position] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged)) | st.just(len(damaged))) :]
    media_io = ImageMediaIO(exif_transpose=True, flatten_alpha=True, max_pixels=50)
    try:
        loaded = media_io.load_bytes(bytes(damaged))
    except MediaError as error:
        message = str(error)
    else:
        message = ""
        assert loaded.mode == "RGB"
        assert loaded.width * loaded.height <= 50
    assert len(message) < 400
