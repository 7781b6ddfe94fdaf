"""What this library does, in numbers for Prometheus.

Where prometheus-client is installed (``pip install mmmedia[metrics]``), downloads, refusals, decodes, the
cache and the pools are counted in its default registry, from the first use on or from `register`. Where it
is not, every function here does nothing.

`METRICS` says what there is; `docs/metrics.md` explains it. Events are counted as they happen. What others
count anyhow (the cache, the ways through the video decoders, queues) is read when Prometheus asks: who has
such a number registers it here by `register_gauge`, or several at once by `register_source`.
"""

import functools
import logging
import sys
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

from mmmedia.errors import (
    InvalidURLError,
    LimitExceededError,
    LocalFilesDisabledError,
    MediaError,
    RefusedURLError,
)
from mmmedia.work.fork import afresh_in_child

if TYPE_CHECKING:
    from prometheus_client.core import Metric

logger = logging.getLogger(__name__)

T = TypeVar("T")

DOWNLOAD_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
DECODE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Description(NamedTuple):
    """A metric: its kind, what it says, its labels, and for a histogram its buckets in seconds."""

    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


METRICS: dict[str, Description] = {
    "mmmedia_downloads_total": Description(
        "counter", "Downloads that ended, each with all its attempts, by outcome.", ("outcome",)
    ),
    "mmmedia_download_bytes_total": Description("counter", "Bytes of bodies that were downloaded whole."),
    "mmmedia_download_seconds": Description(
        "histogram", "Seconds of a download, with all its attempts and waits.", (), DOWNLOAD_BUCKETS
    ),
    "mmmedia_downloads_in_flight": Description("gauge", "Downloads that have begun and not ended."),
    "mmmedia_download_retries_total": Description(
        "counter", "Attempts that failed and were followed by another, by what failed.", ("reason",)
    ),
    "mmmedia_pieces_total": Description("counter", "Pieces of sources that were fetched."),
    "mmmedia_bytes_saved_total": Description(
        "counter", "Bytes of sources that were not fetched, as nobody needed them."
    ),
    "mmmedia_refusals_total": Description(
        "counter", "Requests for media that were refused, by the rule.", ("reason",)
    ),
    "mmmedia_decode_seconds": Description(
        "histogram", "Seconds of a decode that succeeded.", ("modality", "path"), DECODE_BUCKETS
    ),
    "mmmedia_decode_failures_total": Description("counter", "Decodes that failed.", ("modality",)),
    "mmmedia_pool_queue_length": Description("gauge", "Work that waits for a free worker.", ("pool",)),
    "mmmedia_video_decodes_total": Description(
        "counter", "Videos by the way they took through the decoders.", ("path",)
    ),
    "mmmedia_video_frames_wanted_total": Description("counter", "Frames wanted of videos read by seeking."),
    "mmmedia_video_frames_decoded_total": Description("counter", "Frames decoded to get those."),
    **{
        f"mmmedia_cache_{name}_total": Description("counter", meaning, ("directory",))
        for name, meaning in (
            ("hits", "Look-ups in the cache that returned bytes."),
            ("misses", "Look-ups in the cache that returned nothing."),
            ("puts", "Entries written to the cache."),
            ("evictions", "Entries removed as the cache exceeded its budget."),
            ("expiries", "Entries found to be older than the time to live."),
            ("corruptions", "Entries and blocks found damaged."),
            ("partial_hits", "Reads of a source in pieces of which everything was there."),
            ("partial_misses", "Reads of a source in pieces of which something was fetched."),
            ("block_bytes", "Bytes of the blocks that such reads found there."),
        )
    },
    "mmmedia_cache_bytes": Description(
        "gauge", "What the entries of a cache directory count together.", ("directory",)
    ),
    "mmmedia_cache_entries": Description("gauge", "Entries in a cache directory.", ("directory",)),
    "mmmedia_decoded_cache_hits_total": Description(
        "counter", "Media that were decoded before, or at the same time for another."
    ),
    "mmmedia_decoded_cache_misses_total": Description("counter", "Media that had to be decoded."),
    "mmmedia_decoded_cache_evictions_total": Description(
        "counter", "Decoded media dropped as the cache exceeded its size."
    ),
    "mmmedia_decoded_cache_bytes": Description("gauge", "What the decoded media that are kept take."),
    "mmmedia_decoded_cache_entries": Description("gauge", "Decoded media that are kept."),
}
"""Every metric by name."""


class _Metrics:
    """The metrics that are counted as things happen, and a collector of those that others count."""

    def __init__(self) -> None:
        from prometheus_client import REGISTRY

        self.downloads = self._make("mmmedia_downloads_total")
        self.succeeded = self.downloads.labels("ok")
        self.bytes = self._make("mmmedia_download_bytes_total")
        self.seconds = self._make("mmmedia_download_seconds")
        self.in_flight = self._make("mmmedia_downloads_in_flight")
        self.retries = self._make("mmmedia_download_retries_total")
        self.pieces = self._make("mmmedia_pieces_total")
        self.saved = self._make("mmmedia_bytes_saved_total")
        self.refusals = self._make("mmmedia_refusals_total")
        self.decoded = functools.lru_cache(maxsize=64)(self._make("mmmedia_decode_seconds").labels)
        self.failures = self._make("mmmedia_decode_failures_total")
        REGISTRY.register(cast("Any", _Collector()))  # a collector is what has its methods

    @staticmethod
    def _make(name: str) -> Any:
        from prometheus_client import Counter, Gauge, Histogram

        kind, meaning, labels, buckets = METRICS[name]
        if kind == "counter":
            return Counter(name, meaning, labels)
        if kind == "gauge":
            return Gauge(name, meaning, labels, multiprocess_mode="livesum")
        return Histogram(name, meaning, labels, buckets=buckets)


class Sample(NamedTuple):
    """One number of a metric.

    Attributes:
        name: of the metric, one of `METRICS`.
        labels: a value for each of its labels.
        value: the number, of a counter the total since the process began.
    """

    name: str
    labels: tuple[str, ...]
    value: float


_sources: list[Callable[[], Iterable[Sample]]] = []


def register_source(read: Callable[[], Iterable[Sample]]) -> None:
    """Have `read` called whenever Prometheus asks, from any thread, for numbers that are counted elsewhere.

    Args:
        read: takes no argument; no two sources give samples of the same name and labels.
    """
    _sources.append(read)


def register_gauge(name: str, read: Callable[[], float], *labels: str) -> None:
    """Have `read` called whenever Prometheus asks, from any thread, for the value of one metric.

    Args:
        name: of the metric, one of `METRICS`.
        read: takes no argument.
        labels: a value for each label of the metric.
    """
    register_source(lambda: (Sample(name, labels, read()),))


class _Collector:
    """Reads what others count."""

    def describe(self) -> "Iterable[Metric]":
        return ()  # without it, the registry would collect once to learn the names

    def collect(self) -> "Iterator[Metric]":
        families: dict[str, Any] = {}
        for read in tuple(_sources):
            for name, labels, value in read():
                if name not in families:
                    families[name] = self._family(name)
                families[name].add_metric(labels, value)
        yield from families.values()

    @staticmethod
    def _family(name: str) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        kind, meaning, labels, _ = METRICS[name]
        return (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)


class _Decode(threading.local):
    """The way that the decode under way in this thread takes."""

    path = ""


_decode = _Decode()
_lock = threading.Lock()
_made: list[_Metrics | None] = []


def _start_afresh() -> None:
    """Give a forked child a lock of its own: another thread of its parent may have held this one."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()


afresh_in_child(_start_afresh)


def _metrics() -> _Metrics | None:
    if not _made:
        with _lock:
            if not _made:
                _made.append(_make())
    return _made[0]


def _make() -> _Metrics | None:
    if find_spec("prometheus_client") is None:
        return None
    try:
        return _Metrics()
    # Names that are taken, as where this module was loaded twice; a package that is there but broken.
    except (ValueError, ImportError, OSError) as error:
        logger.warning("No metrics: %s", error)
        return None


def register() -> bool:
    """Make all metrics now, so that the first scrape finds them, and not at the first use.

    Returns:
        Whether prometheus-client is installed.
    """
    return _metrics() is not None


class downloading:  # noqa: N801  # reads as what it does
    """Count what is done inside the block as one download, of what is in `sink` at the end."""

    __slots__ = ("_metrics", "_sink", "_started")

    def __init__(self, sink: IO[bytes]) -> None:
        self._metrics = _made[0] if _made else _metrics()
        self._sink = sink

    def __enter__(self) -> None:
        if self._metrics is not None:
            self._started = time.perf_counter()
            self._metrics.in_flight.inc()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._metrics is None:
            return
        self._metrics.in_flight.dec()
        self._metrics.seconds.observe(time.perf_counter() - self._started)
        if error is None:
            self._metrics.succeeded.inc()
            self._metrics.bytes.inc(self._sink.tell())
        else:
            self._metrics.downloads.labels(failure(error)).inc()


def timed_decode(media_io: object, load: Callable[..., T], *args: object) -> T:
    """Return what `load` makes of its arguments, and count that as one decode by `media_io`."""
    metrics = _made[0] if _made else _metrics()
    modality = getattr(type(media_io), "modality", "other")
    _decode.path = ""
    started = time.perf_counter()
    try:
        media = load(*args)
    except BaseException:
        if metrics is not None:
            metrics.failures.labels(modality).inc()
        raise
    if metrics is not None:
        metrics.decoded(modality, _decode.path).observe(time.perf_counter() - started)
    return media


def count_retry(error: BaseException) -> None:
    """Count an attempt that failed and is followed by another."""
    if metrics := _metrics():
        metrics.retries.labels(failure(error)).inc()


def count_piece() -> None:
    """Count a piece of a source that was fetched."""
    if metrics := _metrics():
        metrics.pieces.inc()


def count_saved(number_of_bytes: int) -> None:
    """Count bytes of a source that need not be fetched."""
    if metrics := _metrics():
        metrics.saved.inc(number_of_bytes)


def note_decode_path(path: str) -> None:
    """Say which way the decode under way in this thread took."""
    _decode.path = path


def count_refusal(error: MediaError) -> None:
    """Count an error that ends a request, if it is a refusal."""
    if (reason := refusal(error)) and (metrics := _metrics()):
        metrics.refusals.labels(reason).inc()


def refusal(error: MediaError) -> str:
    """Return the rule that an error refuses by, `""` for an error of another kind.

    >>> refusal(LimitExceededError("too large")), refusal(RefusedURLError("no", reason="domain"))
    ('limit', 'domain')
    """
    if isinstance(error, RefusedURLError):
        return error.reason
    if isinstance(error, LimitExceededError):
        return "limit"
    if isinstance(error, LocalFilesDisabledError):
        return "path"
    return "url" if isinstance(error, InvalidURLError) else ""


def failure(error: BaseException) -> str:
    """Return what kind of failure an exception of a download is.

    >>> failure(TimeoutError()), failure(ConnectionResetError()), failure(LimitExceededError())
    ('timeout', 'connection', 'limit')
    """
    if isinstance(error, CancelledError):
        return "cancelled"
    if isinstance(error, MediaError):
        return "limit" if isinstance(error, LimitExceededError) else "refused" if refusal(error) else "broken"
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status", None)
    if isinstance(status, int):
        return f"http_{status // 100}xx"
    requests, aiohttp = sys.modules.get("requests"), sys.modules.get("aiohttp")
    if isinstance(error, TimeoutError) or (requests and isinstance(error, requests.Timeout)):
        return "timeout"
    network: list[type[BaseException]] = [ConnectionError]
    if requests:
        network.append(requests.RequestException)
    if aiohttp:
        network.append(aiohttp.ClientError)
    return "connection" if isinstance(error, tuple(network)) else "error"
