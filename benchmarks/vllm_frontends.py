"""What a request costs the API process of an unmodified vLLM: its own way, and with this library.

    nox -s vllm_bench
    python benchmarks/vllm_frontends.py [--rounds 7]

Two frontends without an engine, one with `VLLM_MEDIA_CONNECTOR=http`, one with `mmmedia`, are asked in turn
for the same message, in the order that alternates. Counted are the CPU seconds of the process, all threads,
from the question to the answer: fetching, decoding, the processor of the model, and writing the answer. The
answers are checked to be the same tensors. A message without media shows what a request costs at least.
"""

import argparse
import functools
import http.server
import io
import statistics
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from _clips import clip
from _machine import describe

from support.frontend import Frontend, Part, image_part, tensors, video_part

CLIP = "h264_720p_60s.mp4"


def photo() -> bytes:
    """Return a picture of a camera's size, as JPEG."""
    noise = np.random.default_rng(1).integers(0, 256, (75, 100, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((4000, 3000), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


class Files(http.server.BaseHTTPRequestHandler):
    """Serves what is in `files`, by path."""

    files: dict[str, bytes] = {}  # noqa: RUF012  # filled once

    def do_GET(self) -> None:  # the name is the interface
        data = self.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def cost(frontend: Frontend, parts: list[Part], options: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Return the CPU seconds of a request, and the tensors in its answer."""
    before = frontend.cpu_seconds()
    status, answer = frontend.ask(parts, **options)
    if status != 200:
        raise SystemExit(f"{status}: {answer}")
    spent = frontend.cpu_seconds() - before
    return spent, tensors(answer) if answer.get("features") else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    import vllm

    print(describe())
    print(f"vLLM {vllm.__version__}; medians of {rounds} pairs, in CPU seconds of the API process\n")
    Files.files = {"/clip.mp4": clip(CLIP), "/photo.jpg": photo()}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    video = [video_part(f"{address}/clip.mp4")]

    def frames(count: int) -> dict[str, Any]:
        return {"media_io_kwargs": {"video": {"video_backend": "opencv", "num_frames": count}}}

    requests: dict[str, tuple[list[Part], dict[str, Any]]] = {
        "text alone": ([{"type": "text", "text": "Hello"}], {}),
        "12 frames of 60 s 720p": (video, frames(12)),
        "120 frames of 60 s 720p": (video, frames(120)),
        "a photo of 12 megapixels": ([image_part(f"{address}/photo.jpg")], {}),
    }
    print(f"{'':28}{'vLLM':>9}{'mmmedia':>9}{'share':>8}")
    with Frontend("http") as theirs, Frontend("mmmedia") as ours:
        frontends = theirs.wait(), ours.wait()
        for title, (parts, options) in requests.items():
            ask = functools.partial(cost, parts=parts, options=options)
            pairs = []
            for turn in range(rounds + 1):
                order = frontends if turn % 2 else frontends[::-1]
                found = {frontend: ask(frontend) for frontend in order}
                (their_seconds, their_tensors), (our_seconds, our_tensors) = map(found.get, frontends)
                if their_tensors != our_tensors:
                    raise SystemExit(f"{title}: the answers differ.")
                if turn:  # the first warms up
                    pairs.append((their_seconds, our_seconds))
            a, b = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
            # The system counts in hundredths of a second.
            share = f"{statistics.median(b / a for a, b in pairs):8.0%}" if a >= 0.1 else ""
            print(f"{title:28}{a:9.2f}{b:9.2f}{share}", flush=True)
    server.shutdown()


if __name__ == "__main__":
    main()
