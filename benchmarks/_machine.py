"""What the benchmarks share: the machine they ran on, and paired measurements."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("mmmedia", "numpy", "pillow", "opencv-python-headless", "av", "torch", "aiohttp", "requests")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _installed(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not installed)"


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def describe() -> str:
    """The machine in three lines: processor and usable cores, system and Python, library versions."""
    return "\n".join(
        (
            f"{_processor()}, {_cores()} usable cores",
            ", ".join([f"{platform.system()} {platform.release()}", _python()]),
            ", ".join(_installed(package) for package in LIBRARIES),
        )
    )


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(
    a: Callable[[], Any], b: Callable[[], Any], rounds: int, *, warm_up: int = 1
) -> tuple[float, float, float]:
    """Time two calls in turn, so that a slow spell of the machine meets both.

    The order within a pair alternates: neither side is always the one with the warm caches.

    Returns:
        Median seconds of `a`, median seconds of `b`, and the median over the pairs of a / b.
    """
    for _ in range(warm_up):
        a()
        b()
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            time_b = seconds(b)
            time_a = seconds(a)
        else:
            time_a = seconds(a)
            time_b = seconds(b)
        pairs.append((time_a, time_b))
    return (
        statistics.median(time_a for time_a, _ in pairs),
        statistics.median(time_b for _, time_b in pairs),
        statistics.median(time_a / time_b for time_a, time_b in pairs),
    )
