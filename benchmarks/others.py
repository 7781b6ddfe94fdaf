"""32 frames of a ten-minute clip: `mmmedia.load_video` beside what else people load them with.

    python benchmarks/others.py [--rounds 3] [--frames 32] [--clip FILE]

Each loads the frames evenly spaced, each time in a process of its own, in turn: seconds of wall clock, CPU
seconds of all threads, and by how much the process has grown at its largest, after the imports. Medians.
What is not installed is left out; each is called as its documentation says. "frames" says how many of them
are those that one pass by OpenCV gives, byte for byte.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from _clips import FOLDER, clip
from _machine import describe

CLIP = "h264_720p_600s.mp4"
OPENCV = "vLLM's way, by OpenCV"


def with_mmmedia(path: str, indices: Sequence[int]) -> Any:
    import mmmedia

    return mmmedia.load_video(path, indices=indices).frames


def with_opencv(path: str, indices: Sequence[int]) -> Any:
    """Grab every frame, retrieve the wanted ones: what vLLM does."""
    import cv2

    capture, wanted, frames = cv2.VideoCapture(path), set(indices), []
    for number in range(indices[-1] + 1):
        capture.grab()
        if number in wanted:
            frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    return np.stack(frames)


def with_torchcodec(path: str, indices: Sequence[int]) -> Any:
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder(path, dimension_order="NHWC").get_frames_at(list(indices)).data.numpy()


def with_decord(path: str, indices: Sequence[int]) -> Any:
    from decord import VideoReader

    return VideoReader(path).get_batch(list(indices)).asnumpy()


def with_pyav(path: str, indices: Sequence[int]) -> Any:
    """Decode from the start, keep the wanted ones: PyAV's own example."""
    import av

    wanted, frames = set(indices), []
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if number == indices[-1]:
                break
    return np.stack(frames)


def with_transformers(path: str, indices: Sequence[int]) -> Any:
    """`load_video` with its default of those backends that work here."""
    from transformers.video_utils import load_video

    return np.asarray(
        load_video(path, backend="pyav", sample_indices_fn=lambda *_, **__: np.array(indices))[0]
    )


READERS: dict[str, tuple[str, Callable[[str, Sequence[int]], Any]]] = {
    "mmmedia": ("mmmedia", with_mmmedia),
    "torchcodec": ("torchcodec.decoders", with_torchcodec),
    "decord": ("decord", with_decord),
    "PyAV": ("av", with_pyav),
    "transformers": ("transformers.video_utils", with_transformers),
    OPENCV: ("cv2", with_opencv),
}


def named(name: str) -> str:
    """The reader with its version."""
    for package in {"decord": ("decord2", "decord"), "PyAV": ("av",)}.get(name, (name,)):
        try:
            return f"{package if name == 'decord' else name} {version(package)}"
        except PackageNotFoundError:
            continue
    return name


def one(name: str, path: str, count: int) -> None:
    """Load once, and print what it took; in a process of its own."""
    module, read = READERS[name]
    try:
        __import__(module)
        if name == "mmmedia":
            __import__("cv2")
            __import__("av")
    except (ImportError, RuntimeError, OSError) as error:
        print(json.dumps({"missing": str(error).partition("\n")[0]}))
        return
    total = int(json.loads(Path(f"{path}.json").read_text())["total"])
    indices = np.linspace(0, total - 1, count).astype(int).tolist()
    before, grown = cpu(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    frames = read(path, indices)
    wall, used = time.perf_counter() - started, cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digests = [hashlib.sha256(np.ascontiguousarray(frame)).hexdigest() for frame in frames]
    print(json.dumps({"wall": wall, "cpu": used, "megabytes": (peak - grown) / 1024, "digests": digests}))


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(*options.one, options.frames)
        return
    path = options.clip or FOLDER / CLIP
    if options.clip is None:
        clip(CLIP)  # makes it, the first time
    from mmmedia.video import read_frames

    _, _, source = read_frames(path, [0])
    Path(f"{path}.json").write_text(json.dumps({"total": source.total_frames_num}))
    print(describe())
    print(f"{options.frames} of {source.total_frames_num} frames of {path.name}")
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in READERS}
    for _ in range(options.rounds):
        for name in READERS:
            command = [
                sys.executable, __file__, "--one", name, str(path), "--frames", str(options.frames),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = done.stdout.splitlines()
            results[name].append(json.loads(lines[-1]) if lines else {"missing": done.stderr[-200:]})
    right = results[OPENCV][0].get("digests", [])
    print(f"{'':24} {'wall s':>8} {'CPU s':>8} {'grown MB':>9} {'frames':>9}")
    for name, found in results.items():
        if "missing" in found[0]:
            print(f"{named(name):24} not installed: {found[0]['missing'][:80]}")
            continue
        wall, used, size = (
            statistics.median(each[key] for each in found) for key in ("wall", "cpu", "megabytes")
        )
        same = sum(a == b for a, b in zip(found[0]["digests"], right, strict=False))
        print(f"{named(name):24} {wall:8.2f} {used:8.2f} {size:9.0f} {same:>4} of {len(right)}")


if __name__ == "__main__":
    main()
