"""Short clips: what it costs to find out how many frames they really have, beside decoding them.

    python benchmarks/short_video.py [--rounds 45]

"before" is the way of the first release, `MMMEDIA_COMPAT=0.20`: what the header claims counts, one pass by
OpenCV. "as it is" is the default. "without a look" is the same with the quick look switched off by which a
plain file spares FFmpeg's own. All three in turn within one process; ratios are medians over the rounds.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from _clips import clip
from _machine import describe

from mmmedia.video import VIDEO_LOADER_REGISTRY
from mmmedia.video.decoders import read

BAR = 1.05
KINDS = ("h264.mp4", "h264.mkv", "hevc.mp4", "vp8.webm", "vp9.webm", "av1.mp4", "mpeg4.avi")
WAYS = BEFORE, NOW, WITHOUT = "before", "as it is", "without a look"


@contextmanager
def way(name: str) -> Iterator[None]:
    usual = read.plain_video
    os.environ["MMMEDIA_COMPAT"] = "0.20" if name == BEFORE else "0.33"
    if name == WITHOUT:
        read.plain_video = lambda _: None
    try:
        yield
    finally:
        read.plain_video = usual
        del os.environ["MMMEDIA_COMPAT"]


def row(name: str, frames: int, rounds: int) -> str:
    data, loader = clip(name), VIDEO_LOADER_REGISTRY.load("opencv")
    seconds: dict[str, list[float]] = {each: [] for each in WAYS}
    for turn in range(rounds + 1):
        for each in WAYS[turn % 3 :] + WAYS[: turn % 3]:
            with way(each):
                start = time.perf_counter()
                loader.load_bytes(data, num_frames=frames)
                seconds[each].append(time.perf_counter() - start)
    warm = {each: values[1:] for each, values in seconds.items()}
    times = [statistics.median(warm[each]) * 1e3 for each in WAYS]
    ratios = [
        statistics.median(a / b for a, b in zip(warm[each], warm[BEFORE], strict=True))
        for each in (NOW, WITHOUT)
    ]
    return f"{name:22s} {frames:6d}" + "".join(f"{each:15.2f}" for each in [*times, *ratios])


def main() -> None:
    plainly = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plainly)
    parser.add_argument("--rounds", type=int, default=45)
    options = parser.parse_args()
    print(describe())
    print(f"\nms of a whole load_bytes, and two ratios to {BEFORE!r} (bar of the first: {BAR})\n")
    print(f"{'clip':22s} frames" + "".join(f"{each:>15s}" for each in (*WAYS, *WAYS[1:])))
    for height in (240, 480):
        for kind in KINDS:
            codec, suffix = kind.split(".")
            for frames in (8, 32):
                print(row(f"{codec}_{height}p_2s.{suffix}", frames, options.rounds), flush=True)


if __name__ == "__main__":
    main()
