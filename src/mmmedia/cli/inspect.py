"""`mmmedia inspect`: what a file or URL holds, and what each sampler would pick from it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mmmedia.cli.failures import complain, reason
from mmmedia.cli.options import AsJSON, AsJSONLines, Sources
from mmmedia.cli.progress import Report, progress
from mmmedia.cli.sources import STANDARD, connector_for, is_url, shown, standard_input
from mmmedia.cli.tables import print_json, print_json_lines, show
from mmmedia.cli.words import amount, joined, shortened

logger = logging.getLogger(__name__)

Found = dict[str, Any]


def inspect(
    sources: Sources,
    as_json: AsJSON = False,
    as_lines: AsJSONLines = False,
    num_frames: Annotated[int, typer.Option(help="For samplers that take a number of frames.", min=1)] = 32,
    fps: Annotated[float, typer.Option(help="For samplers that take frames a second.", min=0.001)] = 2.0,
) -> None:
    """Say what media are: kind, size, duration, rate, codec, and what each sampler would pick.

    The JSON of several sources is an array. The exit status is 1 if any of them can't be read.
    """
    reports = []
    with progress("Reading") as report:
        for number, source in enumerate(sources):
            reports.append(_inspect(source, num_frames, fps, report))
            report.counted(number + 1, len(sources))
    if as_lines:
        print_json_lines(reports)
    elif as_json:
        print_json(reports[0] if len(reports) == 1 else reports)
    for each in reports if not (as_json or as_lines) else ():
        _print(each)
    if any("error" in each for each in reports):
        raise typer.Exit(1)


def _inspect(source: str, num_frames: int, fps: float, report: Report) -> Found:
    """Return the report on a source, or why there is none."""
    from mmmedia import envs
    from mmmedia.cli.report import InspectIO

    media_io = InspectIO(num_frames, fps)
    try:
        if source == STANDARD:
            found = media_io.load_bytes(standard_input())
        else:
            url = source if is_url(source) else Path(source).absolute().as_uri()
            found = connector_for(url, report).load_from_url(
                url, media_io, fetch_timeout=envs.VLLM_VIDEO_FETCH_TIMEOUT
            )
    except Exception as error:  # whatever is wrong with one source, the others are looked at
        logger.debug("%s", shown(source), exc_info=True)
        return {"source": shown(source), "error": reason(error)}
    return {"source": shown(source), **found}


def _print(report: Found) -> None:
    if "error" in report:
        complain(report["error"], report["source"])
        return
    typer.secho(report["source"], bold=True)
    show([(f"  {name}", fact) for name, fact in _facts(report).items()], styles={0: "dim"})
    picks, failures = report.get("samplers", []), []
    rows = []
    for pick in picks:
        options = ", ".join(f"{name}={value!r}" for name, value in pick["options"].items())
        if "error" in pick:
            failures.append(f"  {pick['loader']} {options}: {pick['error']}")
        else:
            rows.append(
                (f"  {pick['loader']}", options, f"{pick['count']} frames", shortened(pick["indices"]))
            )
    show(rows, right={2}, styles={0: "cyan", 1: "dim", 2: "dim"})
    for failure in failures:
        typer.echo(failure)
    typer.echo()


def _facts(report: Found) -> dict[str, str]:
    """Return the lines of a report: a name and what there is to say."""
    size = f"{report['width']} x {report['height']} pixels" if "width" in report else ""
    facts = {report["kind"]: joined(amount(report["bytes"]), report.get("container"), report.get("format"))}
    if report["kind"] == "image":
        pages = f"{report['frames']} pictures" if report["frames"] > 1 else ""
        facts["picture"] = joined(size, f"mode {report['mode']}", pages)
    elif report["kind"] == "embedding":
        facts["tensor"] = joined(" x ".join(map(str, report["shape"])) or "scalar", report["dtype"])
    elif report["kind"] == "audio":
        facts["sound"] = _sound(report)
        facts["length"] = joined(f"{report['duration']:.2f} s", f"{report['samples']} samples")
    else:
        aspect = report.get("pixel_aspect", "1")
        shape = f"pixels {aspect}" if aspect != "1" else None
        facts["picture"] = joined(size, shape, report["codec"], report.get("pixel_format"))
        rate = [f"{report['fps']:.6g} a second", f"{report['duration']:.2f} s"] if "fps" in report else []
        facts["frames"] = joined(str(report["frames"]), *rate)
        if "key_frames" in report:
            facts["key frames"] = joined(str(len(report["key_frames"])), shortened(report["key_frames"]))
            facts["sound"] = _sound(report["audio"]) if report["audio"] else "none"
    return facts


def _sound(track: Mapping[str, Any]) -> str:
    channels = {1: "mono", 2: "stereo"}.get(track["channels"], f"{track['channels']} channels")
    return joined(track["codec"], f"{track['sampling_rate']} Hz", channels)
