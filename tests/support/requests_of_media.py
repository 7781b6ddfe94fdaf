"""Chat requests with real media in data URLs, and connectors that count."""

import asyncio
import base64
import io
import threading
from collections import Counter

import numpy as np
import soundfile
from PIL import Image

from mmmedia.media import MediaConnector


def pixels(seed: int, width: int = 24, height: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def data_url(media_type: str, *encoded: bytes) -> str:
    return f"data:{media_type};base64," + ",".join(base64.b64encode(data).decode() for data in encoded)


def png(seed: int, width: int = 24, height: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg(seed: int, width: int = 24, height: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, width, height)).save(buffer, "JPEG")
    return buffer.getvalue()


def wav(seed: int, seconds: float = 0.1, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)).astype(np.float32)
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def image(seed: int, uuid: str | None = None, **size: int) -> dict:
    return part("image_url", {"url": data_url("image/png", png(seed, **size))}, uuid)


def video(*seeds: int, uuid: str | None = None) -> dict:
    """A clip of one JPEG a seed."""
    return part("video_url", {"url": data_url("video/jpeg", *map(jpeg, seeds))}, uuid)


def audio(seed: int, uuid: str | None = None, **sound: float) -> dict:
    return part("audio_url", {"url": data_url("audio/wav", wav(seed, **sound))}, uuid)


def part(kind: str, value: object, uuid: str | None = None) -> dict:
    return {"type": kind, kind: value} | ({} if uuid is None else {"uuid": uuid})


def user(*parts: dict) -> list[dict]:
    return [{"role": "user", "content": list(parts)}]


class CountingConnector(MediaConnector):
    """Counts what is fetched, by method, whichever half is used."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.calls: Counter[str] = Counter()

    def load_from_url(self, url, media_io, **kwargs):
        self.calls[type(media_io).__name__] += 1
        return super().load_from_url(url, media_io, **kwargs)

    async def load_from_url_async(self, url, media_io, **kwargs):
        self.calls[type(media_io).__name__] += 1
        return await super().load_from_url_async(url, media_io, **kwargs)


class ScriptedConnector:
    """Each URL is the name of an event to wait for, or `fail:<name>`, which raises once the event is set."""

    def __init__(self) -> None:
        self.events: dict[str, threading.Event] = {}
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.started: list[str] = []
        self.cancelled: list[str] = []

    def event(self, name: str) -> threading.Event:
        with self.lock:
            return self.events.setdefault(name, threading.Event())

    def _enter(self, url: str) -> None:
        with self.lock:
            self.started.append(url)
            self.running += 1
            self.most = max(self.most, self.running)
        self.event(f"started {url}").set()

    def _leave(self, url: str) -> str:
        with self.lock:
            self.running -= 1
        if url.startswith("fail:"):
            raise TimeoutError(f"no {url}")
        return f"media of {url}"

    def fetch_image(self, url: str) -> str:
        self._enter(url)
        assert self.event(url.removeprefix("fail:")).wait(30)
        return self._leave(url)

    async def fetch_image_async(self, url: str) -> str:
        self._enter(url)
        try:
            while not self.event(url.removeprefix("fail:")).is_set():
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(url)
            raise
        return self._leave(url)
