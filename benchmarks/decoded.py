"""What the cache of decoded media saves: the CPU time of a second turn against that of the first.

    python benchmarks/decoded.py [--quick] [--turns 5]

Each turn is a connector of its own, as an engine makes one for each request, that fetches from a server in
another process; the bytes are kept on disk from the first turn on. What is read back is compared.
"""

import argparse
import asyncio
import contextlib
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from _clips import clip
from _machine import describe
from connector import photograph, serving

from mmmedia.media import MediaConnector, decoded

BAR = 3.0
"""Percent of the first turn."""


def speech(seconds: int) -> bytes:
    """An MP3."""
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    tone = np.sin(np.arange(seconds * 16_000) / 9) * 0.2 + rng.normal(0, 0.02, seconds * 16_000)
    soundfile.write(file, tone.astype(np.float32), 16_000, format="MP3")
    return file.getvalue()


def cpu(load: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    media = load()
    return time.process_time() - started, media


def array_of(media: Any) -> np.ndarray:
    return np.asarray(media) if hasattr(getattr(media, "media", None), "mode") else media[0]


def row(what: str, load: Callable[[], Any], turns: int, bar: str) -> None:
    """Print what the turns take: the first with the cache empty, then those that find it there."""
    cache = decoded.decoded_cache()
    assert cache is not None
    firsts, seconds = [], []
    load()  # warm up, and store the bytes
    for _ in range(turns):
        cache.clear()
        first, media = cpu(load)
        expected = array_of(media).copy()
        firsts.append(first)
        for _ in range(3):
            second, again = cpu(load)
            seconds.append(second)
            assert np.array_equal(array_of(again), expected)
            if (array := array_of(again)).flags.writeable:
                array[:] = 0  # the next must not see it
        del media, again
    first, second = statistics.median(firsts), statistics.median(seconds)
    print(
        f"{what:44} {first * 1e3:9.1f} ms {second * 1e3:9.2f} ms  {second / first * 100:6.2f} %  ({bar})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="no clip of a minute")
    options = parser.parse_args()
    print(describe())
    print(f"\n{'CPU time':44} {'first turn':>12} {'second turn':>12}")
    clips = ["h264_480p_30s.mp4"] + ([] if options.quick else ["h264_720p_60s.mp4"])
    media = {
        **{name: ("video", clip(name)) for name in clips},
        "a JPEG of 40 KB": ("image", photograph(40_000)),
        "an MP3 of 60 s": ("audio", speech(60)),
    }
    os.environ["MMMEDIA_DECODED_CACHE_MB"] = "1024"
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        os.environ["VLLM_MEDIA_CACHE"] = f"{directory}/cache"
        for number, (name, (modality, data)) in enumerate(media.items()):
            file = Path(directory) / str(number)
            file.write_bytes(data)
            url = f"{stack.enter_context(serving(file))}/{number}"
            bar = f"at most {BAR:g} %" if modality == "video" else "no bar"

            def fetch(url: str = url, modality: str = modality) -> Any:
                return getattr(MediaConnector(), f"fetch_{modality}")(url)

            def fetch_async(url: str = url, modality: str = modality) -> Any:
                return asyncio.run(getattr(MediaConnector(), f"fetch_{modality}_async")(url))

            def views(url: str = url, modality: str = modality) -> Any:
                return MediaConnector().open(url, modality).load(copy=False)

            row(f"{name}, sync", fetch, options.turns, bar)
            row(f"{name}, async", fetch_async, options.turns, bar)
            row(f"{name}, read-only views", views, options.turns, bar)


if __name__ == "__main__":
    main()
