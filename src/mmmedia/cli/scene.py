"""Something to look at and listen to, made on the spot: a photo, a sound and a clip, the same every time.

All three are painted and synthesised from formulas: a day at a lake, from dawn to night.
"""

import io
import math
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Color = tuple[float, float, float]

CLIP_SECONDS = 8
CLIP_FPS = 24
SPEECH_RATE = 16_000

_DAWN, _DUSK = 5.0, 22.0  # hours of the clock at the clip's first and last frame
_SUNRISE, _SUNSET = 6.0, 20.0

# The hour, then the colours of the sky's zenith and horizon, of the light on the land, and of the sun.
_PALETTE: tuple[tuple[float, tuple[Color, Color, Color, Color]], ...] = (
    (0.0, ((5, 8, 28), (18, 26, 58), (7, 9, 22), (255, 120, 60))),
    (5.0, ((14, 20, 56), (92, 66, 112), (16, 16, 38), (255, 110, 60))),
    (6.3, ((62, 84, 150), (255, 160, 122), (52, 42, 66), (255, 176, 96))),
    (8.5, ((70, 140, 214), (206, 226, 236), (50, 88, 84), (255, 240, 200))),
    (13.0, ((38, 112, 206), (182, 220, 242), (56, 104, 80), (255, 252, 236))),
    (17.5, ((66, 128, 200), (248, 222, 180), (64, 88, 70), (255, 236, 180))),
    (19.3, ((70, 66, 132), (255, 146, 84), (58, 36, 62), (255, 168, 80))),
    (20.3, ((34, 34, 88), (206, 84, 92), (30, 20, 46), (255, 96, 60))),
    (21.5, ((9, 12, 40), (40, 38, 80), (11, 12, 30), (255, 90, 60))),
    (24.0, ((5, 8, 28), (18, 26, 58), (7, 9, 22), (255, 120, 60))),
)


def photo() -> bytes:
    """Return a photo, JPEG, 1200 x 800 pixels: the lake as the sun goes down."""
    file = io.BytesIO()
    Image.fromarray(Lake(1200, 800).paint(18.5)).save(file, "JPEG", quality=90)
    return file.getvalue()


def speech() -> bytes:
    """Return a sound, WAV, mono at 16 kHz: 3 seconds of vowels from a voice that falls at the end."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, _voice(), SPEECH_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def clip() -> bytes:
    """Return a clip, H.264 in MP4, 8 seconds of 512 x 288 pixels at 24 a second: a day, and a clock."""
    import av

    lake = Lake(512, 288)
    total = CLIP_SECONDS * CLIP_FPS
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        # Of one thread, and without x264's tree of macroblocks, whose rounding varies: the same bytes always.
        options = {"preset": "veryfast", "crf": "20", "x264-params": "mbtree=0"}
        stream = out.add_stream("libx264", rate=CLIP_FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = lake.width, lake.height, "yuv420p"
        stream.codec_context.gop_size = 2 * CLIP_FPS
        stream.codec_context.thread_count = 1
        for number in range(total):
            hour = _DAWN + (_DUSK - _DAWN) * number / (total - 1)
            frame = av.VideoFrame.from_ndarray(_with_clock(lake.paint(hour), hour), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, CLIP_FPS)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


class Lake:
    """A lake with hills behind it, painted as at an hour of the day."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._shore = round(height * 0.68)
        self._x = np.linspace(0, 1, width, dtype=np.float32)
        self._y = np.arange(height, dtype=np.float32)[:, None]

    def paint(self, hour: float) -> Pixels:
        """Return the picture, uint8 RGB (height, width, 3)."""
        zenith, horizon, land, sun = _colors(hour)
        image = np.empty((self.height, self.width, 3), np.float32)
        above = image[: self._shore]
        depth = (self._y[: self._shore] / self._shore)[..., None]
        above[:] = zenith + (horizon - zenith) * depth**1.4
        self._paint_stars(above, hour)
        self._paint_sun(above, hour, sun)
        self._paint_clouds(above, hour, horizon, sun)
        for number, ridge in enumerate(self._ridges):
            haze = 0.62 - 0.24 * number
            self._paint_below(above, ridge, horizon * haze + land * (1 - haze))
        self._paint_water(image, hour, zenith, sun)
        self._paint_boat(image, hour, land)
        self._paint_below(image, self._bank, land * 0.35)
        image += self._grain
        return np.clip(image, 0, 255).astype(np.uint8)

    def _paint_stars(self, sky: Floats, hour: float) -> None:
        night = float(np.interp(hour, (0, 4.6, 6.2, 20, 21.4, 24), (1, 1, 0, 0, 1, 1)))
        if night:
            sky += self._stars * (night * 320)

    def _paint_sun(self, sky: Floats, hour: float, color: Floats) -> None:
        x, y = self._sun_at(hour)
        distance = np.hypot(self._x * self.width - x, self._y[: self._shore] - y) / self.height
        size = 0.034
        glow = np.exp(distance * -5.5) * 0.75
        disc = np.clip((size - distance) * self.height + 0.5, 0, 1)
        light = np.clip(1 - (y - self._shore) / (0.1 * self.height), 0, 1)  # gone when well below the hills
        strength = (np.maximum(glow, disc) * light)[..., None]
        sky += (color - sky) * np.minimum(strength, 1)

    def _sun_at(self, hour: float) -> tuple[float, float]:
        day = (hour - _SUNRISE) / (_SUNSET - _SUNRISE)
        return self.width * (0.06 + 0.8 * day), self._shore - self.height * (
            0.5 * math.sin(day * math.pi) + 0.05
        )

    def _paint_clouds(self, sky: Floats, hour: float, horizon: Floats, sun: Floats) -> None:
        drift = int(hour * self.width / 40)
        cover = np.roll(self._clouds, drift, axis=1)[..., None]
        sky += ((horizon * 0.55 + sun * 0.45) * 1.02 - sky) * cover

    def _paint_below(self, image: Floats, ridge: Floats, color: Floats) -> None:
        """Fill what lies below a line, its edge softened over a pixel."""
        top = max(0, int(ridge.min()) - 1)
        cover = np.clip(self._y[top : len(image)] - ridge + 0.5, 0, 1)[..., None]
        image[top:] += (color - image[top:]) * cover

    def _paint_water(self, image: Floats, hour: float, zenith: Floats, sun: Floats) -> None:
        rows = np.arange(self.height - self._shore)
        near = rows / len(rows)
        ripple = np.sin(rows**0.8 * 1.9 - hour * 9) * (0.4 + near * 5)
        source = np.clip(self._shore - 1 - rows * 1.35 + ripple, 0, self._shore - 1).astype(int)
        water = image[source]
        water *= 0.8
        water += zenith * 0.12
        x, y = self._sun_at(hour)
        if y < self._shore:
            spread = (0.02 + 0.09 * near)[:, None] * self.width
            path = np.exp(-(((self._x * self.width - x) / spread) ** 2))
            sparkle = 0.5 + 0.5 * np.sin(rows**0.9 * 2.3 + hour * 14)[:, None]
            water += (sun - water) * (path * sparkle * (0.55 - 0.4 * near[:, None]))[..., None]
        image[self._shore :] = water

    def _paint_boat(self, image: Floats, hour: float, land: Floats) -> None:
        """Paint a sailing boat that crosses the lake in a day."""
        size = self.height * 0.14
        left = self.width * (0.86 - 0.62 * (hour - _DAWN) / (_DUSK - _DAWN))
        waterline = self._shore + self.height * 0.075 + math.sin(hour * 5) * self.height * 0.004
        top, bottom = int(waterline - size), min(self.height, int(waterline + size))
        first, last = max(0, int(left - size)), min(self.width, int(left + size))
        x = (np.arange(first, last, dtype=np.float32) - left) / size
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] - waterline) / size
        soft = size / 1.2
        mirrored = np.where(y > 0.02, -y * 1.1 - 0.02, y)  # the reflection is the boat upside down
        main = _inside(np.minimum(np.minimum(x - 0.02, mirrored + 0.92 - x * 1.75), -mirrored - 0.1), soft)
        jib = _inside(np.minimum(np.minimum(-x - 0.02, mirrored + 0.80 + x * 2.2), -mirrored - 0.12), soft)
        hull = _inside(
            np.minimum(np.minimum(-mirrored, mirrored + 0.075), 0.42 + mirrored * 0.9 - abs(x)), soft
        )
        faint = np.where(y > 0, 0.35 * np.clip(1 - y, 0, 1), 1)
        window = image[top:bottom, first:last]
        white = land * 0.55 + np.array((150, 146, 140), np.float32)
        for shape, color in (
            (main, white),
            (jib, white * 0.92),
            (hull, land * 0.3 + np.array((70, 18, 16), np.float32)),
        ):
            window += (color - window) * (shape * faint)[..., None]

    @cached_property
    def _ridges(self) -> list[Floats]:
        """Three lines of hills, from far to near: the row where each begins, by column."""
        return [
            self._shore - self.height * (base + _waves(self._x, seed, roughness))
            for base, seed, roughness in ((0.19, 3, 0.085), (0.11, 11, 0.06), (0.045, 23, 0.035))
        ]

    @cached_property
    def _bank(self) -> Floats:
        """The dark bank in front, with reeds."""
        reeds = np.maximum(0, _waves(self._x * 9, 40, 0.05)) * np.clip(1 - self._x * 2.6, 0, 1)
        slope = self.height * (0.93 + 0.16 * self._x - 0.04 * np.cos(self._x * 5))
        bank: Floats = slope - self.height * reeds
        return bank

    @cached_property
    def _stars(self) -> Floats:
        rng = np.random.default_rng(8)
        stars = np.zeros((self._shore, self.width, 1), np.float32)
        count = 160
        rows = (rng.random(count) ** 1.5 * self._shore * 0.8).astype(int)
        columns = (rng.random(count) * self.width).astype(int)
        stars[rows, columns, 0] = rng.random(count) ** 1.5
        return stars

    @cached_property
    def _clouds(self) -> Floats:
        """How much cloud covers each pixel of the sky, 0 to 0.7; it tiles from side to side."""
        rng = np.random.default_rng(5)
        field = np.zeros((self._shore, self.width), np.float32)
        for octave in range(1, 6):
            cells = rng.random((2 + 2**octave, 2 ** (octave + 1))).astype(np.float32)
            # Scaled with its neighbours at both sides, so that left and right meet when it drifts.
            tiled = Image.fromarray(np.concatenate([cells] * 3, axis=1))
            count = cells.shape[1]
            layer = tiled.resize(
                (self.width, self._shore), Image.Resampling.BICUBIC, (count, 0, 2 * count, len(cells))
            )
            field += np.asarray(layer) / 1.7**octave
        field = (field - field.min()) / np.ptp(field)
        band = np.exp(-(((self._y[: self._shore] / self._shore - 0.42) / 0.26) ** 2))
        cover: Floats = np.clip((field - 0.52) * 2.6, 0, 0.7) * band
        return cover

    @cached_property
    def _grain(self) -> Floats:
        """A little noise, so that wide gradients show no bands."""
        noise = np.random.default_rng(1).normal(0, 1.1, (self.height, self.width, 1))
        return noise.astype(np.float32)


def _inside(distance: Floats, soft: float) -> Floats:
    cover: Floats = np.clip(distance * soft + 0.5, 0, 1)
    return cover


def _waves(x: Floats, seed: int, height: float) -> Floats:
    """Return a sum of waves, each shorter and lower than the one before."""
    phases = np.random.default_rng(seed).uniform(0, 2 * math.pi, 6)
    waves = [np.sin(x * (3.1 * 1.93**k) + phase) / 1.9**k for k, phase in enumerate(phases)]
    line: Floats = (np.sum(waves, axis=0) * height * 0.6).astype(np.float32)
    return line


def _colors(hour: float) -> list[Floats]:
    """Return the palette at an hour, float32 (3,) each, from the entries before and after it."""
    hours = [entry[0] for entry in _PALETTE]
    table = np.array([entry[1] for entry in _PALETTE])  # (hours, roles, 3)
    return [
        np.array([np.interp(hour, hours, channel) for channel in colors.T], np.float32)
        for colors in table.swapaxes(0, 1)
    ]


def _with_clock(pixels: Pixels, hour: float) -> Pixels:
    """Draw a clock into the upper right corner, at four times the size and then scaled down."""
    scale, radius, margin = 4, pixels.shape[0] // 12, pixels.shape[0] // 30
    big = radius * 2 * scale
    face = Image.new("RGBA", (big, big))
    draw = ImageDraw.Draw(face)
    center = big / 2
    draw.ellipse(
        (0, 0, big - 1, big - 1), fill=(250, 248, 240, 225), outline=(24, 24, 40, 255), width=big // 26
    )

    def hand(turn: float, start: float, end: float, width: int) -> None:
        dx, dy = math.sin(turn * 2 * math.pi), -math.cos(turn * 2 * math.pi)
        ends = [center + d * center * r for r in (start, end) for d in (dx, dy)]
        draw.line(ends, fill=(24, 24, 40, 255), width=width)

    for mark in range(12):
        hand(mark / 12, 0.78, 0.88, big // (26 if mark % 3 == 0 else 50))
    hand(hour / 12, -0.08, 0.5, big // 18)
    hand(hour % 1, -0.1, 0.74, big // 28)
    small = face.resize((radius * 2, radius * 2), Image.Resampling.LANCZOS)
    image = Image.fromarray(pixels)
    left = image.width - margin - 2 * radius
    image.paste(small, (left, margin), small)
    font = ImageFont.load_default(radius * 0.62)
    text = f"{int(hour):02}:{int(hour % 1 * 60):02}"
    ImageDraw.Draw(image).text(
        (left + radius, margin + 2.2 * radius),
        text,
        "white",
        font,
        "ma",
        stroke_width=1,
        stroke_fill=(24, 24, 40),
    )
    return np.asarray(image)


def _voice() -> Floats:
    """Return vowels as harmonics of a voice's pitch, each as loud as the vowel's formants make it."""
    # The first three formants in Hz, and how long each vowel lasts; no formants: silence.
    vowels = (
        ((730, 1090, 2440), 0.34), ((530, 1840, 2480), 0.28), ((270, 2290, 3010), 0.36), ((), 0.14),
        ((570, 840, 2410), 0.34), ((300, 870, 2240), 0.30), ((), 0.12),
        ((660, 1720, 2410), 0.26), ((440, 1020, 2240), 0.28), ((730, 1090, 2440), 0.58),
    )  # fmt: skip
    times = np.arange(3 * SPEECH_RATE) / SPEECH_RATE
    pitch = 138 - 12 * times + 9 * np.sin(2 * np.pi * 0.8 * times) + 1.5 * np.sin(2 * np.pi * 5.5 * times)
    phase = 2 * np.pi * np.cumsum(pitch) / SPEECH_RATE
    sound = np.zeros_like(times)
    start = 0.0
    for formants, seconds in vowels:
        here = (times >= start) & (times < start + seconds)
        start += seconds
        if not formants:
            continue
        swell = np.sin(np.linspace(0, np.pi, int(here.sum()))) ** 0.6
        for harmonic in range(1, 40):
            frequency = pitch[here] * harmonic
            loudness = sum(
                (0.5**rank) / (1 + ((frequency - formant) / (60 + 30 * rank)) ** 2)
                for rank, formant in enumerate(formants)
            )
            sound[here] += swell * (loudness + 0.01) * np.sin(phase[here] * harmonic) / harmonic**0.4
    voice: Floats = (sound / abs(sound).max() * 0.8).astype(np.float32)
    return voice
