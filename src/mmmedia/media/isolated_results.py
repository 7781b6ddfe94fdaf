"""What workers say of pictures, sounds, videos and tensors: told there, and checked and made again here."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

import numpy as np
from PIL import Image

from mmmedia import envs
from mmmedia.media.base import MediaWithBytes
from mmmedia.work.isolated.wire import BrokenWireError, Described, Later

_PIXEL_BYTES: Final = {
    "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2, "LA": 4, "La": 4, "PA": 4, "RGB": 4,
    "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4, "YCbCr": 4, "LAB": 4, "HSV": 4, "I": 4, "F": 4,
}  # fmt: skip
"""What a pixel of a mode takes in Pillow's own memory. Mode "1" is not mapped; it is sent as rows of bits."""


class Kind(NamedTuple):
    """A kind of result.

    Attributes:
        told: in a worker, what the parent is told of one: a dict of what `wire.pack` takes.
        check: what was told can be, with `wire.Described` for arrays; raises `wire.BrokenWireError`.
        made: the result, of what was told, of the media IO that it is for, and of the encoded file.
    """

    told: Callable[[Any], dict[str, Any]]
    check: Callable[[Any], None]
    made: Callable[[Any, Any, Any], Any]


def _expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise BrokenWireError(what)


def _field(value: Any, name: str, *kinds: type) -> Any:
    found = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
    if found is _MISSING or not isinstance(found, kinds) or (isinstance(found, bool) and bool not in kinds):
        raise BrokenWireError(f"{name} is missing")
    return found


_MISSING: Final = object()


def _within(value: float, setting: str, what: str) -> None:
    limit = getattr(envs, setting)
    _expect(not 0 < limit < value, f"{what} beyond {setting}")


# -------------------------------------------------------------------------------------------- pictures


def _tell_picture(loaded: MediaWithBytes[Image.Image]) -> dict[str, Any]:
    image, config = loaded.media, loaded.io_config
    image.load()
    palette = None
    if image.mode in ("P", "PA"):
        mode = image.im.getpalettemode()
        palette = (mode, image.im.getpalette(mode, mode))
    width, height = image.size

    def fill(target: memoryview) -> None:
        _pixels_in(target, image.mode, image.size).paste(image.im, (0, 0, width, height))

    return {
        "mode": image.mode,
        "size": (width, height),
        "pixels": (
            np.frombuffer(image.tobytes(), np.uint8)
            if image.mode == "1"
            else Later(_pixel_bytes(image.mode, image.size), fill)
        ),
        "palette": palette,
        "info": {
            name: value for name, value in image.info.items() if isinstance(name, str) and _is_plain(value)
        },
        "format": image.format,
        "is_converted": None if config is None else "image_mode" in config,
    }


def _pixel_bytes(mode: str, size: tuple[int, int]) -> int:
    """Return what a picture takes, mapped or in rows of bits.

    >>> _pixel_bytes("RGB", (9, 2)), _pixel_bytes("1", (9, 2))
    (72, 4)
    """
    width, height = size
    return (width + 7) // 8 * height if mode == "1" else _PIXEL_BYTES[mode] * width * height


def _pixels_in(memory: Any, mode: str, size: tuple[int, int]) -> Any:
    """Return pixels that lie in memory, in Pillow's own order."""
    stride = _PIXEL_BYTES[mode] * size[0]
    core: Any = vars(Image)["core"]
    return core.map_buffer(memory, size, "raw", 0, (mode, stride, 1))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(name, str | int) and _is_plain(item) for name, item in value.items())
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _check_picture(value: Any) -> None:
    mode = _field(value, "mode", str)
    size = _field(value, "size", tuple)
    pixels = _field(value, "pixels", Described)
    _expect(mode in (*_PIXEL_BYTES, "1"), "a mode that Pillow does not have")
    _expect(len(size) == 2 and all(type(n) is int and n > 0 for n in size), "a size that is none")
    _within(size[0] * size[1], "VLLM_MAX_IMAGE_PIXELS", "pixels")
    expected = Described("uint8", (_pixel_bytes(mode, size),))
    _expect(pixels == expected, "pixels of another number")
    palette = _field(value, "palette", tuple, type(None))
    _expect((palette is not None) == (mode in ("P", "PA")), "a palette where none is, or none where one is")
    if palette is not None:
        _expect(len(palette) == 2 and palette[0] in ("RGB", "RGBA"), "a palette of no known kind")
        entry = len(palette[0])
        is_palette = isinstance(palette[1], Described) and palette[1].dtype == "bytes"
        _expect(is_palette and palette[1].nbytes <= 256 * entry, "a palette of another size")
    _expect(all(isinstance(name, str) for name in _field(value, "info", dict)), "names that are none")
    _field(value, "format", str, type(None))
    _field(value, "is_converted", bool, type(None))


def _make_picture(value: Any, media_io: Any, data: bytes) -> MediaWithBytes[Image.Image]:
    mode, size, pixels = value["mode"], value["size"], value["pixels"]
    if mode == "1":
        image = Image.frombytes(mode, size, pixels.tobytes())
    else:
        image = Image.Image()._new(_pixels_in(pixels, mode, size))
    if value["palette"] is not None:
        palette_mode, entries = value["palette"]
        image.putpalette(entries, palette_mode)
    image.info = value["info"]
    image.format = value["format"]
    is_converted = value["is_converted"]
    return MediaWithBytes(image, data, None if is_converted is None else media_io._config(is_converted))


# ---------------------------------------------------------------------------------------------- sounds


def _tell_sound(loaded: tuple[Any, float]) -> dict[str, Any]:
    return {"waveform": np.ascontiguousarray(loaded[0]), "rate": loaded[1]}


def _check_sound(value: Any) -> None:
    waveform, rate = _field(value, "waveform", Described), _field(value, "rate", int, float)
    _expect(waveform.dtype == "float32" and len(waveform.shape) == 1, "samples of another kind")
    _expect(math.isfinite(rate) and rate > 0, "a rate that is none")
    _within(waveform.nbytes, "VLLM_MAX_AUDIO_DECODE_BYTES", "samples")


def _check_waveform(value: Any) -> None:
    waveform, rate = _field(value, "waveform", Described), _field(value, "rate", int, float)
    _expect(waveform.dtype == "float32" and len(waveform.shape) in (1, 2), "samples of another kind")
    _expect(math.isfinite(rate) and rate > 0, "a rate that is none")
    # It may be at another rate than what was limited, and a caller's own file has no limit.
    most = envs.MMMEDIA_DECODE_PROCESS_MEMORY_MB << 20
    _expect(waveform.nbytes <= most, "samples beyond MMMEDIA_DECODE_PROCESS_MEMORY_MB")


def _make_sound(value: Any, *_: Any) -> tuple[Any, float]:
    return value["waveform"], value["rate"]


# ---------------------------------------------------------------------------------------------- videos


def _tell_video(loaded: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    frames, metadata = loaded
    return {**_tell_tensor(frames), "metadata": metadata}


def _check_video(value: Any) -> None:
    described = _check_any(value)
    _within(described.nbytes, "VLLM_MAX_VIDEO_DECODE_BYTES", "frames")
    metadata = _field(value, "metadata", dict)
    shape = described.shape
    if described.dtype == "uint8" and value["tensor"] is None:
        if len(shape) == 4 and shape[3] == 3:
            _within(shape[1] * shape[2], "VLLM_MAX_IMAGE_PIXELS", "pixels")
        indices = metadata.get("frames_indices")
        if isinstance(indices, list):
            _expect(all(type(n) is int for n in indices), "indices that are no numbers")
            _expect(len(shape) > 0 and len(indices) == shape[0], "indices of another number of frames")


def _make_video(value: Any, *_: Any) -> tuple[Any, dict[str, Any]]:
    return _make_any(value), value["metadata"]


# --------------------------------------------------------------------------------------------- tensors


def _tell_tensor(loaded: Any) -> dict[str, Any]:
    """Tell of an array, or of a tensor of torch."""
    if isinstance(loaded, np.ndarray):
        return {"array": loaded, "tensor": None}
    import torch

    if not isinstance(loaded, torch.Tensor):
        raise TypeError(f"a {type(loaded).__name__}")
    flat = loaded.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {"array": flat, "tensor": (str(loaded.dtype).removeprefix("torch."), tuple(loaded.shape))}


def _check_any(value: Any) -> Described:
    array = cast("Described", _field(value, "array", Described))
    tensor = _field(value, "tensor", tuple, type(None))
    if tensor is not None:
        import torch

        _expect(len(tensor) == 2 and isinstance(tensor[0], str), "a tensor that is not described")
        dtype = getattr(torch, tensor[0], None) if tensor[0].isidentifier() else None
        _expect(isinstance(dtype, torch.dtype), "a tensor of no known kind")
        shape = tensor[1]
        is_shape = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        _expect(is_shape and len(shape) <= 64, "a shape that is none")
        expected = Described("uint8", (math.prod(shape) * cast("Any", dtype).itemsize,))
        _expect(array == expected, "a tensor of another size")
    return array


def _check_tensor(value: Any) -> None:
    array = _check_any(value)
    _expect(value["tensor"] is not None, "no tensor")
    _within(array.nbytes, "VLLM_MAX_EMBED_DECODE_BYTES", "a tensor")


def _make_any(value: Any) -> Any:
    if value["tensor"] is None:
        return value["array"]
    import torch

    name, shape = value["tensor"]
    dtype = getattr(torch, name)
    if not value["array"].size:
        return torch.empty(shape, dtype=dtype)
    return torch.from_numpy(value["array"]).view(dtype).reshape(shape)


def _make_tensor(value: Any, *_: Any) -> Any:
    return _make_any(value)


# --------------------------------------------------------------------------------------------- kinds


def _tell_kind(kind: str) -> dict[str, Any]:
    return {"kind": kind}


def _check_kind(value: Any) -> None:
    _expect(_field(value, "kind", str) in ("image", "video", "audio"), "a kind that is none")


def _make_kind(value: Any, *_: Any) -> str:
    return cast("str", value["kind"])


KINDS: Final = {
    "picture": Kind(_tell_picture, _check_picture, _make_picture),
    "sound": Kind(_tell_sound, _check_sound, _make_sound),
    "waveform": Kind(_tell_sound, _check_waveform, _make_sound),
    "kind": Kind(_tell_kind, _check_kind, _make_kind),
    "video": Kind(_tell_video, _check_video, _make_video),
    "tensor": Kind(_tell_tensor, _check_tensor, _make_tensor),
}
"""The kinds of results by name."""


# ------------------------------------------------------------------------------------- ways of decoding


def counts() -> Any:
    """Return the counters of the ways through the video decoders, for `since`."""
    from mmmedia.video.decoders.stats import decode_stats

    return decode_stats()


def since(before: Any) -> list[Any]:
    """Return what was counted since: for each request the way, the reason if there was one, two numbers."""
    after = counts()
    paths = Counter(after.paths) - Counter(before.paths)
    reasons = [*(Counter(after.reasons) - Counter(before.reasons)).elements()]
    wanted = after.frames_wanted - before.frames_wanted
    decoded = after.frames_decoded - before.frames_decoded
    return [
        [path, reasons.pop() if path == "sequential" and reasons else None, wanted, decoded]
        for path in paths.elements()
    ]


def count(value: Any) -> None:
    """Count here what a worker has counted."""
    from mmmedia.video.decoders import stats

    for each in value.get("counts") or ():
        match each:
            case ["seek" | "sequential" as path, str() | None as reason, int() as wanted, int() as decoded]:
                stats.count(path, reason and reason[:64], wanted=max(wanted, 0), decoded=max(decoded, 0))
