"""Counters: how many requests for frames took which way through the decoders, and why."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmmedia.metrics import Sample, note_decode_path, register_gauge, register_source
from mmmedia.work.fork import afresh_in_child
from mmmedia.work.jobs import decode_pool


@dataclass(frozen=True)
class DecodeStats:
    """A snapshot of the counters since the process began.

    `paths` counts requests by the way they took: "seek", or "sequential". `reasons` counts, for those that
    took the sequential way, why. `frames_wanted` and `frames_decoded` are sums over the seeking requests.
    """

    paths: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    frames_wanted: int = 0
    frames_decoded: int = 0


class _Counters:
    """What is counted; a forked child goes on from its parent's counts, under a lock of its own."""

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.begin()
        afresh_in_child(self.begin)

    def begin(self) -> None:
        self.lock = threading.Lock()


_counters = _Counters()


def count(path: str, reason: str | None = None, *, wanted: int = 0, decoded: int = 0) -> None:
    """Count one request."""
    note_decode_path(path)
    with _counters.lock:
        _counters.paths[path] += 1
        if reason is not None:
            _counters.reasons[reason] += 1
        _counters.frames["wanted"] += wanted
        _counters.frames["decoded"] += decoded


def decode_stats() -> DecodeStats:
    """Return how many requests took which way through the decoders, and why.

    >>> isinstance(decode_stats().paths.get("seek", 0), int)
    True
    """
    with _counters.lock:
        return DecodeStats(
            dict(_counters.paths),
            dict(_counters.reasons),
            _counters.frames["wanted"],
            _counters.frames["decoded"],
        )


def _samples() -> Iterator[Sample]:
    stats = decode_stats()
    for path, count in stats.paths.items():
        yield Sample("mmmedia_video_decodes_total", (path,), count)
    yield Sample("mmmedia_video_frames_wanted_total", (), stats.frames_wanted)
    yield Sample("mmmedia_video_frames_decoded_total", (), stats.frames_decoded)


register_source(_samples)
register_gauge("mmmedia_pool_queue_length", lambda: decode_pool.queue_length, "video")
