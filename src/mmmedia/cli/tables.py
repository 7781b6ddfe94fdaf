"""How results are printed: tables for people, JSON for programs."""

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ENDLESS = 1 << 20
_NAME = 24
"""Characters of a first column that a narrow terminal does not break."""


def console(*, err: bool = False) -> "Console":
    """Return where tables go: as wide as the terminal or `COLUMNS` says, into pipes without bounds."""
    import os

    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # rich would end the program with status 1
            raise BrokenPipeError

    made = Plain(highlight=False, stderr=err)
    if not made.is_terminal and not os.environ.get("COLUMNS"):
        made.width = _ENDLESS
    return made


def show(
    rows: Iterable[Sequence["str | Text"]],
    headings: Sequence[str] = (),
    *,
    right: Collection[int] = (),
    styles: Mapping[int, str] | None = None,
) -> None:
    """Print rows as a table; what is too long for its column goes on in the next line.

    Args:
        rows: of cells.
        headings: of the columns; none: no heading.
        right: the columns of numbers.
        styles: how columns look.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    if not cells and not headings:  # rich would print an empty line
        return
    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="dim"
    )
    for number in range(max(map(len, [headings, *cells]), default=0)):
        heading = headings[number] if number < len(headings) else ""
        longest = max(len(heading), *(row[number].cell_len for row in cells if number < len(row)), 0)
        table.add_column(
            Text(heading),
            justify="right" if number in right else "left",
            overflow="fold",
            min_width=min(longest, _NAME) if number == 0 or number in right else None,
            style=(styles or {}).get(number, ""),
        )
    for row in cells:
        table.add_row(*row)
    out = console()
    with out.capture() as captured:
        out.print(table, crop=False)  # what is wider than the terminal is broken there, not cut here
    for line in captured.get().splitlines():
        typer.echo(line.rstrip(), color=out.color_system is not None or None)


def print_json(value: Any) -> None:
    """Print one document, in which what is small stands on one line."""
    typer.echo("".join(_pieces(_finite(value), "")))


def print_json_lines(values: Iterable[Any]) -> None:
    """Print a document a line."""
    for value in values:
        typer.echo(_text(_finite(value)))


def _text(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    """Return what JSON can hold: null for numbers that are none."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pieces(value: Any, indent: str) -> Iterator[str]:
    """Yield the text of a value: lists of numbers or texts, and objects in lists, on one line."""
    if not isinstance(value, dict | list) or not value or _is_flat(value, top=not indent):
        yield _text(value)
        return
    inner = indent + "  "
    yield "{" if isinstance(value, dict) else "["
    for number, key in enumerate(value if isinstance(value, dict) else range(len(value))):
        yield ("," if number else "") + f"\n{inner}" + (f"{_text(key)}: " if isinstance(value, dict) else "")
        yield from _pieces(value[key], inner)
    yield f"\n{indent}" + ("}" if isinstance(value, dict) else "]")


def _is_flat(value: Any, *, top: bool) -> bool:
    members = value.values() if isinstance(value, dict) else value
    return not (top and isinstance(value, dict)) and not any(
        isinstance(each, dict | list) for each in members
    )
