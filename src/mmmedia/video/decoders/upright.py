"""How stored pictures are turned and mirrored so that they stand as a player shows them."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Upright:
    """What is done to a stored picture: mirrored left to right if need be, then turned.

    Attributes:
        quarters: by so many quarter turns clockwise.
        mirrored: before that, its left and right change places.
    """

    quarters: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width becomes height."""
        return self.quarters % 2 == 1

    def __call__(self, picture: Picture) -> Picture:
        """Return a view of a picture of shape (height, width, 3), upright."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, -self.quarters) if self.quarters else picture

    def fill(self, row: Picture, bgr: Picture) -> None:
        """Write a stored BGR picture into `row`, which has the size that it has upright, as RGB."""
        import cv2

        if self == Upright():
            cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=row)
            return
        # OpenCV turns several times as fast as NumPy copies a view.
        rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
        if self.mirrored:
            rgb = cv2.flip(rgb, 1, dst=None if self.quarters else row)
        if self.quarters:
            turns = (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE)
            cv2.rotate(rgb, turns[self.quarters - 1], dst=row)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what was stored with these, upright."""
        return (width, height) if self.swaps_sides else (height, width)


def upright(matrix: tuple[float, float, float, float] | None) -> Upright:
    """Return what a display matrix asks for, as far as these are quarter turns; OpenCV knows no others.

    Args:
        matrix: (a, b, c, d): a stored point (x, y) is shown at (ax + cy, bx + dy); None: as it is.

    >>> upright((0, 1, -1, 0)), upright((1, 0, 0, -1))
    (Upright(quarters=1, mirrored=False), Upright(quarters=2, mirrored=True))
    >>> upright((1, 1, -1, 1)) == Upright()
    True
    """
    if matrix is None:
        return Upright()
    a, b, c, d = matrix
    mirrored = a * d - b * c < 0
    if mirrored:  # first x becomes -x
        a, b = -a, -b
    across, down = math.hypot(a, c), math.hypot(b, d)
    if not across or not down:
        return Upright(0, mirrored)
    degrees = round(math.degrees(math.atan2(b / down, a / across)))  # as FFmpeg has it of what is sheared
    return Upright(0 if degrees % 90 else degrees // 90 % 4, mirrored)
