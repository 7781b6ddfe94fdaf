"""Which size a picture is resized to: pure rules on heights and widths.

Rounding follows the Hugging Face image processors, of which each rule names the one it matches.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmmedia.errors import InvalidArgumentError

MAX_ASPECT_RATIO = 200  # beyond it PixelBudget refuses, as Qwen2-VL's processor does


def check_positive(**values: object) -> None:
    """Refuse what is not a positive integer, naming it."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidArgumentError(f"{name} must be a positive integer, not {value!r}.")


@dataclass(frozen=True)
class ExactSize:
    """One size for all, whatever the aspect ratio (SigLIP).

    >>> ExactSize(224, 160).target(3000, 4000)
    (224, 160)
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        check_positive(height=self.height, width=self.width)

    def target(self, height: int, width: int) -> tuple[int, int]:  # noqa: ARG002  the same for every picture
        """Return the new height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class ShortestEdge:
    """The shorter edge becomes `edge`, the longer one keeps the aspect ratio, rounded down (CLIP).

    Attributes:
        edge: pixels of the shorter edge.
        longest: if the longer edge would exceed this many pixels, both shrink until it does not.

    >>> ShortestEdge(224).target(3000, 4000)
    (224, 298)
    """

    edge: int
    longest: int | None = None

    def __post_init__(self) -> None:
        check_positive(edge=self.edge)
        if self.longest is not None:
            check_positive(longest=self.longest)

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the new height and width in pixels."""
        short, long = sorted((height, width))
        edge: float = self.edge
        if self.longest is not None and long / short * edge > self.longest:
            edge = self.longest * short / long
        new_short = self.edge if edge == self.edge else round(edge)
        if self.longest is not None and new_short == short:
            return height, width
        new_long = int(edge * long / short)
        return (new_long, new_short) if width <= height else (new_short, new_long)


@dataclass(frozen=True)
class PixelBudget:
    """Both edges become multiples of `multiple_of`, the area stays within bounds (Qwen2-VL).

    Attributes:
        min_pixels: the least area, in pixels.
        max_pixels: the greatest area, in pixels; a very flat picture may exceed it, as an edge has at least
            `multiple_of` pixels.
        multiple_of: what both edges are multiples of, in pixels.

    >>> PixelBudget(56 * 56, 1280 * 28 * 28, 28).target(3000, 4000)
    (840, 1148)
    """

    min_pixels: int
    max_pixels: int
    multiple_of: int = 1

    def __post_init__(self) -> None:
        check_positive(min_pixels=self.min_pixels, max_pixels=self.max_pixels, multiple_of=self.multiple_of)
        if self.max_pixels < self.min_pixels:
            raise InvalidArgumentError(
                f"max_pixels ({self.max_pixels}) must not be less than min_pixels ({self.min_pixels})."
            )

    def target(self, height: int, width: int) -> tuple[int, int]:
        """Return the new height and width in pixels.

        Raises:
            InvalidArgumentError: (a `ValueError`) the aspect ratio is beyond 200.
        """
        ratio = max(height, width) / min(height, width)
        if ratio > MAX_ASPECT_RATIO:
            raise InvalidArgumentError(
                f"The aspect ratio of a {width}x{height} picture is {ratio:.0f}; it must not exceed "
                f"{MAX_ASPECT_RATIO}."
            )
        unit = self.multiple_of
        new_height, new_width = round(height / unit) * unit, round(width / unit) * unit
        if new_height * new_width > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            new_height = max(unit, math.floor(height / shrink / unit) * unit)
            new_width = max(unit, math.floor(width / shrink / unit) * unit)
        elif new_height * new_width < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            new_height = math.ceil(height * grow / unit) * unit
            new_width = math.ceil(width * grow / unit) * unit
        return new_height, new_width


SizeRule = ExactSize | ShortestEdge | PixelBudget

_FORMS = (
    "a number of pixels for the shortest edge, (height, width), or a mapping with the keys height and width, "
    "shortest_edge (and longest_edge), or min_pixels and max_pixels (and multiple_of)"
)


def size_rule(size: object) -> SizeRule | None:
    """Return the rule that `size` stands for.

    Args:
        size: a rule; a number of pixels for the shortest edge; (height, width); a mapping with the keys
            height and width, shortest_edge (and longest_edge), or min_pixels and max_pixels (and
            multiple_of); `None` for no resizing.

    Raises:
        InvalidArgumentError: (a `ValueError`) it is none of these.

    >>> size_rule(224)
    ShortestEdge(edge=224, longest=None)
    >>> size_rule({"height": 224, "width": 160})
    ExactSize(height=224, width=160)
    """
    if size is None or isinstance(size, SizeRule):
        return size
    if isinstance(size, int):
        return ShortestEdge(size)
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return ExactSize(*size)
    if isinstance(size, Mapping):
        given: dict[str, Any] = {key: value for key, value in size.items() if value is not None}
        if given.keys() == {"height", "width"}:
            return ExactSize(given["height"], given["width"])
        if "shortest_edge" in given and given.keys() <= {"shortest_edge", "longest_edge"}:
            return ShortestEdge(given["shortest_edge"], given.get("longest_edge"))
        if {"min_pixels", "max_pixels"} <= given.keys() <= {"min_pixels", "max_pixels", "multiple_of"}:
            return PixelBudget(**given)
    raise InvalidArgumentError(f"A size must be {_FORMS}; not {size!r}.")
