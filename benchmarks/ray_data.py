"""Sixty clips through Ray Data: by this library, by OpenCV and by decord, on a cluster of two CPUs.

    python benchmarks/ray_data.py [--only TEXT ...]

The clips are of 5 to 20 s, 720p; three of sixty are broken. Of each 32 frames are taken, evenly spaced, and
made smaller, by two actors with one CPU each. Counted are the CPU seconds of the actors, all threads, from
the first clip to the last, and the most memory that one held. OpenCV grabs all frames and retrieves those
wanted; decord gets them as a batch. What memory six clips at full size take in one actor is told last: its
own, as Ray counts it (resident less shared pages), and with the pages of the object store that it wrote.

Needs `ray[data]` and decord beside this package. The clips are encoded on first use, which takes minutes.
"""

import argparse
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow
from _clips import CLIPS, clip
from _machine import describe

from mmmedia.integrations.ray import DecodeVideos

SECONDS = (5, 8, 11, 14, 17, 20)
FRAMES, SIZE = 32, (189, 336)
PAGE = os.sysconf("SC_PAGE_SIZE")
X264 = {"preset": "veryfast", "crf": "27", "bf": "3"}


def wanted(total):
    return np.linspace(0, total - 1, FRAMES).astype(int)


def facts():
    """What is told of an actor with every row."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"pid": np.array([os.getpid()]), "cpu": np.array([time.process_time()]), "peak": np.array([peak])}


class Counted(DecodeVideos):
    """This library; each row tells of its actor as well, without its frames: handing on needs no decoder."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        import av  # noqa: F401
        import cv2  # noqa: F401

        self.begin = facts()["cpu"]

    def __call__(self, batch):
        for row in super().__call__(batch):
            yield {"error": row["error"], "begin": self.begin, **facts()}
            del row


class Watched(DecodeVideos):
    """This library; each row tells how much memory its actor has had at most."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.own = 0
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
            self.own = max(self.own, (resident - shared) * PAGE >> 20)
            time.sleep(0.005)

    def __call__(self, batch):
        for row in super().__call__(batch):
            yield {"frames": row["frames"], "own": np.array([self.own]), "peak": facts()["peak"]}
            del row


class Plain:
    """What people write: a batch in, a batch out."""

    def __init__(self):
        import cv2

        self.resize, self.area = cv2.resize, cv2.INTER_AREA
        self.open()
        self.begin = facts()["cpu"]

    def open(self):
        pass

    def __call__(self, batch):
        made, errors = [], []
        for path in batch["path"]:
            error = None
            try:
                # As this library does it; the way that is quicker blurs less than it should.
                frames = [
                    self.resize(frame, SIZE[::-1], interpolation=self.area) for frame in self.read(path)
                ]
            except Exception as failure:  # noqa: BLE001
                frames, error = [], f"{type(failure).__name__}: {failure}"
            made.append(np.stack(frames) if frames else np.zeros((FRAMES, *SIZE, 3), np.uint8))
            errors.append(error)
        np.stack(made)  # which a batch is made of; handing it on needs no decoder
        return {
            "error": pyarrow.array(errors, pyarrow.string()),
            "begin": self.begin.repeat(len(errors)),
            **{name: value.repeat(len(errors)) for name, value in facts().items()},
        }


class ByOpenCV(Plain):
    def read(self, path):
        import cv2

        capture = cv2.VideoCapture(path)
        numbers = set(wanted(int(capture.get(cv2.CAP_PROP_FRAME_COUNT))).tolist())
        frames = []
        for number in range(max(numbers) + 1):
            if not capture.grab():
                break
            if number in numbers:
                frames.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        return frames


class ByDecord(Plain):
    def open(self):
        import decord

        self.reader = decord.VideoReader

    def read(self, path):
        video = self.reader(path)
        return video.get_batch(wanted(len(video))).asnumpy()


def clips(folder):
    for seconds in SECONDS:
        CLIPS[f"h264_720p_{seconds}s.mp4"] = ("libx264", 1280, 720, seconds, 30, 250, X264)
    paths = []
    for number in range(60):
        data = clip(f"h264_720p_{SECONDS[number % len(SECONDS)]}s.mp4")
        broken = {7: b"no clip", 23: data[:5000], 42: data[: len(data) // 2]}
        paths.append(folder / f"{number:02}.mp4")
        paths[-1].write_bytes(broken.get(number, data))
    return [str(path) for path in paths]


def rows_of(batch):
    """Rows of a batch, without their frames."""
    columns = {name: column for name, column in batch.items() if name != "frames"}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def rows_by(ray, paths, kind, actors, **options):
    rows = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
    pool = ray.data.ActorPoolStrategy(size=actors)
    made = rows.map_batches(kind, compute=pool, num_cpus=1, batch_size=8, **options)
    return [row for rows in made.iter_batches(batch_size=None) for row in rows_of(rows)]


def run(ray, paths, kind, **options):
    begin = time.perf_counter()
    found = rows_by(ray, paths, kind, 2, **options)
    wall = time.perf_counter() - begin
    spent = {row["pid"]: 0.0 for row in found}
    for row in found:
        spent[row["pid"]] = max(spent[row["pid"]], row["cpu"] - row["begin"])
    errors = sum(row["error"] is not None for row in found)
    return sum(spent.values()), wall, max(row["peak"] for row in found), errors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="rows whose names contain one of these")
    only = parser.parse_args().only
    import ray

    print(describe(), f"ray {ray.__version__}", sep="\n")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    options = {"fn_constructor_args": ("path",)}
    options["fn_constructor_kwargs"] = {"num_frames": FRAMES, "resize": SIZE}
    ways = {"mmmedia": (Counted, options), "OpenCV": (ByOpenCV, {}), "decord": (ByDecord, {})}
    with tempfile.TemporaryDirectory() as folder:
        paths = clips(Path(folder))
        print(f"\n{'60 clips, 2 actors':20} CPU s  wall s  peak MB  errors")
        for name, (kind, given) in ways.items():
            if not only or any(text in name for text in only):
                cpu, wall, peak, errors = run(ray, paths, kind, **given)
                print(f"{name:20} {cpu:5.1f}  {wall:6.1f}  {peak:7}  {errors:6}", flush=True)
        if not only or any(text in "memory" for text in only):
            options["fn_constructor_kwargs"] = {"num_frames": FRAMES}
            found = rows_by(ray, paths[:6], Watched, 1, **options)
            own, peak = (max(row[name] for row in found) for name in ("own", "peak"))
            print(f"\nsix clips of 720p x {FRAMES} at full size, one actor: {own} MB at most,", end=" ")
            print(f"{peak} MB with pages of the object store")
    ray.shutdown()


if __name__ == "__main__":
    sys.exit(main())
