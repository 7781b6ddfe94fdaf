"""Contact sheets: the frames of a clip in a grid, or what samplers picked from it, a row for each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from mmmedia.show.drawing import BACKGROUND, COLORS, DIM, INK, RAIL, clock, font

Frames = npt.NDArray[np.uint8]

_MARGIN, _GAP, _THUMBNAIL, _CAPTION = 36, 10, 200, 110
_MOST_THUMBNAILS = 12
# Of a grid: pixels to fill from left to right, above the first line, and between lines.
_PAGE, _HEADING, _LINE = 1260, 62, 34


@dataclass(frozen=True)
class Row:
    """What one sampler picked.

    Attributes:
        name: of the sampler.
        note: how it was called.
        frames: uint8 RGB (n, height, width, 3).
        indices: the source index of each frame.
        total: frames of the source.
        fps: frames a second of the source.
        times: when each frame is shown, in seconds; None: by its index and `fps`.
    """

    name: str
    note: str
    frames: Frames
    indices: Sequence[int]
    total: int
    fps: float
    times: Sequence[float] | None = None

    def time(self, number: int) -> float | None:
        """Return when one of the frames is shown, in seconds; None where nothing tells it."""
        if self.times is not None:
            return self.times[number]
        return self.indices[number] / self.fps if self.fps > 0 else None


def contact_sheet(title: str, subtitle: str, rows: Sequence[Row]) -> Image.Image:
    """Draw a row for each sampler: its frames, under each its index and time, and where they lie in the clip.

    More than twelve frames are drawn as a strip of slices, one from each frame, with the index and time of
    some.

    >>> row = Row("opencv", "num_frames=2", np.zeros((2, 90, 160, 3), np.uint8), [0, 9], total=10, fps=5.0)
    >>> contact_sheet("clip", "10 frames", [row]).mode
    'RGB'
    """
    columns = max((len(row.frames) for row in rows if len(row.frames) <= _MOST_THUMBNAILS), default=6)
    columns = max(columns, 6)
    height, width = rows[0].frames.shape[1:3]
    scale = _THUMBNAIL / max(height, width)
    thumbnail = max(1, round(width * scale)), max(1, round(height * scale))
    inner = columns * (max(thumbnail[0], _CAPTION) + _GAP) - _GAP
    row_height = 46 + thumbnail[1] + 58
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, 112 + row_height * len(rows)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 30), title, INK, font(34))
    draw.text((_MARGIN + inner, 62), subtitle, DIM, font(18), "rs")
    for number, row in enumerate(rows):
        color = COLORS[number % len(COLORS)]
        top = 104 + number * row_height
        draw.text((_MARGIN, top + 26), row.name, color, font(22), "ls")
        draw.text(
            (_MARGIN + draw.textlength(row.name, font(22)) + 14, top + 26), row.note, DIM, font(16), "ls"
        )
        draw.text(
            (_MARGIN + inner, top + 26), f"{len(row.frames)} of {row.total} frames", DIM, font(16), "rs"
        )
        if len(row.frames) <= _MOST_THUMBNAILS:
            _draw_thumbnails(sheet, row, top + 40, thumbnail)
        else:
            _draw_strip(sheet, row, top + 40, (inner, thumbnail[1]))
        _draw_timeline(sheet, row, top + 40 + thumbnail[1] + 40, inner, color)
    return sheet


def grid_sheet(
    row: Row, *, columns: int | None = None, most: int = 48, thumbnail: int = _THUMBNAIL
) -> Image.Image:
    """Draw the frames of one clip in a grid, under each its index and time; of many some, evenly spaced.

    Args:
        row: the frames; its name and note stand above them.
        columns: how many stand side by side; None: as many as fit a page, fewer of wide frames.
        most: no more frames are drawn.
        thumbnail: the longer side of a frame in pixels.

    >>> row = Row("clip", "5 frames", np.zeros((5, 90, 160, 3), np.uint8), range(5), total=5, fps=5.0)
    >>> grid_sheet(row, columns=3).size
    (732, 372)
    """
    shown = np.unique(np.linspace(0, len(row.frames) - 1, min(len(row.frames), max(1, most))).astype(int))
    height, width = row.frames.shape[1:3]
    scale = thumbnail / max(height, width, 1)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    cell = max(size[0], _CAPTION)
    columns = max(1, min(columns or max(1, _PAGE // (cell + _GAP)), max(1, len(shown))))
    lines = -(-len(shown) // columns)
    least = 2 * _MARGIN + 6 * _CAPTION  # for what stands above
    sheet = Image.new(
        "RGB",
        (
            max(columns * (cell + _GAP) - _GAP + 2 * _MARGIN, least),
            _HEADING + lines * (size[1] + _LINE) + _MARGIN // 2,
        ),
        BACKGROUND,
    )
    _draw_heading(sheet, row, len(shown))
    for place, number in enumerate(shown.tolist()):
        middle = _MARGIN + place % columns * (cell + _GAP) + cell // 2
        top = _HEADING + place // columns * (size[1] + _LINE)
        picture = Image.fromarray(row.frames[number]).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (middle - size[0] // 2, top))
        time = row.time(number)
        words = "" if time is None else f"  {clock(time)}"
        _draw_words(sheet, f"#{row.indices[number]}", words, (middle, top + size[1] + 20), "ms")
    return sheet


def _draw_heading(sheet: Image.Image, row: Row, shown: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 42), row.name, COLORS[0], font(22), "ls")
    note = row.note if shown == len(row.frames) else f"{row.note}; {shown} of them shown"
    left = _MARGIN + draw.textlength(row.name, font(22)) + 14
    draw.text((left, 42), note, DIM, font(16), "ls")


def _draw_thumbnails(sheet: Image.Image, row: Row, top: int, size: tuple[int, int]) -> None:
    for column, frame in enumerate(row.frames):
        cell = max(size[0], _CAPTION)
        middle = _MARGIN + column * (cell + _GAP) + cell // 2
        picture = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(picture, (middle - size[0] // 2, top))
        _draw_caption(sheet, row, column, (middle, top + size[1] + 20), "ms")


def _draw_strip(sheet: Image.Image, row: Row, top: int, size: tuple[int, int]) -> None:
    """Draw the slice of each frame that lies where the frame itself does in time."""
    width = row.frames.shape[2]
    edges = np.linspace(0, size[0], len(row.frames) + 1).round().astype(int)
    for number, frame in enumerate(row.frames):
        slice_width = int(edges[number + 1] - edges[number])
        if not slice_width:
            continue
        where = (number + 0.5) / len(row.frames) * width
        half = slice_width * frame.shape[0] / size[1] / 2
        first = min(max(0.0, where - half), width - 2 * half) if 2 * half < width else 0.0
        box = (first, 0, min(width, first + 2 * half), frame.shape[0])
        part = Image.fromarray(frame).resize((slice_width, size[1]), Image.Resampling.BICUBIC, box)
        sheet.paste(part, (_MARGIN + int(edges[number]), top))
    for step in range(5):
        number = round(step / 4 * (len(row.frames) - 1))
        x = _MARGIN + round(step / 4 * size[0])
        anchor = "ls" if step == 0 else "rs" if step == 4 else "ms"
        _draw_caption(sheet, row, number, (x, top + size[1] + 20), anchor)


def _draw_caption(sheet: Image.Image, row: Row, number: int, at: tuple[int, int], anchor: str) -> None:
    """Write index and time of a frame, the index brighter, as one text that is anchored as a whole."""
    time = row.time(number)
    _draw_words(sheet, f"#{row.indices[number]}", "" if time is None else f"  {time:.2f} s", at, anchor)


def _draw_words(sheet: Image.Image, bright: str, dim: str, at: tuple[int, int], anchor: str) -> None:
    draw = ImageDraw.Draw(sheet)
    widths = [draw.textlength(text, font(15)) for text in (bright, dim)]
    left = at[0] - sum(widths) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
    draw.text((left, at[1]), bright, INK, font(15), "ls")
    draw.text((left + widths[0], at[1]), dim, DIM, font(15), "ls")


def _draw_timeline(sheet: Image.Image, row: Row, y: int, width: int, color: tuple[int, int, int]) -> None:
    """Draw the clip as a line from first frame to last, with a mark for each frame that was picked."""
    scale, half = 4, 6  # drawn large, then scaled down, for soft edges
    band = Image.new("RGB", ((width + 2 * half) * scale, 2 * half * scale), BACKGROUND)
    draw = ImageDraw.Draw(band)
    middle = half * scale
    draw.line((middle, middle, (half + width) * scale, middle), RAIL, 2 * scale)
    few = len(row.indices) <= _MOST_THUMBNAILS
    for index in row.indices:
        x = (half + index / max(1, row.total - 1) * width) * scale
        reach_x, reach_y = (4.5 * scale, 4.5 * scale) if few else (0.7 * scale, 3.5 * scale)
        mark = (x - reach_x, middle - reach_y, x + reach_x, middle + reach_y)
        draw.ellipse(mark, color) if few else draw.rectangle(mark, color)
    sheet.paste(
        band.resize((width + 2 * half, 2 * half), Image.Resampling.LANCZOS), (_MARGIN - half, y - half)
    )
