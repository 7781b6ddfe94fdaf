"""What it costs to decode in processes apart from this one (MMMEDIA_DECODE_PROCESSES).

    python benchmarks/isolated.py [--rounds 15] [--processes 2]

Both ways run in turn within one process, in an order that alternates, and each pair is checked to return the
same. CPU time is that of all threads of this process and of its workers. Figures are medians over the pairs;
behind a ratio stands its bar.
"""

import argparse
import io
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from _clips import clip
from _machine import describe
from PIL import Image

from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.work import isolated

CONCURRENT = 8


def photo(width: int, height: int, quality: int) -> bytes:
    """A JPEG with the detail of a photo."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=quality
    )
    return file.getvalue()


def used() -> float:
    """CPU seconds of this process and of its workers so far."""
    pool = isolated.existing()
    # The clock of another process, by its number: see clock_getcpuclockid(3).
    return time.process_time() + sum(
        time.clock_gettime((~pid << 3) | 2) for pid in (pool.pids if pool else ())
    )


def measured(call: Callable[[], Any], processes: int) -> tuple[float, float, Any]:
    """CPU seconds, wall seconds and result of a call under so many processes."""
    os.environ["MMMEDIA_DECODE_PROCESSES"] = str(processes)
    cpu, wall = used(), time.perf_counter()
    result = call()
    wall = time.perf_counter() - wall
    cpu = used() - cpu
    return cpu, wall, result


def compare(call: Callable[[], Any], same: Callable[[Any, Any], bool], rounds: int, processes: int) -> Any:
    """Medians of CPU and wall seconds apart and here, and of the ratios of pairs."""
    pairs = []
    for turn in range(-2, rounds):
        apart = here = None
        for way in (0, 1) if turn % 2 else (1, 0):
            if way:
                apart = measured(call, processes)
            else:
                here = measured(call, 0)
        assert apart is not None
        assert here is not None
        assert same(apart[2], here[2])
        if turn >= 0:
            pairs.append((apart[:2], here[:2]))
        del apart, here

    def medians(at: int) -> tuple[float, float, float]:
        return (
            statistics.median(a[at] for a, _ in pairs),
            statistics.median(h[at] for _, h in pairs),
            statistics.median(a[at] / h[at] for a, h in pairs),
        )

    return {"cpu": medians(0), "wall": medians(1)}


def same_picture(a: Any, b: Any) -> bool:
    return a.media.mode == b.media.mode and a.media.tobytes() == b.media.tobytes()


def same_video(a: Any, b: Any) -> bool:
    return np.array_equal(a[0], b[0]) and a[1] == b[1]


def row(title: str, found: Any, bar: float) -> None:
    (a, h, cpu), (aw, hw, wall) = found["cpu"], found["wall"]
    print(
        f"{title:34} CPU {a * 1e3:8.1f} ms apart, {h * 1e3:8.1f} here: {cpu:5.3f} (at most {bar})   "
        f"wall {aw * 1e3:8.1f}, {hw * 1e3:8.1f}: {wall:5.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    print(describe())
    rounds, processes = options.rounds, options.processes
    started = time.perf_counter()
    measured(lambda: ImageMediaIO().load_bytes(photo(64, 64, 90)), processes)
    print(f"first decode, with the start of the processes: {time.perf_counter() - started:.1f} s")
    if "video" in options.only or not options.only:
        data = clip("h264_720p_60s.mp4")
        video_io = VideoMediaIO(ImageMediaIO(), num_frames=32)
        row(
            "32 frames of 60 s 720p",
            compare(lambda: video_io.load_bytes(data), same_video, rounds, processes),
            1.08,
        )
    if "image" in options.only or not options.only:
        large, small = photo(4000, 3000, 92), photo(640, 480, 50)
        picture_io = ImageMediaIO()
        title = f"a JPEG of 12 MP, {len(large) >> 10} KiB"
        row(title, compare(lambda: picture_io.load_bytes(large), same_picture, rounds, processes), 1.15)
        many = max(rounds * 10, 100)
        found = compare(lambda: picture_io.load_bytes(small), same_picture, many, processes)
        (a, h, _), (aw, hw, _) = found["cpu"], found["wall"]
        print(
            f"a JPEG of {len(small) >> 10} KiB, 640 x 480: {a * 1e6:.0f} us of CPU apart, {h * 1e6:.0f}, "
            f"{(a - h) * 1e6:+.0f} us; wall {aw * 1e6:.0f}, {hw * 1e6:.0f}: {(aw - hw) * 1e6:+.0f} us"
        )
    if "throughput" in options.only or not options.only:
        data = clip("h264_720p_60s.mp4")
        video_io = VideoMediaIO(ImageMediaIO(), num_frames=32)

        def eight() -> list[Any]:
            with ThreadPoolExecutor(CONCURRENT) as threads:
                return list(threads.map(lambda _: video_io.load_bytes(data)[0].shape, range(CONCURRENT)))

        found = compare(eight, lambda a, b: bool(a == b), max(rounds // 3, 3), processes)
        aw, hw, wall = found["wall"]
        cpu = found["cpu"][2]
        print(
            f"{CONCURRENT} videos at a time: {CONCURRENT / aw:.2f} a second apart, "
            f"{CONCURRENT / hw:.2f} here: "
            f"{1 / wall:.3f} (at least 0.95); CPU {cpu:.3f}"
        )
    isolated.shutdown()


if __name__ == "__main__":
    main()
