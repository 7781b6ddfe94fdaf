"""`mmmedia demo`: media made here, served here, fetched twice, sampled thrice, and looked at."""

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from PIL import Image
from rich import box
from rich.table import Table
from rich.text import Text

from mmmedia import envs
from mmmedia.cache import MediaCache, get_media_cache
from mmmedia.cli import scene
from mmmedia.cli.words import one_line, shortened
from mmmedia.errors import InvalidArgumentError, MediaError
from mmmedia.media.connector import MediaConnector
from mmmedia.show.sheet import Row, contact_sheet


@dataclass(frozen=True)
class Served:
    """A file of the server."""

    content_type: str
    body: bytes


@dataclass(frozen=True)
class FetchedTwice:
    """What came of fetching one URL twice.

    Attributes:
        name: of the file.
        url: where it was served.
        options: for the media IO; empty for what is no video.
        media: as the connector returned it.
        cold_ms: milliseconds of the first fetch, with its download.
        cached_ms: of the second, from the cache.
        hits: what the second added to the cache's counter of hits.
    """

    name: str
    url: str
    options: Mapping[str, Any]
    media: Any
    cold_ms: float
    cached_ms: float
    hits: int


_SAMPLERS: tuple[dict[str, Any], ...] = (
    {"video_backend": "opencv", "num_frames": 8},
    {"video_backend": "opencv_dynamic", "fps": 1},
    {"video_backend": "molmo2", "frame_sample_mode": "uniform_last_frame", "max_fps": 1, "num_frames": 16},
    {"video_backend": "molmo2"},
)


def demo(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where to write the contact sheet, a picture.", dir_okay=False),
    ] = Path("mmmedia-demo.png"),
) -> None:
    """Make a photo, a sound and a clip, fetch each twice through the cache, and run all samplers.

    Everything stays on this machine: a web server on loopback serves what is made on the spot.
    """
    try:
        _run(output)
    except (MediaError, OSError) as error:  # requests' errors are OSErrors
        typer.echo(f"mmmedia: {one_line(str(error))}", err=True)
        raise typer.Exit(1) from None


def _run(output: Path) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120
    with Console(stderr=True).status("Painting a day at a lake …") as status, _cache() as cache, _no_proxy():
        _import_decoders()
        files = {
            "photo.jpg": Served("image/jpeg", scene.photo()),
            "speech.wav": Served("audio/wav", scene.speech()),
            "clip.mp4": Served("video/mp4", scene.clip()),
        }
        status.update("Fetching it twice …")
        with serve(files) as address:
            results = list(_fetch_all(address, cache))
        stats = cache.stats
        for result in results:
            cache.discard(result.url)  # the port changes from run to run: nobody will ask for it again
        status.update("Drawing the contact sheet …")
        try:
            _sheet(results).save(output)
        except ValueError as error:
            raise InvalidArgumentError(f"{output}: no picture that Pillow can write: {error}.") from None
    console.print(_table(results, files))
    console.print(
        f"[bold]cache[/]  {stats.hits} hits · {stats.misses} misses · {stats.puts} puts · "
        f"{stats.entries} entries · {stats.bytes / 1e6:.1f} MB"
    )
    console.print("[bold]sheet[/]  ", Text(str(output)), sep="", soft_wrap=True)


def _import_decoders() -> None:
    """Import what is imported on first use, so that no fetch is charged for it."""
    import av
    import cv2
    import requests
    import soundfile

    from mmmedia.media import audio, image, video

    del av, cv2, requests, soundfile, audio, image, video


@contextlib.contextmanager
def serve(files: Mapping[str, Served]) -> Iterator[str]:
    """Serve files on loopback, on a port that is free; give the address, without a slash at its end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            file = files.get(self.path.partition("?")[0].removeprefix("/"))
            self.send_response(200 if file else 404)
            self.send_header("Content-Type", file.content_type if file else "text/plain")
            self.send_header("Content-Length", str(len(file.body) if file else 0))
            self.end_headers()
            if file:
                self.wfile.write(file.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # so that closing waits for the answers under way
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def _cache() -> Iterator[MediaCache]:
    """Give the cache that the settings name; else one in a directory that is gone afterwards."""
    limits = envs.VLLM_MEDIA_CACHE_MAX_SIZE_MB * 1024 * 1024, envs.VLLM_MEDIA_CACHE_TTL_HOURS * 3600.0
    cache = get_media_cache(envs.VLLM_MEDIA_CACHE, *limits) if envs.VLLM_MEDIA_CACHE else None
    if cache is not None:
        yield cache
        return
    with (
        tempfile.TemporaryDirectory(prefix="mmmedia-demo-") as directory,
        _environment(MMMEDIA_MEDIA_CACHE=directory),
    ):
        cache = get_media_cache(directory, *limits)
        assert cache is not None  # the directory was made a moment ago
        yield cache


def _no_proxy() -> contextlib.AbstractContextManager[None]:
    """See that no proxy stands between this process and itself."""
    return _environment(no_proxy="127.0.0.1", NO_PROXY="127.0.0.1")


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _fetch_all(address: str, cache: MediaCache) -> Iterator[FetchedTwice]:
    """Fetch the photo, the sound, and the clip once for each sampler, under URLs of their own."""
    connector = _connector({})
    yield _fetch_twice("photo.jpg", f"{address}/photo.jpg", {}, connector.fetch_image, cache)
    yield _fetch_twice("speech.wav", f"{address}/speech.wav", {}, connector.fetch_audio, cache)
    for number, options in enumerate(_SAMPLERS, 1):
        fetch = _connector({"video": options}).fetch_video
        yield _fetch_twice("clip.mp4", f"{address}/clip.mp4?{number}", options, fetch, cache)


def _connector(media_io_kwargs: dict[str, dict[str, Any]]) -> MediaConnector:
    # Named here, loopback may be reached whatever the settings say of private addresses.
    return MediaConnector(cast("Any", media_io_kwargs), allowed_media_domains=["127.0.0.1"])


def _fetch_twice(
    name: str, url: str, options: Mapping[str, Any], fetch: Callable[[str], Any], cache: MediaCache
) -> FetchedTwice:
    _, cold_ms = _timed(fetch, url)
    hits = cache.stats.hits
    media, cached_ms = _timed(fetch, url)
    return FetchedTwice(name, url, options, media, cold_ms, cached_ms, cache.stats.hits - hits)


def _timed(fetch: Callable[[str], Any], url: str) -> tuple[Any, float]:
    start = time.perf_counter()
    media = fetch(url)
    return media, (time.perf_counter() - start) * 1000


def _table(results: list[FetchedTwice], files: Mapping[str, Served]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False)
    table.add_column("media")
    table.add_column("as loaded")
    for heading in ("cold ms", "cached ms", "hits"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        if table.rows:
            table.add_row()
        if result.options:
            loader, lines = f"  [cyan]{result.options['video_backend']}[/]", _arguments(result.options, " ")
        else:
            file = files[result.name]
            loader, lines = "", [f"{len(file.body) / 1e3:.0f} kB {file.content_type}"]
        what = "\n".join([f"[bold]{result.name}[/]{loader}", *(f"[dim]{line}[/]" for line in lines)])
        times = f"{result.cold_ms:.1f}", f"{result.cached_ms:.1f}", str(result.hits)
        table.add_row(what, _described(result.media), *times)
    return table


def _arguments(options: Mapping[str, Any], sign: str = "=") -> list[str]:
    """Return the options without the loader's name, as texts."""
    given = [f"{name}{sign}{value}" for name, value in options.items() if name != "video_backend"]
    return given or ["every frame"]


def _described(media: Any) -> str:
    """Return shape, dtype and metadata of what a connector loaded."""
    if isinstance(wrapped := getattr(media, "media", None), tuple):  # a video with its bytes
        media = wrapped
    if not isinstance(media, tuple):
        array, lines = np.asarray(media), [f"{media.width} x {media.height} pixels, mode {media.mode}"]
    elif isinstance(media[1], dict):
        array, about = media
        lines = [
            f"{about['total_num_frames']} frames, {about['fps']:g} fps, {about['duration']:g} s",
            f"frames_indices {shortened(about['frames_indices'])}",
            f"video_backend {about['video_backend']}",
            f"do_sample_frames {about['do_sample_frames']}",
        ]
    else:
        array, rate = media
        lines = [f"{rate} Hz, {len(array) / rate:.2f} s, peak {abs(array).max():.2f}"]
    return "\n".join([f"[green]{array.shape}[/] {array.dtype}", *(f"[dim]{line}[/]" for line in lines)])


def _sheet(results: list[FetchedTwice]) -> Image.Image:
    clips = [result for result in results if result.options]
    rows = []
    for result in clips:
        frames, about = result.media
        name, note = result.options["video_backend"], ", ".join(_arguments(result.options))
        rows.append(Row(name, note, frames, about["frames_indices"], about["total_num_frames"], about["fps"]))
    frames, about = clips[0].media
    subtitle = (
        f"{frames.shape[2]} x {frames.shape[1]} pixels  ·  {about['total_num_frames']} frames  ·  "
        f"{about['fps']:g} a second  ·  {about['duration']:g} s"
    )
    return contact_sheet("What each sampler picks from the same clip", subtitle, rows)
