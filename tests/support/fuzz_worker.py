"""A process that feeds broken media to the connector until its time is up, or something unexpected happens.

    python fuzz_worker.py KIND SEED FIRST SECONDS STATUS_FILE

Case number N of a kind is made from `KIND:SEED:N` alone, so that
`python fuzz_worker.py KIND SEED N 0 /dev/null` runs it again. Before a case its number is written to the
status file: whoever waits for this process learns what killed it. A case ends well with media, or with an
error of this library.
"""

import asyncio
import base64
import contextlib
import faulthandler
import gzip
import io
import json
import os
import random
import socket
import struct
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMITS = {
    "VLLM_MAX_IMAGE_PIXELS": "4000000",
    "VLLM_MAX_AUDIO_DECODE_BYTES": str(64 << 20),
    "VLLM_MAX_VIDEO_DECODE_BYTES": str(64 << 20),
    "VLLM_MAX_EMBED_DECODE_BYTES": str(64 << 20),
    "VLLM_VIDEO_DECODE_TIMEOUT_S": "30",
    "VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB": "64",
    "VLLM_MEDIA_FETCH_MAX_RETRIES": "1",
    "VLLM_IMAGE_FETCH_TIMEOUT": "5",
}
HANG_SECONDS = 90.0
MAX_BYTES = 1 << 30
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def images() -> list[bytes]:
    import numpy as np
    from PIL import Image

    picture = Image.effect_noise((60, 40), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = picture.convert("RGBA")
    alpha.putalpha(picture.convert("L"))
    frames = [picture.rotate(angle) for angle in (0, 90, 180)]
    wide = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20)
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (picture, "PNG", {}), (alpha, "PNG", {}), (wide, "PNG", {}),
        (picture.convert("P"), "PNG", {"transparency": 3}), (picture.convert("1"), "PNG", {}),
        (picture, "JPEG", {"exif": exif}), (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}), (picture.convert("L"), "JPEG", {}), (picture, "WEBP", {}),
        (alpha, "WEBP", {"lossless": True}), (picture, "BMP", {}), (picture, "PPM", {}), (picture, "ICO", {}),
        (alpha, "TGA", {"compression": "tga_rle"}), (picture, "PCX", {}), (picture, "TIFF", {}),
        (picture, "TIFF", {"compression": "tiff_lzw"}),
        (picture, "TIFF", {"compression": "tiff_adobe_deflate"}), (wide, "TIFF", {}),
        (picture, "JPEG2000", {}), (picture, "SGI", {}), (picture, "DDS", {}), (picture, "AVIF", {}),
        (frames[0].convert("P"), "GIF", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "PNG", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "WEBP", {"save_all": True, "append_images": frames[1:]}),
        (frames[0], "TIFF", {"save_all": True, "append_images": frames[1:]}),
    ]  # fmt: skip
    made = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        try:
            image.save(file, kind, **options)
        except (KeyError, OSError, ValueError):  # a plugin that this Pillow was built without
            continue
        made.append(file.getvalue())
    return made


def sounds() -> list[bytes]:
    from support.sounds import BY_FFMPEG, BY_SOUNDFILE, encode, encode_av, sine

    made = [encode(sine(440, 0.3, 48000, 1 if how[0] == "SVX" else 2), 48000, *how) for how in BY_SOUNDFILE]
    made += [encode_av(sine(440, 0.3, 48000, 2), 48000, *how) for how in BY_FFMPEG]
    chained = [encode(sine(440, 0.2, rate), rate, "MP3") for rate in (16000, 44100)]
    chained += [encode(sine(440, 0.2, 48000), 48000, "OGG", codec) for codec in ("VORBIS", "OPUS")]
    made += [b"".join(chained[:2]), b"".join(chained[2:]), b"some text" + chained[0], chained[1][500:]]
    return [*made, encode_av(sine(440, 0.3, 48000, 2), 48000, "wav", "libmp3lame")]


def videos() -> list[bytes]:
    from support.clips import clip

    small: dict[str, Any] = {"frames": 24, "width": 96, "height": 64, "gop": 8}
    kinds: list[dict[str, Any]] = [
        {}, {"bframes": 2}, {"container": "matroska"}, {"container": "mpegts"},
        {"container": "mov", "audio": True},
        {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, {"codec": "libx265"},
        {"codec": "libvpx-vp9", "container": "webm"}, {"codec": "mpeg4", "container": "avi"},
        {"codec": "mjpeg", "container": "avi", "pix_fmt": "yuvj420p"},
        {"codec": "libx264", "container": "flv"},
        {"codec": "mpeg2video", "container": "mpegts"}, {"codec": "libsvtav1"}, {"extra_video": (64, 48)},
    ]  # fmt: skip
    made = []
    for kind in kinds:
        try:
            made.append(clip(**{**small, **kind}))
        except (ValueError, OSError):  # an encoder that this PyAV was built without
            continue
    return made


def tensors() -> list[bytes]:
    import numpy as np
    import torch

    made = []
    for tensor in (
        torch.arange(60.0).reshape(3, 20), torch.zeros(0), torch.ones(4, 5, dtype=torch.bfloat16),
        torch.eye(6).to_sparse(), torch.eye(6).to_sparse_csr(), torch.arange(6),
        torch.ones(3, dtype=torch.bool),
    ):  # fmt: skip
        for zipped in (True, False):
            file = io.BytesIO()
            torch.save(tensor, file, _use_new_zipfile_serialization=zipped)
            made.append(file.getvalue())
    for array in (
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.eye(5, dtype=">f4")),
        np.ones(3, np.uint8),
    ):
        file = io.BytesIO()
        np.save(file, array)
        made.append(file.getvalue())
    return made


def answers() -> list[bytes]:
    """What a server may send, from the status line to the end of the body."""
    picture = images()[0]
    zipped, deflated = gzip.compress(picture), zlib.compress(picture)
    half = len(picture) // 2
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (picture[:half], picture[half:], b""))
    made = [
        head("200 OK", picture, "Content-Type: image/png", 'ETag: "a"', "Set-Cookie: a=b; Path=/"),
        head("200 OK", zipped, "Content-Encoding: gzip"),
        head("200 OK", deflated, "Content-Encoding: deflate, identity"),
        head("200 OK", gzip.compress(bytes(200 << 20), 1), "Content-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n" + pieces,
        b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + picture,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head("200 OK", picture),
        head("206 Partial Content", picture, f"Content-Range: bytes 0-{len(picture) - 1}/{len(picture)}"),
        head("200 OK", picture, "X: " + "a" * 9000, "Content-Disposition: attachment; filename=a.png"),
    ]
    made += [
        head(status, b"<html>no</html>", "Content-Type: text/html; charset=utf-8", "Retry-After: 0")
        for status in (
            "204 No Content",
            "304 Not Modified",
            "401 No",
            "404 Not Found",
            "429 Slow",
            "503 Busy",
        )
    ]
    places = (
        "/a",
        "//127.0.0.1/b",
        "http://127.0.0.1:1/",
        "a b?\u00fc#f",
        "file:///etc/passwd",
        "..",
        "http://[::1]/",
    )
    return made + [head("302 Found", b"", f"Location: {place}") for place in places]


def head(status: str, body: bytes, *headers: str) -> bytes:
    """A whole answer of that status."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


URLS = (
    "http://127.0.0.1:{port}/cat.jpg?a=1&b=%C3%BC#part", "http://user:p%40ss@127.0.0.1:{port}/",
    "HTTP://LOCALHOST:{port}/a b/\u00e9", "http://[::1]:{port}/x", "http://2130706433:{port}/",
    "https://127.0.0.1:{port}/", "file:///proc/self/environ", "http:127.0.0.1",
    "http://127.0.0.1:{port}/../%2e%2e/%00?x=[1]", "http://b\u00fccher.example:{port}/",
)  # fmt: skip


REPLIES = (head("200 OK", b"no picture"), head("404 Not Found", b""), head("302 Found", b"", "Location: /b"))


def urls() -> list[bytes]:
    return [url.encode() for url in URLS]


CORPORA: dict[str, Callable[[], list[bytes]]] = {
    "image": images, "audio": sounds, "video": videos, "embedding": tensors, "data_url": images,
    "answer": answers, "url": urls,
}  # fmt: skip


def mutate(data: bytes, corpus: list[bytes], chance: random.Random) -> bytes:
    """Damage some bytes, mostly few, and mostly in the header or at the end, where indexes lie."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5, 8, 20))):
        if not changed:
            break
        reach = chance.choice((64, 512, len(changed), len(changed)))
        place = chance.randrange(min(reach, len(changed)))
        if chance.random() < 0.2:
            place = len(changed) - 1 - place
        match chance.randrange(9):
            case 0 | 1:
                changed[place] ^= 1 << chance.randrange(8)
            case 2:
                changed[place] = chance.randrange(256)
            case 3 | 4:
                order = chance.choice("<>")
                size = chance.choice("BHIQ")
                number = chance.choice(INTERESTING) & ((1 << 8 * struct.calcsize(size)) - 1)
                changed[place : place + struct.calcsize(size)] = struct.pack(order + size, number)
            case 5:
                del changed[place : place + chance.choice((1, 4, 16, 256, 1 << 20))]
            case 6:
                changed[place:place] = chance.randbytes(chance.choice((1, 4, 64)))
            case 7:
                end = place + chance.choice((4, 16, 128, 1024))
                changed[place:place] = changed[place:end] * chance.choice((1, 2, 50))
            case 8:
                other = chance.choice(corpus)
                start = chance.randrange(len(other))
                changed[place : place + chance.choice((0, 64))] = other[
                    start : start + chance.choice((16, 512, 8192))
                ]
    return bytes(changed)


TEXTS = (("base64", "BASE64"), ("+", "-"), ("/", "_"), ("=", ""), ("=", "%3d"), ("A", "%41"),
         ("image/png", "video/jpeg"))  # fmt: skip


def mangle(url: str, chance: random.Random) -> str:
    """Damage the text of a data URL."""
    letters = "\0\n\t %+/-_=,;:&#é☃A" + chr(chance.randrange(0xD800)) + "\udc80"
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = chance.randrange(min(len(url), chance.choice((30, 30, 10**9))) + 1)
        match chance.randrange(5):
            case 0:
                url = url[:place] + chance.choice(letters) + url[place + 1 :]
            case 1:
                url = url[:place] + chance.choice(letters) * chance.choice((1, 3, 5000)) + url[place:]
            case 2:
                url = url[:place] + url[place + chance.choice((1, 2, 3, 20)) :]
            case 3:
                url = url.replace(*chance.choice(TEXTS))
            case 4:
                url = url[: chance.randrange(len(url) + 1)]
    return url


class Answering(threading.Thread):
    """A server on loopback that sends the same to everyone, and hangs up.

    Attributes:
        answer: what it sends.
        port: where it listens.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(0.2)  # nobody here needs longer to ask, but for whoever speaks TLS
                request = b""
                while b"\r\n\r\n" not in request and (piece := client.recv(1 << 16)):
                    request += piece
                client.sendall(self.answer)
                client.shutdown(socket.SHUT_WR)


class Case:
    """One input, and what loads it."""

    def __init__(self, kind: str, seed: str, corpus: list[bytes]) -> None:
        from mmmedia.media.connector import MediaConnector

        self.kind, self.seed, self.corpus = kind, seed, corpus
        self.connector = MediaConnector()
        if kind in ("answer", "url"):
            self.near = MediaConnector(allowed_media_domains=["127.0.0.1", "localhost", "::1"])
            self.server = Answering()
            self.server.start()

    def run(self, number: int) -> None:
        chance = random.Random(f"{self.kind}:{self.seed}:{number}")
        if self.kind == "url":
            template = chance.choice(self.corpus).decode()
            self.server.answer = chance.choice(REPLIES)
            self._expect(
                self._fetch(chance), mangle(template.replace("{port}", str(self.server.port)), chance)
            )
            return
        data = mutate(chance.choice(self.corpus), self.corpus, chance)
        if self.kind == "answer":
            self.server.answer = data
            self._expect(self._fetch(chance), f"http://127.0.0.1:{self.server.port}/cat.jpg")
            return
        if self.kind == "data_url":
            types = ("image/png", "", "image/jpeg;charset=utf-8", "video/jpeg", "audio/wav")
            pictures = ",".join(base64.b64encode(data).decode() for _ in range(chance.choice((1, 1, 3))))
            url = mangle(f"data:{chance.choice(types)};base64,{pictures}", chance)
            if not url.startswith("data:"):
                url = "data:" + url
            fetch = chance.choice(
                (self.connector.fetch_image, self.connector.fetch_video, self.connector.fetch_audio)
            )
            self._expect(fetch, url)
            return
        text = base64.b64encode(data).decode()
        if self.kind == "embedding":
            self._expect(
                chance.choice(
                    (
                        self.connector.fetch_image_embedding,
                        self.connector.fetch_audio_embedding,
                        self.connector.fetch_video_embedding,
                    )
                ),
                text,
            )
            return
        options: dict[str, Any] = {}
        if self.kind == "video":
            modes = ("auto", "auto", "seek", "sequential")
            options = {"num_frames": chance.choice((1, 4, 32, -1)), "decode": chance.choice(modes)}
            if chance.random() < 0.3:
                options["video_backend"] = chance.choice(("opencv_dynamic", "molmo2"))
            if chance.random() < 0.2:
                options["frame_recovery"] = True
        connector = type(self.connector)({self.kind: options})
        self._expect(getattr(connector, f"fetch_{self.kind}"), f"data:application/octet-stream;base64,{text}")

    def _fetch(self, chance: random.Random) -> Callable[[str], Any]:
        """One half or the other."""
        if chance.random() < 0.5:
            return self.near.fetch_image
        return lambda url: asyncio.run(self.near.fetch_image_async(url))

    @staticmethod
    def _expect(fetch: Callable[[str], Any], url: str) -> None:
        import aiohttp
        import requests

        from mmmedia.errors import MediaError

        try:
            media = fetch(url)
        except (requests.RequestException, aiohttp.ClientError, TimeoutError):
            assert url[:5].lower() != "data:"
        except MediaError as error:
            if len(str(error)) > 2000:
                raise AssertionError(f"a message of {len(str(error))} characters") from error
        else:
            assert media is not None
            if isinstance(media, tuple):
                assert media[0].nbytes <= 64 << 20, "more than the limit"


def memory() -> int:
    """The peak of this process; what getrusage says includes that of the process which started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(kind: str, seed: str, first: str, seconds: str, status_path: str) -> None:
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.disable()
    os.environ.update(LIMITS)
    case = Case(kind, seed, CORPORA[kind]())
    status = os.open(status_path, os.O_WRONLY | os.O_CREAT, 0o600)
    end = time.monotonic() + float(seconds)
    number = int(first)
    while True:
        os.pwrite(status, b"%20d" % number, 0)
        faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        finding = ""
        try:
            case.run(number)
        except BaseException:
            finding = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
        if not finding and memory() > MAX_BYTES:
            finding = f"{memory() >> 20} MiB of memory"
        number += 1
        if finding or time.monotonic() >= end:
            break
    sys.stdout.write(json.dumps({"next": number, "finding": finding, "memory": memory()}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
