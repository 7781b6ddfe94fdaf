"""`content_hash`: equal content, equal hash; different content, different hash; in every process."""

import os
import struct
import subprocess
import sys
from collections import OrderedDict
from hashlib import sha256
from io import BytesIO

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings, strategies as st
from PIL import Image

import mmmedia
from mmmedia.errors import InvalidArgumentError, InvalidSettingError
from mmmedia.hashing import content_hash
from mmmedia.media.base import MediaWithBytes

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


def encoded(image: Image.Image, image_format: str = "PNG") -> bytes:
    buffer = BytesIO()
    image.save(buffer, image_format)
    return buffer.getvalue()


def palette_image(colours: list[int]) -> Image.Image:
    image = Image.new("P", (2, 2))
    image.putpalette(colours)
    return image


EQUAL = {
    "bytes of three kinds": [b"abc", bytearray(b"abc"), memoryview(b"abc")],
    "a view of every second byte": [b"ace", memoryview(b"abcde")[::2]],
    "no bytes": [b"", memoryview(b""), bytearray()],
    "original bytes before pixels": [
        encoded(Image.fromarray(PIXELS)),
        MediaWithBytes(Image.fromarray(PIXELS), encoded(Image.fromarray(PIXELS))),
    ],
    "a picture made twice": [Image.fromarray(PIXELS), Image.fromarray(PIXELS.copy())],
    "an array, a tensor, strided and big-endian ones": [
        np.array([[1, 2], [3, 4]], np.int32),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.int32),
        np.array([[1, 3], [2, 4]], np.int32).T,
        torch.tensor([[1, 3], [2, 4]], dtype=torch.int32).T,
        np.array([[1, 2], [3, 4]], ">i4"),
        np.array([[1, 0, 2], [3, 0, 4]], np.int32)[:, ::2],
    ],
    "a tensor with and without gradient": [torch.ones(2), torch.ones(2, requires_grad=True)],
    "lists and tuples": [[1, (2, 3)], (1, [2, 3])],
    "order of keys": [{"a": 1, "b": 2, 3: 4}, OrderedDict([(3, 4), ("b", 2), ("a", 1)])],
    "every NaN": [float("nan"), struct.unpack("<d", b"\x01" + b"\x00" * 5 + b"\xf8\xff")[0]],
    "empty arrays": [np.empty((0, 3), np.float32), torch.empty((0, 3))],
    "conjugated": [torch.tensor([1 - 2j]), torch.tensor([1 + 2j]).conj()],
}

DIFFERENT = [
    b"", b"abc", b"abcd", "abc", "", None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, 2**70, "1", b"1",
    [], [[]], {}, [b"a", b"b"], [b"ab"], [b"a", b"b", b""], [[b"a"], b"b"], {"a": b"b"}, [("a", b"b")],
    {"a": {"b": 1}}, {"a": "b", "c": "d"}, {"a": "d", "c": "b"},
    np.zeros(4, np.uint8), np.zeros((2, 2), np.uint8), np.zeros(4, np.int8), np.zeros(4, bool),
    np.zeros(2, np.int16), np.float32(1), np.zeros((0, 2)), np.zeros((2, 0)),
    torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.float16),
    Image.new("RGB", (2, 3)), Image.new("RGB", (3, 2)), Image.new("L", (6, 3)),
    Image.new("RGB", (2, 3), "red"), palette_image([0, 0, 0, 255, 0, 0]), palette_image([0, 255, 0, 0, 0, 0]),
    "été",
]  # fmt: skip


@pytest.mark.parametrize("values", EQUAL.values(), ids=EQUAL)
def test_equal_content_has_equal_hashes(values):
    assert len({content_hash(value) for value in values}) == 1


def test_different_content_has_different_hashes():
    hashes = [content_hash(value) for value in DIFFERENT]
    assert len(set(hashes)) == len(DIFFERENT)


def test_a_nest_of_everything_is_hashed_by_value():
    def nest(last: int) -> object:
        return {
            "frames": np.full((2, 4, 4, 3), last, np.uint8),
            "meta": {"fps": 2.5, "indices": [0, last]},
            "x": None,
        }

    assert content_hash(nest(3)) == content_hash(nest(3)) != content_hash(nest(4))


def test_transparency_of_a_picture_counts():
    plain, transparent = palette_image([0, 0, 0]), palette_image([0, 0, 0])
    transparent.info["transparency"] = 0
    assert content_hash(plain) != content_hash(transparent)


def test_hashes_of_version_one_are_kept():
    """Stored keys stay valid: these digests may never change."""
    form = b"list:1:3bytes:3:abctext:2:\xc3\xa9array:9:int16(2,)values:4:\x01\x00\x02\x00"
    value = [b"abc", "é", np.array([1, 2], np.int16)]
    assert content_hash(value, algorithm="sha256") == sha256(form).hexdigest()
    assert content_hash(value, algorithm="blake3") == blake3(form).hexdigest()


def test_another_process_computes_the_same_hash():
    """Nothing depends on the seed of Python's own hashes, nor on whether torch has been loaded."""
    code = (
        "import numpy as np, mmmedia, sys; from PIL import Image;"
        "value = {'a': 1, 'b': [np.arange(5), Image.new('RGB', (3, 2), 'red')], 'c': {'x': 'y', 'z': None}};"
        "assert 'torch' not in sys.modules; print(mmmedia.content_hash(value))"
    )
    value = {"c": {"z": None, "x": "y"}, "b": [np.arange(5), Image.new("RGB", (3, 2), "red")], "a": 1}
    for seed in ("0", "7"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
        )
        assert output.stdout.strip() == mmmedia.content_hash(value)


nests = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(nests, nests)
def test_hashes_are_equal_exactly_when_the_written_values_are(a, b):
    """The canonical form loses nothing: `repr` tells apart 1, 1.0 and True as the hash does."""
    assert (content_hash(a) == content_hash(b)) == (written(a) == written(b))


def written(value):
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{key!r}:{written(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return repr(value)


def test_the_setting_chooses_the_algorithm(monkeypatch):
    for name, digits in (("sha256", 64), ("sha512", 128), ("blake3", 64)):
        monkeypatch.setenv("VLLM_MM_HASHER_ALGORITHM", name)
        assert content_hash(b"abc") == content_hash(b"abc", algorithm=name)
        assert len(content_hash(b"abc")) == digits
    monkeypatch.setenv("VLLM_MM_HASHER_ALGORITHM", "md5")
    with pytest.raises(
        InvalidSettingError, match="VLLM_MM_HASHER_ALGORITHM='md5': expected blake3, sha256 or sha512"
    ):
        content_hash(b"abc")


def test_without_blake3_it_is_sha256_unless_blake3_was_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "blake3", None)
    monkeypatch.setattr("mmmedia.hashing.find_spec", lambda name: None)
    assert content_hash(b"abc") == content_hash(b"abc", algorithm="sha256")
    with pytest.raises(InvalidSettingError, match=r"pip install mmmedia\[blake3\]"):
        content_hash(b"abc", algorithm="blake3")


def endless() -> list[object]:
    nest: list[object] = []
    nest.append(nest)
    return nest


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (object(), "builtins.object"),
        ({1, 2}, "builtins.set"),
        ([1, lambda: None], "function"),
        (np.array([object()]), "array of type object"),
        (np.zeros(2, [("a", "i4")]), "expected plain numbers"),
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "meta"),
        (endless(), "deeper than 64"),
    ],
)
def test_what_has_no_content_is_refused(value, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        content_hash(value)


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(InvalidArgumentError, match="Unknown hash algorithm 'crc'; known: blake3"):
        content_hash(b"", algorithm="crc")


def test_what_options_changed_is_another_picture() -> None:
    """The options of the media IO count where pixels depend on them."""
    data = encoded(Image.fromarray(PIXELS))
    red, blue = (MediaWithBytes(Image.fromarray(PIXELS), data, {"background": name}) for name in ("r", "b"))
    assert len({content_hash(red), content_hash(blue), content_hash(data)}) == 3


def test_videos_of_the_same_bytes_differ_by_their_frames() -> None:
    """Which frames were taken counts, not only the file."""
    few, many = (
        MediaWithBytes((np.zeros((count, 2, 2, 3), np.uint8), {"fps": 2}), b"clip") for count in (1, 2)
    )
    assert content_hash(few) != content_hash(many)
    assert content_hash(few) == content_hash(few.media)
