"""All ways to turn and to mirror: the same bytes in every way of reading, as a player shows them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support import corpus
from support.captures import read_plainly
from support.clips import clip, read_number
from support.picking import Pick

WAYS: list[dict[str, Any]] = [
    {"decode": "sequential"},
    {"decode": "seek"},
    {"backend": "pyav", "decode": "sequential"},
    {"backend": "pyav", "decode": "seek"},
]
# The upper left of a display matrix, and what it does to a picture.
ORIENTATIONS: dict[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda f: f,
    (0, 1, -1, 0): lambda f: np.rot90(f, -1),
    (-1, 0, 0, -1): lambda f: np.rot90(f, 2),
    (0, -1, 1, 0): lambda f: np.rot90(f),
    (-1, 0, 0, 1): lambda f: f[:, ::-1],
    (1, 0, 0, -1): lambda f: f[::-1],
    (0, 1, 1, 0): lambda f: f.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda f: np.rot90(f, 2).transpose(1, 0, 2),
}
WANTED = [3, 17, 30, 39]


@pytest.mark.parametrize("matrix", ORIENTATIONS, ids=str)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"codec": "libx265", "pix_fmt": "yuv420p10le"},
        {"codec": "libvpx-vp9"},
        {"codec": "libsvtav1", "gop": 16},
        {"codec": "mpeg4", "container": "mov"},
    ],
    ids=str,
)
def test_every_orientation(fields: dict[str, Any], matrix: tuple[int, int, int, int]) -> None:
    """The picture of the clip that is not turned, turned."""
    plain = clip(frames=40, width=128, height=96, **fields)
    expected, _ = Pick.load_bytes(plain, indices=WANTED, decode="sequential")
    assert [read_number(frame) for frame in expected] == WANTED
    turned = np.stack([ORIENTATIONS[matrix](frame) for frame in expected])
    data = corpus.write_matrix(plain, *matrix)
    for way in WAYS:
        frames, metadata = Pick.load_bytes(data, indices=WANTED, **way)
        assert metadata["frames_indices"] == WANTED
        assert np.array_equal(frames, turned), way


def by(degrees: float) -> tuple[float, float, float, float]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return cosine, sine, -sine, cosine


# Sheared ones as a flipped bit makes them: of these FFmpeg takes the angle when each axis is as long as one.
ODD = [
    (1, 4096, 0, 1),
    (1, 0, 4096, 1),
    (1, 0.5, 0, 1),
    (0, 1, 0, 0),
    *map(by, (45, 80, 89.7, 90.3, 135, 269.8)),
]


@pytest.mark.parametrize("matrix", ODD, ids=str)
def test_odd_angles(matrix: tuple[float, float, float, float]) -> None:
    """OpenCV turns by quarters, where the angle in whole degrees is one, and by nothing else."""
    data = corpus.write_matrix(clip(frames=40, width=128, height=96), *matrix)
    expected, _ = read_plainly(data, WANTED)
    for way in WAYS:
        frames, _ = Pick.load_bytes(data, indices=WANTED, **way)
        assert np.array_equal(frames, expected), way
