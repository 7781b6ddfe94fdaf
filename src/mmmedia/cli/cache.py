"""`mmmedia cache`: look at the cache of downloads, and clean it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmmedia.cli.options import AsJSON, AsJSONLines
from mmmedia.cli.tables import print_json, print_json_lines, show
from mmmedia.cli.words import amount, span

if TYPE_CHECKING:
    from mmmedia.cache import MediaCache
    from mmmedia.cache.listing import Entry

cache = typer.Typer(name="cache", help="Look at the cache of downloads, and clean it.", no_args_is_help=True)

Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory", "-d", help="Of the cache; else that of MMMEDIA_MEDIA_CACHE.", show_default=False
    ),
]
URLs = Annotated[
    list[str] | None,
    typer.Argument(metavar="URL", help="Only the entries of these.", show_default=False),
]


def _opened(directory: Path | None) -> "MediaCache":
    """Return the cache in a directory, or the one that the settings name.

    Raises:
        InvalidArgumentError: (a `ValueError`) they name none.
        NotADirectoryError: there is no such directory.
    """
    from mmmedia import envs
    from mmmedia.cache import MediaCache
    from mmmedia.errors import InvalidArgumentError

    settings = envs.cache_settings()
    if not (directory or settings.directory):
        raise InvalidArgumentError("There is no cache: name one by MMMEDIA_MEDIA_CACHE, or by --directory.")
    made = MediaCache(
        directory or settings.directory, max_bytes=settings.max_bytes, ttl_secs=settings.ttl_seconds
    )
    if not made.directory.is_dir():
        raise NotADirectoryError(20, "There is no such directory", str(made.directory))
    return made


@cache.command("ls")
def ls(
    urls: URLs = None, directory: Directory = None, as_json: AsJSON = False, as_lines: AsJSONLines = False
) -> None:
    """List the entries, the last used first.

    Entries are named by the hash of their URL, which is kept nowhere; name a URL to find its entry.
    """
    from mmmedia.cache.listing import entries, names_of

    opened = _opened(directory)
    wanted = {name: url for url in urls or [] for name in names_of(opened, url)}
    found = [entry for entry in entries(opened) if not urls or entry.name in wanted]
    if as_json or as_lines:
        rows = [{**entry._asdict(), "path": str(opened.directory / entry.name)} for entry in found]
        print_json_lines(rows) if as_lines else print_json(rows)
    else:
        now = time.time()
        show(
            [
                (
                    entry.name,
                    amount(entry.size_bytes),
                    _ago(now - entry.downloaded),
                    _ago(now - entry.used),
                    _state(entry),
                )
                for entry in found
            ],
            ("entry", "size", "downloaded", "used", ""),
            right={1, 2, 3},
        )
    if {wanted[entry.name] for entry in found if urls} != set(urls or []):
        raise typer.Exit(1)


def _state(entry: "Entry") -> str:
    """Say whether an entry may be served: as it is, once its server confirms it, or no more."""
    state = "fresh" if entry.is_fresh else "stale" if entry.can_revalidate else "expired"
    return f"{state}, in part" if entry.is_partial else state


def _ago(seconds: float) -> str:
    return f"{span(max(0, round(seconds)))} ago"


@cache.command()
def stats(directory: Directory = None, as_json: AsJSON = False) -> None:
    """Say how much there is, and how much there may be."""
    from mmmedia.cache.listing import entries

    opened = _opened(directory)
    account, found = opened.stats, entries(opened)
    report = {
        "directory": str(opened.directory),
        "entries": account.entries,
        "expired": sum(not entry.is_fresh for entry in found),
        "bytes": account.bytes,
        "max_bytes": opened.max_bytes,
        "ttl_seconds": opened.ttl_secs,
    }
    if as_json:
        print_json(report)
        return
    part = f" of {amount(opened.max_bytes)}, {account.bytes / max(1, opened.max_bytes):.1%}"
    show(
        [
            ("directory", str(opened.directory)),
            ("entries", f"{report['entries']}, of which {report['expired']} expired"),
            ("size", amount(account.bytes) + part),
            ("time to live", span(opened.ttl_secs)),
        ],
        styles={0: "dim"},
    )


@cache.command()
def prune(directory: Directory = None) -> None:
    """Remove what has expired, what is beyond the budget, and what killed processes left."""
    opened = _opened(directory)
    _say_removed(opened, opened.evict)


@cache.command()
def clear(urls: URLs = None, directory: Directory = None) -> None:
    """Remove all entries, or those of some URLs; other files stay."""
    opened = _opened(directory)

    def discard() -> None:
        for url in urls or []:
            opened.discard(url)

    _say_removed(opened, discard if urls else opened.with_limits(0, opened.ttl_secs).evict)


def _say_removed(opened: "MediaCache", remove: Callable[[], object]) -> None:
    from mmmedia.cache.listing import entries

    before = entries(opened)
    remove()
    left = {entry.name for entry in entries(opened)}
    gone = [entry for entry in before if entry.name not in left]
    size = amount(sum(entry.size_bytes for entry in gone))
    typer.echo(f"{_entries(len(gone))} removed, {size}; {len(left)} left.")


def _entries(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"


@cache.command()
def check(directory: Directory = None) -> None:
    """Read every entry and compare it with its label, and their sum with the account.

    The exit status is 1 if anything is wrong; `mmmedia cache prune` puts right what can be.
    """
    opened = _opened(directory)
    problems = opened.check()
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{_entries(opened.stats.entries)}, all well.")
