"""A real nginx gives a video in pieces, as it does to browsers."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmmedia.connections import HTTPConnection
from mmmedia.media import ImageMediaIO, MediaConnector, VideoMediaIO
from mmmedia.media.budget import MediaBudget
from support.layouts import laid_out, long_clip, padded

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx, the Debian package")

_CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log {folder}/access.log combined;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  gzip on; gzip_types *; gzip_min_length 1; default_type video/mp4;
  server {{
    listen 127.0.0.1:{port}; root {folder}/files;
    location /whole/ {{ alias {folder}/files/; max_ranges 0; }}
    location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nginx")
    (folder / "files").mkdir()
    (folder / "files" / "film.mp4").write_bytes(padded(long_clip()))
    (folder / "files" / "fragments.mp4").write_bytes(padded(laid_out("fragments, one sidx")))
    return folder


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (folder / "nginx.conf").write_text(_CONFIGURATION.format(folder=folder, port=port))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, (folder / "error.log").read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def fetch(half: str, url: str, budget: MediaBudget | None = None) -> Any:
    connection = HTTPConnection()
    connector = MediaConnector({"video": {"num_frames": 4}}, connection, budget=budget)
    try:
        return connector.fetch_video(url) if half == "sync" else asyncio.run(connector.fetch_video_async(url))
    finally:
        connection.close()


@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("name", ["film.mp4", "fragments.mp4", "moved/film.mp4"])
def test_a_video_comes_in_pieces(half: str, name: str, origin: str, folder: Path) -> None:
    budget = MediaBudget(max_download_bytes=32 << 20)
    frames, metadata = fetch(half, f"{origin}/{name}", budget)
    data = (folder / "files" / name.rpartition("/")[2]).read_bytes()
    whole, expected = VideoMediaIO(ImageMediaIO(), num_frames=4).load_bytes(data)
    assert frames.tobytes() == whole.tobytes()
    assert metadata == expected
    assert 0 < budget.download.used < 0.2 * len(data)
    assert " 206 " in (folder / "access.log").read_text()


@pytest.mark.parametrize("half", ["sync", "async"])
def test_where_nginx_gives_no_pieces_it_gives_the_whole(half: str, origin: str, folder: Path) -> None:
    video = fetch(half, f"{origin}/whole/film.mp4")
    assert video.original_bytes == (folder / "files" / "film.mp4").read_bytes()
