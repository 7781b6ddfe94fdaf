"""Progress, for people who look on: on standard error, once something has taken a second."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mmmedia.cli.tables import console
from mmmedia.cli.words import amount

if TYPE_CHECKING:
    from rich.progress import Progress

PATIENCE_SECONDS = 1.0


class Report:
    """What is told how far something is, from any thread.

    Args:
        what: is done, in words.
        bar: shows it; None: nobody looks on.
    """

    def __init__(self, what: str, bar: "Progress | None" = None) -> None:
        self._what, self._bar = what, bar
        if bar is not None:
            self._task = bar.add_task(what, total=None, count="")

    def counted(self, done: int, total: int) -> None:
        """Say that so many of so many things are done."""
        self._show(self._what, done, total, f"{done} of {total}")

    def fetched(self, done: int, total: int | None) -> None:
        """Say that so many bytes have come, and how many there will be if that is known."""
        count = amount(done) + (f" of {amount(total)}" if total is not None else "")
        self._show("Fetching", done, total, count)

    def _show(self, what: str, done: int, total: int | None, count: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=what, completed=done, total=total, count=count)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Report]:
    """Show how far something is, while it goes on.

    Args:
        what: is done, in words.
    """
    err = console(err=True)
    if not err.is_terminal:
        yield Report(what)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    patience = threading.Timer(PATIENCE_SECONDS, bar.start)
    patience.daemon = True
    patience.start()
    try:
        yield Report(what, bar)
    finally:
        patience.cancel()
        patience.join()  # it may be starting just now
        bar.stop()
