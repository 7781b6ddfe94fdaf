"""`content_hash`: a name for what an object holds, the same in every process.

Values are written in one canonical form, each with a tag for its kind and with its length, so that no two
different values write the same bytes, and the form is hashed. Arrays and tensors of equal type, shape and
values are equal; so are lists and tuples; dictionaries don't depend on the order of their keys.
"""

import hashlib
import math
import struct
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidSettingError

if TYPE_CHECKING:
    import torch

MAX_DEPTH = 64


class _Hash(Protocol):
    def update(self, data: Any, /) -> object: ...

    def hexdigest(self) -> str: ...


def content_hash(obj: object, *, algorithm: str | None = None) -> str:
    """Return the hash of an object's content as hexadecimal digits.

    A picture with its original bytes (`MediaWithBytes`) is hashed by those alone, and so equals the hash of
    the bytes, unless it has an `io_config`, which is then hashed with them. A video is hashed by its frames
    and metadata.

    Args:
        obj: bytes, text, an image, a `MediaWithBytes`, an array or a dense tensor on any device, a number, a
            truth value or `None`, or lists, tuples and dictionaries of these, at most 64 deep.
        algorithm: "blake3", "sha256" or "sha512"; by default `VLLM_MM_HASHER_ALGORITHM`, and where that is
            not set blake3 if it is installed (``pip install mmmedia[blake3]``), else SHA-256.

    Raises:
        InvalidArgumentError: (a `ValueError`) an object whose content can't be hashed, an unknown algorithm.
        InvalidSettingError: (a `ValueError`) the setting asks for blake3 and it is not installed.

    >>> content_hash(b"abc", algorithm="sha256")[:16]
    '25952ec7bf4b0f04'
    >>> content_hash([1, b"abc"]) == content_hash((1, b"abc")) != content_hash([1, "abc"])
    True
    """
    digest = _new_hash(algorithm)
    _write(digest, obj, 0)
    return digest.hexdigest()


def _new_hash(algorithm: str | None) -> _Hash:
    name = algorithm or envs.VLLM_MM_HASHER_ALGORITHM
    if not name:
        name = "blake3" if find_spec("blake3") else "sha256"
    if name in ("sha256", "sha512"):
        return hashlib.new(name)
    if name != "blake3":
        raise InvalidArgumentError(f"Unknown hash algorithm {name!r}; known: blake3, sha256, sha512.")
    try:
        import blake3
    except ImportError:
        raise InvalidSettingError(
            "The hash algorithm blake3 needs the package of that name: pip install mmmedia[blake3], or set "
            "VLLM_MM_HASHER_ALGORITHM to sha256 or sha512."
        ) from None
    digest: _Hash = blake3.blake3()
    return digest


def _write(digest: _Hash, obj: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"Can't hash a nest deeper than {MAX_DEPTH} levels.")
    original = getattr(obj, "original_bytes", None)
    if isinstance(original, bytes):
        config = getattr(obj, "io_config", None)
        if isinstance(video := getattr(obj, "media", None), tuple):
            obj = video  # of the same bytes others may have other frames
        else:
            obj = {"io_config": config, "data": original} if config else original
    if isinstance(obj, (bytes, bytearray, memoryview)):
        view = memoryview(obj)
        _write_tagged(
            digest, b"bytes", view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
        )
    elif isinstance(obj, str):
        _write_tagged(digest, b"text", obj.encode("utf-8", "surrogatepass"))
    elif obj is None or isinstance(obj, bool):
        _write_tagged(digest, b"constant", repr(obj).encode())
    elif isinstance(obj, int):
        _write_tagged(digest, b"integer", hex(obj).encode())
    elif isinstance(obj, float):
        _write_tagged(digest, b"float", struct.pack("<d", math.nan if math.isnan(obj) else obj))
    elif isinstance(obj, Image.Image):
        _write_image(digest, obj, depth)
    elif isinstance(obj, (np.ndarray, np.generic)):
        array = np.asarray(obj)
        if array.dtype.hasobject or array.dtype.names:
            raise InvalidArgumentError(f"Can't hash an array of type {array.dtype}: expected plain numbers.")
        _write_array(digest, array.dtype.name, array)
    elif isinstance(obj, (list, tuple)):
        _write_tagged(digest, b"list", str(len(obj)).encode())
        for item in obj:
            _write(digest, item, depth + 1)
    elif isinstance(obj, Mapping):
        _write_mapping(digest, obj, depth)
    elif "torch" in sys.modules and isinstance(obj, sys.modules["torch"].Tensor):
        _write_tensor(digest, obj)
    else:
        raise InvalidArgumentError(
            f"Can't hash {type(obj).__module__}.{type(obj).__qualname__}: expected bytes, text, an image, "
            "an array, a tensor, a number, or lists and dictionaries of them."
        )


def _write_tagged(digest: _Hash, tag: bytes, data: bytes | memoryview) -> None:
    digest.update(b"%s:%d:" % (tag, len(data)))
    digest.update(data)


def _write_image(digest: _Hash, image: Image.Image, depth: int) -> None:
    palette = image.getpalette("RGBA") if image.mode in ("P", "PA") else None
    _write_tagged(digest, b"image", image.mode.encode())
    _write(digest, [*image.size, palette, image.info.get("transparency")], depth + 1)
    _write_tagged(digest, b"pixels", image.tobytes())


def _write_array(digest: _Hash, dtype_name: str, array: "np.ndarray[Any, Any]") -> None:
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    _write_tagged(digest, b"array", f"{dtype_name}{array.shape}".encode())
    # A flat view as bytes, which copies only what is not contiguous.
    _write_tagged(digest, b"values", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _write_tensor(digest: _Hash, tensor: "torch.Tensor") -> None:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise InvalidArgumentError(
            f"Can't hash a tensor of layout {tensor.layout} and type {tensor.dtype} on {tensor.device}: "
            "expected a dense one with values."
        )
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    values = dense.reshape(-1).view(torch.uint8).numpy() if dense.numel() else np.empty(0, np.uint8)
    _write_tagged(
        digest, b"array", f"{str(tensor.dtype).removeprefix('torch.')}{tuple(tensor.shape)}".encode()
    )
    _write_tagged(digest, b"values", values.data)


def _write_mapping(digest: _Hash, mapping: Mapping[Any, object], depth: int) -> None:
    _write_tagged(digest, b"mapping", str(len(mapping)).encode())
    # In the order of the keys' own hashes: keys of different types can't be compared with each other.
    for key in sorted(mapping, key=lambda key: content_hash(key, algorithm="sha256")):
        _write(digest, key, depth + 1)
        _write(digest, mapping[key], depth + 1)
