"""Counters: how many requests for frames took which way through the decoders, and why."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmmedia.metrics import Sample, note_decode_path, register_source


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


_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    # No child inherits a lock that a thread of its parent holds.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_paths: Counter[str] = Counter()
_reasons: Counter[str] = Counter()
_frames: Counter[str] = Counter()


def count(path: str, reason: str | None = None, *, wanted: int = 0, decoded: int = 0) -> None:
    """Count one request."""
    note_decode_path(path)
    with _lock:
        _paths[path] += 1
        if reason is not None:
            _reasons[reason] += 1
        _frames["wanted"] += wanted
        _frames["decoded"] += decoded


def decode_stats() -> DecodeStats:
    """Return how many requests took which way through the decoders, and why.

    >>> isinstance(decode_stats().paths.get("seek", 0), int)
    True
    """
    with _lock:
        return DecodeStats(dict(_paths), dict(_reasons), _frames["wanted"], _frames["decoded"])


def _samples() -> Iterator[Sample]:
    stats = decode_stats()
    for path, count in stats.paths.items():
        yield Sample("mmmedia_video_decodes_total", (path,), count)
    yield Sample("mmmedia_video_frames_wanted_total", (), stats.frames_wanted)
    yield Sample("mmmedia_video_frames_decoded_total", (), stats.frames_decoded)


register_source(_samples)
