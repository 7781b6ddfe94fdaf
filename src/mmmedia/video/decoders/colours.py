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


# FFmpeg's numbers of what libswscale has no formula for: YCgCo, matrices that hang on the primaries or
# on brightness, and logarithmic transfers.
_UNCONVERTED_MATRICES = frozenset([8, 10, 11, 12, 13, 14])
_UNCONVERTED_TRANSFERS = frozenset([9, 10])
UNSPECIFIED = 2


def is_converted(matrix: int, transfer: int) -> bool:
    """Return whether libswscale converts pictures of such colours.

    Others it leaves unconverted; OpenCV does not say so, and hands out memory as it found it.

    >>> is_converted(1, 9), is_converted(1, 1)
    (False, True)
    """
    return matrix not in _UNCONVERTED_MATRICES and transfer not in _UNCONVERTED_TRANSFERS
