"""Frames in another size."""

import cv2
import numpy as np
import pytest

from mmmedia.video.decoders.fit import fit, store
from mmmedia.video.decoders.upright import Upright
from support.clips import picture

FRAME = picture(7, 240, 180)


def test_a_frame_of_that_size_is_itself():
    assert fit(FRAME, (180, 240)) is FRAME


@pytest.mark.parametrize("size", [(90, 120), (100, 130), (90, 240), (180, 100)], ids=str)
def test_smaller_frames_are_means_of_areas(size):
    assert np.array_equal(fit(FRAME, size), cv2.resize(FRAME, size[::-1], interpolation=cv2.INTER_AREA))


@pytest.mark.parametrize("size", [(360, 480), (180, 300), (100, 300)], ids=str)
def test_larger_ones_lie_between_their_neighbours(size):
    assert np.array_equal(fit(FRAME, size), cv2.resize(FRAME, size[::-1], interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("size", [(60, 80), (47, 61), (23, 31), (11, 80), (1, 1)], ids=str)
def test_much_smaller_ones_are_nearly_so(size):
    """As they are halved first."""
    exact = cv2.resize(FRAME, size[::-1], interpolation=cv2.INTER_AREA).astype(int)
    linear = cv2.resize(FRAME, size[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    difference = np.abs(fit(FRAME, size) - exact).mean()
    assert difference < 1.5
    assert difference <= np.abs(linear - exact).mean() / 3


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("scale", [1, 2])
def test_a_row_is_rgb_upright_and_of_its_size(quarters, mirrored, scale):
    turn = Upright(quarters, mirrored)
    upright = turn(FRAME)
    size = upright.shape[0] // scale, upright.shape[1] // scale
    row = np.empty((*size, 3), np.uint8)
    store(FRAME, row, turn)
    assert np.array_equal(row[..., ::-1], fit(upright, size))
