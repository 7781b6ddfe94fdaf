"""`MultiModalHasher`: hashes of what a request holds, byte for byte those of vLLM 0.33.

A field is its length, 8 bytes little-endian, and itself. A value begins with a byte for its kind::

    00                            None
    01 count value…               list, tuple
    02 count (field value)…       dict, in its own order; the fields are its keys
    03 …                          anything else

`mmmedia.content_hash` is a name for content that does not depend on how it was made; this is the one that
vLLM's own caches go by.
"""

import hashlib
import logging
import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from PIL import Image

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, MissingPackageError

logger = logging.getLogger(__name__)

_TAG_NONE, _TAG_SEQUENCE, _TAG_MAPPING, _TAG_LEAF = b"\x00", b"\x01", b"\x02", b"\x03"
_IMAGE_ID: Final = 0x800D  # ImageID, of EXIF


class MultiModalHasher:
    """The hash of named values."""

    @classmethod
    def hash_kwargs(cls, algorithm: str | None = None, /, **kwargs: Any) -> str:
        """Return the hash of keywords as hexadecimal digits; their order does not matter.

        Args:
            algorithm: "blake3", "sha256" or "sha512". With ``MMMEDIA_COMPAT=0.20`` it may be left out, for
                that of `VLLM_MM_HASHER_ALGORITHM`.
            **kwargs: bytes, text, numbers, pictures, arrays, tensors, what media IOs load, or lists, tuples
                and dicts of these. Anything else is pickled, which is warned of.

        Raises:
            TypeError: no algorithm.
            InvalidArgumentError: (a `ValueError`) another algorithm.
            MissingPackageError: (an `ImportError`) blake3 is not installed.

        >>> MultiModalHasher.hash_kwargs("sha256", text="a", number=1)[:16]
        'ed2f0f1306a4237c'
        """
        if algorithm is None and envs.MMMEDIA_COMPAT != "0.20":
            raise TypeError("hash_kwargs() needs an algorithm first: blake3, sha256 or sha512.")
        digest = _digest(algorithm or _usual_algorithm())
        for name in sorted(kwargs):
            for part in cls.iter_item_to_bytes(name, kwargs[name]):
                digest.update(part)
        hexadecimal: str = digest.hexdigest()
        return hexadecimal

    @classmethod
    def iter_item_to_bytes(cls, key: str, obj: object) -> Iterator[bytes | memoryview]:
        """Yield the bytes that stand for a keyword and its value."""
        yield from _field(key.encode())
        yield from cls.iter_value_to_bytes(obj)

    @classmethod
    def iter_value_to_bytes(cls, obj: object) -> Iterator[bytes | memoryview]:
        """Yield the bytes that stand for a value, the first of them for its kind."""
        yield from _value(obj)

    @classmethod
    def serialize_item(cls, obj: object) -> Iterator[bytes | memoryview]:
        """Yield the bytes that stand for a value, without the byte of its kind."""
        yield from _leaf(obj)


def _usual_algorithm() -> str:
    usual = "blake3" if find_spec("blake3") is not None else "sha256"
    return envs.VLLM_MM_HASHER_ALGORITHM or usual


def _digest(algorithm: str) -> Any:
    if algorithm in ("sha256", "sha512"):
        return hashlib.new(algorithm)
    if algorithm != "blake3":
        raise InvalidArgumentError(
            f"Unknown hash algorithm {algorithm!r:.64}; there are: blake3, sha256, sha512."
        )
    try:
        import blake3
    except ImportError as error:
        raise MissingPackageError("blake3 is not installed: pip install mmmedia[blake3].") from error
    return blake3.blake3()


def _count(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _field(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    yield _count(len(data))
    yield data


def _value(obj: object) -> Iterator[bytes | memoryview]:
    if obj is None:
        yield _TAG_NONE
    elif isinstance(obj, list | tuple):
        yield _TAG_SEQUENCE
        yield _count(len(obj))
        for item in obj:
            yield from _value(item)
    elif isinstance(obj, dict):
        yield _TAG_MAPPING
        yield _count(len(obj))
        for name, item in obj.items():
            yield from _field(str(name).encode())
            yield from _value(item)
    else:
        yield _TAG_LEAF
        yield from _leaf(obj)


def _leaf(obj: object) -> Iterator[bytes | memoryview]:
    if isinstance(obj, bytes | bytearray | memoryview):
        yield from _field(bytes(obj) if isinstance(obj, memoryview) else memoryview(obj))
    elif isinstance(obj, str):
        yield from _field(obj.encode())
    elif isinstance(obj, int | float):
        yield from _field(np.array(obj).tobytes())
    elif isinstance(obj, Image.Image):
        yield from _picture(obj, lambda: _pixels(obj))
    elif hasattr(obj, "original_bytes") and hasattr(obj, "media"):
        yield from _with_bytes(obj)
    elif isinstance(obj, np.ndarray):
        data = np.ascontiguousarray(obj).reshape(-1).view(np.uint8).data if obj.size else b""
        yield from _named("ndarray", {"dtype": obj.dtype.str, "shape": obj.shape, "data": data})
    elif type(obj).__module__.partition(".")[0] == "torch" and hasattr(obj, "detach"):
        yield from _tensor(obj)
    else:
        logger.warning("No serialization for %s: it is pickled, so that equal ones may differ.", type(obj))
        yield from _field(pickle.dumps(obj))


def _named(kind: str, value: object) -> Iterator[bytes | memoryview]:
    yield from _field(kind.encode())
    yield from _value(value)


def _picture(image: Image.Image, content: Callable[[], object]) -> Iterator[bytes | memoryview]:
    """A picture by the name that its EXIF data give it, else by its content."""
    try:
        name = image.getexif().get(_IMAGE_ID)
    except Exception:  # noqa: BLE001  # broken EXIF data names nothing
        name = None
    if isinstance(name, uuid.UUID):
        yield from _field(name.bytes)
    else:
        yield from _named("image", content())


def _pixels(image: Image.Image) -> Mapping[str, object]:
    held: dict[str, object] = {"mode": image.mode, "data": np.asarray(image)}
    if image.palette is not None:
        held |= {"palette": image.palette.palette, "palette_rawmode": image.palette.rawmode}
    return held


def _with_bytes(wrapped: Any) -> Iterator[bytes | memoryview]:
    media, data, config = wrapped.media, wrapped.original_bytes, getattr(wrapped, "io_config", None)
    if isinstance(media, Image.Image):
        yield from _picture(media, lambda: {"io_config": config, "data": data} if config else data)
    elif hasattr(media, "nbytes"):  # an array or a tensor
        yield from _named("video", media if media.nbytes < len(data) else data)
    elif isinstance(media, tuple):  # a video and its metadata
        frames, metadata = media
        yield from _value((type(wrapped)(frames, data), metadata))
    else:
        yield from _leaf(media)


def _tensor(tensor: Any) -> Iterator[bytes | memoryview]:
    import torch

    dense = tensor.detach().cpu()
    if dense.dtype == torch.bfloat16:
        held = {
            "original_dtype": str(dense.dtype),
            "original_shape": tuple(dense.shape),
            "data": dense.contiguous().reshape(-1).view(torch.uint8).numpy(),
        }
        yield from _named("tensor", held)
    else:
        yield from _named("tensor", dense.numpy())
