"""Facts in words: what the command line prints and reads."""

import math
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


def amount(size: float) -> str:
    """Return a number of bytes as people read it.

    >>> amount(82), amount(281_127), amount(3_500_000)
    ('82 bytes', '281.1 kB', '3.5 MB')
    """
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} bytes"


def span(seconds: float) -> str:
    """Return a time that passes as people read it, in two units at most.

    >>> span(0.25), span(75), span(7260), span(180_000)
    ('0.25 s', '1 min 15 s', '2 h 1 min', '2 d 2 h')
    """
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, length, below, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= length:
            rest = whole % length // part
            return f"{whole // length} {unit}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(seconds)


def moment(text: str) -> float:
    """Return the seconds that a time as people type it stands for.

    Raises:
        ValueError: it is no such time.

    >>> moment("12.5"), moment("1:02"), moment("1:02:03.5")
    (12.5, 62.0, 3723.5)
    """
    parts = text.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts[:-1]):
        raise ValueError(text)
    seconds = float(parts[-1])
    if not math.isfinite(seconds) or seconds < 0 or (len(parts) > 1 and seconds >= 60):
        raise ValueError(text)
    for factor, part in zip((60, 3600), reversed(parts[:-1]), strict=False):
        seconds += factor * int(part)
    return seconds


def numbers(text: str) -> list[int]:
    """Return the numbers that a list stands for, `first-last` for a range.

    Raises:
        ValueError: it is no such list.

    >>> numbers("0,7, 10-13")
    [0, 7, 10, 11, 12, 13]
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ValueError(text)
        found += range(int(first), int(last or first) + 1)
    return found


def file_name(url: str) -> str:
    """Return what a file may be called that comes from a URL, of its path's last part; "download" for none.

    >>> file_name("https://example.org/a/caf%C3%A9%20clip.mp4?x=1"), file_name("https://example.org/")
    ('café clip.mp4', 'download')
    >>> file_name("https://example.org/..%2F.bashrc")
    'bashrc'
    """
    from urllib.parse import unquote

    path = url.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
    name = one_line(unquote(path.rpartition("/")[2])).replace("\\", "/").rpartition("/")[2].lstrip(". ")
    while len(name.encode()) > 200:  # file systems take 255
        name = name[1:]
    return name or "download"
