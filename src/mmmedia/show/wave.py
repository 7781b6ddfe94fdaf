"""Waveforms: how loud a sound is over its time."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mmmedia.show.drawing import BACKGROUND, COLORS, DIM, RAIL, clock, font

_MARGIN, _RULER = 12, 22
_SCALE = 2  # drawn larger, then scaled down, for soft edges


def waveform_picture(
    waveform: npt.NDArray[np.floating], sampling_rate: float, *, size: tuple[int, int] = (720, 120)
) -> Image.Image:
    """Draw a sound: from the lowest to the highest sample of each moment, and a ruler of seconds below.

    Args:
        waveform: ``(samples,)`` or ``(channels, samples)``, of which a lane each is drawn; full scale is 1.
        sampling_rate: samples a second.
        size: width and height of the picture in pixels.

    >>> waveform_picture(np.sin(np.arange(8000, dtype=np.float32) / 9), 8000).size
    (720, 120)
    """
    channels = np.atleast_2d(np.asarray(waveform, np.float32))
    width, height = size
    inner = max(1, width - 2 * _MARGIN)
    lane = max(2, (height - _RULER - _MARGIN) // len(channels))
    picture = Image.new("RGB", size, BACKGROUND)
    band = Image.new("RGB", (inner * _SCALE, lane * len(channels) * _SCALE), BACKGROUND)
    draw = ImageDraw.Draw(band)
    for number, channel in enumerate(channels):
        middle = (number + 0.5) * lane * _SCALE
        draw.line((0, middle, band.width, middle), RAIL, 1)
        low, high = _extremes(channel, band.width)
        reach = lane * _SCALE / 2 - 1
        color = COLORS[number % len(COLORS)]
        for x, (bottom, top) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            draw.line((x, middle - top * reach, x, middle - bottom * reach), color, 1)
    picture.paste(band.resize((inner, band.height // _SCALE), Image.Resampling.LANCZOS), (_MARGIN, _MARGIN))
    _draw_ruler(picture, channels.shape[1] / sampling_rate if sampling_rate > 0 else 0.0, inner)
    return picture


def _extremes(samples: npt.NDArray[np.float32], columns: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Return the lowest and the highest sample of each column, within full scale; silence for none."""
    if not len(samples):
        return np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(np.intp)
    kept = np.nan_to_num(samples, nan=0.0)
    low, high = np.minimum.reduceat(kept, edges), np.maximum.reduceat(kept, edges)
    return low.clip(-1, 1), high.clip(-1, 1)


def _draw_ruler(picture: Image.Image, seconds: float, inner: int) -> None:
    draw = ImageDraw.Draw(picture)
    y = picture.height - 6
    if not seconds > 0:
        draw.text((_MARGIN, y), "0 s", DIM, font(12), "ls")
        return
    step = _round_step(seconds / 6)
    for number in range(math.floor(seconds / step + 1e-9) + 1):
        x = _MARGIN + number * step / seconds * inner
        draw.line((x, y - 16, x, y - 12), DIM, 1)
        anchor = "ls" if number == 0 else "rs" if x > picture.width - 2 * _MARGIN else "ms"
        draw.text((x, y), clock(number * step), DIM, font(12), anchor)


def _round_step(seconds: float) -> float:
    """Return a round number of seconds, not below this.

    >>> _round_step(0.7), _round_step(3), _round_step(50)
    (1.0, 5.0, 60.0)
    """
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0):
        if step >= seconds:
            return step
    return math.ceil(seconds / 1800) * 1800.0
