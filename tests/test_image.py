"""Pixel modes and sizes of PIL images."""

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mmmedia.errors import InvalidArgumentError
from mmmedia.image import (
    ALLOWED_IMAGE_FORMATS,
    Depth,
    convert_image_mode,
    depth_of,
    flatten_alpha,
    normalize_image,
    open_image,
    reduce_to_pixels,
    rescale_image_size,
    rgba_to_rgb,
    scale_to_8_bits,
    size_within,
    to_8_bits,
)


def noise(mode: str, width: int = 16, height: int = 16) -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, (width, height), pixels.tobytes())


class TestRgbaToRgb:
    @pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), [12, 200, 7]])
    def test_blends_by_alpha(self, color: list[int]) -> None:
        """Each channel is the mean of picture and background, weighted by alpha, rounded."""
        image = noise("RGBA")
        pixels = np.asarray(image).astype(float)
        alpha = pixels[..., 3:] / 255
        expected = pixels[..., :3] * alpha + np.array(color) * (1 - alpha)
        result = rgba_to_rgb(image, color)
        assert result.mode == "RGB"
        np.testing.assert_allclose(np.asarray(result), expected, atol=0.51)

    def test_is_the_paste_that_engines_use(self) -> None:
        """Byte for byte the picture pasted on the background by its own alpha band; white by default."""
        image = noise("RGBA", 64, 64)
        expected = Image.new("RGB", image.size, (255, 255, 255))
        expected.paste(image, mask=image.split()[3])
        assert rgba_to_rgb(image).tobytes() == expected.tobytes()


class TestConvertImageMode:
    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
    def test_same_mode_is_the_same_object(self, mode: str) -> None:
        """No copy where nothing is to do."""
        image = Image.new(mode, (2, 2))
        assert convert_image_mode(image, mode) is image

    def test_rgba_becomes_rgb_over_white(self) -> None:
        """What is transparent is white, not what lies under it."""
        assert (
            convert_image_mode(Image.new("RGBA", (1, 1), (9, 9, 9, 0)), "RGB").getpixel((0, 0)) == (255,) * 3
        )

    @pytest.mark.parametrize(
        ("mode", "to_mode"),
        [("L", "RGB"), ("LA", "L"), ("CMYK", "RGB"), ("RGBA", "L"), ("RGB", "RGBA"), ("YCbCr", "RGB"),
         ("RGB", "L"), ("P", "RGB"), ("RGBA", "CMYK")],
    )  # fmt: skip
    def test_the_rest_is_pillows(self, mode: str, to_mode: str) -> None:
        """Every other pair of modes gives Pillow's own pixels."""
        image = noise(mode)
        result = convert_image_mode(image, to_mode)
        assert result.mode == to_mode
        assert result.tobytes() == image.convert(to_mode).tobytes()

    def test_palette_with_transparency_warns_of_nothing(self) -> None:
        """Transparency bytes of a palette go, as with Pillow, but silently; the source keeps them."""
        image = noise("P")
        image.info["transparency"] = b"\x00\x80"
        with pytest.warns(UserWarning, match="Transparency expressed in bytes"):
            expected = image.convert("L")
        result = convert_image_mode(image, "L")  # the project's filters make errors of warnings
        assert result.tobytes() == expected.tobytes()
        assert "transparency" not in result.info
        assert image.info["transparency"] == b"\x00\x80"
        assert convert_image_mode(image, "RGBA").getchannel("A").getextrema() == (0, 255)

    @pytest.mark.parametrize(
        ("mode", "transparency"),
        [("RGBA", None), ("LA", None), ("PA", None), ("P", 0), ("P", b"\0" * 256), ("L", 9),
         ("RGB", (9, 9, 9))],
    )  # fmt: skip
    def test_transparency_of_every_kind_shows_the_background(
        self, mode: str, transparency: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As vLLM 0.33 has it; 0.20 had it for RGBA alone."""
        image = Image.new(mode, (1, 1), {"RGBA": (9, 9, 9, 0), "LA": (9, 0), "RGB": (9, 9, 9)}.get(mode, 0))
        if mode == "L":
            image = Image.new("L", (1, 1), 9)
        if transparency is not None:
            image.info["transparency"] = transparency
        assert convert_image_mode(image, "RGB").getpixel((0, 0)) == (255, 255, 255)
        assert convert_image_mode(image, "RGB", (1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        shown = convert_image_mode(image, "RGB", (1, 2, 3)).getpixel((0, 0))
        assert (shown == (1, 2, 3)) is (mode == "RGBA")


class TestOpening:
    def test_formats(self) -> None:
        """All that Pillow reads, less what it leaves to others."""
        Image.init()
        refused = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
        pillows = {name for name in Image.OPEN if name.isupper()} - refused - {"HEIF"}
        assert set(ALLOWED_IMAGE_FORMATS) == pillows
        assert len(ALLOWED_IMAGE_FORMATS) == 37

    def test_a_format_of_others_is_not_opened(self) -> None:
        """Nor one that IPTC carries in."""
        file = io.BytesIO()
        noise("RGB").save(file, "PNG")
        assert open_image(file).format == "PNG"
        file = io.BytesIO()
        noise("RGB").save(file, "EPS")
        with pytest.raises(OSError, match="cannot identify"):
            open_image(file)

    def test_normalized(self) -> None:
        """Upright, RGB, over white."""
        image = Image.new("RGBA", (3, 2), (9, 9, 9, 0))
        image.putpixel((0, 0), (9, 9, 9, 255))
        exif = Image.Exif()
        exif[0x0112] = 6
        file = io.BytesIO()
        image.save(file, "PNG", exif=exif)
        upright = normalize_image(open_image(file))
        assert (upright.mode, upright.size) == ("RGB", (2, 3))
        assert np.asarray(upright)[..., 0].tolist() == [[255, 9], [255, 255], [255, 255]]


class TestFlattenAlpha:
    @pytest.mark.parametrize("mode", ["La", "RGBa"])
    def test_premultiplied(self, mode: str) -> None:
        """Colours that were multiplied by alpha are not multiplied again."""
        image = Image.new(mode, (1, 1), (100, 128) if mode == "La" else (100, 100, 100, 128))
        np.testing.assert_allclose(flatten_alpha(image).getpixel((0, 0)), (227,) * 3, atol=1)

    @pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "I;16", "F"])
    def test_opaque_is_the_same_object(self, mode: str) -> None:
        """Without transparency there is nothing to flatten."""
        image = Image.new(mode, (2, 2))
        assert flatten_alpha(image) is image

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
    def test_alpha_channels(self, mode: str) -> None:
        """Transparent pixels take the background's colour, opaque ones keep theirs."""
        image = Image.new("RGBA", (2, 1), (10, 10, 10, 255))
        image.putpixel((0, 0), (10, 10, 10, 0))
        image = image.convert(mode)
        flat = flatten_alpha(image, (1, 2, 3))
        assert (flat.mode, flat.getpixel((0, 0)), flat.getpixel((1, 0))) == ("RGB", (1, 2, 3), (10, 10, 10))

    @pytest.mark.parametrize(
        ("mode", "transparency"), [("RGB", (0, 0, 0)), ("L", 0), ("P", 0), ("P", b"\x00"), ("1", 0)]
    )
    def test_transparency_entries(self, mode: str, transparency: object) -> None:
        """The colour or palette entry that a file declares transparent takes the background's colour."""
        image = Image.new(mode, (2, 1))
        image.putpixel((1, 0), (255, 255, 255) if mode == "RGB" else 1)
        image.info["transparency"] = transparency
        flat = flatten_alpha(image, (1, 2, 3))
        assert flat.getpixel((0, 0)) == (1, 2, 3)
        assert flat.getpixel((1, 0)) != (1, 2, 3)


class TestDepth:
    @pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
    def test_sixteen_bits_are_scaled(self, mode: str) -> None:
        """Every sample that there is, against NumPy's own scaling, in either byte order."""
        samples = np.arange(1 << 16).reshape(256, 256)
        order = ">u2" if mode.endswith("B") else "<u2"
        image = Image.frombytes(mode, (256, 256), samples.astype(order).tobytes())
        expected = np.round(samples * 255 / 65_535)
        assert (np.asarray(convert_image_mode(image, "L")) == expected).all()
        assert (np.asarray(convert_image_mode(image, "RGB"))[..., 1] == expected).all()

    @pytest.mark.parametrize(
        ("samples", "black", "white"),
        [
            (np.uint16([[0, 9]]), 0, 0xFFFF), (np.int16([[0, 9]]), 0, 0x7FFF),
            (np.int16([[-1, 9]]), -0x8000, 0x7FFF), (np.int32([[0, 255]]), 0, 255),
            (np.int32([[0, 256]]), 0, 0xFFFF), (np.int32([[5, 65_536]]), 0, 0x7FFF_FFFF),
            (np.uint32([[5, 65_536]]), 0, 0xFFFF_FFFF), (np.int32([[-1, 9]]), -0x8000, 0x7FFF),
            (np.int32([[-40_000, 9]]), -0x8000_0000, 0x7FFF_FFFF),
        ],
    )  # fmt: skip
    def test_what_nothing_is_known_of(self, samples: np.ndarray, black: int, white: int) -> None:
        """Sixteen bits are all used; 32 are a container, and hold 8, 16 or 32."""
        assert depth_of(samples) == Depth(black, white)
        expected = np.round((samples.astype(float) - black) * 255 / (white - black))
        assert (scale_to_8_bits(samples, Depth(black, white)) == expected).all()

    def test_large_images_are_scaled_in_blocks(self) -> None:
        """Blocks end between rows, and leave none out; one row may be longer than a block."""
        for shape in ((1500, 1100), (2, 1_200_000)):
            samples = np.random.default_rng(0).integers(0, 1 << 31, shape, dtype=np.int32)
            expected = np.round(samples * 255.0 / 0x7FFF_FFFF)
            assert (scale_to_8_bits(samples, Depth(0, 0x7FFF_FFFF)) == expected).all()

    def test_the_transparent_grey_becomes_alpha(self) -> None:
        """One of 65 536, not all that look like it; the rest of what is known goes on."""
        image = Image.frombytes("I;16", (2, 1), np.uint16([[0x1234, 0x1235]]).tobytes())
        image.info.update(transparency=0x1234, exif=b"kept")
        scaled = to_8_bits(image)
        assert (scaled.mode, scaled.getpixel((0, 0)), scaled.getpixel((1, 0))) == ("LA", (18, 0), (18, 255))
        assert scaled.info == {"exif": b"kept"}
        assert flatten_alpha(image, (1, 2, 3)).getpixel((0, 0)) == (1, 2, 3)

    def test_floats_are_refused(self) -> None:
        """They have no scale; other floats may be made of anything."""
        with pytest.raises(InvalidArgumentError, match="no scale"):
            convert_image_mode(Image.new("F", (1, 1)), "RGB")
        assert convert_image_mode(Image.new("L", (1, 1), 7), "F").getpixel((0, 0)) == 7
        assert convert_image_mode(Image.new("I;16", (1, 1), 700), "I").getpixel((0, 0)) == 700

    def test_results_of_0_20(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pillow's `convert`, which clamps."""
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        assert convert_image_mode(Image.new("I;16", (1, 1), 700), "L").getpixel((0, 0)) == 255
        assert convert_image_mode(Image.new("F", (1, 1), 700), "L").getpixel((0, 0)) == 255


class TestRescale:
    @pytest.mark.parametrize(
        ("size", "factor", "expected"),
        [((10, 5), 0.5, (5, 2)), ((10, 5), 2, (20, 10)), ((10, 5), 1.0, (10, 5)), ((7, 3), 1 / 3, (2, 1))],
    )
    def test_sides_are_rounded_down(
        self, size: tuple[int, int], factor: float, expected: tuple[int, int]
    ) -> None:
        """Both sides by one factor."""
        assert rescale_image_size(Image.new("RGB", size), factor).size == expected

    @pytest.mark.parametrize("turn", list(Image.Transpose))
    def test_transposes_after_resizing(self, turn: Image.Transpose) -> None:
        """Any of Pillow's seven turns, by its number; 0 is one of them."""
        image = noise("RGB", 6, 4)
        expected = image.resize((3, 2)).transpose(turn)
        assert rescale_image_size(image, 0.5, transpose=int(turn)).tobytes() == expected.tobytes()
        assert rescale_image_size(image, 0.5, int(turn)).size == expected.size

    def test_below_zero_is_no_turn(self) -> None:
        """The default leaves the picture upright."""
        image = noise("L", 6, 4)
        assert rescale_image_size(image, 1, -1).tobytes() == rescale_image_size(image, 1).tobytes()


class TestSizeWithin:
    @given(st.integers(1, 50_000), st.integers(1, 50_000), st.integers(1, 10**9))
    @settings(deadline=None)
    def test_largest_that_fits(self, width: int, height: int, max_pixels: int) -> None:
        """The area fits, no side grows, and one pixel more on the longer side's scale would not fit."""
        new_width, new_height = size_within((width, height), max_pixels)
        assert 1 <= new_width <= width
        assert 1 <= new_height <= height
        assert new_width * new_height <= max_pixels
        if width * height <= max_pixels:
            assert (new_width, new_height) == (width, height)
        elif min(new_width, new_height) > 1:
            scale = math.sqrt(max_pixels / (width * height))
            assert new_width == pytest.approx(width * scale, abs=1.001)
            assert new_height == pytest.approx(height * scale, abs=1.001)

    @pytest.mark.parametrize(
        ("size", "max_pixels", "expected"),
        [
            ((4000, 3000), 750_000, (1000, 750)),
            ((100, 100), 10_000, (100, 100)),
            ((100, 100), 9_999, (99, 99)),
            ((1, 1_000_000), 10, (1, 10)),
            ((1_000_000, 1), 10, (10, 1)),
            ((3, 50_000), 1, (1, 1)),
        ],
    )
    def test_examples(self, size: tuple[int, int], max_pixels: int, expected: tuple[int, int]) -> None:
        """Round and extreme aspects."""
        assert size_within(size, max_pixels) == expected


class TestReduceToPixels:
    def test_fitting_images_are_the_same_object(self) -> None:
        """No copy where nothing is to do."""
        image = noise("RGB")
        assert reduce_to_pixels(image, 256) is image

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize("max_pixels", [50, 60])  # by whole factors, and by others
    def test_pixels_are_means_of_areas(self, mode: str, max_pixels: int) -> None:
        """Each new pixel is the mean of those that it stands for."""
        image = noise(mode, 40, 20)
        result = reduce_to_pixels(image, max_pixels)
        expected = image.resize(result.size, Image.Resampling.BOX)
        np.testing.assert_allclose(np.asarray(result, float), np.asarray(expected, float), atol=1)
        if max_pixels == 50:
            means = np.asarray(image).reshape(5, 4, 10, 4, -1).mean((1, 3)).squeeze()
            assert result.size == (10, 5)
            np.testing.assert_allclose(np.asarray(result), means, atol=0.51)

    @pytest.mark.parametrize(
        ("mode", "result"),
        [("P", "RGB"), ("1", "L"), ("PA", "RGBA"), ("I;16", "I;16"), ("I;16B", "I;16B"), ("I", "I"),
         ("F", "F"), ("LA", "LA"), ("RGBA", "RGBA")],
    )  # fmt: skip
    def test_every_mode_can_be_reduced(self, mode: str, result: str) -> None:
        """Numbers of colours are resolved to colours first; all else keeps its mode."""
        reduced = reduce_to_pixels(Image.new(mode, (40, 20)), 50)
        assert (reduced.size, reduced.mode) == ((10, 5), result)

    @pytest.mark.parametrize("max_pixels", [0, -1])
    def test_nothing_fits_below_one(self, max_pixels: int) -> None:
        """An image has at least one pixel."""
        with pytest.raises(InvalidArgumentError, match="max_pixels"):
            reduce_to_pixels(noise("L"), max_pixels)
