"""The connector: every kind of URL, in the sync and in the async half."""

import asyncio
import base64
import contextlib
import gc
import io
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import AsyncMock, Mock

import aiohttp
import numpy as np
import pytest
import requests
from PIL import Image
from urllib3.util import parse_url

import mmmedia
from mmmedia import metrics
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidURLError,
    LimitExceededError,
    LocalFileError,
    LocalFileNotFoundError,
    LocalFilesDisabledError,
    MediaError,
    RefusedURLError,
    UnsupportedMediaError,
)
from mmmedia.exceptions import HTTPResponseSizeExceededError, MediaDownloadSizeExceededError
from mmmedia.media import connector as connector_module, downloads as downloads_module
from mmmedia.media.base import MediaIO, decode_base64
from mmmedia.media.budget import size_of
from mmmedia.media.connector import MEDIA_CONNECTOR_REGISTRY, MediaConnector, merge_media_io_kwargs
from mmmedia.media.fsspec_connector import FsspecConnector
from support.forking import holds_in_child
from support.plain import Plain
from support.server import Request, Server, cut, in_turn, redirect, reply, stall


def _png(size: tuple[int, int] = (5, 4)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(file, "PNG")
    return file.getvalue()


PNG = _png()
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()


class Recorder(MediaIO[bytes]):
    """Loads to the bytes themselves and notes how it was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)

    def load_bytes(self, data: bytes) -> bytes:
        self._note("bytes", data)
        if data.startswith(b"bad"):
            raise ValueError("undecodable")
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:
        self._note("base64", media_type, data)
        return decode_base64(data)

    def load_file(self, filepath: Path) -> bytes:
        self._note("file", filepath)
        return filepath.read_bytes()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


Load = Callable[..., Any]


def _sync(connector: MediaConnector, url: str, media_io: MediaIO[Any] | None = None, **kwargs: Any) -> Any:
    return connector.load_from_url(url, media_io or Recorder(), **kwargs)


def _async(connector: MediaConnector, url: str, media_io: MediaIO[Any] | None = None, **kwargs: Any) -> Any:
    return asyncio.run(connector.load_from_url_async(url, media_io or Recorder(), **kwargs))


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def load(request: pytest.FixtureRequest) -> Load:
    """`load_from_url`, in one half and in the other."""
    return request.param


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A directory that file URLs may name, beside one that they may not."""
    (tmp_path / "allowed" / "sub").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.bin").write_bytes(b"secret")
    (tmp_path / "allowed" / "a.bin").write_bytes(b"open")
    return tmp_path / "allowed"


# Data URLs.


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        ("data:image/png;base64", "image/png"),
        ("DATA:image/png;base64", "image/png"),
        ("data:text/plain;charset=utf-8;base64", "text/plain"),
        ("data:;base64", ""),
        ("data:video/webm;codecs=vp8,opus;base64", "video/webm"),
        ('data:video/mp4;codecs="avc1.42E01E, mp4a.40.2";base64', "video/mp4"),
    ],
)
def test_a_data_url_is_base64_with_a_media_type(load: Load, head: str, media_type: str) -> None:
    recorder = Recorder()
    assert load(MediaConnector(), f"{head},bW1tZWRpYQ==", recorder) == b"mmmedia"
    assert recorder.calls == [("base64", media_type, "bW1tZWRpYQ==")]


def test_percent_encoded_base64_is_understood(load: Load) -> None:
    assert load(MediaConnector(), "data:;base64,%2B%2f8%3D") == base64.b64decode("+/8=")


@pytest.mark.parametrize(
    "quote", [lambda text: text, lambda text: text.replace("+", "%2B").replace("=", "%3d")]
)
def test_our_own_media_ios_read_the_same_from_a_data_url(load: Load, quote: Callable[[str], str]) -> None:
    from mmmedia.media.image import ImageMediaIO

    image = load(MediaConnector(), quote(DATA_URL), ImageMediaIO())
    assert (image.original_bytes, image.size) == (PNG, (5, 4))
    with pytest.raises(ValueError, match="base64"):
        load(MediaConnector(), quote(DATA_URL) + "ü", ImageMediaIO())
    with pytest.raises(ValueError, match="base64"):
        load(MediaConnector(), quote(DATA_URL)[:-9] + "*", ImageMediaIO())


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("data:image/png;base64", InvalidURLError, "missing ','"),
        ("data:", InvalidURLError, "missing ','"),
        ("data:image/png,abc", UnsupportedMediaError, "Only base64 data URLs are supported for now."),
        ("data:,abc", UnsupportedMediaError, "Only base64"),
        ("data:video/webm;codecs=vp8,opus,AAAA", UnsupportedMediaError, "Only base64"),
        ("data:text/plain," + "x" * 5000 + ";base64,AAAA", UnsupportedMediaError, "Only base64"),
        ("data:base64,abc", UnsupportedMediaError, "Only base64"),
        ("data:image/png;BASE64,abcd", UnsupportedMediaError, "Only base64"),
        ("data:image/png; base64,abcd", UnsupportedMediaError, "Only base64"),
        ("data:;base64;charset=x,abc", UnsupportedMediaError, "Only base64"),
        ("data:;base64,bW1t!", ValueError, "base64"),
        ("data:;base64," + "A" * 20_000_000 + "*AAA", ValueError, "base64"),
        ("data:;base64,%zz", ValueError, "base64"),
    ],
)
def test_malformed_data_urls_are_refused_without_showing_much(
    load: Load, url: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load(MediaConnector(), url)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "url",
    ["ftp://a/b", "http+unix://a", "jar:http://a", "a.png", "", "//a/b", "gopher://u:secret@a/", " http://a/",
     " data:,x", "javascript:alert(1)", "s3://bucket/key", "C:\\a.png", None, 7],
)  # fmt: skip
def test_other_urls_are_refused(load: Load, url: Any) -> None:
    with pytest.raises(InvalidURLError, match=r"The URL must be either a HTTP, data or file URL\.") as caught:
        load(MediaConnector(), url)
    assert "secret" not in str(caught.value)


# Files.


@pytest.mark.parametrize("name", ["a.bin", "with space.bin", "pro%cent#?.bin", "ümläut 猫.bin", "sub/b.bin"])
def test_a_file_below_the_allowed_path_is_loaded_under_its_own_name(
    load: Load, local: Path, name: str
) -> None:
    (local / name).write_bytes(b"content")
    recorder = Recorder()
    connector = MediaConnector(allowed_local_media_path=str(local))
    assert load(connector, (local / name).as_uri(), recorder) == b"content"
    assert recorder.calls == [("bytes", b"content")]
    assert load(connector, f"file://localhost{(local / 'a.bin')}")


def test_names_that_are_not_utf8_are_loaded(load: Load, local: Path) -> None:
    path = os.fsencode(local) + b"/\xff.bin"
    Path(os.fsdecode(path)).write_bytes(b"content")
    assert load(MediaConnector(allowed_local_media_path=local), f"file://{local}/%FF.bin") == b"content"


def test_links_and_dots_that_stay_inside_are_followed(load: Load, local: Path, tmp_path: Path) -> None:
    (local / "link").symlink_to("a.bin")
    (tmp_path / "way in").symlink_to(local)
    connector = MediaConnector(allowed_local_media_path=tmp_path / "way in")
    assert load(connector, f"file://{local}/sub/../link") == b"open"
    assert load(connector, f"file://{tmp_path}/way%20in/a.bin") == b"open"


def test_the_allowed_path_may_be_relative(load: Load, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(local.parent)
    connector = MediaConnector(allowed_local_media_path="allowed")
    monkeypatch.chdir("/")
    assert load(connector, (local / "a.bin").as_uri()) == b"open"


@pytest.mark.parametrize(
    "target",
    ["../secret/a.bin", "sub/../../secret/a.bin", "%2e%2e/secret/a.bin", "link", "dirlink/a.bin",
     "../allowed2/a.bin", "../secret/missing", "../../../../../../../../etc/passwd", ".."],
)  # fmt: skip
def test_what_lies_elsewhere_is_refused(load: Load, local: Path, target: str) -> None:
    (local / "link").symlink_to("../secret/a.bin")
    (local / "dirlink").symlink_to("../secret")
    (local.parent / "allowed2").mkdir()
    (local.parent / "allowed2" / "a.bin").write_bytes(b"secret")
    recorder = Recorder()
    with pytest.raises(RefusedURLError, match="must be a subpath"):
        load(MediaConnector(allowed_local_media_path=local), f"file://{local}/{target}", recorder)
    assert not recorder.calls


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("missing", LocalFileNotFoundError),
        ("a.bin/b", LocalFileNotFoundError),
        ("sub", LocalFileError),
        ("", LocalFileError),
        ("fifo", LocalFileError),
        ("socket", LocalFileError),
        ("loop", LocalFileError),
        ("x" * 300, LocalFileError),
        ("x/" * 3000, LocalFileError),
    ],
)
def test_what_is_no_regular_file_is_an_error_and_no_hang(
    load: Load, local: Path, target: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    os.mkfifo(local / "fifo")
    (local / "loop").symlink_to("loop")
    monkeypatch.chdir(local)
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket")
        with pytest.raises(error) as caught:
            load(MediaConnector(allowed_local_media_path=local), f"file://{local}/{target}")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null"])
def test_devices_are_refused(load: Load, name: str) -> None:
    with pytest.raises(LocalFileError, match="regular"):
        load(MediaConnector(allowed_local_media_path="/dev"), f"file://{name}")


def test_without_an_allowed_path_no_file_is_read(load: Load, local: Path) -> None:
    message = "Cannot load local files without `--allowed-local-media-path`."
    with pytest.raises(LocalFilesDisabledError, match=message) as caught:
        load(MediaConnector(), (local / "a.bin").as_uri())
    assert isinstance(caught.value, RuntimeError)


def test_the_allowed_path_must_be_a_directory_that_exists(local: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="does not exist"):
        MediaConnector(allowed_local_media_path=str(local / "missing"))
    with pytest.raises(InvalidArgumentError, match="not a directory"):
        MediaConnector(allowed_local_media_path=str(local / "a.bin"))


def test_file_descriptors_are_closed(load: Load, local: Path) -> None:
    connector = MediaConnector(allowed_local_media_path=local)
    load(connector, (local / "a.bin").as_uri())
    before = _open_files()
    for name in ["a.bin"] * 20 + ["sub"] * 20:
        with contextlib.suppress(LocalFileError):
            load(connector, (local / name).as_uri())
    assert _open_files() <= before


# HTTP.


def test_http_urls_are_fetched_and_decoded(load: Load, server: Server) -> None:
    recorder = Recorder()
    assert load(MediaConnector(), server.route("/a", reply(b"content")), recorder) == b"content"
    assert recorder.calls == [("bytes", b"content")]


@pytest.mark.parametrize(
    "url", ["http:///a", "http:a", "http://a:0/", "https://a\r\nb/", "http://[fe80::1%25eth0]/"]
)
def test_malformed_http_urls_are_refused(load: Load, url: str) -> None:
    with pytest.raises(MediaError):
        load(MediaConnector(), url)


def test_hosts_are_held_to_the_domain_list_as_they_are_requested(load: Load, server: Server) -> None:
    connector = MediaConnector(allowed_media_domains=["127.0.0.1", "*.example.org"])
    server.route("/a", reply(b"content"))
    assert load(connector, server.url("/a")) == b"content"
    for host in ("localhost", "127.0.0.1.example.com", "example.org", f"127.0.0.1@localhost:{server.port}"):
        with pytest.raises(RefusedURLError, match="allowed domains"):
            load(connector, f"http://{host}/a")
    with pytest.raises((requests.HTTPError, aiohttp.ClientResponseError), match="404"):
        load(connector, f"http://127.0.0.1:{server.port}\\@localhost/a")
    assert [request.target for request in server.requests] == ["/a", "/%5C@localhost/a"]


def test_redirects_are_held_to_the_domain_list(load: Load, server: Server) -> None:
    server.route("/b", reply(b"content"))
    server.route("/a", redirect(server.url("/b").replace("127.0.0.1", "localhost")))
    with pytest.raises(RefusedURLError, match="allowed domains"):
        load(MediaConnector(allowed_media_domains=["127.0.0.1"]), server.url("/a"))
    assert (
        load(MediaConnector(allowed_media_domains=["127.0.0.1", "localhost"]), server.url("/a")) == b"content"
    )


def test_the_domain_list_does_not_apply_to_data_and_files(load: Load, local: Path) -> None:
    connector = MediaConnector(allowed_media_domains=["example.org"], allowed_local_media_path=local)
    assert load(connector, "data:;base64,bW1t") == b"mmm"
    assert load(connector, (local / "a.bin").as_uri()) == b"open"
    with pytest.raises(InvalidArgumentError):
        MediaConnector(allowed_media_domains=["example.org:80"])


def test_redirects_can_be_switched_off(load: Load, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
    with pytest.raises(RefusedURLError, match="VLLM_MEDIA_URL_ALLOW_REDIRECTS"):
        load(MediaConnector(), server.route("/a", redirect("/b")))


def test_a_stalling_server_is_given_up(load: Load, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    with pytest.raises((requests.Timeout, asyncio.TimeoutError)):
        load(MediaConnector(), server.route("/a", stall()), fetch_timeout=0.1)


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
def test_each_modality_has_its_timeout(modality: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"VLLM_{modality.upper()}_FETCH_TIMEOUT", "1.25")
    connection = Mock()
    connection.get_bytes.side_effect = connection.async_get_bytes.side_effect = KeyError("enough")
    connector = MediaConnector(connection=connection)
    with pytest.raises(KeyError, match="enough"):
        getattr(connector, f"fetch_{modality}")("http://example.org/a")
    limit = 25 << 20 if modality == "audio" else None
    asked = {"timeout": 1.25, "allow_redirects": True, "max_bytes": limit}
    connection.get_bytes.assert_called_once_with("http://example.org/a", **asked)
    connection.async_get_bytes = AsyncMock(side_effect=KeyError("enough"))
    with pytest.raises(KeyError, match="enough"):
        asyncio.run(getattr(connector, f"fetch_{modality}_async")("http://example.org/a"))
    connection.async_get_bytes.assert_awaited_once_with("http://example.org/a", **asked)


class Modest(Plain):
    """It takes ten bytes."""

    def get_max_bytes(self) -> int:
        return 10


def test_no_more_is_downloaded_than_a_media_io_takes(
    load: Load, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor read; the lower limit is the one that the error is about."""
    server.route("/ten", reply(b"0123456789"))
    server.route("/eleven", reply(b"0123456789a"))
    assert load(MediaConnector(), server.url("/ten"), Modest()) == b"0123456789"
    with pytest.raises(HTTPResponseSizeExceededError, match="more than 10 bytes"):
        load(MediaConnector(), server.url("/eleven"), Modest())
    (tmp_path / "eleven").write_bytes(b"0123456789a")
    with pytest.raises(HTTPResponseSizeExceededError, match="more than 10 bytes"):
        load(MediaConnector(allowed_local_media_path=tmp_path), (tmp_path / "eleven").as_uri(), Modest())
    monkeypatch.setattr(Modest, "get_max_bytes", lambda _: 1 << 20)
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    server.route("/more", reply(bytes((1 << 20) + 1)))
    with pytest.raises(MediaDownloadSizeExceededError):
        load(MediaConnector(), server.url("/more"), Modest())


def test_who_takes_more_does_not_share_such_a_download(server: Server) -> None:
    """Its limit would be the other's."""
    both = threading.Barrier(2)

    def together(request: Request) -> None:
        both.wait(30)
        reply(b"0123456789a")(request)

    server.route("/eleven", together)

    async def fetch() -> list[Any]:
        connectors = MediaConnector(), MediaConnector()
        ios = Modest(), Plain()
        loads = (
            connector.load_from_url_async(server.url("/eleven"), media_io)
            for connector, media_io in zip(connectors, ios, strict=True)
        )
        return await asyncio.gather(*loads, return_exceptions=True)

    refused, loaded = asyncio.run(fetch())
    assert isinstance(refused, LimitExceededError)
    assert loaded == b"0123456789a"


def test_any_connection_with_get_bytes_will_do(load: Load) -> None:
    class Archive:
        def get_bytes(self, url: str, *, timeout: float | None = None, allow_redirects: bool = True) -> bytes:
            return url.encode()

        async def async_get_bytes(self, url: str, **kwargs: Any) -> bytes:
            return self.get_bytes(url)

    connector = MediaConnector(connection=Archive())  # type: ignore[arg-type]
    assert load(connector, "http://example.org/a") == b"http://example.org/a"


# The cache.


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(directory))
    return directory


def test_the_second_fetch_comes_from_the_cache(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a.bin", reply(b"content"))
    assert [load(MediaConnector(), url) for _ in range(3)] == [b"content"] * 3
    assert server.count() == 1
    connector = MediaConnector()
    path = connector._media_cache_path(url)
    assert path.parent == cached
    assert path.read_bytes() == connector._get_cached_bytes(url) == b"content"
    assert connector._media_cache_dir == str(cached)
    assert connector._media_cache_max_bytes == 5120 * 2**20
    assert connector._media_cache_ttl_secs == 86400


def test_only_what_decoded_is_cached(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a", reply(b"bad content"))
    for _ in range(2):
        with pytest.raises(ValueError, match="undecodable"):
            load(MediaConnector(), url)
    assert server.count() == 2
    assert MediaConnector()._get_cached_bytes(url) is None


def test_a_body_cut_short_is_not_cached(
    load: Load, server: Server, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MEDIA_FETCH_MAX_RETRIES", "1")
    url = server.route("/a", in_turn(cut(b"content" * 9, 7), reply(b"content" * 9)))
    with pytest.raises((requests.RequestException, aiohttp.ClientError)):
        load(MediaConnector(), url)
    assert MediaConnector()._get_cached_bytes(url) is None
    assert load(MediaConnector(), url) == b"content" * 9


def test_a_damaged_entry_is_fetched_again(load: Load, server: Server, cached: Path) -> None:
    url = server.route("/a", reply(b"content"))
    MediaConnector()._put_cached_bytes(url, b"bad content")
    assert load(MediaConnector(), url) == b"content"
    assert MediaConnector()._get_cached_bytes(url) == b"content"


def test_a_cache_directory_that_vanishes_is_a_miss(load: Load, server: Server, cached: Path) -> None:
    import shutil

    connector = MediaConnector()
    url = server.route("/a", reply(b"content"))
    load(connector, url)
    shutil.rmtree(cached)
    assert load(connector, url) == b"content"
    assert server.count() == 2


def test_cached_bytes_are_held_to_todays_policy_and_limits(
    load: Load, server: Server, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.route("/a", reply(b"c" * (1024 * 1024 + 1)))
    load(MediaConnector(), url)
    with pytest.raises(RefusedURLError, match="allowed domains"):
        load(MediaConnector(allowed_media_domains=["example.org"]), url)
    monkeypatch.setenv("VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB", "1")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB"):
        load(MediaConnector(), url)
    assert server.count() == 1


def test_neither_files_nor_data_are_cached(load: Load, local: Path, cached: Path) -> None:
    connector = MediaConnector(allowed_local_media_path=local)
    load(connector, "data:;base64,bW1t")
    load(connector, (local / "a.bin").as_uri())
    assert not cached.exists() or not [path for path in cached.iterdir() if not path.name.startswith(".")]


def test_the_names_of_the_cache_work_without_one(tmp_path: Path) -> None:
    connector = MediaConnector()
    connector._put_cached_bytes("http://a/b.png", b"x")
    connector._maybe_evict()
    assert connector._get_cached_bytes("http://a/b.png") is None
    assert connector._media_cache_path("http://a/b.png").suffix == ".png"
    connector._media_cache_dir = str(tmp_path)  # as tests in the wild switch it on
    connector._media_cache_max_bytes = 3 * 4096
    for number in range(5):
        connector._put_cached_bytes(f"http://a/{number}", b"x")
    connector._maybe_evict(exclude=connector._media_cache_path("http://a/0"))
    assert connector._get_cached_bytes("http://a/4") == b"x"


# The async shape.


def test_the_event_loop_neither_decodes_nor_reads(server: Server, local: Path, cached: Path) -> None:
    url = server.route("/a", reply(b"content"))
    connector = MediaConnector(allowed_local_media_path=local)
    recorder = Recorder()
    for each in (url, url, "data:;base64,bW1t", (local / "a.bin").as_uri()):
        _async(connector, each, recorder)
    assert len(recorder.calls) == 4
    assert all(name.startswith("mmmedia") for name in recorder.threads)


def test_work_that_nobody_waits_for_is_not_started() -> None:
    release = threading.Event()
    running = threading.Semaphore(0)
    calls = []

    class Slow(Recorder):
        def load_base64(self, media_type: str, data: str) -> bytes:
            calls.append(data)
            running.release()
            release.wait(20)
            return b""

    async def cancel() -> None:
        connector = MediaConnector()
        workers = connector_module.global_thread_pool._max_workers
        tasks = [
            asyncio.create_task(connector.load_from_url_async("data:;base64,AAAA", Slow()))
            for _ in range(workers + 5)
        ]
        for _ in range(workers):
            await asyncio.to_thread(running.acquire, timeout=20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        release.set()
        await connector.load_from_url_async("data:;base64,AAAA", Recorder())
        assert len(calls) == workers

    asyncio.run(cancel())


def test_two_loops_in_a_row_and_two_at_once_leave_no_session_behind(server: Server) -> None:
    url = server.route("/a", reply(PNG))
    connector = MediaConnector()

    def fetch() -> None:
        assert asyncio.run(connector.fetch_image_async(url)).size == (5, 4)

    fetch()
    fetch()
    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert server.count() in (3, 4)  # the threads may share


SCRIPT = """
import asyncio, sys, threading
from mmmedia.media import MediaConnector
url = sys.argv[1]
async def main():
    image = await MediaConnector().fetch_image_async(url)
    assert image.size == (5, 4)
if sys.argv[2] == "runs":
    asyncio.run(main()); asyncio.run(main())
elif sys.argv[2] == "threads":
    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
else:  # a notebook's loop, still open at exit
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(main())
    MediaConnector().fetch_image(url)
"""


@pytest.mark.parametrize("how", ["runs", "threads", "notebook"])
def test_nothing_is_said_at_exit(server: Server, how: str) -> None:
    url = server.route("/a", reply(PNG))
    command = [sys.executable, "-W", "always", "-c", SCRIPT, url, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    complaints = [line for line in done.stderr.splitlines() if "event loop" not in line]
    assert "session" not in done.stderr
    assert "connect" not in done.stderr
    assert how == "notebook" or not complaints


def test_a_forked_child_has_workers_of_its_own() -> None:
    pool = connector_module.global_thread_pool
    connector = MediaConnector()

    def loads() -> bool:
        return _async(connector, DATA_URL) == PNG and connector_module.global_thread_pool is not pool

    assert holds_in_child(loads)
    assert connector_module.global_thread_pool is pool
    with pytest.raises(AttributeError, match="no attribute 'gone'"):
        connector_module.gone  # noqa: B018


@contextlib.contextmanager
def _held(lock: "threading.Lock") -> Iterator[None]:
    """Have another thread hold a lock inside the block."""
    is_held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait(20)
    try:
        yield
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize("which", ["flights", "pool", "metrics"])
def test_a_child_forked_while_a_lock_is_held_works_at_its_first_use(
    server: Server, load: Load, which: str
) -> None:
    url = server.route("/a", reply(b"content"))
    lock = {
        "flights": downloads_module._flights._lock,
        "pool": connector_module._loading._lock,
        "metrics": metrics._lock,
    }[which]

    def works() -> bool:
        metrics._made.clear()  # as where a parent has not counted yet
        return load(MediaConnector(), url) == b"content"

    with _held(lock):
        assert holds_in_child(works)


# By modality.


def test_an_image_is_fetched_with_the_keywords_of_its_modality(server: Server) -> None:
    connector = MediaConnector({"image": {"image_mode": "L"}, "video": None})  # type: ignore[dict-item]
    assert connector.fetch_image(DATA_URL, image_mode="RGBA").mode == "L"
    assert MediaConnector().fetch_image(DATA_URL, image_mode="RGBA").mode == "RGBA"
    image = MediaConnector().fetch_image(server.route("/a.png", reply(PNG)))
    assert image.original_bytes == PNG
    assert image.mode == "RGB"


def test_undecodable_images_are_value_errors(server: Server) -> None:
    url = server.route("/a.png", reply(b"no image"))
    with pytest.raises(ValueError, match="Failed to load image"):
        MediaConnector().fetch_image(url)
    with pytest.raises(ValueError, match="Failed to load image"):
        asyncio.run(MediaConnector().fetch_image_async(url))


def test_a_sound_is_fetched() -> None:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(800) / 5) / 2, 8000, format="WAV")
    url = "data:audio/wav;base64," + base64.b64encode(file.getvalue()).decode()
    for samples, rate in (
        MediaConnector().fetch_audio(url),
        asyncio.run(MediaConnector().fetch_audio_async(url)),
    ):
        assert (samples.shape, samples.dtype, rate) == ((800,), np.float32, 8000)


def test_a_video_of_single_frames_is_fetched() -> None:
    frames = []
    for _ in range(3):
        file = io.BytesIO()
        Image.new("RGB", (8, 6)).save(file, "JPEG")
        frames.append(base64.b64encode(file.getvalue()).decode())
    url = "data:video/jpeg;base64," + ",".join(frames)
    connector = MediaConnector({"video": {"num_frames": 2}})
    for array, metadata in (
        connector.fetch_video(url, video_processor="SomeProcessor"),
        asyncio.run(connector.fetch_video_async(url)),
    ):
        assert array.shape == (2, 6, 8, 3)
        assert metadata["video_backend"] == "jpeg_sequence"


@pytest.mark.parametrize("modality", ["image", "audio", "video"])
def test_an_embedding_is_loaded_from_base64(modality: str) -> None:
    pytest.importorskip("torch")
    file = io.BytesIO()
    np.save(file, np.arange(6, dtype=np.float32).reshape(2, 3))
    data = base64.b64encode(file.getvalue()).decode()
    connector = MediaConnector()
    assert getattr(connector, f"fetch_{modality}_embedding")(data).shape == (2, 3)
    assert asyncio.run(getattr(connector, f"fetch_{modality}_embedding_async")(data)).shape == (2, 3)


class Purse:
    def __init__(self, left: int) -> None:
        self.left = left

    def charge(self, number_of_bytes: int) -> None:
        self.left -= number_of_bytes
        if self.left < 0:
            raise LimitExceededError("used up")


def test_budgets_are_charged_with_encoded_and_decoded_bytes(load: Load, server: Server, local: Path) -> None:
    for url, size in (
        (server.route("/a", reply(b"x" * 30)), 30),
        ("data:;base64," + base64.b64encode(b"x" * 30).decode(), 30),
        ((local / "a.bin").as_uri(), 4),
    ):
        purse = Purse(40)
        connector = MediaConnector(download_budget=purse, allowed_local_media_path=local)
        load(connector, url)
        assert purse.left == 40 - size
        purse.left = size - 1
        with pytest.raises(LimitExceededError, match="used up"):
            load(connector, url)
    purse = Purse(100)
    MediaConnector(decoded_budget=purse).fetch_image(DATA_URL)
    assert purse.left == 100 - 5 * 4 * 3
    with pytest.raises(LimitExceededError, match="used up"):
        asyncio.run(MediaConnector(decoded_budget=purse).fetch_image_async(DATA_URL))


@pytest.mark.parametrize(
    ("media", "size"),
    [
        (np.zeros((2, 3), np.float32), 24),
        ((np.zeros(5, np.float32), 8000), 20),
        (([np.zeros(1)], {}), 8),
        (Image.new("RGBA", (2, 3)), 24),
        (Image.new("I", (2, 3)), 24),
        (Image.new("I;16", (2, 3)), 12),
        (b"abc", 0),
    ],
)
def test_decoded_objects_are_sized(media: object, size: int) -> None:
    assert size_of(media) == size


# Registry, merging, names that code in the wild uses.


def test_the_connector_is_registered_as_http() -> None:
    assert isinstance(MEDIA_CONNECTOR_REGISTRY.load("http", allowed_media_domains=["a"]), MediaConnector)


def test_keywords_are_merged_by_each_modalitys_own_rule() -> None:
    assert merge_media_io_kwargs(None, None) is None
    assert merge_media_io_kwargs({}, {}) is None
    defaults = {"video": {"num_frames": 8, "a": 1}, "image": {"image_mode": "L"}}
    merged = merge_media_io_kwargs(defaults, {"video": {"fps": 2}, "odor": {"x": 1}, "audio": None})
    assert merged == {
        "video": {"fps": 2, "a": 1},
        "image": {"image_mode": "L"},
        "odor": {"x": 1},
        "audio": {},
    }
    assert defaults["video"] == {"num_frames": 8, "a": 1}


def test_the_underscored_methods_take_parsed_urls_too(local: Path) -> None:
    connector = MediaConnector(allowed_local_media_path=local, allowed_media_domains=["a"])
    assert connector._load_data_url(parse_url("data:image/png;base64,bW1t"), Recorder()) == b"mmm"
    assert connector._load_data_url("data:image/png;base64,bW1t", Recorder()) == b"mmm"
    assert connector._load_file_url(parse_url((local / "a.bin").as_uri()), Recorder()) == b"open"
    connector._assert_url_in_allowed_media_domains(parse_url("http://a/b"))
    with pytest.raises(RefusedURLError):
        connector._assert_url_in_allowed_media_domains(parse_url("http://b/a"))


def test_subclasses_override_how_a_url_is_loaded() -> None:
    class Mine(MediaConnector):
        def load_from_url(
            self, url: str, media_io: MediaIO[Any], *, fetch_timeout: float | None = None
        ) -> Any:
            return (url, fetch_timeout)

    assert Mine().fetch_image("anything") == ("anything", 5.0)


def test_a_thousand_connectors_leave_nothing_behind(cached: Path, local: Path) -> None:
    threads = threading.active_count()
    before = _open_files()
    for _ in range(1000):
        MediaConnector(allowed_local_media_path=local, allowed_media_domains=["*.example.org"])
    assert threading.active_count() == threads
    assert _open_files() == before


def test_an_image_from_a_data_url_loads_neither_torch_nor_cv2_nor_librosa() -> None:
    script = (
        "import sys; from mmmedia.media import MediaConnector; MediaConnector().fetch_image(sys.argv[1]);"
        "heavy = {'torch', 'cv2', 'librosa', 'av', 'aiohttp', 'requests'}; print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, DATA_URL], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_video_processor_chooses_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine's own choice wins, then what is bound to the processor, then the setting."""

    def chosen(options: dict[str, Any], processor: str | None) -> str:
        connector = MediaConnector({"video": options})
        return type(connector._video_io("RGB", processor).video_loader).__name__

    assert chosen({}, "Qwen3VLVideoProcessor") == "Qwen3VLVideoBackend"
    assert chosen({"video_backend": None}, "Qwen3VLVideoProcessor") == "Qwen3VLVideoBackend"
    assert chosen({"video_backend": "molmo2"}, "Qwen3VLVideoProcessor") == "Molmo2VideoBackend"
    monkeypatch.setenv("VLLM_VIDEO_LOADER_BACKEND", "opencv_dynamic")
    assert chosen({}, "NobodysVideoProcessor") == chosen({}, None) == "OpenCVDynamicVideoBackend"
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert chosen({}, "Qwen3VLVideoProcessor") == "OpenCVDynamicVideoBackend"


def test_a_connector_says_what_it_was_given(tmp_path: Path) -> None:
    """In one line, its own class by its name; and it pickles small."""
    assert repr(MediaConnector()) == "MediaConnector()"
    made = MediaConnector(
        {"video": {"num_frames": 4}}, allowed_local_media_path=tmp_path, allowed_media_domains=["example.org"]
    )
    assert repr(made) == (
        f"MediaConnector(media_io_kwargs={{'video': {{'num_frames': 4}}}}, "
        f"allowed_local_media_path={str(tmp_path)!r}, allowed_media_domains=['example.org'])"
    )
    assert repr(FsspecConnector()).startswith("FsspecConnector(")
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)
    assert len(pickle.dumps(MediaConnector())) < 1000


def test_the_way_of_a_small_picture_is_short(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 100 calls within this library, and 40 stays in one file of it and one thread."""
    home = str(Path(mmmedia.__file__).parent)
    stays: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(home):
            stays.append((threading.current_thread().name, frame.f_code.co_filename))

    async def fetch(url: str) -> None:
        await MediaConnector().fetch_image_async(url)
        stays.clear()
        # Threads that are there already would not be looked at.
        with ThreadPoolExecutor(1, "decoding") as pool:
            monkeypatch.setattr(connector_module, "global_thread_pool", pool, raising=False)
            threading.setprofile(note)
            sys.setprofile(note)
            try:
                await MediaConnector().fetch_image_async(url)
            finally:
                sys.setprofile(None)
                threading.setprofile(None)

    file = io.BytesIO()
    Image.effect_noise((64, 48), 50).convert("RGB").save(file, "JPEG")
    server.route("/small", reply(file.getvalue()))
    asyncio.run(fetch(server.url("/small")))
    moves = sum(here != there for here, there in itertools.pairwise(stays))
    assert {name for name, _ in stays} == {"MainThread", "decoding_0"}
    assert len(stays) <= 100
    assert moves <= 40


def test_a_limit_refuses_also_what_was_stored_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the entry stays: it is not damaged."""
    monkeypatch.setenv("VLLM_MEDIA_CACHE", str(tmp_path))
    url = server.route("/cat.png", reply(PNG))
    MediaConnector().fetch_image(url)
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "10")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
        MediaConnector().fetch_image(url)
    monkeypatch.delenv("VLLM_MAX_IMAGE_PIXELS")
    MediaConnector().fetch_image(url)
    assert len(server.requests) == 1


def test_names_that_engines_look_up_in_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODALITY_IO_MAP", "global_thread_pool"):
        monkeypatch.delitem(vars(connector_module), name, raising=False)
    made = connector_module.MODALITY_IO_MAP
    assert sorted(made) == ["audio", "image", "video"]
    assert connector_module.MODALITY_IO_MAP is made
    assert connector_module.global_thread_pool.submit(len, "four").result() == 4
    with pytest.raises(AttributeError):
        _ = connector_module.no_such_name
