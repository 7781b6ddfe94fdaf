"""What a worker may say of a result, and what not."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmmedia.media import isolated_results
from mmmedia.media.base import MediaWithBytes
from mmmedia.media.image import ImageMediaIO
from mmmedia.work.isolated import memory, wire
from mmmedia.work.isolated.wire import BrokenWireError, Described

PICTURE: dict[str, Any] = {
    "mode": "RGB", "size": (4, 3), "pixels": Described("uint8", (48,)), "palette": None, "info": {},
    "format": "PNG", "is_converted": None,
}  # fmt: skip
SOUND: dict[str, Any] = {"waveform": Described("float32", (100,)), "rate": 8000}
VIDEO: dict[str, Any] = {
    "array": Described("uint8", (2, 3, 4, 3)), "tensor": None, "metadata": {"frames_indices": [0, 1]},
}  # fmt: skip
TENSOR: dict[str, Any] = {"array": Described("uint8", (24,)), "tensor": ("float32", (2, 3))}
LIES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("picture", PICTURE, {"mode": "XYZ"}),
    ("picture", PICTURE, {"mode": 5}),
    ("picture", PICTURE, {"size": (4, 4)}),
    ("picture", PICTURE, {"size": (-4, -3)}),
    ("picture", PICTURE, {"size": (4.0, 3)}),
    ("picture", PICTURE, {"size": (4, 3, 1)}),
    ("picture", PICTURE, {"size": (True, 12)}),
    ("picture", PICTURE, {"pixels": Described("uint8", (47,))}),
    ("picture", PICTURE, {"pixels": Described("float32", (12,))}),
    ("picture", PICTURE, {"pixels": Described("bytes", (48,))}),
    ("picture", PICTURE, {"pixels": None}),
    ("picture", PICTURE, {"palette": ("RGB", Described("bytes", (9,)))}),
    ("picture", PICTURE, {"mode": "P", "pixels": Described("uint8", (12,))}),
    ("picture", PICTURE, {"mode": "P", "pixels": Described("uint8", (12,)), "palette": ("RGB", b"")}),
    ("picture", PICTURE,
     {"mode": "P", "pixels": Described("uint8", (12,)), "palette": ("Q", Described("bytes", (3,)))}),
    ("picture", PICTURE,
     {"mode": "P", "pixels": Described("uint8", (12,)), "palette": ("RGB", Described("bytes", (999,)))}),
    ("picture", PICTURE, {"info": {5: "x"}}),
    ("picture", PICTURE, {"info": []}),
    ("picture", PICTURE, {"format": 5}),
    ("picture", PICTURE, {"is_converted": "yes"}),
    ("picture", PICTURE, {"size": (40_000, 40_000), "pixels": Described("uint8", (6_400_000_000,))}),
    ("sound", SOUND, {"rate": 0}),
    ("sound", SOUND, {"rate": float("nan")}),
    ("sound", SOUND, {"rate": True}),
    ("sound", SOUND, {"waveform": Described("float64", (100,))}),
    ("sound", SOUND, {"waveform": Described("float32", (10, 10))}),
    ("sound", SOUND, {"waveform": Described("float32", (1 << 40,))}),
    ("video", VIDEO, {"metadata": []}),
    ("video", VIDEO, {"metadata": {"frames_indices": [0]}}),
    ("video", VIDEO, {"metadata": {"frames_indices": [0, "1"]}}),
    ("video", VIDEO, {"array": Described("uint8", (2, 1 << 20, 1 << 20, 3))}),
    ("video", VIDEO, {"array": Described("uint8", (1, 20_000, 20_000, 3)), "metadata": {}}),
    ("video", VIDEO, {"array": 5}),
    ("tensor", TENSOR, {"tensor": None}),
    ("tensor", TENSOR, {"tensor": ("float32", (2, 4))}),
    ("tensor", TENSOR, {"tensor": ("float32", (2, -3))}),
    ("tensor", TENSOR, {"tensor": ("float32", 6)}),
    ("tensor", TENSOR, {"tensor": ("save", (2, 3))}),
    ("tensor", TENSOR, {"tensor": ("os.path", (2, 3))}),
    ("tensor", TENSOR, {"tensor": ("float32",)}),
    ("tensor", TENSOR, {"array": Described("uint8", (4 << 30,)), "tensor": ("uint8", (4 << 30,))}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), [("picture", PICTURE), ("sound", SOUND), ("video", VIDEO)])
def test_what_can_be_is_believed(kind: str, value: dict[str, Any]) -> None:
    isolated_results.KINDS[kind].check(value)


@pytest.mark.parametrize(("kind", "value", "lie"), LIES, ids=str)
def test_what_can_not_be_is_refused(kind: str, value: dict[str, Any], lie: dict[str, Any]) -> None:
    if kind == "tensor":
        pytest.importorskip("torch")
        isolated_results.KINDS[kind].check(value)
    with pytest.raises(BrokenWireError):
        isolated_results.KINDS[kind].check({**value, **lie})


@pytest.mark.parametrize("kind", isolated_results.KINDS)
def test_nothing_may_be_missing(kind: str) -> None:
    for value in (None, [], {}, "x"):
        with pytest.raises(BrokenWireError):
            isolated_results.KINDS[kind].check(value)


def travelled(kind: str, result: Any, media_io: Any = None) -> Any:
    """A result as it comes out at the other end."""
    arrays: list[Any] = []
    told = isolated_results.KINDS[kind].told(result)
    tree = wire.pack(told, arrays)
    announced = wire.described(wire.describe(arrays))
    isolated_results.KINDS[kind].check(wire.unpack(tree, announced))
    room = bytearray(wire.places(announced)[1])
    memory.put(arrays, announced, room)
    value = wire.unpack(tree, memory.arrays_in(room, announced))
    return isolated_results.KINDS[kind].made(value, media_io, b"file")


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "PA", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"]
)
def test_pictures_of_every_mode_travel(mode: str) -> None:
    image = Image.effect_noise((37, 11), 60).convert("RGB").resize((37, 11))
    is_made = mode in ("I;16", "LAB", "PA")  # to which nothing is converted
    image = Image.new(mode, (37, 11), 3) if is_made else image.convert(mode)
    image.info = {"comment": b"x", "dpi": (72, 72), "odd": object()}
    found = travelled("picture", MediaWithBytes(image, b"file", {"image_mode": mode}), ImageMediaIO(mode))
    assert isinstance(found.media, Image.Image)
    assert (found.media.mode, found.media.tobytes()) == (image.mode, image.tobytes())
    assert found.media.info == {"comment": b"x", "dpi": (72, 72)}
    assert found.original_bytes == b"file"
    assert found.io_config == ImageMediaIO(mode)._config(True)
    if mode == "P":
        assert found.media.convert("RGB").tobytes() == image.convert("RGB").tobytes()


def test_sounds_and_videos_travel() -> None:
    waveform, rate = travelled("sound", (np.arange(10, dtype=np.float32)[::2], 8000))
    assert waveform.tolist() == [0, 2, 4, 6, 8]
    assert rate == 8000
    frames, metadata = travelled("video", (np.ones((1, 2, 3, 3), np.uint8), {"fps": 2.5, "x": None}))
    assert frames.shape == (1, 2, 3, 3)
    assert metadata == {"fps": 2.5, "x": None}


def test_tensors_travel() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (
        torch.arange(6.0).reshape(2, 3).T,
        torch.ones(3, dtype=torch.bfloat16),
        torch.zeros(0, 4),
        torch.tensor(5),
        torch.tensor([True, False]),
        torch.ones(2, dtype=torch.complex64),
    ):
        found = travelled("tensor", tensor)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(found, tensor)
    frames, _ = travelled("video", (torch.ones(2, 3, 4, 5, dtype=torch.uint8), {}))
    assert frames.shape == (2, 3, 4, 5)
    with pytest.raises(TypeError):
        isolated_results.KINDS["tensor"].told("no tensor")


def test_counts_are_of_the_difference() -> None:
    from mmmedia.video.decoders import stats

    before = isolated_results.counts()
    stats.count("seek", wanted=3, decoded=9)
    assert isolated_results.since(before) == [["seek", None, 3, 9]]
    before = isolated_results.counts()
    stats.count("sequential", "by request")
    counted = isolated_results.since(before)
    assert counted == [["sequential", "by request", 0, 0]]
    paths = stats.decode_stats().paths["sequential"]
    isolated_results.count({"counts": [*counted, ["odd"], None, ["sequential", 5, 0, 0]]})
    assert stats.decode_stats().paths["sequential"] == paths + 1
