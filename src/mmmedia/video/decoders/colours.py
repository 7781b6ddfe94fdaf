"""Colours that OpenCV's libswscale maps to those of a screen: wide gamuts, and brightness beyond it."""

# FFmpeg's numbers of primaries (film, BT.2020, XYZ, DCI-P3, Display P3, EBU 3213) and transfers (PQ, HLG).
_WIDE_PRIMARIES = frozenset([8, 9, 10, 11, 12, 22])
_BRIGHT_TRANSFERS = frozenset([16, 18])


def is_mapped(primaries: int, transfer: int) -> bool:
    """Return whether frames of such colours are mapped, by a table that takes seconds to make.

    >>> is_mapped(9, 16), is_mapped(1, 1)
    (True, False)
    """
    return primaries in _WIDE_PRIMARIES or transfer in _BRIGHT_TRANSFERS


# FFmpeg's numbers of what libswscale has formulas for: not YCgCo, matrices that hang on the primaries or on
# brightness, logarithmic transfers, and numbers that mean nothing.
_PRIMARIES = frozenset([1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22])
_TRANSFERS = frozenset([1, 2, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18])
_MATRICES = frozenset([0, 1, 2, 4, 5, 6, 7, 9])
# Between those of some, and looked up as if they were.
_NO_PRIMARIES = range(13, 22)
UNSPECIFIED = 2


def is_converted(primaries: int, transfer: int, matrix: int) -> bool:
    """Return whether libswscale converts pictures of such colours.

    Others it leaves unconverted; OpenCV does not say so, and hands out memory as it found it.

    >>> is_converted(1, 9, 1), is_converted(1, 1, 1)
    (False, True)
    """
    return primaries in _PRIMARIES and transfer in _TRANSFERS and matrix in _MATRICES


def ends_the_process(primaries: int) -> bool:
    """Return whether OpenCV's libswscale reads where there is nothing, asked for such primaries.

    >>> ends_the_process(13), ends_the_process(9)
    (True, False)
    """
    return primaries in _NO_PRIMARIES
