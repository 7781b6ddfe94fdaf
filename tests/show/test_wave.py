"""Pictures of sounds."""

import numpy as np
import pytest

from mmmedia.show import waveform_picture
from mmmedia.show.drawing import COLORS


def loud_columns(waveform: np.ndarray, rate: float = 8000) -> np.ndarray:
    """How many pixels of each column are in the first channel's colour."""
    pixels = np.asarray(waveform_picture(waveform, rate), np.int16)
    return (np.abs(pixels - np.array(COLORS[0])).max(axis=2) < 40).sum(axis=0)


def test_what_is_loud_is_tall_and_stands_where_it_sounds() -> None:
    """A burst in the second half is drawn there, from edge to edge."""
    waveform = np.zeros(8000, np.float32)
    waveform[4000:] = np.where(np.arange(4000) % 2, 1, -1)
    columns = loud_columns(waveform)
    assert columns[20:350].max() < 10
    assert columns[380:700].min() > 60


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (2, 8000), (6, 100), (2, 0)])
def test_any_number_of_channels_and_samples_is_drawn(shape: tuple[int, ...]) -> None:
    """Also none, and samples beyond full scale or that are no numbers."""
    waveform = np.full(shape, 3.0, np.float32)
    if waveform.size:
        waveform.flat[0] = np.nan
    assert waveform_picture(waveform, 16_000, size=(300, 150)).size == (300, 150)


@pytest.mark.parametrize("seconds", [0.02, 0.4, 3, 59, 61, 3000, 40_000])
def test_the_ruler_fits_any_length(seconds: float) -> None:
    """Few marks, whatever the length; the second and later pictures of other lengths differ."""
    rate = 100 / seconds
    picture = waveform_picture(np.zeros(100, np.float32), rate)
    other = waveform_picture(np.zeros(100, np.float32), rate / 1.7)
    assert picture.tobytes() != other.tobytes()
