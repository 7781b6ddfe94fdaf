"""`MediaIO`, `MediaWithBytes` and base64, the ground that all media stand on."""

import base64
import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.media.base import MediaDecodedBudget, MediaIO, MediaWithBytes, decode_base64, encode_base64


class TextIO(MediaIO[str]):
    """A media IO as a stranger would write it."""

    def load_bytes(self, data: bytes) -> str:
        return data.decode()

    def load_base64(self, media_type: str, data: str) -> str:
        return media_type + self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> str:
        return filepath.read_text()


class TestMediaIO:
    def test_is_abstract(self) -> None:
        """Without its three loads there is no media IO."""
        for missing in ("load_bytes", "load_base64", "load_file"):
            methods = {
                name: getattr(TextIO, name)
                for name in ("load_bytes", "load_base64", "load_file")
                if name != missing
            }
            with pytest.raises(TypeError, match=missing):
                type("Partial", (MediaIO,), methods)()

    def test_subclasses_load(self, tmp_path: Path) -> None:
        """A subclass needs nothing but its three loads."""
        (tmp_path / "a.txt").write_text("abc")
        assert TextIO().load_file(tmp_path / "a.txt") == TextIO().load_bytes(b"abc") == "abc"
        assert TextIO().load_base64("x/", "YWJj") == "x/abc"

    @pytest.mark.parametrize(
        ("defaults", "runtime", "merged"),
        [
            (None, None, {}),
            ({"a": 1}, None, {"a": 1}),
            (None, {"b": 2}, {"b": 2}),
            ({}, {}, {}),
            ({"a": 1, "b": 1}, {"b": 2}, {"a": 1, "b": 2}),
            ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2}}),
            ({"a": 1}, {"a": None}, {"a": None}),
        ],
    )
    def test_merge_kwargs(
        self, defaults: dict[str, Any] | None, runtime: dict[str, Any] | None, merged: dict[str, Any]
    ) -> None:
        """The request wins over the engine, key by key and no deeper."""
        result = TextIO.merge_kwargs(defaults, runtime)
        assert result == merged
        assert result is not defaults
        assert result is not runtime

    def test_merge_kwargs_leaves_its_arguments_alone(self) -> None:
        """The engine's defaults outlive the request."""
        defaults, runtime = {"a": 1}, {"a": 2}
        TextIO.merge_kwargs(defaults, runtime)["c"] = 3
        assert (defaults, runtime) == ({"a": 1}, {"a": 2})


class Slotted:
    """A media type without a `__dict__`, and with a protocol of its own for pickles."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return Slotted, (self.value,)

    def __deepcopy__(self, memo: object) -> "Slotted":
        return Slotted(self.value)


class TestMediaWithBytes:
    def test_attributes_fall_through(self) -> None:
        """What the wrapper lacks, data or method, is that of the media."""
        image = Image.new("RGB", (4, 2), "red")
        wrapped = MediaWithBytes(image, b"bytes")
        assert (wrapped.size, wrapped.mode, wrapped.getpixel((0, 0))) == ((4, 2), "RGB", (255, 0, 0))
        assert wrapped.convert("L").mode == "L"
        assert wrapped.media is image

    def test_unknown_attribute_is_named(self) -> None:
        """The error of an attribute that neither has says its name, and is no recursion."""
        with pytest.raises(AttributeError, match="no_such_thing") as caught:
            _ = MediaWithBytes(Image.new("L", (1, 1)), b"").no_such_thing
        assert caught.value.name == "no_such_thing"
        assert not hasattr(MediaWithBytes(1, b""), "no_such_thing")

    @pytest.mark.parametrize("name", ["media", "original_bytes", "size", "__setstate__", "__deepcopy__"])
    def test_empty_instance_has_no_attributes(self, name: str) -> None:
        """Half an instance, as unpickling makes it, answers every question without recursion."""
        with pytest.raises(AttributeError, match="media" if name == "size" else name):
            getattr(object.__new__(MediaWithBytes), name)

    def test_repr_shows_media_and_no_bytes(self) -> None:
        """The repr is for reading; bytes are not."""
        text = repr(MediaWithBytes(7, b"SECRETS"))
        assert text == "MediaWithBytes(media=7)"
        names = [field.name for field in dataclasses.fields(MediaWithBytes)]
        assert names == ["media", "original_bytes", "io_config"]

    def test_unpacks_and_indexes_as_its_media(self) -> None:
        """A video is its frames and its metadata, wrapped or not."""
        video = MediaWithBytes(("frames", {"fps": 2}), b"bytes", {"fps": 2})
        frames, metadata = video
        assert (frames, metadata, video[0], video[1]["fps"]) == ("frames", {"fps": 2}, "frames", 2)
        assert MediaWithBytes(np.arange(6), b"")[1:3].tolist() == [1, 2]
        with pytest.raises(TypeError):
            iter(MediaWithBytes(7, b""))

    @pytest.mark.parametrize(
        "media",
        [(1, 2), "text", Slotted(3), {"a": 1}, [1], 1.5, np.float32(2)],
        ids=lambda media: type(media).__name__,
    )
    def test_copies_and_pickles(self, media: object) -> None:
        """Copies and pickles are wrappers again, whatever protocol the media has for itself."""
        wrapped = MediaWithBytes(media, b"bytes")
        copies = [copy.copy(wrapped), copy.deepcopy(wrapped)]
        copies += [pickle.loads(pickle.dumps(wrapped, protocol)) for protocol in range(6)]
        for other in copies:
            assert type(other) is MediaWithBytes
            assert other == wrapped
            assert other.original_bytes == b"bytes"

    def test_images_copy_and_pickle(self) -> None:
        """A wrapped image comes through a pickle with its pixels."""
        wrapped = MediaWithBytes(Image.radial_gradient("L"), b"bytes")
        for other in (copy.deepcopy(wrapped), pickle.loads(pickle.dumps(wrapped))):
            assert other.media is not wrapped.media
            assert other.tobytes() == wrapped.tobytes()

    @pytest.mark.parametrize("dtype", [None, np.float32, "uint16"])
    def test_array_honours_dtype(self, dtype: Any) -> None:
        """An array of the wrapper is the array of the media, in the dtype asked for."""
        image = Image.radial_gradient("L")
        array = np.asarray(MediaWithBytes(image, b""), dtype=dtype)
        assert array.dtype == (np.uint8 if dtype is None else np.dtype(dtype))
        np.testing.assert_array_equal(array, np.asarray(image))

    def test_array_honours_copy(self) -> None:
        """`copy` means what it means to NumPy: None shares when it can, True never, False or nothing."""
        media = np.arange(6.0)
        wrapped = MediaWithBytes(media, b"")
        assert np.shares_memory(np.asarray(wrapped), media)
        assert not np.shares_memory(np.array(wrapped), media)
        if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
            assert not np.shares_memory(np.asarray(wrapped, copy=True), media)
            assert np.shares_memory(np.asarray(wrapped, copy=False), media)
            with pytest.raises(ValueError, match="copy"):
                np.asarray(wrapped, dtype=np.float32, copy=False)

    def test_equality(self) -> None:
        """Two wrappers are equal if media and bytes are."""
        assert MediaWithBytes(1, b"a") == MediaWithBytes(1, b"a")
        assert MediaWithBytes(1, b"a") != MediaWithBytes(1, b"b")
        assert MediaWithBytes(1, b"a") != MediaWithBytes(2, b"a")


class TestMediaDecodedBudget:
    def test_equal_passes_and_more_is_refused(self) -> None:
        """What is refused takes nothing."""
        budget = MediaDecodedBudget(100)
        budget.charge(60)
        budget.charge(0)
        budget.charge(-5)
        with pytest.raises(LimitExceededError, match=r"60 of 100 .*VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES"):
            budget.charge(41)
        budget.charge(40)
        assert budget.used == 100
        with pytest.raises(ValueError, match="100 of 100"):
            budget.reserve(1)

    def test_the_setting_is_the_ceiling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is read when a budget is made; 0 is none."""
        monkeypatch.setenv("VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES", "10")
        budget = MediaDecodedBudget()
        with pytest.raises(ValueError, match="of 10 are used"):
            budget.charge(11)
        monkeypatch.setenv("VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES", "0")
        free = MediaDecodedBudget()
        free.charge(1 << 60)
        free.settle(free.reserve(1 << 50), 1 << 55)
        assert free.used == 0

    def test_a_reservation_is_settled(self) -> None:
        """What was used of it counts, the rest is free again."""
        budget = MediaDecodedBudget(100)
        assert budget.reserve(70) == 70
        budget.settle(70, 30)
        assert (budget.used, budget.reserve(100)) == (30, 70)
        with pytest.raises(ValueError, match="71 bytes were decoded on a reservation of 70"):
            budget.settle(70, 71)
        budget.charge(70)
        assert budget.used == 100

    def test_who_finds_reservations_waits_for_them(self) -> None:
        """A charge and a reservation that would fit without another's wait until it is settled."""
        budget = MediaDecodedBudget(100)
        granted = budget.reserve(80)
        with ThreadPoolExecutor(2) as pool:
            charge = pool.submit(budget.charge, 50)
            more = pool.submit(budget.reserve, 30)
            assert not charge.done()
            assert not more.done()
            budget.settle(granted, 20)
            charge.result(timeout=60)
            assert more.result(timeout=60) == 30
        with pytest.raises(ValueError, match="are used"):
            budget.charge(31)
        assert budget.used == 70


class TestBase64:
    @given(st.binary(max_size=300))
    @settings(deadline=None)
    def test_round_trip(self, data: bytes) -> None:
        """What is encoded is decoded, from text, from bytes, and line-wrapped as mail programs do."""
        text = encode_base64(data)
        assert text == base64.b64encode(data).decode()
        assert decode_base64(text) == decode_base64(text.encode()) == data
        assert decode_base64(base64.encodebytes(data).decode()) == data

    @pytest.mark.parametrize("white_space", [" ", "\n", "\r\n", "\t", "\f", "\v", " \n\n "])
    def test_white_space_is_skipped(self, white_space: str) -> None:
        """White space says nothing, wherever it stands."""
        assert decode_base64(white_space.join(["", "bW1", "tZW", "RpYQ", "=", "=", ""])) == b"mmmedia"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("bW1tZWRpYQ", "padding"),
            ("bW1tZWRpYQ=", "padding"),
            ("bW1tZWRpYQ===", "padding"),
            ("=", "padding"),
            ("A", "padding"),
            ("QUI=QUI=", "padding"),
            ("QU-_", "character 2 "),
            ("QUI%3D", "character 3 "),
            ("QUJD\0", "character 4 "),
            ("QUJDé===", "character 4 "),
            ("QUJD\u00a0", "character 4 "),
            ("QU\nI*", "character 3 "),
        ],
    )
    def test_bad_base64_is_refused(self, text: str, message: str) -> None:
        """The URL-safe alphabet, missing padding, foreign characters: refused, and told which."""
        with pytest.raises(InvalidMediaError, match=message):
            decode_base64(text)
        with pytest.raises(ValueError, match=message):
            decode_base64(text.encode("latin-1"))

    def test_a_bad_character_behind_20_megabytes_is_found(self) -> None:
        """Nothing is dropped silently, however late it comes, and the message holds no data."""
        text = "A" * (20 << 20)
        assert len(decode_base64(text)) == 15 << 20
        with pytest.raises(ValueError, match=f"character {20 << 20} is not") as caught:
            decode_base64(text + "*AAA")
        assert len(str(caught.value)) < 120


def test_a_media_io_says_what_it_was_given() -> None:
    """And nothing of what is as it is by default."""
    assert repr(ImageMediaIO()) == "ImageMediaIO()"
    assert repr(ImageMediaIO("L", max_pixels=9)) == "ImageMediaIO(image_mode='L', max_pixels=9)"
    video = VideoMediaIO(ImageMediaIO(), num_frames=4, fps=2)
    assert repr(video) == "VideoMediaIO(image_io=ImageMediaIO(), num_frames=4, fps=2)"
