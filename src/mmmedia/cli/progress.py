"""Progress, for people who look on: on standard error, once something has taken a second."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mmmedia.cli.tables import console

PATIENCE_SECONDS = 1.0

Report = Callable[[int, int | None], None]


def _ignore(done: int, total: int | None) -> None:
    """Show nobody how far it is."""


@contextlib.contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Report]:
    """Show how far something is, while it goes on.

    Args:
        what: is done, in words.
        in_bytes: whether bytes are counted.

    Yields:
        What is told how much is done, and of how much if that is known; from any thread.
    """
    err = console(err=True)
    if not err.is_terminal:
        yield _ignore
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    counted: Any = DownloadColumn() if in_bytes else MofNCompleteColumn()
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        counted,
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )
    task = bar.add_task(what, total=None)
    patience = threading.Timer(PATIENCE_SECONDS, bar.start)
    patience.daemon = True
    patience.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        patience.cancel()
        patience.join()  # it may be starting just now
        bar.stop()
