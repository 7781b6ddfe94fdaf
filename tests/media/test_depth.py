"""Pictures of other depths than 8 bits, and transparency in all the ways that files tell it."""

import io
import struct
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mmmedia.errors import MediaError
from mmmedia.media.image import ImageMediaIO

RAMP = np.linspace(0, 1, 64 * 40).reshape(40, 64)


def expected(samples: np.ndarray, white: int, black: int = 0) -> np.ndarray:
    """NumPy's own scaling."""
    return np.round((samples.astype(np.float64) - black) * 255 / (white - black)).astype(np.uint8)


def ramp(white: int, black: int = 0) -> np.ndarray:
    return np.round(black + RAMP * (white - black)).astype(np.int64)


def grey(data: bytes, **kwargs: Any) -> np.ndarray:
    pixels = np.asarray(ImageMediaIO(**kwargs).load_bytes(data))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    return pixels[..., 0]


def png(samples: np.ndarray, bits: int, color_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand: `(height, width[, channels])` samples of so many bits."""
    height, width = samples.shape[:2]
    rows = b""
    for row in samples.reshape(height, -1):
        if bits == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            each = (row[:, None] >> np.arange(bits)[::-1] & 1).astype(np.uint8)
            rows += b"\0" + np.packbits(each.ravel()).tobytes()
    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    every = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in every
    )


def tiff(
    samples: np.ndarray,
    dtype: str,
    *,
    photometric: int = 1,
    sample_format: int = 1,
    bits: int = 0,
    extra_samples: int | None = None,
) -> bytes:
    """A TIFF of one strip by hand; the type's byte order is that of the file."""
    order = ">" if dtype.startswith(">") else "<"
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    body = samples.astype(dtype).tobytes()
    if bits == 12:
        pairs = samples.reshape(height, -1, 2)
        packed = np.stack(
            [pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], axis=-1
        )
        body = packed.astype(np.uint8).tobytes()
    each = bits or 8 * np.dtype(dtype).itemsize
    tags = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [each] * channels), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [8]), (277, 3, [channels]), (278, 4, [height]),
        (279, 4, [len(body)]), *([] if extra_samples is None else [(338, 3, [extra_samples])]),
        (339, 3, [sample_format] * channels),
    ]  # fmt: skip
    extra_at = 8 + len(body) + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, kind, values in tags:
        packed_values = struct.pack(order + ("H" if kind == 3 else "I") * len(values), *values)
        if len(packed_values) > 4:
            where = struct.pack(order + "I", extra_at + len(extra))
            extra += packed_values
        else:
            where = packed_values.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(values)) + where
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + struct.pack(order + "H", len(tags)) + entries + bytes(4) + extra


def jpeg2000(samples: np.ndarray, bits: int) -> bytes:
    """A lossless JPEG 2000 of grey samples, by FFmpeg."""
    kind = {8: "gray", 10: "gray10le", 12: "gray12le", 14: "gray14le", 16: "gray16le"}[bits]
    context = av.CodecContext.create("jpeg2000", "w")
    context.width, context.height = samples.shape[1], samples.shape[0]
    context.pix_fmt, context.time_base = kind, Fraction(1, 25)
    context.options = {"pred": "1"}
    context.qmin = context.qmax = 1
    frame = av.VideoFrame(samples.shape[1], samples.shape[0], kind)
    plane = frame.planes[0]
    lines = np.zeros((samples.shape[0], plane.line_size), np.uint8)
    raw = samples.astype("u1" if bits == 8 else "<u2").view(np.uint8)
    lines[:, : raw.shape[1]] = raw
    plane.update(lines)
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def pnm(samples: np.ndarray, white: int, magic: str) -> bytes:
    head = f"{magic}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{white}\n".encode()
    if magic in ("P2", "P3"):
        return head + b" ".join(str(each).encode() for each in samples.ravel())
    return head + samples.astype(">u2" if white > 255 else "u1").tobytes()


def fits(samples: np.ndarray, dtype: str, *cards: str) -> bytes:
    bits = 8 * np.dtype(dtype).itemsize * (-1 if "f" in dtype else 1)
    height, width = samples.shape
    head = (
        "SIMPLE  = T", f"BITPIX  = {bits}", "NAXIS   = 2", f"NAXIS1  = {width}", f"NAXIS2  = {height}",
        *cards, "END",
    )  # fmt: skip
    return (
        "".join(f"{card:<80}" for card in head).encode().ljust(2880) + samples[::-1].astype(dtype).tobytes()
    )


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


class TestGreysOfManyBits:
    """What is above 255 was white; now each sample is scaled by the format's depth, as NumPy scales it."""

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_png(self, bits: int) -> None:
        samples = ramp((1 << bits) - 1)
        pixels = grey(png(samples, bits, 0))
        assert (pixels == expected(samples, (1 << bits) - 1)).all()
        assert pixels.mean() == pytest.approx(127.5, abs=1)

    @pytest.mark.parametrize("magic", ["P2", "P5"])
    @pytest.mark.parametrize(
        "white", [1, 7, 100, 255, 256, 1000, 1023, 4095, 4096, 12_345, 16_383, 65_534, 65_535]
    )
    def test_pgm_of_any_maximum(self, magic: str, white: int) -> None:
        samples = np.arange(64 * 1024).reshape(256, 256) % (white + 1)
        assert (grey(pnm(samples, white, magic)) == expected(samples, white)).all()

    @pytest.mark.parametrize("magic", ["P3", "P6"])
    @pytest.mark.parametrize("white", [100, 4095, 65_535])
    def test_ppm_of_any_maximum(self, magic: str, white: int) -> None:
        samples = np.stack([ramp(white)] * 3, axis=-1)
        assert (grey(pnm(samples, white, magic)) == expected(samples[..., 0], white)).all()

    @pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
    def test_tiff_that_pillow_writes(self, mode: str) -> None:
        samples = ramp(0xFFFF)
        image = Image.frombytes(
            mode, (64, 40), samples.astype(">u2" if mode.endswith("B") else "<u2").tobytes()
        )
        assert (grey(encoded(image, "TIFF")) == expected(samples, 0xFFFF)).all()

    @pytest.mark.parametrize(
        ("dtype", "options", "black", "white"),
        [
            ("<u2", {}, 0, 0xFFFF),
            (">u2", {}, 0, 0xFFFF),
            ("<u2", {"photometric": 0}, 0xFFFF, 0),
            ("<u2", {"bits": 12}, 0, 0xFFF),
            ("<i2", {"sample_format": 2}, 0, 0x7FFF),
            (">i2", {"sample_format": 2}, 0, 0x7FFF),
            ("<i2", {"sample_format": 2}, -0x8000, 0x7FFF),
            (">i2", {"sample_format": 2}, -0x8000, 0x7FFF),
            ("<u4", {}, 0, 0xFFFF_FFFF),
            ("<u4", {}, 0, 0xFFFF),
            ("<i4", {"sample_format": 2}, 0, 0x7FFF_FFFF),
            ("<i4", {"sample_format": 2}, -0x8000_0000, 0x7FFF_FFFF),
            ("<i4", {"sample_format": 2}, 0, 0xFFFF),
            (">i4", {"sample_format": 2}, 0, 0xFFFF),
            ("<i4", {"sample_format": 2}, 0, 0xFF),
        ],
    )
    def test_tiff(self, dtype: str, options: dict[str, int], black: int, white: int) -> None:
        """Any depth and byte order, signed or not, and with white as zero; 32 bits hold what they hold."""
        samples = ramp(white, black)
        pixels = grey(tiff(samples, dtype, **options))
        assert (pixels == expected(samples, white, black)).all()
        assert pixels.mean() == pytest.approx(127.5, abs=1)

    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    def test_jpeg2000(self, bits: int) -> None:
        samples = ramp((1 << bits) - 1)
        data = jpeg2000(samples, bits)
        pixels = grey(data)
        assert np.abs(pixels.astype(int) - expected(samples, (1 << bits) - 1)).max() <= 1
        kept = np.asarray(ImageMediaIO(None).load_bytes(data)).astype(np.int64)
        if bits > 8:  # what was decoded, scaled exactly
            assert (pixels == expected(kept >> 16 - bits, (1 << bits) - 1)).all()

    def test_jpeg2000_of_few_bits(self) -> None:
        """White is white: Pillow would shift one bit up to 128."""
        for bits in (1, 2, 4, 6):
            image = Image.fromarray((ramp((1 << bits) - 1) << 8 - bits).astype(np.uint8))
            data = bytearray(encoded(image, "JPEG2000", irreversible=False))
            at = data.index(b"\xff\x4f\xff\x51")
            samples = np.asarray(image) >> 8 - bits
            narrow = _jpeg2000_of(samples.astype(np.uint8), bits, data, at)
            assert (grey(narrow) == expected(samples, (1 << bits) - 1)).all()

    @pytest.mark.parametrize(
        ("dtype", "cards", "black", "white"),
        [
            (">i2", ["BZERO   = 32768"], -0x8000, 0x7FFF),
            (">i2", [], 0, 0x7FFF),
            (">i2", [], -0x8000, 0x7FFF),
            (">i4", [], 0, 0x7FFF_FFFF),
        ],
    )
    def test_fits(self, dtype: str, cards: list[str], black: int, white: int) -> None:
        samples = ramp(white, black)
        assert (grey(fits(samples, dtype, *cards)) == expected(samples, white, black)).all()

    @pytest.mark.parametrize("bits", [16])
    @pytest.mark.parametrize(("color_type", "channels"), [(2, 3), (4, 2), (6, 4)])
    def test_png_of_several_channels(self, bits: int, color_type: int, channels: int) -> None:
        """Colours of 16 bits: Pillow itself keeps the upper eight, at most one off."""
        samples = np.stack([ramp(0xFFFF)] * channels, axis=-1)
        if channels in (2, 4):
            samples[..., -1] = 0xFFFF
        assert (
            np.abs(grey(png(samples, bits, color_type)).astype(int) - expected(samples[..., 0], 0xFFFF)).max()
            <= 1
        )

    def test_tiff_of_several_channels(self) -> None:
        for dtype in ("<u2", ">u2"):
            samples = np.stack([ramp(0xFFFF)] * 3, axis=-1)
            pixels = grey(tiff(samples, dtype, photometric=2)).astype(int)
            assert np.abs(pixels - expected(samples[..., 0], 0xFFFF)).max() <= 1

    def test_sgi(self) -> None:
        samples = ramp(0xFFFF)
        head = struct.pack(">hBBHHHH", 474, 0, 2, 2, 64, 40, 1) + struct.pack(">ii", 0, 65_535)
        data = head.ljust(512, b"\0") + samples[::-1].astype(">u2").tobytes()
        assert np.abs(grey(data).astype(int) - expected(samples, 0xFFFF)).max() <= 1

    @pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "1", "P"])
    def test_into_any_mode_of_8_bits(self, mode: str) -> None:
        loaded = ImageMediaIO(mode).load_bytes(png(ramp(0xFFFF), 16, 0))
        expected_image = Image.fromarray(expected(ramp(0xFFFF), 0xFFFF)).convert(mode)
        assert (loaded.mode, loaded.tobytes()) == (mode, expected_image.tobytes())

    @pytest.mark.parametrize("mode", [None, "I;16", "I", "F"])
    def test_deep_modes_keep_the_samples(self, mode: str | None) -> None:
        loaded = ImageMediaIO(mode).load_bytes(png(ramp(0xFFFF), 16, 0))
        assert (np.asarray(loaded) == ramp(0xFFFF)).all()

    def test_with_max_pixels_and_orientation(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = png(ramp(0xFFFF), 16, 0, (b"eXIf", exif.tobytes()[6:]))
        loaded = ImageMediaIO(max_pixels=16 * 10).load_bytes(data)
        assert loaded.size == (10, 16)
        assert np.asarray(loaded).mean() == pytest.approx(127.5, abs=2)

    @pytest.mark.parametrize("case", ["TIFF", "PFM", "FITS", "SPIDER"])
    def test_floats_have_no_scale(self, case: str) -> None:
        """An error that says so, and what to do; as floats they are to be had."""
        image = Image.fromarray(RAMP.astype(np.float32))
        data = {
            "TIFF": lambda: encoded(image, "TIFF"),
            "PFM": lambda: b"Pf\n64 40\n-1.0\n" + RAMP.astype("<f4").tobytes(),
            "FITS": lambda: fits(RAMP, ">f4"),
            "SPIDER": lambda: encoded(image, "SPIDER"),
        }[case]()
        with pytest.raises(
            ValueError, match=r"^Failed to load image: mode F to RGB: .*no scale.*image_mode=None"
        ):
            ImageMediaIO().load_bytes(data)
        assert ImageMediaIO(None).load_bytes(data).mode == "F"
        assert ImageMediaIO("F").load_bytes(data).mode == "F"

    def test_results_of_0_20(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clamped, as Pillow converts."""
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        data = png(ramp(0xFFFF), 16, 0)
        assert grey(data).mean() > 250
        assert grey(encoded(Image.fromarray(RAMP.astype(np.float32) * 300), "TIFF")).max() == 255


def _jpeg2000_of(samples: np.ndarray, bits: int, like: bytearray, at: int) -> bytes:
    """A lossless file of samples of few bits: written as 8 of them, then declared as what they are.

    The level shift is half of the range, so the samples are moved by what the wrong one adds.
    """
    shifted = (samples.astype(int) + 128 - (1 << bits - 1)).astype(np.uint8)
    data = bytearray(encoded(Image.fromarray(shifted), "JPEG2000", irreversible=False))
    start = data.index(b"\xff\x4f\xff\x51")
    assert data[start + 42] == 7
    data[start + 42] = bits - 1
    header = data.index(b"ihdr")
    data[header + 4 + 10] = bits - 1
    return bytes(data)


WIDE = {"rgba_background_color": (7, 8, 9)}
SEEN_THROUGH = (7, 8, 9)


class TestTransparency:
    """What the file says is transparent shows the background, whichever way it says so."""

    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_grey_key(self, bits: int) -> None:
        white = (1 << bits) - 1
        for key in {0, 1, white // 2, white}:
            samples = np.array([[key, white - key if key * 2 != white else white]])
            loaded = ImageMediaIO(**WIDE).load_bytes(png(samples, bits, 0, (b"tRNS", struct.pack(">H", key))))
            other = int(expected(samples[:, 1:], white)[0, 0])
            assert loaded.getpixel((0, 0)) == SEEN_THROUGH
            assert loaded.getpixel((1, 0)) == (other,) * 3

    def test_a_grey_key_of_16_bits_is_one_grey(self) -> None:
        """Its neighbours, which share the upper eight bits, stay."""
        samples = np.array([[0x1234, 0x1235, 0x12FF, 0x1334]])
        loaded = ImageMediaIO(**WIDE).load_bytes(png(samples, 16, 0, (b"tRNS", b"\x12\x34")))
        assert [loaded.getpixel((x, 0)) for x in range(3)] == [SEEN_THROUGH, (18,) * 3, (19,) * 3]

    @pytest.mark.parametrize("bits", [8, 16])
    def test_colour_key(self, bits: int) -> None:
        factor = 257 if bits == 16 else 1
        colors = np.array([[[10, 20, 30], [10, 20, 31], [0, 0, 0]]]) * factor
        loaded = ImageMediaIO(**WIDE).load_bytes(
            png(colors, bits, 2, (b"tRNS", struct.pack(">HHH", *(part * factor for part in (10, 20, 30)))))
        )
        assert [loaded.getpixel((x, 0)) for x in range(3)] == [SEEN_THROUGH, (10, 20, 31), (0, 0, 0)]

    def test_a_colour_key_of_16_bits_is_one_colour(self) -> None:
        samples = np.array([[[0x0A01, 0x0B02, 0x0C03], [0x0A01, 0x0B02, 0x0C04], [0x0A00, 0x0B02, 0x0C03]]])
        data = png(samples, 16, 2, (b"tRNS", struct.pack(">HHH", *samples[0, 0])))
        loaded = ImageMediaIO(**WIDE).load_bytes(data)
        assert [loaded.getpixel((x, 0)) for x in range(3)] == [SEEN_THROUGH, (10, 11, 12), (10, 11, 12)]

    @pytest.mark.parametrize("alphas", [b"\0", b"\xff\0", b"\0\x80\xff"])
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_palette(self, bits: int, alphas: bytes) -> None:
        palette = bytes([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])[: 3 << min(bits, 2)]
        alphas = alphas[: 1 << bits]
        samples = np.arange(1 << min(bits, 2))[None]
        loaded = ImageMediaIO(**WIDE).load_bytes(png(samples, bits, 3, (b"PLTE", palette), (b"tRNS", alphas)))
        for index in range(samples.shape[1]):
            alpha = alphas[index] / 255 if index < len(alphas) else 1
            color = np.array([*palette[3 * index : 3 * index + 3]])
            seen = color * alpha + np.array(SEEN_THROUGH) * (1 - alpha)
            np.testing.assert_allclose(loaded.getpixel((index, 0)), seen, atol=1)

    @pytest.mark.parametrize("bits", [8, 16])
    @pytest.mark.parametrize(("color_type", "channels"), [(4, 2), (6, 4)])
    def test_alpha_channels(self, bits: int, color_type: int, channels: int) -> None:
        white = (1 << bits) - 1
        samples = np.zeros((1, 3, channels), int)
        samples[0, :, -1] = [0, white // 2, white]
        loaded = ImageMediaIO().load_bytes(png(samples, bits, color_type))
        assert [loaded.getpixel((x, 0))[0] for x in range(3)] == pytest.approx([255, 128, 0], abs=1)

    def test_black_text_on_nothing_is_black_on_white(self) -> None:
        """The picture of the report, in every mode that can say it."""
        text = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
        text.paste((0, 0, 0, 255), (10, 5, 30, 15))
        for data in (
            encoded(text.convert("LA"), "PNG"), encoded(text, "PNG"), encoded(text.convert("LA"), "TIFF"),
            encoded(text.quantize(4), "PNG"), encoded(text, "GIF"), encoded(text, "WEBP", lossless=True),
            encoded(text, "JPEG2000", irreversible=False), encoded(text, "AVIF"),
            encoded(text.convert("LA"), "TGA"),
        ):  # fmt: skip
            loaded = np.asarray(ImageMediaIO().load_bytes(data))
            assert loaded[2, 2].min() > 250
            assert loaded[10, 20].max() < 5

    def test_premultiplied_tiff(self) -> None:
        """Colours that were multiplied by their alpha are not multiplied again."""
        colors = np.array([[[100, 50, 25, 128], [200, 100, 50, 255], [0, 0, 0, 0]]])
        for dtype in ("<u1", "<u2"):
            factor = 257 if dtype == "<u2" else 1
            loaded = ImageMediaIO().load_bytes(tiff(colors * factor, dtype, photometric=2, extra_samples=1))
            seen = [(227, 177, 152), (200, 100, 50), (255, 255, 255)]
            np.testing.assert_allclose(np.asarray(loaded)[0], seen, atol=2)
        greys = np.array([[[100, 128], [200, 255], [0, 0]]])
        loaded = ImageMediaIO().load_bytes(tiff(greys, "<u1", extra_samples=1))
        np.testing.assert_allclose(np.asarray(loaded)[0, :, 0], [227, 200, 255], atol=2)

    def test_gif_whose_first_picture_is_smaller_than_it(self) -> None:
        """Around it there is nothing, as in a browser; inside, the transparent colour counts too."""
        gif = bytearray(encoded(Image.new("P", (4, 4), 1), "GIF", transparency=2))
        image = Image.new("P", (4, 4), 1)
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        image.putpixel((1, 1), 2)
        for transparency, inside in ((None, (0, 0, 200)), (2, SEEN_THROUGH)):
            options = {} if transparency is None else {"transparency": transparency}
            gif = bytearray(encoded(image, "GIF", optimize=False, **options))
            gif[6:10] = struct.pack("<HH", 8, 8)
            at = gif.index(b"\x2c\0\0\0\0\4\0\4\0")
            gif[at + 1 : at + 5] = struct.pack("<HH", 2, 3)
            loaded = ImageMediaIO(**WIDE).load_bytes(bytes(gif))
            assert loaded.size == (8, 8)
            assert loaded.getpixel((0, 0)) == loaded.getpixel((7, 7)) == SEEN_THROUGH
            assert loaded.getpixel((2, 3)) == (0, 200, 0)
            assert loaded.getpixel((3, 4)) == inside

    def test_alpha_asked_for_is_kept(self) -> None:
        samples = np.array([[0x1234, 0x1235]])
        loaded = ImageMediaIO("RGBA").load_bytes(png(samples, 16, 0, (b"tRNS", b"\x12\x34")))
        assert [loaded.getpixel((x, 0))[3] for x in range(2)] == [0, 255]

    def test_off(self) -> None:
        """`flatten_alpha=False`: the colour under it, in 8 bits all the same."""
        samples = np.array([[0x8080, 0xFFFF]])
        media_io = ImageMediaIO(flatten_alpha=False, **WIDE)
        loaded = media_io.load_bytes(png(samples, 16, 0, (b"tRNS", b"\x80\x80")))
        assert [loaded.getpixel((x, 0)) for x in range(2)] == [(128,) * 3, (255,) * 3]

    def test_results_of_0_20(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only RGBA is composited, nothing is turned."""
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.new("LA", (4, 2)), "PNG", exif=exif)
        loaded = ImageMediaIO().load_bytes(data)
        assert (loaded.size, loaded.getpixel((0, 0))) == ((4, 2), (0, 0, 0))
        asked = ImageMediaIO(exif_transpose=True, flatten_alpha=True).load_bytes(data)
        assert (asked.size, asked.getpixel((0, 0))) == ((2, 4), (255, 255, 255))


@given(
    st.sampled_from(["png", "tiff", "jp2", "pgm", "fits"]),
    st.binary(min_size=1, max_size=12),
    st.integers(0, 400),
)
@settings(max_examples=300, deadline=None)
def test_damaged_deep_pictures_load_or_are_errors_of_ours(kind: str, damage: bytes, at: int) -> None:
    data = bytearray(DEEP[kind])
    at %= len(data)
    data[at : at + len(damage)] = damage
    try:
        loaded = ImageMediaIO().load_bytes(bytes(data))
    except MediaError:
        return
    assert loaded.mode == "RGB"


_SMALL = ramp(0xFFFF)[:4, :8]
DEEP = {
    "png": png(np.stack([_SMALL] * 3, axis=-1), 16, 2, (b"tRNS", bytes(6))),
    "tiff": tiff(_SMALL, "<u2"),
    "jp2": jpeg2000(ramp(0xFFF), 12),
    "pgm": pnm(_SMALL, 0xFFFF, "P5"),
    "fits": fits(_SMALL, ">i2", "BZERO   = 32768"),
}
