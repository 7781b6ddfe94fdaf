"""Metrics: what is counted, what the dashboard asks for, and that nothing happens without the package."""

import asyncio
import base64
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
import requests

from mmmedia import connections, metrics
from mmmedia.cache import BlockCacheSource, get_media_cache
from mmmedia.connections import on_loop
from mmmedia.errors import (
    InvalidMediaError,
    InvalidURLError,
    LimitExceededError,
    LocalFilesDisabledError,
    MediaError,
    RefusedURLError,
)
from mmmedia.media.base import MediaIO
from mmmedia.media.connector import MediaConnector
from mmmedia.media.decoded import decoded_cache
from mmmedia.work.calls import calls_of_loop, number_waiting
from support.clips import clip
from support.server import Server, in_turn, redirect, reply
from support.sources import CountingSource

DOCS = Path(__file__).parents[1] / "docs"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
    "awAAAABJRU5ErkJggg=="
)
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def value(name: str, **labels: str) -> float:
    return prometheus_client.REGISTRY.get_sample_value(name, labels) or 0.0


class Counted:
    """How much samples grow inside the block."""

    def __init__(self, *samples: tuple[str, dict[str, str]]) -> None:
        metrics.register()
        self.samples = samples

    def __enter__(self) -> "Counted":
        self.before = [value(name, **labels) for name, labels in self.samples]
        return self

    def __exit__(self, *_: object) -> None:
        after = [value(name, **labels) for name, labels in self.samples]
        self.grown = [now - then for now, then in zip(after, self.before, strict=True)]


class Plain(MediaIO[bytes]):
    def load_bytes(self, data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError("undecodable")
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:
        return base64.b64decode(data)

    def load_file(self, filepath: Path) -> bytes:
        return filepath.read_bytes()


def _sync(url: str, **kwargs: Any) -> bytes:
    return MediaConnector(**kwargs).load_from_url(url, Plain())


def _async(url: str, **kwargs: Any) -> bytes:
    return asyncio.run(MediaConnector(**kwargs).load_from_url_async(url, Plain()))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    return request.param


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.RetryPlan, "wait_seconds", lambda self, attempt, *_, **__:
                        0.0 if attempt + 1 < self.attempts else None)  # fmt: skip


def test_a_download_is_counted_with_its_bytes_time_and_retries(
    load: Callable[..., bytes], server: Server, no_waits: None
) -> None:
    url = server.route("/a", in_turn(reply(status=503), reply(b"x" * 1000)))
    with Counted(
        ("mmmedia_downloads_total", {"outcome": "ok"}),
        ("mmmedia_download_bytes_total", {}),
        ("mmmedia_download_seconds_count", {}),
        ("mmmedia_download_retries_total", {"reason": "http_5xx"}),
        ("mmmedia_downloads_in_flight", {}),
    ) as counted:
        load(url)
    assert counted.grown == [1, 1000, 1, 1, 0]


def test_downloads_under_way_are_in_flight(server: Server) -> None:
    seen = []

    def behave(request: Any) -> None:
        seen.append(value("mmmedia_downloads_in_flight"))
        reply(b"done")(request)

    metrics.register()
    before = value("mmmedia_downloads_in_flight")
    _sync(server.route("/a", behave))
    assert seen == [before + 1]


def test_downloads_that_wait_for_a_slot_are_a_queue(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_loop, "MAX_CONNECTIONS", 1)
    seen = []

    def behave(request: Any) -> None:
        seen.append(value("mmmedia_pool_queue_length", pool="downloads"))
        reply(b"done")(request)

    async def main() -> None:
        urls = [server.route(f"/{number}", behave) for number in range(4)]
        await asyncio.gather(*(MediaConnector().load_from_url_async(url, Plain()) for url in urls))

    metrics.register()
    asyncio.run(main())
    assert seen == [3, 2, 1, 0]
    assert value("mmmedia_pool_queue_length", pool="downloads") == 0


def test_files_and_bytes_count_alike(server: Server, tmp_path: Path) -> None:
    url = server.route("/a", reply(b"x" * 10))
    connection = connections.HTTPConnection()
    with Counted(("mmmedia_download_bytes_total", {})) as counted:
        connection.download_file(url, tmp_path / "one")
        asyncio.run(connection.async_download_file(url, tmp_path / "two"))
    assert counted.grown == [20]


@pytest.mark.parametrize(("status", "outcome"), [(404, "http_4xx"), (503, "http_5xx"), (206, "http_2xx")])
def test_a_download_that_fails_is_counted_by_what_failed(
    load: Callable[..., bytes], server: Server, no_waits: None, status: int, outcome: str
) -> None:
    url = server.route("/a", reply(status=status))
    with (
        Counted(
            ("mmmedia_downloads_total", {"outcome": outcome}), ("mmmedia_downloads_total", {"outcome": "ok"})
        ) as counted,
        pytest.raises(Exception, match=str(status)),
    ):
        load(url)
    assert counted.grown == [1, 0]


@pytest.mark.parametrize(
    ("url", "kwargs", "reason"),
    [
        ("ftp://example.org/", {}, "url"),
        ("http://example.org:x/", {}, "url"),
        ("http://example.org/", {"allowed_media_domains": ["example.com"]}, "domain"),
        ("http://169.254.169.254/", {}, "address"),
        ("http://127.0.0.1:25/", {}, "port"),
        ("file:///etc/passwd", {}, "path"),
        ("file:///etc/passwd", {"allowed_local_media_path": "/proc/self/fd"}, "path"),
    ],
)
def test_a_refusal_is_counted_by_its_rule(
    load: Callable[..., bytes], url: str, kwargs: dict[str, Any], reason: str
) -> None:
    with Counted(("mmmedia_refusals_total", {"reason": reason})) as counted, pytest.raises(MediaError):
        load(url, **kwargs)
    assert counted.grown == [1]


@pytest.mark.parametrize("location", ["file:///etc/passwd", "/loop"])
def test_a_refused_redirect_is_counted_as_one(
    load: Callable[..., bytes], server: Server, location: str
) -> None:
    url = server.route("/loop", redirect(location))
    with (
        Counted(
            ("mmmedia_refusals_total", {"reason": "redirect"}),
            ("mmmedia_downloads_total", {"outcome": "refused"}),
        ) as counted,
        pytest.raises(RefusedURLError),
    ):
        load(url)
    assert counted.grown == [1, 1]


def test_a_limit_is_counted_as_refusal(
    load: Callable[..., bytes], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    url = server.route("/a", reply(b"x" * 1100000))
    with (
        Counted(
            ("mmmedia_refusals_total", {"reason": "limit"}), ("mmmedia_downloads_total", {"outcome": "limit"})
        ) as counted,
        pytest.raises(LimitExceededError),
    ):
        load(url)
    assert counted.grown == [1, 1]


def test_what_is_no_refusal_is_not_counted_as_one(load: Callable[..., bytes], server: Server) -> None:
    names = ["url", "domain", "address", "port", "path", "redirect", "limit"]
    url = server.route("/a", reply(b"bad"))
    with (
        Counted(
            *[("mmmedia_refusals_total", {"reason": name}) for name in names],
            ("mmmedia_decode_failures_total", {"modality": "other"}),
        ) as counted,
        pytest.raises(ValueError, match="undecodable"),
    ):
        load(url)
    assert counted.grown == [0] * len(names) + [1]


def test_decodes_are_counted_by_modality_and_path() -> None:

    connector = MediaConnector()
    video = "data:video/mp4;base64," + base64.b64encode(clip()).decode()
    with Counted(
        ("mmmedia_decode_seconds_count", {"modality": "image", "path": ""}),
        ("mmmedia_decode_seconds_count", {"modality": "video", "path": "sequential"}),
        ("mmmedia_video_decodes_total", {"path": "sequential"}),
        ("mmmedia_decode_failures_total", {"modality": "audio"}),
        ("mmmedia_decode_failures_total", {"modality": "image_embedding"}),
    ) as counted:
        connector.fetch_image(PIXEL)
        connector.fetch_video(video)
        with pytest.raises(ValueError, match="audio"):
            connector.fetch_audio("data:audio/wav;base64,AAAA")
        with pytest.raises(ValueError, match=r"embed|tensor|torch"):
            connector.fetch_image_embedding("AAAA")
    assert counted.grown == [1, 1, 1, 1, 1]


def test_the_cache_is_read_when_asked(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    url = server.route("/a", reply(b"x" * 5000))
    for _ in range(3):
        _sync(url)
    where = {"directory": str(tmp_path)}
    counts = [
        value(f"mmmedia_cache_{name}", **where)
        for name in ("hits_total", "misses_total", "puts_total", "evictions_total", "bytes", "entries")
    ]
    assert counts == [2, 1, 1, 0, 5000, 1]


def test_what_waits_for_a_worker_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.register()
    started, gate = threading.Event(), threading.Event()
    seen = []

    class Slow(Plain):
        def load_base64(self, media_type: str, data: str) -> bytes:
            started.set()
            gate.wait(20)
            return b""

    async def crowd() -> None:
        connector = MediaConnector()
        tasks = [
            asyncio.ensure_future(connector.load_from_url_async("data:;base64,AA", Slow())) for _ in range(50)
        ]
        await asyncio.to_thread(started.wait, 20)
        for _ in range(2000):  # until the crowd has arrived, not only the first of it
            seen[:] = [value("mmmedia_pool_queue_length", pool="loading")]
            if seen[0] >= 50 - 8:
                break
            await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(crowd())
    assert 50 - 8 <= seen[0] < 50
    assert value("mmmedia_pool_queue_length", pool="loading") == 0


def test_what_a_closed_loop_has_left_waits_no_more() -> None:
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        async def leave() -> int:
            queue = calls_of_loop(pool)
            for _ in range(3):
                queue.call(gate.wait, 20)
            await asyncio.sleep(0.05)
            return number_waiting()

        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(leave()) >= 2
        loop.close()
        assert number_waiting() == 0
        gate.set()


def test_queues_have_a_length() -> None:
    import mmmedia.video.decoders.stats  # noqa: F401

    _async("data:;base64,AAAA")
    names = [sample.labels["pool"] for family in prometheus_client.REGISTRY.collect()
             for sample in family.samples if sample.name == "mmmedia_pool_queue_length"]  # fmt: skip
    assert sorted(names) == ["downloads", "loading", "processes", "video"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (asyncio.CancelledError(), "cancelled"),
        (RefusedURLError("no"), "refused"),
        (InvalidURLError("no"), "refused"),
        (LocalFilesDisabledError("no"), "refused"),
        (InvalidMediaError("not gzip"), "broken"),
        (requests.Timeout(), "timeout"),
        (requests.ConnectionError(), "connection"),
        (KeyError(), "error"),
    ],
)
def test_failures_have_few_names(error: BaseException, kind: str) -> None:
    assert metrics.failure(error) == kind


def test_names_that_are_taken_cost_a_warning_and_no_fetch(caplog: pytest.LogCaptureFixture) -> None:
    """As where the module is loaded a second time."""
    metrics.register()
    assert metrics._make() is None
    assert "No metrics" in caplog.text


def test_a_gauge_is_read_whenever_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics.register()
    monkeypatch.setattr(metrics, "_sources", [])
    lengths = iter([3.0, 5.0])
    metrics.register_gauge("mmmedia_pool_queue_length", lambda: next(lengths), "kitchen")
    assert [value("mmmedia_pool_queue_length", pool="kitchen") for _ in range(2)] == [3.0, 5.0]


def test_a_media_io_of_ones_own_says_what_it_loads() -> None:
    class Smells(Plain):
        modality = "smell"

    with Counted(("mmmedia_decode_seconds_count", {"modality": "smell", "path": ""})) as counted:
        MediaConnector().load_from_url("data:;base64,AAAA", Smells())
    assert counted.grown == [1]


def test_what_was_decoded_before_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "8")
    names = [f"mmmedia_decoded_cache_{name}" for name in ("hits_total", "misses_total", "entries", "bytes")]
    with Counted(*((name, {}) for name in names)) as counted:
        for _ in range(3):
            MediaConnector().fetch_image(PIXEL)
    assert counted.grown == [2, 1, 1, 3]
    monkeypatch.setenv("MMMEDIA_DECODED_CACHE_MB", "0")
    assert decoded_cache() is None
    assert value("mmmedia_decoded_cache_entries") == 0


def test_pieces_that_were_kept_are_counted(tmp_path: Path) -> None:
    cache = get_media_cache(tmp_path, 1 << 20, 3600)
    assert cache is not None
    names = [f"mmmedia_cache_{name}_total" for name in ("partial_hits", "partial_misses", "block_bytes")]
    with Counted(*((name, {"directory": str(tmp_path)}) for name in names)) as counted:
        for _ in range(2):
            BlockCacheSource(CountingSource(bytes(1000)), cache, "http://example.org/a").read([(5, 9)])
    assert counted.grown == [1, 1, 1000]


# The documents.


def test_every_metric_and_bucket_is_documented() -> None:
    page = (DOCS / "metrics.md").read_text()
    listed = re.findall(r"^\| `(mmmedia_\w+)` \| (\w+) \|", page, re.MULTILINE)
    assert dict(listed) == {name: metric.kind for name, metric in metrics.METRICS.items()}
    for name, metric in metrics.METRICS.items():
        if metric.buckets:
            buckets = ", ".join(f"{bucket:g}" for bucket in metric.buckets)
            assert f"Buckets of `{name}`: {buckets}" in page.replace("\n", " ")


def test_every_query_of_the_dashboard_names_metrics_that_exist() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    known = {name + suffix for name, metric in metrics.METRICS.items() for suffix in SUFFIXES[metric.kind]}
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [*targets, *(variable["query"] for variable in dashboard["templating"]["list"][1:])]
    asked = [set(re.findall(r"mmmedia_\w+", query)) for query in queries]
    assert len(asked) > 15
    assert all(asked)
    assert set().union(*asked) <= known
    families = {
        name for name in metrics.METRICS if any(each.startswith(name) for each in set().union(*asked))
    }
    assert families == set(metrics.METRICS), "something is counted that the dashboard does not show"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for query in targets:
        assert query.count("(") == query.count(")")


def test_what_is_exposed_is_what_is_described(server: Server) -> None:
    """Kinds, labels and names, as Prometheus sees them."""
    _sync(server.route("/a", reply(b"a")))
    seen = {}
    for family in prometheus_client.REGISTRY.collect():
        for sample in family.samples:
            if sample.name.startswith("mmmedia_") and not sample.name.endswith("_created"):
                seen[sample.name] = (family.type, set(sample.labels) - {"le"})
    assert seen
    for name, (kind, labels) in seen.items():
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert (metrics.METRICS[base].kind, set(metrics.METRICS[base].labels)) == (kind, labels), name


# Without the package.


def test_without_the_package_everything_works_and_nothing_is_loaded() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
from mmmedia import MediaConnector, metrics
assert metrics.register() is False
try:
    MediaConnector().fetch_image("ftp://x")
except ValueError:
    pass
MediaConnector().fetch_image(sys.argv[1])
metrics.count_retry(TimeoutError())
with metrics.downloading(None):
    assert metrics.timed_decode(None, int, "7") == 7
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code, PIXEL], check=True, timeout=60)


def test_importing_does_not_load_the_package() -> None:
    code = (
        "import mmmedia.metrics, mmmedia.media.connector, sys; assert 'prometheus_client' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
