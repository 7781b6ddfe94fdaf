"""The connector "fsspec": objects of buckets that the operator listed, and nothing else."""

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import requests
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from PIL import Image

from mmmedia import connections
from mmmedia.connections import HTTPConnection, http_status
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidURLError,
    LimitExceededError,
    LocalFilesDisabledError,
    MediaError,
    MissingPackageError,
    RefusedURLError,
    RemoteFileDeniedError,
    RemoteFileError,
    RemoteFileNotFoundError,
)
from mmmedia.media.buckets import NEVER, bucket_list, parse_object_url
from mmmedia.media.budget import MediaBudget
from mmmedia.media.connector import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from mmmedia.media.fsspec_connector import FsspecConnector
from support.forking import holds_in_child
from support.plain import Plain
from support.server import Server, reply

OPEN = ["memory://open"]


Load = Callable[..., Any]


def _sync(connector: MediaConnector, url: str, **kwargs: Any) -> bytes:
    return connector.load_from_url(url, Plain(), **kwargs)


def _async(connector: MediaConnector, url: str, **kwargs: Any) -> bytes:
    return asyncio.run(connector.load_from_url_async(url, Plain(), **kwargs))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Load:
    """`load_from_url`, in one half and in the other."""
    return request.param


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """Two buckets in memory, of which one is open."""
    store = fsspec.filesystem("memory")
    store.pipe({"/open/a.bin": b"open", "/open/sub/b.bin": b"below", "/secret/a.bin": b"secret"})
    yield store
    store.store.clear()
    store.pseudo_dirs[:] = [""]


class Odd(MemoryFileSystem):
    """A store that can be told to misbehave, and counts what it is asked."""

    protocol = "odd"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    error: BaseException | None = None
    claimed: Any = "size"
    type = "file"
    reads = 0
    gate: threading.Event | None = None

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        info = super().info(path, **kwargs)
        return {**info, "size": info["size"] if self.claimed == "size" else self.claimed, "type": self.type}

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> bytes:
        type(self).reads += 1
        if self.gate is not None:
            self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return super().cat_file(path, start, end, **kwargs)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> type[Odd]:
    """A store of its own scheme, with one object of 1000 bytes."""
    fsspec.register_implementation("odd", Odd, clobber=True)
    for name, value in (("error", None), ("claimed", "size"), ("type", "file"), ("reads", 0), ("gate", None)):
        monkeypatch.setattr(Odd, name, value)
    fsspec.filesystem("odd").pipe("/open/a.bin", b"x" * 1000)
    return Odd


ODD = "odd://open/a.bin"


# What is read.


def test_objects_of_a_listed_bucket_are_loaded(load: Load, store: MemoryFileSystem) -> None:
    connector = FsspecConnector(allowed_buckets=OPEN)
    assert load(connector, "memory://open/a.bin") == b"open"
    assert load(connector, "Memory://open/sub/b.bin") == b"below"


def test_a_picture_is_fetched_from_a_bucket(store: MemoryFileSystem) -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 4)).save(file, "PNG")
    store.pipe("/open/a b%20c.png", file.getvalue())
    connector = FsspecConnector(allowed_buckets=OPEN)
    assert connector.fetch_image("memory://open/a b%20c.png").size == (5, 4)
    assert asyncio.run(connector.fetch_image_async("memory://open/a b%20c.png")).size == (5, 4)


def test_other_urls_go_their_own_way(load: Load, server: Server, store: MemoryFileSystem) -> None:
    connector = FsspecConnector(allowed_buckets=OPEN, allowed_media_domains=["127.0.0.1"])
    assert load(connector, server.route("/a", reply(b"over http"))) == b"over http"
    with pytest.raises(RefusedURLError, match="allowed domains"):
        load(connector, "http://example.org/")
    with pytest.raises(LocalFilesDisabledError):
        load(connector, "file:///etc/passwd")
    with pytest.raises(InvalidURLError, match="HTTP, data or file"):
        load(connector, "nothing at all")
    assert connector.fetch_image.__func__ is MediaConnector.fetch_image


def test_the_connection_given_fetches_what_is_http(load: Load, server: Server) -> None:
    connector = FsspecConnector(connection=HTTPConnection(reuse_client=False))
    assert load(connector, server.route("/a", reply(b"over http"))) == b"over http"


# What is refused.


@pytest.mark.parametrize(
    "url",
    [
        "memory://secret/a.bin",
        "memory://opener/a.bin",
        "memory://open.evil/a.bin",
        "memory://OPEN/a.bin",
        "s3://open/a.bin",
        "memory://open/../secret/a.bin",
        "memory://open/sub/../../secret/a.bin",
        "memory://open/%2e%2e/secret/a.bin",
        "memory://open/..\\secret/a.bin",
        "memory://open/./a.bin",
        "simplecache::memory://open/a.bin",
        "memory://open/a.bin::file:///etc/passwd",
        "filecache::file:///etc/passwd",
        "zip://a::memory://open/a.bin",
        "local:///etc/passwd",
        "local:/etc/passwd",
        "reference://open/a.bin",
        "github://open/a.bin",
        "ftp://open/a.bin",
        "gopher://open/a.bin",
    ],
)
def test_what_is_in_no_listed_bucket_is_refused(load: Load, store: MemoryFileSystem, url: str) -> None:
    with pytest.raises(RefusedURLError, match=r"bucket|Chained|'\.'") as refusal:
        load(FsspecConnector(allowed_buckets=OPEN), url)
    assert refusal.value.reason == "bucket"
    assert http_status(refusal.value) == 400


@pytest.mark.parametrize(
    "url",
    ["memory:open/a.bin", "memory://", "memory:///a.bin", "memory://open", "memory://open/", "memory://open/sub/",
     "memory://open/a\nb", "memory://open/\0", "memory://open/" + "a" * 40000, "memory://open?a/b"],
)  # fmt: skip
def test_malformed_urls_are_refused(load: Load, store: MemoryFileSystem, url: str) -> None:
    with pytest.raises(InvalidURLError, match="Invalid object URL") as error:
        load(FsspecConnector(allowed_buckets=OPEN), url)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    "url", ["file::memory://open/a.bin", "file::///etc/passwd", "http::memory://open/a.bin", "data::,"]
)
def test_chains_that_begin_like_other_urls_are_refused(load: Load, store: MemoryFileSystem, url: str) -> None:
    with pytest.raises(MediaError):
        load(FsspecConnector(allowed_buckets=OPEN), url)


def test_without_a_list_no_bucket_is_read(
    load: Load, store: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RefusedURLError, match="none"):
        load(FsspecConnector(), "memory://open/a.bin")
    monkeypatch.setenv("VLLM_MEDIA_ALLOWED_BUCKETS", "s3://photos, memory://open ,")
    assert load(FsspecConnector(), "memory://open/a.bin") == b"open"
    with pytest.raises(RefusedURLError):
        load(FsspecConnector(), "memory://secret/a.bin")
    with pytest.raises(RefusedURLError):
        load(FsspecConnector(allowed_buckets=[]), "memory://open/a.bin")


@pytest.mark.parametrize(
    ("entry", "url", "admitted"),
    [
        ("s3://photos", "s3://photos/a", True),
        ("S3://photos/", "s3://photos/a", True),
        ("s3://photos", "gs://photos/a", False),
        ("s3://photos/public", "s3://photos/public/a", True),
        ("s3://photos/public", "s3://photos/publicity/a", False),
        ("s3://photos/public", "s3://photos/a", False),
        ("hf://*", "hf://datasets/someone/something/a.jpg", True),
        ("hf://datasets/me/mine", "hf://datasets/me/mine@other/a.jpg", False),
        (
            "az://container@account.dfs.core.windows.net",
            "az://container@account.dfs.core.windows.net/a",
            True,
        ),
        ("s3://*", "s3a://photos/a", False),
    ],
)
def test_an_entry_admits_what_is_below_it(entry: str, url: str, admitted: bool) -> None:
    if admitted:
        bucket_list([entry]).check(parse_object_url(url))
    else:
        with pytest.raises(RefusedURLError):
            bucket_list([entry]).check(parse_object_url(url))


@pytest.mark.parametrize(
    "entry",
    ["", "photos", "s3:photos", "s3://", "*://photos", "s3://pho*", "s3://photos/*", "file:///", "file://etc",
     "http://example.org", "simplecache::s3://photos", "local://tmp", "zip://a", "s3://pho tos"],
)  # fmt: skip
def test_entries_that_are_no_bucket_are_refused_when_made(entry: str) -> None:
    with pytest.raises(InvalidArgumentError, match="allowed_buckets"):
        FsspecConnector(allowed_buckets=[entry])
    with pytest.raises(InvalidArgumentError, match="must be a list"):
        FsspecConnector(allowed_buckets="s3://photos")


def test_no_wrapper_or_file_system_of_fsspec_itself_may_be_listed() -> None:
    """All that fsspec brings along leads elsewhere, but for memory."""
    own = {
        name for name, entry in known_implementations.items() if entry["class"].startswith("fsspec.implem")
    }
    assert own - NEVER <= {"memory"}


# Limits, cache, sharing.


def test_what_is_too_long_is_not_read(load: Load, odd: type[Odd], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    monkeypatch.setattr(odd, "claimed", 1024 * 1024 + 1)
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"):
        load(FsspecConnector(allowed_buckets=["odd://open"]), ODD)
    assert odd.reads == 0


@pytest.mark.parametrize("limit", ["1", "0"])
def test_an_object_of_unknown_size_is_read_to_the_limit(
    load: Load, odd: type[Odd], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", limit)
    monkeypatch.setattr(odd, "claimed", None)
    connector = FsspecConnector(allowed_buckets=["odd://open"])
    assert load(connector, ODD) == b"x" * 1000
    fsspec.filesystem("odd").pipe("/open/large.bin", b"x" * (1024 * 1024 + 1))
    if limit == "0":
        assert len(load(connector, "odd://open/large.bin")) == 1024 * 1024 + 1
    else:
        with pytest.raises(LimitExceededError):
            load(connector, "odd://open/large.bin")


@pytest.mark.parametrize("claimed", [999, 1001])
def test_an_object_that_changes_while_it_is_read_is_no_half_result(
    load: Load, odd: type[Odd], monkeypatch: pytest.MonkeyPatch, claimed: int
) -> None:
    """At most as much as was announced is read; less is an error."""
    monkeypatch.setattr(odd, "claimed", claimed)
    connector = FsspecConnector(allowed_buckets=["odd://open"])
    if claimed < 1000:
        assert len(load(connector, ODD)) == claimed
    else:
        with pytest.raises(RemoteFileError, match="1001 bytes, of which 1000"):
            load(connector, ODD)


def test_an_empty_object_is_empty(load: Load, store: MemoryFileSystem) -> None:
    store.pipe("/open/empty", b"")
    assert load(FsspecConnector(allowed_buckets=OPEN), "memory://open/empty") == b""


def test_budgets_are_charged(load: Load, store: MemoryFileSystem) -> None:
    budget = MediaBudget(max_download_bytes=9)
    connector = FsspecConnector(allowed_buckets=OPEN, budget=budget)
    load(connector, "memory://open/a.bin")
    load(connector, "memory://open/sub/b.bin")
    with pytest.raises(LimitExceededError, match="MediaBudget"):
        load(connector, "memory://open/a.bin")


def test_the_cache_holds_what_decoded_and_obeys_todays_list(
    load: Load, odd: type[Odd], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    connector = FsspecConnector(allowed_buckets=["odd://open"])
    for _ in range(3):
        assert load(connector, ODD) == b"x" * 1000
    assert odd.reads == 1
    with pytest.raises(RefusedURLError):
        load(FsspecConnector(allowed_buckets=["odd://other"]), ODD)
    fsspec.filesystem("odd").pipe("/open/bad.bin", b"bad")
    with pytest.raises(ValueError, match="undecodable"):
        load(connector, "odd://open/bad.bin")
    assert len(list(tmp_path.iterdir())) == 1


def test_requests_at_the_same_time_share_one_read(odd: type[Odd], monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each has a connector of its own."""
    monkeypatch.setattr(odd, "gate", threading.Event())

    async def many() -> list[bytes]:
        fetches = [
            FsspecConnector(allowed_buckets=["odd://open"]).load_from_url_async(ODD, Plain())
            for _ in range(50)
        ]
        tasks = [asyncio.ensure_future(fetch) for fetch in fetches]
        while odd.reads == 0:
            await asyncio.sleep(0.01)
        odd.gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(many()) == [b"x" * 1000] * 50
    assert odd.reads == 1


# Errors.


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (FileNotFoundError("gone"), RemoteFileNotFoundError, 422),
        (PermissionError("403, signed with AKIASECRET"), RemoteFileDeniedError, 422),
        (OSError("connection to AKIASECRET failed"), RemoteFileError, 503),
        (RuntimeError("AKIASECRET"), RemoteFileError, 503),
        (ImportError("Install s3fs"), MissingPackageError, 500),
    ],
)
def test_failures_of_a_store_are_told_apart(
    load: Load,
    odd: type[Odd],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    kind: type[Exception],
    status: int,
) -> None:
    monkeypatch.setattr(odd, "error", error)
    with pytest.raises(kind) as raised:
        load(FsspecConnector(allowed_buckets=["odd://open"]), ODD)
    assert type(raised.value) is kind
    assert http_status(raised.value) == status
    assert "AKIASECRET" not in str(raised.value)


def test_what_is_not_there_or_no_object_is_not_found(load: Load, store: MemoryFileSystem) -> None:
    connector = FsspecConnector(allowed_buckets=OPEN)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(connector, "memory://open/missing")
    with pytest.raises(FileNotFoundError, match="is a directory"):
        load(connector, "memory://open/sub")


def test_a_store_that_nobody_installed_is_named(load: Load) -> None:
    with pytest.raises(MissingPackageError, match="nosuch://"):
        load(FsspecConnector(allowed_buckets=["nosuch://open"]), "nosuch://open/a")


def test_a_store_that_hangs_is_given_up(load: Load, odd: type[Odd], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd, "gate", threading.Event())
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    try:
        with pytest.raises((TimeoutError, requests.Timeout), match=r"more than 0\.1 s; see VLLM_"):
            load(FsspecConnector(allowed_buckets=["odd://open"]), ODD, fetch_timeout=0.1)
    finally:
        odd.gate.set()


def test_a_timeout_of_the_store_itself_is_a_transient_failure(
    load: Load, odd: type[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odd, "error", TimeoutError("slow"))
    with pytest.raises(RemoteFileError) as raised:
        load(FsspecConnector(allowed_buckets=["odd://open"]), ODD)
    assert http_status(raised.value) == 503


# Registration.


def test_it_is_registered_under_its_name(store: MemoryFileSystem) -> None:
    connector = MEDIA_CONNECTOR_REGISTRY.load("fsspec", allowed_buckets=OPEN)
    assert connector.load_from_url("memory://open/a.bin", Plain()) == b"open"
    assert {"http", "fsspec"} <= set(MEDIA_CONNECTOR_REGISTRY.name2class)


def test_neither_it_nor_fsspec_is_loaded_until_asked_for() -> None:
    code = """
import sys
from mmmedia.media.connector import MEDIA_CONNECTOR_REGISTRY as registry
assert "fsspec" in registry and sorted(registry) == ["fsspec", "http"] and len(registry) == 2
assert "mmmedia.media.fsspec_connector" not in sys.modules
connector = registry.load("fsspec", allowed_buckets=["s3://photos"])
assert type(connector).__name__ == "FsspecConnector"
assert "fsspec" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_a_forked_child_has_readers_of_its_own(store: MemoryFileSystem) -> None:
    load = FsspecConnector(allowed_buckets=OPEN).load_from_url
    assert load("memory://open/a.bin", Plain()) == b"open"
    assert holds_in_child(lambda: load("memory://open/a.bin", Plain()) == b"open")
    assert connections.global_http_connection
