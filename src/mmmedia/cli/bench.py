"""`mmmedia bench`: how long frames of a video take here, by the fast path and by the reference."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mmmedia.cli.options import AsJSON, FramesPerSecond, NumFrames, Source
from mmmedia.cli.progress import Report, progress
from mmmedia.cli.sources import named, shown
from mmmedia.cli.tables import print_json, show
from mmmedia.cli.words import joined

if TYPE_CHECKING:
    from mmmedia.video import DecodeStats

_WAYS: tuple[Literal["auto", "sequential"], ...] = ("auto", "sequential")


def bench(
    source: Source,
    num_frames: NumFrames = None,
    fps: FramesPerSecond = None,
    repeats: Annotated[int, typer.Option(help="Measure so often, and keep the best.", min=1)] = 3,
    as_json: AsJSON = False,
) -> None:
    """Measure how long frames of a video take here: 32 of them, evenly spaced, unless told otherwise.

    The same frames are read as this library reads them, and as OpenCV does, one after the other. A URL is
    downloaded before. The exit status is 1 if any pixel differs.
    """
    from mmmedia.cli.raw import read
    from mmmedia.loading.choosing import choice_of

    choice = choice_of(num_frames=num_frames, fps=fps)
    with progress("Measuring") as report, named(source):
        data = read(source, report)
        result = _measured(data, choice, repeats, report)
    if as_json:
        print_json({"source": shown(source), **result})
    else:
        _show(shown(source), result)
    if not result["equal"]:
        raise typer.Exit(1)


def _measured(data: bytes, choice: Any, repeats: int, report: Report) -> dict[str, Any]:
    """Read the frames in both ways, in turn, and return what was seen.

    Raises:
        InvalidMediaError: (a `ValueError`) no video that can be decoded.
    """
    import numpy as np

    from mmmedia.video import decode_stats, read_frames
    from mmmedia.work.cores import usable_cores

    read_frames(data, [0])  # imports, and makes threads
    best: dict[str, tuple[float, float]] = {}
    frames: dict[str, Any] = {}
    ways: dict[str, str] = {}
    for round_ in range(repeats):
        for number, way in enumerate(_WAYS):
            before, wall, cpu = decode_stats(), time.perf_counter(), time.process_time()
            frames[way], indices, video = read_frames(data, choice, decode=way)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            best[way] = min(best.get(way, (wall, cpu)), (wall, cpu))
            ways[way] = _taken(before, decode_stats())
            report.counted(round_ * len(_WAYS) + number + 1, repeats * len(_WAYS))
    shape = frames["auto"].shape
    return {
        "frames": len(indices),
        "total": video.total_frames_num,
        "width": shape[2],
        "height": shape[1],
        "duration": video.duration,
        "cores": usable_cores(),
        "equal": bool(np.array_equal(frames["auto"], frames["sequential"])),
        "ways": [
            {"decode": way, "way": ways[way], "seconds": best[way][0], "cpu_seconds": best[way][1]}
            for way in _WAYS
        ],
    }


def _taken(before: "DecodeStats", after: "DecodeStats") -> str:
    """Return the way that a request took, and why, from the counters before and after it."""
    path = next((name for name, count in after.paths.items() if count > before.paths.get(name, 0)), "")
    why = next((name for name, count in after.reasons.items() if count > before.reasons.get(name, 0)), "")
    return f"{path}: {why}" if why else path


def _show(source: str, result: dict[str, Any]) -> None:
    size = f"{result['width']} x {result['height']} pixels"
    cores = f"{result['cores']} {'core' if result['cores'] == 1 else 'cores'}"
    typer.secho(source, bold=True)
    typer.echo(joined(f"{result['frames']} of {result['total']} frames", size, cores))
    reference = result["ways"][-1]
    show(
        [
            (
                way["decode"],
                f"{way['seconds'] * 1000:.1f} ms",
                f"{way['cpu_seconds'] * 1000:.1f} ms",
                f"{reference['seconds'] / way['seconds']:.1f} x",
                f"{reference['cpu_seconds'] / max(way['cpu_seconds'], 1e-9):.1f} x",
                way["way"],
            )
            for way in result["ways"]
        ],
        ("decode", "time", "CPU", "faster", "less CPU", "way"),
        right={1, 2, 3, 4},
    )
    typer.echo("The frames are equal." if result["equal"] else "THE FRAMES DIFFER: please report this file.")
