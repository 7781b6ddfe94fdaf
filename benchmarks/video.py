"""Frames of video: the fast path (`decode="auto"`) against one pass from the start (`decode="sequential"`).

    python benchmarks/video.py [--rounds 3] [--quick] [--only TEXT ...] [--plot [FILE]]

Both sides run in turn within one process, a new order each round, and every pair is checked to return the
same frames and metadata. Ratios are medians over the pairs, sequential over fast: of wall-clock time, and of
the CPU time of all threads. Behind a ratio stands the bar that it has to reach.

Clips are encoded on first use, which takes minutes, and kept in `benchmarks/.clips`. `--only` takes the rows
whose title contains one of the texts; `--quick` is a smoke test, on the first 75 s of the ten-minute clip.
"""

import argparse
import hashlib
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _clips import clip, prefix
from _machine import describe

from mmmedia.video import VIDEO_LOADER_REGISTRY, decode_stats, excerpt
from mmmedia.video.samplers import sample_uniform
from mmmedia.work.jobs import worker_count

PLOT = Path(__file__).parent.parent / "docs" / "_static" / "video-sparse.svg"
MODES = SEQUENTIAL, FAST = "sequential", "auto"

# A row of short passes is repeated for so many seconds, to be steady.
STEADY_S = 4.0
MAX_ROUNDS = 40

TEN_MINUTES, TWENTY_MINUTES = "h264_720p_600s.mp4", "h264_720p_1200s.mp4"
LENGTHS = (75, 150, 300, 600, 1200)
LONGEST_SEQUENTIAL = 600
CONCURRENT = (1, 4, 8, 16)
MEMORY_BAR_MB = 200  # above encoded bytes and frames
LENGTH_BAR = 1.3  # 1200 s over 600 s

Curves = dict[str, dict[int, float]]  # wall seconds by mode and length of the clip

# name: loader, keywords
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "8 frames": ("opencv", {"num_frames": 8}),
    "32 frames": ("opencv", {"num_frames": 32}),
    "128 frames": ("opencv", {"num_frames": 128}),
    "2 fps": ("opencv_dynamic", {"fps": 2, "max_duration": 3600}),
    "10 fps": ("opencv_dynamic", {"fps": 10, "max_duration": 3600}),
    "all frames": ("opencv", {}),
}


@dataclass(frozen=True)
class Row:
    """A clip and a request, and how many times faster than sequential it has to be."""

    clip: str
    request: str
    wall_bar: float | None = None
    cpu_bar: float | None = None

    @property
    def title(self) -> str:
        return f"{self.clip}, {self.request}"


ROWS = (
    Row(TEN_MINUTES, "8 frames", cpu_bar=30),
    Row(TEN_MINUTES, "32 frames", wall_bar=9, cpu_bar=8),
    Row(TEN_MINUTES, "128 frames", wall_bar=1, cpu_bar=3.3),
    Row(TEN_MINUTES, "2 fps", wall_bar=1, cpu_bar=1.5),
    Row("h264_1080p_60s.mp4", "8 frames", wall_bar=1),
    Row("h264_1080p_60s.mp4", "32 frames", wall_bar=1, cpu_bar=2.8),
    Row("turned_h264_1080p_60s.mp4", "32 frames", wall_bar=1, cpu_bar=2.8),
    Row("h264_1080p_60s.mp4", "2 fps", wall_bar=1),
    Row("h264_480p_30s.mp4", "8 frames", wall_bar=1),
    Row("h264_480p_30s.mp4", "32 frames", wall_bar=1),
    Row("h264_480p_30s.mp4", "2 fps", wall_bar=1),
    Row("h264_480p_30s.mp4", "10 fps", wall_bar=1),
    Row("h264_480p_30s.mp4", "all frames", wall_bar=1 / 1.05),
    Row("h264_480p_2s.mp4", "8 frames", wall_bar=1 / 1.05),
    Row("h264_480p_2s.mp4", "all frames", wall_bar=1 / 1.05),
    Row("hevc_720p_60s.mp4", "32 frames", wall_bar=1),
    Row("vp9_720p_60s.webm", "32 frames", wall_bar=1),
    Row("av1_720p_60s.mp4", "32 frames", wall_bar=1),
    Row("mpeg4_720p_60s.mp4", "32 frames", wall_bar=1),
    Row("h264_720p_75s.ts", "32 frames", cpu_bar=1.8),
    Row("mpeg4_720p_60s.avi", "32 frames", cpu_bar=1.8),
    Row("mjpeg_720p_60s.avi", "32 frames", cpu_bar=1.8),
    Row("vp8_720p_60s.webm", "32 frames", cpu_bar=1.8),
    Row("vp8_720p_60s_live.webm", "32 frames", cpu_bar=1.8),
    Row("prores_720p_60s.mov", "32 frames", cpu_bar=1.8),
)
MEMORY_ROWS = (("32 frames", SEQUENTIAL), ("8 frames", FAST), ("32 frames", FAST), ("128 frames", FAST))


@dataclass(frozen=True)
class Run:
    """What one request cost, and what it returned."""

    wall: float
    cpu: float
    wanted: int
    decoded: int
    path: str
    fingerprint: str


def long_clip(seconds: int) -> bytes:
    """The 720p clip of so many seconds: encoded at that length, or the head of the ten-minute one."""
    encoded = {600: TEN_MINUTES, 1200: TWENTY_MINUTES}.get(seconds)
    return clip(encoded) if encoded else prefix(TEN_MINUTES, seconds)


def load(data: bytes, request: str, mode: str) -> tuple[Any, dict[str, Any]]:
    loader, keywords = REQUESTS[request]
    return VIDEO_LOADER_REGISTRY.load(loader).load_bytes(data, decode=mode, **keywords)


def warm_up() -> None:
    """Let libraries load before anything is measured."""
    for mode in MODES:
        load(clip("h264_480p_30s.mp4"), "8 frames", mode)


def run(data: bytes, request: str, mode: str) -> Run:
    before = decode_stats()
    cpu, wall = time.process_time(), time.perf_counter()
    frames, metadata = load(data, request, mode)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = decode_stats()
    indices = metadata["frames_indices"]
    if after.paths.get("seek", 0) > before.paths.get("seek", 0):
        path, decoded = "seek", after.frames_decoded - before.frames_decoded
    else:
        reasons = [r for r, count in after.reasons.items() if count > before.reasons.get(r, 0)]
        path, decoded = f"sequential ({', '.join(reasons)})", indices[-1] + 1
    digest = hashlib.sha256(frames)
    digest.update(repr(sorted(metadata.items())).encode())
    return Run(wall, cpu, len(indices), decoded, path, digest.hexdigest())


def pairs(data: bytes, request: str, rounds: int) -> list[tuple[Run, Run]]:
    """Sequential and fast runs in turn, so that a slow spell of the machine meets both."""
    found: list[tuple[Run, Run]] = []
    while len(found) < rounds:
        modes = MODES if len(found) % 2 == 0 else MODES[::-1]
        runs = {mode: run(data, request, mode) for mode in modes}
        if runs[FAST].fingerprint != runs[SEQUENTIAL].fingerprint:
            raise SystemExit(f"{request}: frames or metadata differ!")
        found.append((runs[SEQUENTIAL], runs[FAST]))
        if len(found) == 1 and rounds > 1:
            rounds = max(rounds, min(MAX_ROUNDS, int(STEADY_S / (runs[SEQUENTIAL].wall + runs[FAST].wall))))
    return found


class Report:
    """Prints rows of figures and keeps what missed its bar."""

    def __init__(self, *, bars: bool) -> None:
        self._bars = bars
        self.missed: list[str] = []

    def bar(self, title: str, value: float, *, least: float | None = None, most: float | None = None) -> str:
        """The bar in words, behind a value that has been printed."""
        if not self._bars or (least is None and most is None):
            return ""
        met = (least is None or value >= least) and (most is None or value <= most)
        words = f"≥ {least:.3g}" if least is not None else f"≤ {most:.3g}"
        if not met:
            self.missed.append(f"{title}: {value:.3g}, not {words}")
        return f"({words}{'' if met else ' MISSED'})"


def requests(rows: list[Row], rounds: int, main_length: int, report: Report) -> None:
    columns = f"{'clip, request':<34}{'wall seconds':>17}{'':<21}{'CPU seconds':>17}{'':<21}"
    print(f"\n{columns}frames decoded / wanted")
    for row in rows:
        data = long_clip(main_length) if row.clip == TEN_MINUTES else clip(row.clip)
        found = pairs(data, row.request, rounds)
        cells = [f"{row.title:<34}"]
        for name, bar in (("wall", row.wall_bar), ("cpu", row.cpu_bar)):
            slow, fast = ([getattr(pair[side], name) for pair in found] for side in (0, 1))
            ratio = statistics.median(s / f for s, f in zip(slow, fast, strict=True))
            verdict = report.bar(f"{row.title}, {name}", ratio, least=bar)
            cells.append(f"{statistics.median(slow):7.3f} → {statistics.median(fast):6.3f}")
            cells.append(f"{ratio:6.2f}x {verdict:<13}")
        last = found[-1][1]
        cells.append(f"{last.decoded} / {last.wanted} = {last.decoded / last.wanted:.1f}, {last.path}")
        print(" ".join(cells), flush=True)


def excerpts(rows: list[Row]) -> None:
    """What one excerpt of the wanted frames holds, of each clip that is asked for 32 frames."""
    print("\nexcerpts of 32 frames: frames in it, bytes, and CPU seconds to cut it")
    for row in rows:
        data = clip(row.clip)
        cpu = time.process_time()
        made = excerpt(data, lambda source: sample_uniform(source.total_frames_num, source.duration, 32))
        cpu = time.process_time() - cpu
        size = f"{len(made.data) / 1e6:6.2f} of {len(data) / 1e6:6.2f} MB"
        frames = f"{made.frames} ({made.stand_ins} stand-ins) of {made.source.total_frames_num}"
        print(f"{row.clip:<28} {frames:<36} {size}, {cpu:.3f} s {made.reason or ''}", flush=True)


def concurrent(counts: list[int], rounds: int, data: bytes, report: Report) -> None:
    print("\nten minutes, 32 frames, requests side by side: seconds for all of them")
    for count in counts:
        times = [
            {mode: together(data, mode, count) for mode in (MODES if turn % 2 == 0 else MODES[::-1])}
            for turn in range(max(1, rounds // 3))
        ]
        slow, fast = (statistics.median(pair[mode] for pair in times) for mode in MODES)
        ratio = statistics.median(pair[SEQUENTIAL] / pair[FAST] for pair in times)
        verdict = report.bar(f"{count} requests side by side", ratio, least=7 if count == 8 else None)
        print(f"{count:>4}: {slow:8.2f} → {fast:6.2f}, throughput {ratio:.2f}x {verdict}", flush=True)


def together(data: bytes, mode: str, count: int) -> float:
    """Wall seconds for `count` requests on as many threads; frames are dropped with each request."""
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        list(pool.map(lambda _: len(load(data, "32 frames", mode)), range(count)))
        return time.perf_counter() - start


def memory(rows: list[tuple[str, str]], main_length: int, report: Report) -> None:
    print("\nten minutes, peak memory of the process above encoded bytes and frames array")
    for request, mode in rows:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as child:
            found = child.submit(peak_memory, main_length, request, mode).result()
        if found is None:
            print("not known on this system")
            return
        above, growth = found
        verdict = report.bar(f"memory, {request}", above, most=MEMORY_BAR_MB if mode == FAST else None)
        print(
            f"{request:<11} {mode:<11} {above:5.0f} MB {verdict:<9} "
            f"{above - growth:.0f} MB of it are Python and the libraries",
            flush=True,
        )


def peak_memory(length: int, request: str, mode: str) -> tuple[float, float] | None:
    """Peak memory of this fresh process in MB, less encoded bytes and frames; and what the request added.

    None where the system does not tell.
    """
    warm_up()
    data = long_clip(length)
    before = _status("VmRSS")
    frames, _ = load(data, request, mode)
    peak = _status("VmHWM")
    if before is None or peak is None:
        return None
    return (peak - len(data) - frames.nbytes) / 1e6, (peak - before - frames.nbytes) / 1e6


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def lengths(seconds: list[int], rounds: int, report: Report) -> Curves:
    """Wall seconds of 32 frames over the clip's length in seconds, for either mode."""
    print("\n32 frames over the length of a 720p clip: wall seconds")
    walls: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for length in seconds:
            data = long_clip(length)
            for mode in MODES if length <= LONGEST_SEQUENTIAL else (FAST,):
                walls.setdefault((mode, length), []).append(run(data, "32 frames", mode).wall)
    curves: Curves = {mode: {} for mode in MODES}
    for (mode, length), values in walls.items():
        curves[mode][length] = statistics.median(values)
    for length in seconds:
        slow = f"{curves[SEQUENTIAL][length]:6.2f}" if length in curves[SEQUENTIAL] else f"{'':6}"
        print(f"{length:>5} s {slow} → {curves[FAST][length]:6.2f}")
    if {600, 1200} <= set(seconds):
        ratio = statistics.median(
            twenty / ten for twenty, ten in zip(walls[FAST, 1200], walls[FAST, 600], strict=True)
        )
        print(f"1200 s cost {ratio:.2f} times what 600 s cost {report.bar('1200 s', ratio, most=LENGTH_BAR)}")
    return curves


def plot(curves: Curves, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    # Text as paths, no date, no random names: the same picture from the same figures.
    mpl.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "mmmedia", "font.size": 11})
    figure, axes = plt.subplots(figsize=(7.2, 4.0), layout="constrained")
    for mode, name, color in ((SEQUENTIAL, "sequential", "#b5483a"), (FAST, "fast path", "#1f6fb4")):
        minutes, walls = [length / 60 for length in curves[mode]], list(curves[mode].values())
        axes.plot(minutes, walls, "o-", color=color, linewidth=2, markersize=6, clip_on=False)
        label = f"{name}: {walls[-1]:.1f} s"
        spot = {"xytext": (-10, 2), "textcoords": "offset points", "ha": "right", "va": "bottom"}
        if mode == FAST:
            spot |= {"xytext": (0, 10)}
        axes.annotate(label, (minutes[-1], walls[-1]), color=color, weight="bold", **spot)
    axes.set(
        xlabel="length of the clip in minutes",
        ylabel="seconds",
        title=f"32 frames of a 720p H.264 clip, {worker_count()} cores",
        xticks=range(0, 21, 5),
        xlim=(0, None),
        ylim=(0, 1.1 * max(max(walls.values()) for walls in curves.values())),
    )
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
    print(f"Plotted to {path}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of each row; short rows take more")
    parser.add_argument("--quick", action="store_true", help="a smoke test, without bars")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="rows whose title has a text")
    parser.add_argument("--plot", nargs="?", type=Path, const=PLOT, help=f"default: {PLOT.name} in docs")
    options = parser.parse_args()
    rounds, main_length = (1, LENGTHS[0]) if options.quick else (max(1, options.rounds), 600)
    report = Report(bars=not options.quick)

    def chosen(title: str) -> bool:
        return any(text in title for text in options.only)

    print(describe())
    print(f"{worker_count()} decode workers")
    warm_up()
    if rows := [row for row in ROWS if chosen(row.title)]:
        requests(rows, rounds, main_length, report)
    if chosen("excerpt"):
        excerpts([row for row in ROWS if row.request == "32 frames" and row.clip != TEN_MINUTES])
    most = 4 if options.quick else max(CONCURRENT)
    if counts := [
        count for count in CONCURRENT if count <= most and chosen(f"{count} requests side by side")
    ]:
        concurrent(counts, rounds, long_clip(main_length), report)
    if asked := [pair for pair in MEMORY_ROWS if chosen(f"memory, {pair[0]} {pair[1]}")]:
        memory(asked, main_length, report)
    if options.plot or chosen("length"):
        curves = lengths(list(LENGTHS[:2] if options.quick else LENGTHS), rounds, report)
        if options.plot:
            plot(curves, options.plot)
    if report.missed:
        print("\nBars missed:", *report.missed, sep="\n  ")


if __name__ == "__main__":
    main()
