"""Facts in words: what the command line prints."""

from collections.abc import Sequence


def one_line(text: str) -> str:
    r"""Return text that may stand in a line of a terminal, whatever it holds.

    >>> one_line("two\nlines")
    'two lines'
    """
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    return "".join(character if character.isprintable() else "�" for character in text)


def shortened(numbers: Sequence[int], most: int = 9) -> str:
    """Return numbers as text, the middle of many left out.

    >>> shortened(range(192))
    '0 1 2 3 4 5 6 7 … 191'
    """
    shown = [str(number) for number in numbers]
    return " ".join(shown if len(shown) <= most else [*shown[: most - 1], "…", shown[-1]])


def joined(*facts: str | None) -> str:
    """Return facts side by side, those that are empty left out.

    >>> joined("h264", None, "", "yuv420p")
    'h264 · yuv420p'
    """
    return " · ".join(fact for fact in facts if fact)


def amount(size: int) -> str:
    """Return a number of bytes as people read it.

    >>> amount(82), amount(281_127), amount(3_500_000)
    ('82 bytes', '281.1 kB', '3.5 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
