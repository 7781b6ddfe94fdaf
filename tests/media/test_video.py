"""`VideoMediaIO`: video files and sequences of JPEGs as frames and metadata; `VideoEmbeddingMediaIO`."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    UnsupportedMediaError,
)
from mmmedia.media import ImageMediaIO, MediaIO, VideoEmbeddingMediaIO, VideoMediaIO
from support.captures import ScriptedCapture
from support.clips import clip, picture, read_number


def jpeg(number: int, width: int = 96, height: int = 64) -> str:
    file = io.BytesIO()
    Image.fromarray(picture(number, width, height)).save(file, "JPEG", quality=95)
    return base64.b64encode(file.getvalue()).decode()


def sequence(count: int, **size: int) -> str:
    return ",".join(jpeg(number, **size) for number in range(count))


def video_io(num_frames: int = -1, **kwargs: Any) -> VideoMediaIO:
    return VideoMediaIO(ImageMediaIO(), num_frames=num_frames, **kwargs)


class TestMergeKwargs:
    @pytest.mark.parametrize(
        ("defaults", "request_", "expected"),
        [
            ({"num_frames": 32, "fps": 2}, {"num_frames": 8}, {"num_frames": 8}),
            ({"num_frames": 32, "fps": 2}, {"fps": 4}, {"fps": 4}),
            ({"num_frames": 32}, {"fps": 4}, {"fps": 4}),
            ({"num_frames": 32, "fps": 2}, {"fps": 4, "num_frames": 1}, {"num_frames": 1, "fps": 4}),
            ({"num_frames": 32, "fps": 2}, {"x": 1}, {"num_frames": 32, "fps": 2, "x": 1}),
            ({"num_frames": 32, "fps": 2}, {}, {"num_frames": 32, "fps": 2}),
            ({"num_frames": 32, "fps": 2}, None, {"num_frames": 32, "fps": 2}),
            (None, {"fps": 1}, {"fps": 1}),
            (None, None, {}),
            ({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"c": 2}}),
        ],
    )
    def test_one_of_two_drops_the_other(self, defaults: Any, request_: Any, expected: Any) -> None:
        """Of `fps` and `num_frames`, the one that a request gives alone drops the other's default."""
        before = (dict(defaults or {}), dict(request_ or {}))
        merged = VideoMediaIO.merge_kwargs(defaults, request_)
        assert merged == expected
        assert (defaults or {}, request_ or {}) == before
        assert merged is not defaults
        assert merged is not request_

    @pytest.mark.parametrize(
        ("defaults", "request_", "expected"),
        [
            ({}, {"hw_decoders": 9, "max_width": 1, "max_height": 1, "pool_size": 9, "device": "cuda"}, {}),
            ({"device": "cuda"}, {"device": "cpu"}, {"device": "cuda"}),
            ({}, {"backend": "deepstream", "video_backend": "pynvvideocodec"}, {}),
            ({"backend": "deepstream"}, {"backend": "pynvvideocodec"}, {"backend": "deepstream"}),
            ({"backend": "deepstream"}, {"backend": "deepstream"}, {"backend": "deepstream"}),
            (
                {"backend": "pynvvideocodec", "hw_decoders": 4, "x": 1},
                {"backend": "torchcodec"},
                {"backend": "torchcodec", "x": 1},
            ),
            (
                {"backend": "torchcodec", "device": "cuda", "seek_mode": "exact"},
                {"backend": "torchcodec", "seek_mode": "approximate"},
                {"backend": "torchcodec", "device": "cuda", "seek_mode": "approximate"},
            ),
            ({"backend": "torchcodec", "device": "cuda"}, {"backend": "opencv"}, {"backend": "opencv"}),
        ],
    )
    def test_a_request_starts_nothing(self, defaults: Any, request_: Any, expected: Any) -> None:
        """Pools, devices and GPUs are the engine's; another decoder drops the options of the one before."""
        assert VideoMediaIO.merge_kwargs(defaults, request_) == expected


class TestVideoFiles:
    def test_comes_with_its_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A video is wrapped with what it was decoded from, and unpacks; 0.20 knows the bare tuple."""
        video = video_io(4).load_bytes(clip())
        frames, metadata = video
        assert video.original_bytes == clip()
        assert video.media[0] is frames
        assert video[1] is metadata
        text = sequence(2)
        assert video_io().load_base64("video/jpeg", text).original_bytes == text.encode()
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        for bare in (video_io(4).load_bytes(clip()), video_io().load_base64("video/jpeg", text)):
            assert type(bare) is tuple

    def test_is_a_media_io(self) -> None:
        """It is one, and samples 32 frames unless told otherwise."""
        assert issubclass(VideoMediaIO, MediaIO)
        assert VideoMediaIO(ImageMediaIO()).num_frames == 32
        assert len(VideoMediaIO(ImageMediaIO()).load_bytes(clip())[0]) == 32

    @pytest.mark.parametrize(
        "media_type", ["video/mp4", "", "application/octet-stream", "image/jpeg", "video/JPEGX"]
    )
    def test_three_ways_to_load(self, tmp_path: Path, media_type: str) -> None:
        """Bytes, base64 under any other media type, and a file give the same."""
        path = tmp_path / "clip.bin"
        path.write_bytes(clip())
        loads: list[Any] = [
            lambda video: video.load_bytes(clip()),
            lambda video: video.load_base64(media_type, base64.b64encode(clip()).decode()),
            lambda video: video.load_file(path),
            lambda video: video.load_file(str(path)),  # type: ignore[arg-type]
        ]
        for load in loads:
            frames, metadata = load(video_io(4))
            assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 19, 39, 59]

    def test_keywords_go_to_the_loader(self) -> None:
        """All but `video_backend` reach the loader's `load_bytes`, with `num_frames`."""
        video = video_io(10, fps=1, unknown="x", video_backend="opencv")
        assert video.kwargs == {"fps": 1, "unknown": "x"}
        assert video.load_bytes(clip())[1]["frames_indices"] == [0, 59]

    def test_bad_base64(self) -> None:
        """A character outside the alphabet is a ValueError."""
        with pytest.raises(InvalidMediaError, match="base64"):
            video_io().load_base64("video/mp4", "!!!!")

    def test_missing_file(self, tmp_path: Path) -> None:
        """A file that is not there is told by the system's own error."""
        with pytest.raises(FileNotFoundError):
            video_io().load_file(tmp_path / "nothing.mp4")


class TestJPEGSequence:
    @pytest.mark.parametrize("media_type", ["video/jpeg", "VIDEO/JPEG", "Video/Jpeg"])
    def test_frames_and_metadata(self, media_type: str) -> None:
        """Comma-separated JPEGs are the frames; the metadata are plain and the same for any letter case."""
        frames, metadata = video_io().load_base64(media_type, sequence(5))
        assert frames.dtype == np.uint8
        assert frames.shape == (5, 64, 96, 3)
        assert [read_number(frame) for frame in frames] == [0, 1, 2, 3, 4]
        assert metadata == {
            "total_num_frames": 5, "fps": 1.0, "duration": 5.0, "video_backend": "jpeg_sequence",
            "frames_indices": [0, 1, 2, 3, 4], "do_sample_frames": False,
        }  # fmt: skip
        assert list(metadata) == list(video_io().load_bytes(clip())[1])
        assert json.loads(json.dumps(metadata)) == metadata

    def test_pixels_are_the_image_ios(self) -> None:
        """Each frame is what `image_io` makes of it."""
        frames, _ = video_io().load_base64("video/jpeg", sequence(2))
        expected = ImageMediaIO().load_base64("image/jpeg", jpeg(1))
        assert (frames[1] == np.asarray(expected)).all()
        grey, _ = VideoMediaIO(ImageMediaIO(image_mode="L"), num_frames=-1).load_base64(
            "video/jpeg", sequence(2)
        )
        assert grey.shape == (2, 64, 96)

    @pytest.mark.parametrize(("num_frames", "loaded"), [(1, 1), (3, 3), (5, 5), (9, 5), (-1, 5), (-7, 5)])
    def test_num_frames(self, num_frames: int, loaded: int) -> None:
        """Positive: the first that many; below 0: all."""
        frames, metadata = video_io(num_frames).load_base64("video/jpeg", sequence(5))
        assert [read_number(frame) for frame in frames] == list(range(loaded))
        assert metadata["frames_indices"] == list(range(loaded))
        assert metadata["total_num_frames"] == loaded

    def test_only_the_first_are_decoded(self) -> None:
        """What is behind the frames wanted may be anything."""
        frames, _ = video_io(2).load_base64("video/jpeg", sequence(2) + ",!!!,garbage")
        assert len(frames) == 2

    def test_zero(self) -> None:
        """0 frames is a ValueError in these words."""
        with pytest.raises(ValueError, match="num_frames must be greater than 0 or -1"):
            video_io(0).load_base64("video/jpeg", sequence(2))

    @pytest.mark.parametrize(("fps", "duration"), [(2, 2.0), (0.5, 8.0), (0, 0.0), (-3, 0.0), (None, 4.0)])
    def test_rate(self, fps: Any, duration: float) -> None:
        """`fps` is handed on; the duration follows from it, 0.0 where it is not positive."""
        metadata = video_io(fps=fps).load_base64("video/jpeg", sequence(4))[1]
        assert metadata["fps"] == (1.0 if fps is None else fps)
        assert metadata["duration"] == duration

    def test_overrides(self) -> None:
        """What the sender knows of the source overrides what would be guessed."""
        metadata = video_io(
            fps=30, frames_indices=[3, 60, 90], total_num_frames=120, duration=4.0, do_sample_frames=True
        ).load_base64("video/jpeg", sequence(3))[1]
        assert metadata == {
            "total_num_frames": 120, "fps": 30, "duration": 4.0, "video_backend": "jpeg_sequence",
            "frames_indices": [3, 60, 90], "do_sample_frames": True,
        }  # fmt: skip

    @pytest.mark.parametrize("kind", [list, tuple, np.array])
    def test_indices_come_out_plain(self, kind: Any) -> None:
        """A tuple or an array of indices becomes a list of ints; the total holds them."""
        metadata = video_io(frames_indices=kind([0, 4, 8])).load_base64("video/jpeg", sequence(3))[1]
        assert metadata["frames_indices"] == [0, 4, 8]
        assert {type(i) for i in metadata["frames_indices"]} == {int}
        assert metadata["total_num_frames"] == 9
        json.dumps(metadata)

    def test_none_is_not_given(self) -> None:
        """`None` for any of them is the default."""
        names = ("fps", "frames_indices", "total_num_frames", "duration", "do_sample_frames")
        expected = video_io().load_base64("video/jpeg", sequence(2))[1]
        assert video_io(**dict.fromkeys(names)).load_base64("video/jpeg", sequence(2))[1] == expected

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("frames_indices", [0, 1]), ("frames_indices", [0, 1, 2, 3]), ("frames_indices", []),
            ("frames_indices", [0, 2, 1]), ("frames_indices", [1, 1, 0]), ("frames_indices", [-1, 0, 1]),
            ("frames_indices", [0, 1, 2.0]), ("frames_indices", "012"), ("frames_indices", 3),
            ("frames_indices", [0, 1, None]), ("frames_indices", [False, True, 2]),
            ("frames_indices", {0, 1, 2}),
            ("total_num_frames", 2), ("total_num_frames", 0), ("total_num_frames", -1),
            ("total_num_frames", 3.0),
            ("total_num_frames", "3"), ("total_num_frames", True), ("duration", "x"), ("duration", -0.5),
            ("duration", float("nan")), ("duration", float("inf")), ("duration", True), ("fps", "25"),
            ("fps", float("nan")), ("fps", float("inf")), ("fps", True), ("fps", [1]),
        ],
        ids=repr,
    )  # fmt: skip
    def test_overrides_are_validated(self, name: str, value: object) -> None:
        """Numbers that do not fit the frames sent, or are none, are a ValueError that names the keyword."""
        with pytest.raises(InvalidArgumentError, match=name):
            video_io(**{name: value}).load_base64("video/jpeg", sequence(3))

    def test_frames_of_a_longer_video(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The duration is that of the video, not of the frames sent, of which some may be sent twice."""
        media_io = video_io(fps=2, frames_indices=[0, 20, 20], total_num_frames=30)
        _, metadata = media_io.load_base64("video/jpeg", sequence(3))
        assert (metadata["duration"], metadata["frames_indices"]) == (15.0, [0, 20, 20])
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        assert media_io.load_base64("video/jpeg", sequence(3))[1]["duration"] == 1.5

    def test_total_must_hold_the_indices(self) -> None:
        """A total that the last index is not below is refused."""
        with pytest.raises(InvalidArgumentError, match="total_num_frames=90"):
            video_io(frames_indices=[3, 60, 90], total_num_frames=90).load_base64("video/jpeg", sequence(3))

    @pytest.mark.parametrize("odd", [1, 2])
    def test_sizes_differ(self, odd: int) -> None:
        """Frames of different sizes are a ValueError that says which frame it is."""
        parts = [jpeg(number) for number in range(3)]
        parts[odd] = jpeg(odd, width=48)
        with pytest.raises(InvalidMediaError, match=rf"[Ff]rame {odd}\b.*48"):
            video_io().load_base64("video/jpeg", ",".join(parts))

    @pytest.mark.parametrize(
        "data",
        ["", ",", ",,", "AAAA", "!!!!", "{one},", ",{one}", "{one},AAAA", "{one},!!", "{one},{one}x"],
    )
    def test_bad_frames(self, data: str) -> None:
        """A frame that is empty, no base64 or no picture is a ValueError."""
        with pytest.raises(InvalidMediaError):
            video_io().load_base64("video/jpeg", data.format(one=jpeg(0)))

    def test_error_holds_no_media(self) -> None:
        """An error repeats nothing of the pictures."""
        with pytest.raises(InvalidMediaError) as caught:
            video_io().load_base64("video/jpeg", base64.b64encode(b"secretsecret" * 50).decode())
        assert "c2VjcmV0" not in str(caught.value)
        assert "secret" not in str(caught.value)


class TestEncode:
    def test_round_trip(self) -> None:
        """What is encoded loads again: as many frames, of the same size, nearly the same pixels."""
        frames = np.stack([picture(number, 96, 64) for number in range(3)])
        text = video_io().encode_base64(frames)
        assert isinstance(text, str)
        assert text.count(",") == 2
        for part in text.split(","):
            assert base64.b64decode(part, validate=True).startswith(b"\xff\xd8\xff")
        loaded, _ = video_io().load_base64("video/jpeg", text)
        assert loaded.shape == frames.shape
        assert [read_number(frame) for frame in loaded] == [0, 1, 2]

    def test_format_in_any_letter_case(self) -> None:
        """ "jpeg" is as good as "JPEG"."""
        frames = np.zeros((1, 8, 8, 3), np.uint8)
        assert video_io().encode_base64(frames, video_format="jpeg") == video_io().encode_base64(frames)

    @pytest.mark.parametrize("video_format", ["MP4", "PNG", ""])
    def test_other_formats(self, video_format: str) -> None:
        """Another format is a NotImplementedError."""
        with pytest.raises(UnsupportedMediaError):
            video_io().encode_base64(np.zeros((1, 8, 8, 3), np.uint8), video_format=video_format)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))
    def test_any_size(self, count: int, height: int, width: int) -> None:
        """Of any size."""
        frames = np.full((count, height, width, 3), 128, np.uint8)
        loaded, metadata = video_io().load_base64("video/jpeg", video_io().encode_base64(frames))
        assert loaded.shape == frames.shape
        assert metadata["frames_indices"] == list(range(count))
        assert abs(loaded.astype(int) - 128).max() <= 2


class TestLimits:
    """Judged before a frame is decoded."""

    @pytest.mark.parametrize(
        "options", [{}, {"backend": "pyav"}, {"decode": "sequential"}, {"frame_recovery": True}]
    )
    @pytest.mark.parametrize("video_backend", ["opencv", "opencv_dynamic", "molmo2"])
    @pytest.mark.parametrize(
        ("setting", "value"),
        [("VLLM_MAX_IMAGE_PIXELS", 128 * 96 - 1), ("VLLM_MAX_VIDEO_DECODE_BYTES", 128 * 96 * 3)],
    )
    def test_too_large(
        self,
        monkeypatch: pytest.MonkeyPatch,
        setting: str,
        value: int,
        video_backend: str,
        options: dict[str, Any],
    ) -> None:
        """A frame's area, and the array's bytes: a ValueError that names the setting, in every loader."""
        monkeypatch.setenv(setting, str(value))
        with pytest.raises(LimitExceededError, match=setting):
            video_io(4, video_backend=video_backend, **options).load_bytes(clip())

    @pytest.mark.parametrize("backend", ["opencv", "pyav"])
    @pytest.mark.parametrize("value", ["exact", "0", "-1"])
    def test_at_the_limit_or_without(self, monkeypatch: pytest.MonkeyPatch, backend: str, value: str) -> None:
        """What just fits loads; 0 or less is no limit."""
        exact = value == "exact"
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", str(128 * 96) if exact else value)
        monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(4 * 128 * 96 * 3) if exact else value)
        assert len(video_io(4, backend=backend).load_bytes(clip())[0]) == 4

    @pytest.mark.parametrize("recovery", [False, True])
    @pytest.mark.parametrize("size", [(65536, 65536), (100_000, 2)])
    def test_nothing_is_decoded(
        self, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], recovery: bool
    ) -> None:
        """Not one frame is grabbed of a video that is too large."""
        capture = ScriptedCapture(10_000, size=size)
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        with pytest.raises(LimitExceededError):
            video_io(-1, frame_recovery=recovery).load_bytes(b"x")
        assert capture.grabs == 0

    def test_jpeg_sequence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The sequence of JPEGs is under the same two limits."""
        monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(2 * 96 * 64 * 3))
        assert len(video_io(2).load_base64("video/jpeg", sequence(3))[0]) == 2
        with pytest.raises(LimitExceededError, match="VLLM_MAX_VIDEO_DECODE_BYTES"):
            video_io().load_base64("video/jpeg", sequence(3))
        monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
        with pytest.raises(LimitExceededError, match="VLLM_MAX_IMAGE_PIXELS"):
            video_io(1).load_base64("video/jpeg", sequence(3))

    def test_commas_are_no_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Millions of empty frames behind a good one are refused before any is looked at."""
        monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", "1000000")
        with pytest.raises(LimitExceededError, match="VLLM_MAX_VIDEO_DECODE_BYTES"):
            video_io().load_base64("video/jpeg", jpeg(0) + "," * 100_000)


class TestEmbedding:
    def test_round_trip(self, tmp_path: Path) -> None:
        """A tensor goes through base64, bytes and a file."""
        media_io = VideoEmbeddingMediaIO()
        torch = pytest.importorskip("torch")
        tensor = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
        text = media_io.encode_base64(tensor)
        path = tmp_path / "embedding.pt"
        path.write_bytes(base64.b64decode(text))
        for loaded in (
            media_io.load_base64("", text),
            media_io.load_bytes(base64.b64decode(text)),
            media_io.load_file(path),
        ):
            assert torch.equal(loaded, tensor)

    def test_no_tensor(self) -> None:
        """A video is no embedding."""
        with pytest.raises(ValueError):
            VideoEmbeddingMediaIO().load_bytes(clip())
