"""What is sent to other processes and used there; here, as those find this module by its name."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia import errors, registry
from mmmedia.connections import HTTPConnection, global_http_connection
from mmmedia.media import MediaConnector, MediaWithBytes
from support.sounds import encode as encode_sound, sine

torch = pytest.importorskip("torch")

PICTURE = io.BytesIO()
Image.linear_gradient("L").resize((6, 4)).convert("RGB").save(PICTURE, "PNG")
PNG = PICTURE.getvalue()
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
WAV = encode_sound(sine(440.0, 0.1, 16_000), 16_000)


def _tensor_bytes() -> bytes:
    file = io.BytesIO()
    torch.save(torch.arange(6.0).reshape(2, 3), file)
    return file.getvalue()


EMBEDDING = _tensor_bytes()


def embed(text: str) -> Any:
    """A text embedder that is found by its name."""
    return torch.zeros(len(text), 4)


def double(tensor: Any) -> Any:
    return tensor * 2


def shown(value: Any) -> Any:
    """What a value says, so that two can be compared that have no equality, and across processes."""
    if isinstance(value, MediaWithBytes):
        return shown(value.media), value.original_bytes
    if isinstance(value, Image.Image):
        return value.mode, value.size, value.tobytes()
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.tolist()
    if isinstance(value, BaseException):
        return (
            type(value).__name__,
            str(value),
            getattr(value, "http_status", 0),
            getattr(value, "reason", ""),
        )
    if isinstance(value, dict):
        return {repr(key): shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shown(item) for item in value]
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    return f"{type(value).__module__}.{type(value).__qualname__}"


def used(thing: Any) -> Any:
    """What comes of using a thing: equal for it and a copy of it, in this process or another."""
    name = type(thing).__name__
    words = shown(thing)
    if isinstance(thing, MediaConnector):
        with pytest.raises(errors.MediaError):
            thing.fetch_image("http://example.com/not-allowed")
        loaded = thing.fetch_image(PNG_URL)
        return shown(loaded), thing.media_io_kwargs, thing.connection is global_http_connection
    if isinstance(thing, HTTPConnection):
        thing.get_sync_client().close()
        return thing.reuse_client
    if name == "ImageMediaIO":
        return shown(thing.load_bytes(PNG))
    if name == "Decoder":
        return repr(thing), shown(thing(PNG)), thing(b"").error, thing("http://example.com/no").error
    if name == "Video":
        return words, thing.timestamps
    if name == "AudioMediaIO":
        return shown(thing.load_bytes(WAV))
    if name.endswith("EmbeddingMediaIO"):
        return shown(thing.load_bytes(EMBEDDING))
    if name == "MediaCache":
        return str(thing.directory), thing.max_bytes, thing.ttl_secs, thing.get("http://example.org/none")
    if name == "MultimodalPipeline":
        return shown(thing.run([{"role": "user", "content": "words"}]).embeddings)
    if name == "EncoderCache":
        return thing.capacity, thing.unit, shown(thing.get_or_encode("a", lambda: torch.ones(2)))
    if name == "ImagePreprocessor":
        return shown(thing(Image.new("RGB", (9, 8), "red")))
    if name == "AudioResampler":
        return shown(thing.resample(np.ones(160, np.float32), orig_sr=16_000.0))
    if isinstance(thing, registry.ExtensionManager):
        return sorted(thing)
    if dataclass_fields := getattr(thing, "__dataclass_fields__", None):
        return words, {field: shown(getattr(thing, field)) for field in dataclass_fields}
    return words


def used_of(things: dict[str, Any]) -> dict[str, Any]:
    """Runs in a spawned process, to which the things were sent."""
    return {name: used(thing) for name, thing in things.items()}
