"""`mmmedia fetch`: download into the cache, or into files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mmmedia.cli.failures import complain, status_of
from mmmedia.cli.options import AsJSON, AsJSONLines, Force
from mmmedia.cli.outputs import check_free, is_standard, write
from mmmedia.cli.progress import Report, progress
from mmmedia.cli.sources import connector_for, is_url, shown
from mmmedia.cli.tables import print_json, print_json_lines, show
from mmmedia.cli.words import amount, file_name
from mmmedia.errors import InvalidArgumentError, LimitExceededError


def fetch(
    urls: Annotated[list[str], typer.Argument(metavar="URL", help="http, s3, … URLs.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR|FILE",
            help="Where to write: a directory, or for one URL a file; - for standard output. "
            "Without it, into the cache.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
    as_json: AsJSON = False,
    as_lines: AsJSONLines = False,
) -> None:
    """Download what is behind URLs, into the cache or into files, under all limits of the settings.

    What the cache has is not downloaded again. The exit status is 1 if any can't be had.
    """
    import asyncio

    from mmmedia import envs

    for url in urls:
        if not is_url(url):
            raise InvalidArgumentError(f"{shown(url)}: no URL.")
    if output is None and not envs.VLLM_MEDIA_CACHE:
        raise InvalidArgumentError(
            "Name a file or a directory by --output, or a cache by MMMEDIA_MEDIA_CACHE."
        )
    targets = [None] * len(urls) if output is None else _targets(urls, output)
    check_free([target for target in targets if target is not None], force=force)
    for directory in {target.parent for target in targets if target is not None and not is_standard(target)}:
        directory.mkdir(parents=True, exist_ok=True)
    with progress("Fetching") as report:
        results = asyncio.run(_fetch_all(urls, targets, report))
    found = [result for result in results if isinstance(result, dict)]
    if as_json:
        print_json(found)
    elif as_lines:
        print_json_lines(found)
    elif output is None or not is_standard(output):
        show([(row["url"], amount(row["bytes"]), row["file"]) for row in found], right={1}, styles={1: "dim"})
    failures = [result for result in results if isinstance(result, Exception)]
    for url, result in zip(urls, results, strict=True):
        if isinstance(result, Exception):
            complain(result, shown(url))
    if failures:
        raise typer.Exit(max(map(status_of, failures)))


def _targets(urls: list[str], output: Path) -> list[Path]:
    """Return the file of each URL; of equal names the later ones get a number."""
    is_file = is_standard(output) or output.suffix != "" or (output.exists() and not output.is_dir())
    if len(urls) == 1 and is_file and not output.is_dir():
        return [output]
    taken: set[str] = set()
    targets = []
    for url in urls:
        name = Path(file_name(url))
        candidate, number = name, 1
        while candidate.name in taken:
            number += 1
            candidate = name.with_stem(f"{name.stem}-{number}")
        taken.add(candidate.name)
        targets.append(output / candidate)
    return targets


async def _fetch_all(
    urls: list[str], targets: Sequence[Path | None], report: Report
) -> list[dict[str, Any] | Exception]:
    """Fetch side by side; what fails is in the place of its result."""
    import asyncio

    from mmmedia import envs

    free, progresses = asyncio.Semaphore(envs.VLLM_MM_FETCH_CONCURRENCY), _Sum(report)

    async def one(url: str, target: Path | None) -> dict[str, Any] | Exception:
        async with free:
            try:
                return await _fetch(url, target, progresses.part())
            except Exception as error:  # noqa: BLE001  # whatever is wrong with one, the others are fetched
                return error

    return await asyncio.gather(*map(one, urls, targets))


class _Sum:
    """How far several downloads are together."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._parts: list[_Part] = []

    def part(self) -> "_Part":
        """Return what is told of one of them."""
        self._parts.append(part := _Part(self))
        return part

    def show(self) -> None:
        """Show the sum of those that have begun."""
        totals = [part.total for part in self._parts]
        known = [total for total in totals if total is not None]
        self._report.fetched(
            sum(part.done for part in self._parts), sum(known) if len(known) == len(totals) else None
        )


class _Part(Report):
    """How far one download is."""

    def __init__(self, whole: _Sum) -> None:
        super().__init__("")
        self._whole = whole
        self.done = 0
        self.total: int | None = 0

    def fetched(self, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        self._whole.show()


async def _fetch(url: str, target: Path | None, report: Report) -> dict[str, Any]:
    import asyncio

    from mmmedia import envs
    from mmmedia.cache import MediaCache
    from mmmedia.cli.raw import RawMediaIO

    connector = connector_for(url, report)
    data = await connector.load_from_url_async(url, RawMediaIO(), fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT)
    if target is not None:
        await asyncio.to_thread(write, target, data)
    else:
        directory, max_bytes, ttl_seconds, _ = envs.cache_settings()
        target = MediaCache(directory, max_bytes=max_bytes, ttl_secs=ttl_seconds).path(url)
        if not target.exists():
            raise LimitExceededError(
                f"The cache {directory} did not store its {len(data)} bytes; its size is {max_bytes} bytes "
                "(MMMEDIA_MEDIA_CACHE_MAX_SIZE_MB), and data and file URLs are not cached."
            )
    return {"url": shown(url), "bytes": len(data), "file": str(target)}
