"""What the connector costs: a large data URL, small images over HTTP, many requests for few URLs.

    python benchmarks/connector.py [--images 2000] [--without]

With ``--without`` it only says what each mechanism buys: the same work with it and with it switched off.
Fetching is measured against the plainest loop that does the same: aiohttp (requests) and Pillow in a pool,
or reading the same bytes from disk and decoding them in a pool. The server runs in another process. Nobody
keeps the pictures: thousands of them would measure how the system hands out memory.
"""

import argparse
import asyncio
import base64
import contextlib
import functools
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pybase64
import requests
from _machine import describe, paired
from PIL import Image

from mmmedia.media import downloads
from mmmedia.media.base import MediaIO, decode_base64
from mmmedia.media.connector import MediaConnector
from mmmedia.media.image import ImageMediaIO
from mmmedia.work.calls import Calls
from mmmedia.work.flight import Flight, SingleFlight

WORKERS = 8

SERVER = """
import asyncio, sys
body = open(sys.argv[1], "rb").read()
answer = b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.received = transport, b""

    def data_received(self, data):
        *requests, self.received = (self.received + data).split(b"\\r\\n\\r\\n")
        self.transport.write(answer * len(requests))

async def main():
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""


@contextlib.contextmanager
def serving(file: Path) -> Iterator[str]:
    """A server in a process of its own that answers every request with this file."""
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()


def photograph(size: int) -> bytes:
    """A JPEG of about so many bytes."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).resize((512, 384))
    for quality in range(95, 10, -1):
        file = io.BytesIO()
        noise.save(file, "JPEG", quality=quality)
        if file.tell() <= size:
            break
    return file.getvalue().ljust(size, b"\0")  # decoders stop at the end marker


class Bytes(MediaIO[bytes]):
    """Loads to the bytes themselves: all the rest is the connector's."""

    def load_bytes(self, data: bytes) -> bytes:
        return data

    def load_base64(self, media_type: str, data: str) -> bytes:  # noqa: ARG002
        return decode_base64(data)

    def load_file(self, filepath: Path) -> bytes:
        return filepath.read_bytes()


def decode(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


async def plain_async(urls: list[str], pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:

        async def one(url: str) -> None:
            async with session.get(url) as response:
                data = await response.read()
            await loop.run_in_executor(pool, decode, data)

        await asyncio.gather(*map(one, urls))


async def ours_async(urls: list[str]) -> None:
    async def one(url: str) -> None:
        await MediaConnector().fetch_image_async(url)

    await asyncio.gather(*map(one, urls))


async def plain_disk(paths: list[Path], pool: ThreadPoolExecutor) -> None:
    loop = asyncio.get_running_loop()

    async def one(path: Path) -> None:
        await loop.run_in_executor(pool, lambda: decode(path.read_bytes()))

    await asyncio.gather(*map(one, paths))


def plain_sync(urls: list[str]) -> None:
    with requests.Session() as session:
        for url in urls:
            decode(session.get(url).content)


def ours_sync(urls: list[str]) -> None:
    for url in urls:
        MediaConnector().fetch_image(url)


def report(what: str, ours: Callable[[], None], plain: Callable[[], None], bar: str, rounds: int = 7) -> None:
    seconds: dict[Callable[[], None], list[float]] = {ours: [], plain: []}

    def metered(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            started = time.process_time()
            call()
            seconds[call].append(time.process_time() - started)

        return run

    mine, theirs, ratio = paired(metered(ours), metered(plain), rounds)
    # The first of each only warmed up.
    our_cpu, plain_cpu = (statistics.median(seconds[call][1:]) for call in (ours, plain))
    print(
        f"{what:58} {mine * 1e3:9.1f} ms {theirs * 1e3:9.1f} ms   speed x {1 / ratio:5.2f}   ({bar})   "
        f"CPU {our_cpu * 1e3:.1f} and {plain_cpu * 1e3:.1f} ms: x {plain_cpu / our_cpu:.2f}",
        flush=True,
    )


def data_url() -> None:
    print("\nA 20 MB base64 data URL                                         connector        decode alone")
    raw = np.random.default_rng(0).bytes(15_000_000)
    text = base64.b64encode(raw).decode()
    url = "data:application/octet-stream;base64," + text
    connector = MediaConnector()

    def bare() -> None:
        pybase64.b64decode(text, validate=True)

    def bytes_only() -> None:
        connector.load_from_url(url, Bytes())

    class OurBytes(ImageMediaIO):
        def load_bytes(self, data: bytes) -> bytes:  # type: ignore[override]
            return data

    report(
        "bytes, as our own media IOs read them",
        lambda: connector.load_from_url(url, OurBytes()),
        bare,
        "no bar: slicing 20 MB of text takes 2 to 3 ms",
        31,
    )
    report("bytes, a stranger's media IO (copies the text once)", bytes_only, bare, "no bar", 31)
    picture = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture, "BMP")
    text_of_picture = base64.b64encode(picture.getvalue()).decode()
    url_of_picture = "data:image/bmp;base64," + text_of_picture
    image_io = ImageMediaIO()
    report(
        "an image, against ImageMediaIO.load_base64",
        lambda: connector.fetch_image(url_of_picture),
        lambda: image_io.load_base64("image/bmp", text_of_picture),
        "no bar: slicing 20 MB of text takes 2 to 3 ms",
        15,
    )


class Alone(SingleFlight[Any]):
    """Whoever asks downloads for itself."""

    def board(self, key: Hashable, *args: Any, **kwargs: Any) -> tuple[Flight[Any], bool]:
        flight, leads = super().board(key, *args, **kwargs)
        self.retire(flight)
        return flight, leads


def one_by_one(calls: Calls, future: "asyncio.Future[Any] | None", function: Any, *args: Any) -> None:
    """Stand for `Calls.resolve`: a thread is woken for every call, and the loop for every result."""

    def tell(done: Future[Any]) -> None:
        if future is not None:
            future.get_loop().call_soon_threadsafe(hand_over, future, done)

    calls.pool.submit(function, *args).add_done_callback(tell)


def hand_over(future: "asyncio.Future[Any]", done: Future[Any]) -> None:
    if not future.done():
        future.set_result(done.result())


SWITCHES: dict[str, tuple[Any, str, Any]] = {
    "sharing of decodes": (downloads, "decode_key", lambda _: None),
    "sharing of decodes, single flight": (downloads, "_flights", Alone()),
    "calls that threads take one after the other": (Calls, "resolve", one_by_one),
}
"""What is switched off, and how: a name of a module or class, and what stands there then."""


def without(number: int) -> None:
    """Print what each mechanism buys."""
    print(f"\nWhat it buys, {number} JPEGs of 40 KB{'with it':>45}{'without':>20}")
    os.environ["VLLM_MEDIA_LOADING_THREAD_COUNT"] = str(WORKERS)
    os.environ["VLLM_IMAGE_FETCH_TIMEOUT"] = "120"
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        file = Path(directory) / "photograph.jpg"
        file.write_bytes(photograph(40_000))
        origin = stack.enter_context(serving(file))
        urls = [f"{origin}/{index}.jpg" for index in range(number)]
        for name, (place, attribute, instead) in SWITCHES.items():
            off = functools.partial(switched_off, place, attribute, instead)
            for what, run in (
                ("500 requests for 50 URLs", lambda: asyncio.run(ours_async(urls[:50] * 10))),
                ("all different", lambda: asyncio.run(ours_async(urls))),
                ("5000 calls of a trifle", lambda: asyncio.run(trifles(5000))),
            ):
                if (what == "5000 calls of a trifle") == (place is Calls):
                    report(f"{name}: {what}", run, functools.partial(off, run), "no bar")


def switched_off(place: Any, attribute: str, instead: Any, run: Callable[[], None]) -> None:
    usual = getattr(place, attribute)
    setattr(place, attribute, instead)
    try:
        run()
    finally:
        setattr(place, attribute, usual)


async def trifles(number: int) -> None:
    """Calls that take less time than it takes to make them."""
    with ThreadPoolExecutor(WORKERS) as pool:
        calls = Calls(pool, WORKERS)
        await asyncio.gather(*(calls.call(pow, number, 2) for number in range(number)))


def touch_memory(directory: Path, size: int) -> None:
    """Have the system use so much memory for files once.

    What a virtual machine hands out for the first time is fetched from its host, which takes longer than
    all else that storing an image does, and is over on any machine that has been up for a while.
    """
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def creation_ms(directory: Path, number: int = 500) -> float:
    """Return what a new file costs here, empty, in milliseconds.

    ext4 without a journal leaves the inodes of deleted files alone for five minutes or so, and passes one
    after the other: once many were deleted a new file costs twenty times what it did, as do the cold rows.
    """
    place = Path(tempfile.mkdtemp(dir=directory))
    started = time.perf_counter()
    for index in range(number):
        (place / str(index)).touch()
    return (time.perf_counter() - started) / number * 1e3


def throughput(number: int) -> None:
    print(f"\n{number} JPEGs of 40 KB from another process{'connector':>32}{'plain loop':>20}")
    os.environ["VLLM_MEDIA_LOADING_THREAD_COUNT"] = str(WORKERS)
    os.environ["VLLM_IMAGE_FETCH_TIMEOUT"] = "120"
    body = photograph(40_000)
    with (
        tempfile.TemporaryDirectory() as directory,
        ThreadPoolExecutor(WORKERS) as pool,
        contextlib.ExitStack() as stack,
    ):
        file = Path(directory) / "photograph.jpg"
        file.write_bytes(body)
        origin = stack.enter_context(serving(file))
        urls = [f"{origin}/{index}.jpg" for index in range(number)]
        paths = []
        for index in range(number):
            paths.append(Path(directory) / f"{index}.jpg")
            shutil.copyfile(file, paths[-1])

        def plain() -> None:
            asyncio.run(plain_async(urls, pool))

        def ours() -> None:
            asyncio.run(ours_async(urls))

        report("async, no cache", ours, plain, "at least 0.9")
        some = urls[: number // 4]
        report("sync, no cache", lambda: ours_sync(some), lambda: plain_sync(some), "at least 0.9")

        crowd = urls[:50] * 10
        report(
            "500 requests for 50 URLs at once",
            lambda: asyncio.run(ours_async(crowd)),
            lambda: asyncio.run(plain_async(crowd, pool)),
            "at least 3",
        )

        cache = Path(directory) / "cache"
        os.environ["VLLM_MEDIA_CACHE"] = str(cache)

        def cold(run: Callable[[], None]) -> Callable[[], None]:
            def emptied() -> None:
                os.environ["VLLM_MEDIA_CACHE"] = tempfile.mkdtemp(dir=directory)
                run()

            return emptied

        touch_memory(Path(directory), number * len(body) * 12)
        print(f"(a new file costs {creation_ms(Path(directory)):.3f} ms; five quiet minutes may mend it)")
        report("async, cache, cold", cold(ours), plain, "at least 0.75")
        report("sync, cache, cold", cold(lambda: ours_sync(some)), lambda: plain_sync(some), "at least 0.75")
        os.environ["VLLM_MEDIA_CACHE"] = str(cache)
        ours()
        report(
            "async, cache, warm (against reading the files)",
            ours,
            lambda: asyncio.run(plain_disk(paths, pool)),
            "at least 0.9",
        )

        def read_some() -> None:
            for path in paths[: len(some)]:
                decode(path.read_bytes())

        report("sync, cache, warm (against reading)", lambda: ours_sync(some), read_some, "at least 0.9")
        del os.environ["VLLM_MEDIA_CACHE"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--without", action="store_true")
    arguments = parser.parse_args()
    print(describe())
    if arguments.without:
        without(arguments.images)
    else:
        data_url()
        throughput(arguments.images)
