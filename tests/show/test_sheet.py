"""Contact sheets, of any number and shape of frames."""

import numpy as np
import pytest
from PIL import Image, ImageChops

from mmmedia.show import Row, contact_sheet, grid_sheet


def row(count: int, size: tuple[int, int] = (90, 160)) -> Row:
    frames = np.zeros((count, *size, 3), np.uint8)
    frames[:] = np.linspace(60, 250, count, dtype=np.uint8)[:, None, None, None]
    return Row("opencv", f"num_frames={count}", frames, list(range(count)), total=count, fps=0.0)


@pytest.mark.parametrize("count", [1, 12, 13, 4000])
@pytest.mark.parametrize("size", [(9, 16), (16, 9), (2, 300), (300, 2)])
def test_sheets_hold_any_number_and_shape_of_frames(count: int, size: tuple[int, int]) -> None:
    """Few frames are pictures in a row, many a strip of slices; the last frame's colour is at the right."""
    sheet = contact_sheet("title", "subtitle", [row(count, size)])
    assert sheet.width <= 2600
    pixels = np.asarray(sheet)
    brightest = pixels.min(axis=2).max()
    assert brightest >= 245 if count > 1 else (pixels == 60).all(axis=2).any()


def test_sheets_have_a_row_for_each_sampler() -> None:
    """Every row makes the sheet taller by the same."""
    heights = [contact_sheet("", "", [row(3)] * rows).height for rows in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 100


def test_a_caption_shows_the_time_it_is_given() -> None:
    """True times of a variable rate are drawn, not those of a constant one."""
    plain = row(3)
    late = Row(plain.name, plain.note, plain.frames, plain.indices, total=3, fps=2.0, times=[0.0, 7.0, 7.5])
    even = Row(plain.name, plain.note, plain.frames, plain.indices, total=3, fps=2.0)
    for draw in (lambda each: contact_sheet("", "", [each]), grid_sheet):
        assert ImageChops.difference(draw(late), draw(even)).getbbox() is not None
    assert [late.time(1), even.time(1), plain.time(1)] == [7.0, 0.5, None]


@pytest.mark.parametrize("count", [1, 5, 48, 500])
@pytest.mark.parametrize("size", [(9, 16), (16, 9), (2, 300), (300, 2)])
def test_a_grid_holds_any_number_and_shape_of_frames(count: int, size: tuple[int, int]) -> None:
    """The last frame is always there, and the picture stays one that a page can hold."""
    sheet = grid_sheet(row(count, size))
    assert sheet.width <= 1400
    assert sheet.height <= 48 * 250
    pixels = np.asarray(sheet)
    assert (pixels >= 245).all(axis=2).any() if count > 1 else (pixels == 60).all(axis=2).any()


def test_a_grid_has_as_many_lines_as_its_columns_leave() -> None:
    """Six frames in three columns are two lines, in two columns three."""
    heights = [grid_sheet(row(6), columns=columns).height for columns in (6, 3, 2)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 100


def test_of_many_frames_a_grid_shows_some_and_says_so() -> None:
    """No more than asked for; the words above tell how many there are."""
    few = grid_sheet(row(100), most=4)
    assert few.height < grid_sheet(row(100)).height
    heading = (0, 0, few.width, 60)
    all_of_four = grid_sheet(Row("opencv", "num_frames=100", row(4).frames, range(4), 4, 0.0))
    assert ImageChops.difference(few.crop(heading), all_of_four.crop(heading)).getbbox() is not None


def test_no_frames_are_an_empty_sheet() -> None:
    """What failed can be shown as well."""
    nothing = Row("clip", "no frames", np.zeros((0, 0, 0, 3), np.uint8), [], total=0, fps=0.0)
    assert isinstance(grid_sheet(nothing), Image.Image)
