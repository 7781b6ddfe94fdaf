"""`MultiModalHasher`: the stream of bytes that vLLM 0.33 hashes, written out."""

import hashlib
import io
import logging
import sys
import uuid
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import Base

from mmmedia.errors import InvalidArgumentError, MissingPackageError
from mmmedia.hasher import MultiModalHasher
from mmmedia.media import ImageMediaIO, MediaWithBytes

ImageID = Base.ImageID


def field(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def count(number: int) -> bytes:
    return number.to_bytes(8, "little")


def array(values: np.ndarray) -> bytes:
    """A value that is an array."""
    shape = (
        b"\x01" + count(values.ndim) + b"".join(b"\x03" + field(np.array(n).tobytes()) for n in values.shape)
    )
    return (
        b"\x03" + field(b"ndarray") + b"\x02" + count(3)
        + field(b"dtype") + b"\x03" + field(values.dtype.str.encode())
        + field(b"shape") + shape
        + field(b"data") + b"\x03" + field(values.tobytes())
    )  # fmt: skip


def hashed(**kwargs: Any) -> str:
    return MultiModalHasher.hash_kwargs("sha256", **kwargs)


def expected(stream: bytes, name: bytes = b"x") -> str:
    return hashlib.sha256(field(name) + stream).hexdigest()


PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("value", "stream"),
    [
        (None, b"\x00"),
        (b"ab", b"\x03" + field(b"ab")),
        (memoryview(b"abcd")[::2], b"\x03" + field(b"ac")),
        ("é", b"\x03" + field("é".encode())),
        (7, b"\x03" + field(np.array(7).tobytes())),
        (1.5, b"\x03" + field(np.array(1.5).tobytes())),
        (True, b"\x03" + field(np.array(True).tobytes())),
        ([], b"\x01" + count(0)),
        ((b"a", None), b"\x01" + count(2) + b"\x03" + field(b"a") + b"\x00"),
        ({"b": None, 1: []}, b"\x02" + count(2) + field(b"b") + b"\x00" + field(b"1") + b"\x01" + count(0)),
        (PIXELS, array(PIXELS)),
        (PIXELS[:, ::2], array(np.ascontiguousarray(PIXELS[:, ::2]))),
        (np.zeros((0, 3), np.float32), array(np.zeros((0, 3), np.float32))),
    ],
)  # fmt: skip
def test_values(value: Any, stream: bytes) -> None:
    assert hashed(x=value) == expected(stream)


def test_keywords_are_sorted() -> None:
    assert hashed(b=None, a=[]) == hashed(a=[], b=None)
    assert (
        hashed(a=[], b=None)
        == hashlib.sha256(field(b"a") + b"\x01" + count(0) + field(b"b") + b"\x00").hexdigest()
    )


def test_pictures() -> None:
    """By mode, pixels and palette."""
    image = Image.fromarray(PIXELS)
    stream = (
        b"\x03" + field(b"image") + b"\x02" + count(2)
        + field(b"mode") + b"\x03" + field(b"RGB")
        + field(b"data") + array(PIXELS)
    )  # fmt: skip
    assert hashed(x=image) == expected(stream)
    one, other = Image.new("P", (2, 2)), Image.new("P", (2, 2))
    one.putpalette([0, 0, 0, 255, 0, 0])
    other.putpalette([0, 0, 0, 0, 255, 0])
    assert hashed(x=one) != hashed(x=other)


def test_pictures_with_a_name() -> None:
    """The UUID in their EXIF data stands for them."""
    image, name = Image.fromarray(PIXELS), uuid.uuid4()
    image.getexif()[ImageID] = name
    stream = b"\x03" + field(name.bytes)
    assert hashed(x=image) == hashed(x=MediaWithBytes(image, b"data")) == expected(stream)
    image.getexif()[ImageID] = str(name)
    assert hashed(x=image) != expected(stream)


def test_pictures_with_their_bytes() -> None:
    """By their bytes, and by what the pixels depend on besides."""
    image = Image.fromarray(PIXELS)
    plain = b"\x03" + field(b"image") + b"\x03" + field(b"data")
    assert hashed(x=MediaWithBytes(image, b"data")) == expected(plain)
    config = (
        b"\x03" + field(b"image") + b"\x02" + count(2)
        + field(b"io_config") + b"\x02" + count(1) + field(b"image_mode") + b"\x03" + field(b"L")
        + field(b"data") + b"\x03" + field(b"data")
    )  # fmt: skip
    assert hashed(x=MediaWithBytes(image, b"data", {"image_mode": "L"})) == expected(config)
    file = io.BytesIO()
    Image.new("RGBA", (3, 3), (1, 2, 3, 100)).save(file, "PNG")
    colours = [(0, 0, 0), (9, 9, 9)]
    loaded = [ImageMediaIO(rgba_background_color=each).load_bytes(file.getvalue()) for each in colours]
    assert len({hashed(x=each) for each in loaded}) == 2


def test_videos() -> None:
    """A pair of frames and metadata, the frames by the shorter of themselves and their file."""
    frames, metadata = PIXELS[None], {"fps": 2}
    told = b"\x02" + count(1) + field(b"fps") + b"\x03" + field(np.array(2).tobytes())
    for data, held in ((b"clip", b"\x03" + field(b"clip")), (bytes(99), array(frames))):
        video = b"\x03" + field(b"video") + held
        assert hashed(x=MediaWithBytes(frames, data)) == expected(video)
        assert hashed(x=(MediaWithBytes(frames, data), metadata)) == expected(
            b"\x01" + count(2) + video + told
        )
        whole = hashed(x=MediaWithBytes((frames, metadata), data))
        assert whole != hashed(x=MediaWithBytes((frames, {"fps": 3}), data))


def test_videos_of_a_decoder_on_a_gpu() -> None:
    """Whose frames are a tensor, are the same ones by their file."""
    torch = pytest.importorskip("torch")
    wrapped = [MediaWithBytes((each, {}), b"clip") for each in (PIXELS[None], torch.from_numpy(PIXELS[None]))]
    assert hashed(x=wrapped[0]) == hashed(x=wrapped[1])


def test_tensors() -> None:
    """As arrays; bfloat16, which NumPy does not have, by its bytes."""
    torch = pytest.importorskip("torch")
    values = np.float32([[1, 2], [3, 4]])
    tensor = torch.from_numpy(values)
    assert hashed(x=tensor) == expected(b"\x03" + field(b"tensor") + array(values))
    brief = tensor.bfloat16()
    shape = b"\x01" + count(2) + 2 * (b"\x03" + field(np.array(2).tobytes()))
    stream = (
        b"\x03" + field(b"tensor") + b"\x02" + count(3)
        + field(b"original_dtype") + b"\x03" + field(b"torch.bfloat16")
        + field(b"original_shape") + shape
        + field(b"data") + array(brief.reshape(-1).view(torch.uint8).numpy())
    )  # fmt: skip
    assert hashed(x=brief) == expected(stream)


def test_anything_else_is_pickled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mmmedia.hasher"):
        assert hashed(x=frozenset([1])) != hashed(x=frozenset([2]))
    assert "is pickled" in caplog.text


def test_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = {name: len(MultiModalHasher.hash_kwargs(name, algorithm=1)) for name in ("sha256", "sha512")}
    assert lengths == {"sha256": 64, "sha512": 128}
    assert len(MultiModalHasher.hash_kwargs("blake3", x=1)) == 64
    with pytest.raises(InvalidArgumentError, match="'md5'"):
        MultiModalHasher.hash_kwargs("md5", x=1)
    monkeypatch.setitem(sys.modules, "blake3", None)
    with pytest.raises(MissingPackageError, match="blake3"):
        MultiModalHasher.hash_kwargs("blake3", x=1)


def test_without_an_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake; in 0.20 that of the setting, else the best that is installed."""
    with pytest.raises(TypeError, match="algorithm"):
        MultiModalHasher.hash_kwargs(x=1)
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    monkeypatch.setenv("VLLM_MM_HASHER_ALGORITHM", "sha512")
    assert MultiModalHasher.hash_kwargs(x=1) == MultiModalHasher.hash_kwargs("sha512", x=1)
    monkeypatch.delenv("VLLM_MM_HASHER_ALGORITHM")
    monkeypatch.setattr("mmmedia.hasher.find_spec", lambda _: None)
    assert MultiModalHasher.hash_kwargs(x=1) == hashed(x=1)


def test_step_by_step() -> None:
    """A keyword is its name and its value, and a value begins with its kind."""
    assert b"".join(MultiModalHasher.iter_item_to_bytes("x", b"ab")) == field(b"x") + b"\x03" + field(b"ab")
    assert b"".join(MultiModalHasher.iter_value_to_bytes(None)) == b"\x00"
    assert b"".join(MultiModalHasher.serialize_item(b"ab")) == field(b"ab")


def test_broken_exif_data_names_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Image.Image) -> object:
        raise SyntaxError("not a TIFF file")

    expected = hashed(x=Image.fromarray(PIXELS))
    monkeypatch.setattr(Image.Image, "getexif", broken)
    assert hashed(x=Image.fromarray(PIXELS)) == expected
