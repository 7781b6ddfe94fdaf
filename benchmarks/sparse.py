"""What is fetched of a long video for some of its frames, over a connection of 50 ms and 100 Mbit/s.

    python benchmarks/sparse.py [--only TEXT ...] [--quick]

A server on loopback gives files in pieces, and waits as such a connection would: each answer comes 50 ms
after its request, and all bodies together at 100 Mbit/s. For each layout and number of frames it prints the
bytes that were fetched over those of the file, with the bar that they must not pass, how many requests were
made, the seconds until the frames are there, and those that the whole download alone takes at least. "needed"
is what is in the clip that `mmmedia.video.excerpt` cuts for them, without pictures that nothing refers to.
Frames are checked to be those of the whole file where that is small enough to be fetched.

Files are made on first use, which takes minutes and some gigabytes, and kept in `benchmarks/.clips`; those of
two hours are removed again. `--only` takes the rows whose title contains one of the texts; `--quick` leaves
the files of two hours out.
"""

import argparse
import functools
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
from _clips import FOLDER, clip
from _machine import describe

from mmmedia.connections import HTTPConnection
from mmmedia.media import MediaConnector
from mmmedia.video import excerpt
from mmmedia.video.samplers import sample_uniform

LATENCY_S, BYTES_PER_S = 0.05, 100e6 / 8
CHUNK = 1 << 16

# name: container, options of the muxer, file of which copies are joined, how many
LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "moov in front": ("mp4", {"movflags": "faststart"}),
    "moov at the end": ("mp4", {}),
    "fragmented": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "WebM with Cues": ("webm", {}),
    "MKV": ("matroska", {}),
}
VP9 = "vp9_720p_60s.webm", 10
# title: clips of H.264 and, for WebM, of VP9, with how many copies are joined; bars by number of frames
LENGTHS: dict[str, tuple[tuple[str, int], tuple[str, int] | None, dict[int, float]]] = {
    "600 s 720p film": (("h264_720p_60s_film.mp4", 10), VP9, {32: 0.22, 8: 1.0}),
    # In which x264 sees one cut in five. Key frames are 250 frames apart, 8.3 s, wanted ones 18.75 s: of 44 %
    # of all groups on average a half is needed. That is 22.2 %, and the key frames' part of the rest.
    "600 s 720p shots": (("h264_720p_600s.mp4", 1), None, {32: 0.22, 8: 1.0}),
    "two hours": (("h264_720p_60s_rich.mp4", 131), ("vp9_720p_60s.webm", 120), {32: 0.05, 8: 0.015}),
}
LARGE = 100_000_000


class Line:
    """A connection of so many bytes a second, that all bodies share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free = 0.0
        self.requests = self.sent = 0

    def begin(self) -> None:
        with self._lock:
            self.requests += 1

    def send(self, count: int) -> None:
        with self._lock:
            self.sent += count
            self._free = max(self._free, time.monotonic()) + count / BYTES_PER_S
            free = self._free
        time.sleep(max(0.0, free - time.monotonic()))


@contextmanager
def served(path: Path) -> Iterator[tuple[str, Line]]:
    line = Line()
    size = path.stat().st_size

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            line.begin()
            time.sleep(LATENCY_S)
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
            stop = min(int(asked[2]) + 1, size) if asked and asked[2] else size
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("ETag", '"one"')
            self.end_headers()
            with path.open("rb") as file:
                file.seek(start)
                while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
                    line.send(len(chunk))
                    self.wfile.write(chunk)
                    start += len(chunk)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/film", line
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def joined(name: str, copies: int, container: str, options: dict[str, str]) -> Path:
    """Return a file of so many copies of a clip, one behind the other, not encoded anew."""
    kind = "_".join([*options.values()]) or "plain"
    path = FOLDER / f"{Path(name).stem}_x{copies}_{kind}.{container}"
    if path.exists():
        return path
    clip(name)
    part = path.with_suffix(".part")
    with av.open(str(FOLDER / name)) as whole:
        source = whole.streams.video[0]
        packets = [packet for packet in whole.demux(source) if packet.size]
        rate, base = source.average_rate or Fraction(30), source.time_base or Fraction(1, 1000)
        length = round(len(packets) / rate / base)
        payloads = [(bytes(each), each.pts, each.dts, each.is_keyframe) for each in packets]
        with av.open(str(part), "w", format=container, options=options) as out:
            stream = out.add_stream_from_template(source)
            stream.time_base = base
            if container in ("webm", "matroska"):  # so that rate and count are told, as mkvmerge does
                stream.codec_context.framerate = rate
                stream.metadata["NUMBER_OF_FRAMES"] = str(copies * len(packets))
            for number in range(copies):
                for data, pts, dts, is_key in payloads:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base = stream, base
                    packet.pts = pts + number * length
                    packet.dts = (pts if dts is None else dts) + number * length
                    packet.is_keyframe = is_key
                    out.mux(packet)
    part.rename(path)
    return path


def uniformly(frames: int, video: Any) -> list[int]:
    return sample_uniform(video.total_frames_num, video.duration, num_frames=frames, fps=-1)


def load(url: str, frames: int, fetch: str) -> Any:
    connection = HTTPConnection()
    try:
        connector = MediaConnector({"video": {"num_frames": frames, "fetch": fetch}}, connection)
        return connector.fetch_video(url)
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    print(describe(), f"\n{LATENCY_S * 1000:.0f} ms, {BYTES_PER_S * 8 / 1e6:.0f} Mbit/s\n")
    print(f"{'file':30} {'frames':>6} {'MB':>7} {'needed':>7} {'fetched':>7} {'bar':>13} "
          f"{'requests':>8} {'s':>6} {'whole, s':>8}")  # fmt: skip
    for title, (h264, vp9, bars) in LENGTHS.items():
        if arguments.quick and title == "two hours":
            continue
        for layout, (container, options) in LAYOUTS.items():
            name = f"{title}, {layout}"
            if arguments.only and not any(text in name for text in arguments.only):
                continue
            chosen = vp9 if container == "webm" else h264
            if chosen is None:
                continue
            path = joined(*chosen, container, options)
            size = path.stat().st_size
            for frames, bar in bars.items():
                with served(path) as (url, line):
                    begun = time.perf_counter()
                    video = load(url, frames, "always")
                    seconds = time.perf_counter() - begun
                part = line.sent / size
                needed = len(excerpt(path, functools.partial(uniformly, frames)).data) / size
                verdict = "" if bar == 1 else f"{bar:.1%} " + ("ok" if part <= bar else "MISSED")
                print(f"{name:30} {frames:6} {size / 1e6:7.1f} {needed:7.2%} {part:7.2%} {verdict:>13} "
                      f"{line.requests:8} {seconds:6.2f} {LATENCY_S + size / BYTES_PER_S:8.2f}",
                      flush=True)  # fmt: skip
                if size < LARGE and frames == 8:
                    with served(path) as (url, _):
                        whole = load(url, frames, "never")
                    assert np.array_equal(video[0], whole[0])
                    assert video[1] == whole[1]
            if size >= LARGE:
                path.unlink()


if __name__ == "__main__":
    main()
