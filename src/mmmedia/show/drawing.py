"""Colours, letters and words that all drawings share."""

from functools import cache

from PIL import ImageFont

BACKGROUND, INK, DIM, RAIL = (17, 19, 27), (236, 238, 244), (141, 148, 166), (52, 57, 74)
COLORS = ((255, 179, 92), (110, 196, 255), (150, 226, 150), (236, 150, 220))


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own letters, so many pixels high."""
    return ImageFont.load_default(size)


def clock(seconds: float) -> str:
    """Return a time as people read it: below a minute in seconds, else on a clock.

    >>> clock(4.25), clock(5), clock(75.5), clock(3725)
    ('4.25 s', '5 s', '1:15.5', '1:02:05')
    """
    if seconds < 60:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    hundredths = round(seconds * 100)
    minutes, rest = divmod(hundredths, 6000)
    tail = f"{rest // 100:02}" + (f".{rest % 100:02}".rstrip("0") if rest % 100 else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{tail}" if hours else f"{minutes}:{tail}"
