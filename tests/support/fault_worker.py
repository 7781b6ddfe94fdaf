"""A process that fetches what others fetch too: python fault_worker.py ORIGIN URLS SEED SECONDS

The cache is that of the environment. Every body tells its own number and checksum, so that a wrong byte does
not go unnoticed. Options in the environment: FAULT_CLOCK (seconds by which the clock is off), FAULT_FSIZE
(bytes that a file may have), FAULT_USER (the user to become), FAULT_BLOCKS (read pieces of sources through
partial entries, and fetch nothing from ORIGIN).
"""

import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
import zlib
from pathlib import Path

if offset := float(os.environ.get("FAULT_CLOCK", "0")):
    real_time = time.time
    time.time = lambda: real_time() + offset

from mmmedia import envs
from mmmedia.cache import BlockCacheSource, get_media_cache
from mmmedia.media.base import MediaIO
from mmmedia.media.connector import MediaConnector
from support.sources import CountingSource, content

LARGEST_SOURCE = 400_000


def body(number: int) -> bytes:
    content = b"%d:" % number + random.Random(number).randbytes(number * 97 % 9000)
    return zlib.crc32(content).to_bytes(4, "big") + content


class Numbered(MediaIO[int]):
    """Loads to the number of a body; what is damaged does not decode."""

    def load_bytes(self, data: bytes) -> int:
        if zlib.crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            raise ValueError("damaged")
        return int(data[4:].partition(b":")[0])

    def load_base64(self, media_type: str, data: str) -> int:
        raise AssertionError(media_type)

    def load_file(self, filepath: Path) -> int:
        raise AssertionError(filepath)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


async def several(urls: list[str]) -> list[int]:
    connector = MediaConnector()
    return await asyncio.gather(*(connector.load_from_url_async(url, Numbered()) for url in urls))


def fetch(origin: str, numbers: list[int], chance: random.Random) -> None:
    urls = [f"{origin}/{number}.bin" for number in numbers]
    if chance.random() < 0.3:
        loaded = asyncio.run(several(urls))
    else:
        connector = MediaConnector()
        loaded = [connector.load_from_url(url, Numbered()) for url in urls]
    assert loaded == numbers, "bytes of another URL"


def source(number: int) -> CountingSource:
    return CountingSource(content(number, 70_000 + number * 9973 % (LARGEST_SOURCE - 70_000)))


async def several_pieces(sources: list[BlockCacheSource], ranges: list[tuple[int, int]]) -> list[list[bytes]]:
    return await asyncio.gather(*(each.aread([pair]) for each, pair in zip(sources, ranges, strict=True)))


def read_pieces(origin: str, numbers: list[int], chance: random.Random) -> int:
    """Read a piece of each source, and return how many bytes came from the sources behind."""
    settings = envs.cache_settings()
    cache = settings.directory and get_media_cache(
        settings.directory, settings.max_bytes, settings.ttl_seconds
    )
    behind = [source(number) for number in numbers]
    ranges = [tuple(sorted((chance.randrange(each.size), chance.randrange(each.size)))) for each in behind]
    sources = [
        BlockCacheSource(each, cache, f"{origin}/{number}.bin") if cache else each
        for number, each in zip(numbers, behind, strict=True)
    ]
    if chance.random() < 0.3:
        found = asyncio.run(several_pieces(sources, ranges))
    else:
        found = [each.read([pair]) for each, pair in zip(sources, ranges, strict=True)]
    expected = [[each.data[slice(*pair)]] for each, pair in zip(behind, ranges, strict=True)]
    assert found == expected, "bytes of another source"
    return sum(each.bytes_asked for each in behind)


def main(origin: str, urls: str, seed: str, seconds: str) -> None:
    chance = random.Random(seed)
    fetched = behind = 0
    before = 0
    end = time.monotonic() + float(seconds)
    while fetched < 60 or time.monotonic() < end:
        # Few are hot, most are cold.
        numbers = [int(int(urls) * chance.random() ** 3) for _ in range(20)]
        if os.environ.get("FAULT_BLOCKS"):
            behind += read_pieces(origin, numbers, chance)
        else:
            fetch(origin, numbers, chance)
        fetched += len(numbers)
        before = before or (descriptors() if fetched >= 40 else 0)
    sys.stdout.write(json.dumps({"fetched": fetched, "behind": behind, "leaked": descriptors() - before}))


if __name__ == "__main__":
    if limit := int(os.environ.get("FAULT_FSIZE", "0")):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if user := int(os.environ.get("FAULT_USER", "0")):
        # Whatever is loaded by a fetch is loaded now: soon those files may be out of reach.
        directory = os.environ.pop("VLLM_MEDIA_CACHE")
        if os.environ.get("FAULT_BLOCKS"):
            for _ in range(20):
                read_pieces("http://localhost", [1], chance=random.Random())
        else:
            MediaConnector().load_from_url(f"{sys.argv[1]}/1.bin", Numbered())
            asyncio.run(several([f"{sys.argv[1]}/1.bin"]))
        os.environ["VLLM_MEDIA_CACHE"] = directory
        os.setresuid(user, user, user)
    main(*sys.argv[1:])
