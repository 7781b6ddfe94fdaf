"""All ways to turn and to mirror: the same bytes in every way of reading, as a player shows them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from support import corpus
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
