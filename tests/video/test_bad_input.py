"""What strangers send as video: a clear ValueError at once, or frames that are there; never anything else."""

import base64
import logging
import math
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmmedia.errors import InvalidMediaError, LimitExceededError, MediaError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import (
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    VideoSourceMetadata,
)
from mmmedia.video.decoders.read import read_video
from support import sounds
from support.captures import ScriptedCapture, read_plainly
from support.clips import clip, read_number
from support.watch import Watch

LOADERS = [OpenCVVideoBackend, OpenCVDynamicVideoBackend, Molmo2VideoBackend]
WAYS: list[dict[str, Any]] = [
    {}, {"decode": "sequential"}, {"frame_recovery": True}, {"backend": "pyav"},
]  # fmt: skip
in_every_way = pytest.mark.parametrize("way", WAYS, ids=["auto", "sequential", "recovery", "pyav"])
with_every_loader = pytest.mark.parametrize("loader", LOADERS)

CLIPS: dict[str, dict[str, Any]] = {
    "mp4": {},
    "fragmented mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "mkv": {"container": "matroska"},
    "webm": {"codec": "libvpx-vp9", "container": "webm"},
    "avi": {"codec": "mpeg4", "container": "avi"},
    "ts": {"codec": "mpeg2video", "container": "mpegts"},
    "flv": {"container": "flv"},
    "gif": {"codec": "gif", "container": "gif", "pix_fmt": "rgb8"},
    "hevc": {"codec": "libx265"},
}


def small(kind: str) -> bytes:
    return clip(**{"frames": 16, "width": 96, "height": 64, "gop": 6, **CLIPS[kind]})


def patch(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite what stands `offset` bytes behind the first `name`."""
    at = data.index(name) + len(name) + offset
    return data[:at] + value + data[at + len(value) :]


def frames_or_error(load: Callable[[], Any]) -> Any:
    """The frames, which then agree with their metadata, or the clear error of this library."""
    try:
        frames, metadata = load()
    except MediaError as error:
        assert isinstance(error, ValueError)  # noqa: PT017 - either is right
        assert str(error)  # noqa: PT017
        return error
    assert frames.dtype == np.uint8
    assert frames.ndim == 4
    assert len(frames) == len(metadata["frames_indices"]) > 0
    assert metadata["frames_indices"] == sorted(set(metadata["frames_indices"]))
    return frames


class TestNoVideo:
    @in_every_way
    @with_every_loader
    @pytest.mark.parametrize(
        "data",
        [b"", b"\0", b"hello, I am a video\n" * 50, b"\0" * 4096, b"\xff" * 4096, b"\0\0\0\x18ftypmp42"],
        ids=["empty", "one byte", "text", "zeros", "ones", "stump"],
    )
    def test_no_container(self, loader: Any, way: dict[str, Any], data: bytes) -> None:
        """Nothing, text and noise are a ValueError."""
        with pytest.raises(InvalidMediaError):
            loader.load_bytes(data, num_frames=4, **way)

    def test_text_file_named_mp4(self, tmp_path: Path) -> None:
        """A name does not make a video, and the error says what was seen."""
        path = tmp_path / "clip.mp4"
        path.write_text("dear diary")
        with pytest.raises(InvalidMediaError, match="first bytes"):
            VideoMediaIO(ImageMediaIO()).load_file(path)

    @in_every_way
    @pytest.mark.parametrize("container", ["mp4", "wav", "adts", "mpegts"])
    def test_sound_alone(self, way: dict[str, Any], container: str) -> None:
        """A file with sound and no pictures is told so."""
        codec = "pcm_s16le" if container == "wav" else "aac"
        data = sounds.encode_av(sounds.sine(440, 0.5, 48_000), 48_000, container, codec)
        with pytest.raises(InvalidMediaError, match=r"Could not open video stream|No video stream"):
            OpenCVVideoBackend.load_bytes(data, **way)

    @in_every_way
    @with_every_loader
    def test_video_track_without_frames(self, loader: Any, way: dict[str, Any]) -> None:
        """A track that promises frames of which not one is there."""
        data = clip(container_options={"movflags": "frag_keyframe+empty_moov"})
        with pytest.raises(InvalidMediaError):
            loader.load_bytes(data[: data.index(b"moof") - 4], **way)

    @in_every_way
    def test_payload_of_zeros(self, way: dict[str, Any]) -> None:
        """A whole header over an `mdat` of zeros."""
        data = clip()
        start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
        zeros = data[:start] + bytes(end - start) + data[end:]
        with pytest.raises(InvalidMediaError, match=r"No frame could be"):
            OpenCVVideoBackend.load_bytes(zeros, num_frames=4, **way)


SCRIPTS = {
    "concat": b"ffconcat version 1.0\nfile clip.mp4",
    "concat with a mark": b"\xef\xbb\xbfffconcat version 1.0\nfile clip.mp4",
    "concat behind a tag": b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + b"ffconcat version 1.0\nfile clip.mp4",
    "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.mp4\n#EXT-X-ENDLIST\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
}


class TestScripts:
    @pytest.mark.parametrize("name", SCRIPTS)
    def test_refused_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Texts that name other files are refused by every loader, and the file they name is not opened."""
        path = tmp_path / "clip.mp4"
        path.write_bytes(clip())
        monkeypatch.chdir(tmp_path)
        data = SCRIPTS[name]
        with Watch(path) as watch:
            for loader in LOADERS:
                for way in WAYS:
                    with pytest.raises(InvalidMediaError, match="refused"):
                        loader.load_bytes(data, **way)
            for backend in ("opencv", "opencv_dynamic", "molmo2"):
                video = VideoMediaIO(ImageMediaIO(), video_backend=backend)
                with pytest.raises(InvalidMediaError, match="refused"):
                    video.load_base64("video/mp4", base64.b64encode(data).decode())
            assert not watch.opened()
            path.read_bytes()
            assert watch.opened()


class TestTruncated:
    @in_every_way
    @pytest.mark.parametrize("kind", CLIPS)
    def test_cut_anywhere(self, kind: str, way: dict[str, Any]) -> None:
        """Wherever a file ends too early: the frames that are there, or a ValueError."""
        data = small(kind)
        for part in (0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.999):
            frames_or_error(
                lambda head=data[: int(len(data) * part)]: OpenCVVideoBackend.load_bytes(  # noqa: B008
                    head, num_frames=4, **way
                )
            )

    def test_index_at_the_end_is_missing(self) -> None:
        """An MP4 that lost its `moov` can't be opened."""
        data = clip()
        with pytest.raises(ValueError, match="Could not open"):
            OpenCVVideoBackend.load_bytes(data[: data.index(b"moov") - 4])

    @pytest.mark.parametrize("kind", ["fragmented mp4", "mkv", "ts"])
    def test_a_stream_cut_short_keeps_its_beginning(self, kind: str) -> None:
        """What a stream gave before the cut is there, under its own indices."""
        data = small(kind)
        frames, metadata = OpenCVVideoBackend.load_bytes(data[: len(data) * 3 // 4], num_frames=4)
        assert len(frames) > 0
        assert metadata["frames_indices"][0] == 0
        assert read_number(frames[0]) == 0


class TestLyingHeaders:
    HUGE = struct.pack(">I", 2**31 - 1)

    @pytest.mark.parametrize("way", WAYS[:3], ids=["auto", "sequential", "recovery"])
    @with_every_loader
    def test_number_of_frames(
        self, loader: Any, way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where headers are believed, two billion frames of 20 kilobytes are a limit, not a loop."""
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        with pytest.raises(LimitExceededError, match="2147483647 frames"):
            loader.load_bytes(patch(clip(), b"stts", 8, self.HUGE), num_frames=4, **way)

    @in_every_way
    @pytest.mark.parametrize(
        ("kind", "name", "offset", "value"),
        [
            ("mp4", b"stsz", 8, HUGE),
            ("mp4", b"stsz", 4, struct.pack(">II", 1, 2**31 - 1)),
            ("mp4", b"stts", 8, HUGE),
            ("mp4", b"stts", 12, bytes(4)),
            ("mp4", b"stts", 12, b"\xff" * 4),
            ("mp4", b"stsc", 4, HUGE),
            ("mp4", b"stco", 4, HUGE),
            ("mp4", b"ctts", 4, HUGE),
            ("mp4", b"mdhd", 12, bytes(4)),
            ("mp4", b"mdhd", 12, b"\xff" * 4),
            ("mp4", b"mvhd", 12, bytes(4)),
            ("mp4", b"avc1", 24, b"\xff" * 4),
            ("mp4", b"stss", 4, bytes(4)),
            ("fragmented mp4", b"trun", 4, HUGE),
            ("avi", b"avih", 20, struct.pack("<I", 2**31 - 1)),
            ("avi", b"strh", 36, struct.pack("<I", 2**31 - 1)),
            ("avi", b"strh", 24, bytes(8)),
            ("avi", b"strf", 8, struct.pack("<II", 65536, 65536)),
            ("gif", b"GIF89a", 0, b"\xff" * 4),
            ("flv", b"FLV", 2, b"\xff" * 4),
            ("flv", b"duration", 1, struct.pack(">d", -1e300)),
            ("flv", b"duration", 1, struct.pack(">d", math.nan)),
        ],
        ids=lambda value: value if isinstance(value, str) else repr(value)[:12],
    )
    def test_any_lie(self, kind: str, way: dict[str, Any], name: bytes, offset: int, value: bytes) -> None:
        """Counts, rates, sizes and tables that are not true: frames that are there, or a ValueError."""
        data = patch(small(kind), name, offset, value)
        for num_frames in (4, -1):
            frames_or_error(lambda n=num_frames: OpenCVVideoBackend.load_bytes(data, num_frames=n, **way))

    @in_every_way
    def test_size_of_the_coded_picture(self, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]) -> None:
        """65 535 x 65 535 pixels in the header of 100 bytes of GIF."""
        data = patch(small("gif")[:300], b"GIF89a", 0, b"\xff" * 4)
        with pytest.raises(MediaError):
            OpenCVVideoBackend.load_bytes(data, **way)

    @pytest.mark.parametrize("count", [-1e300, -(2.0**63), math.nan, math.inf, 1e300])
    def test_numbers_that_are_none(self, count: float) -> None:
        """OpenCV multiplies duration and rate, whatever they are; found by the fuzz session."""
        from mmmedia.video.decoders import opencv

        with pytest.raises(MediaError, match="The header claims"):
            opencv.source_metadata(ScriptedCapture(count), 1 << 20)

    def test_more_than_any_bytes_hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However long the file, there is an end to the frames that a header may claim."""
        from mmmedia.video.decoders import opencv

        assert opencv.source_metadata(ScriptedCapture(1 << 24), 1 << 30) == VideoSourceMetadata(
            1 << 24, 10.0, (1 << 24) / 10
        )
        with pytest.raises(LimitExceededError):
            opencv.source_metadata(ScriptedCapture((1 << 24) + 1), 1 << 30)

    def test_failing_grabs_end(self) -> None:
        """Grabs that fail by the ten thousand in a row are the end of the stream, not a loop to the claim."""
        capture = ScriptedCapture(1_000_000, frames=3)
        _, count, valid = OpenCVVideoBackend._read_frames(capture, {0, 2, 999_999}, 3, 999_999)
        assert (count, valid) == (2, [0, 2])
        assert capture.grabs < 20_000


class Dozen(OpenCVVideoBackend):
    """The first twelve frames, whatever the header says."""

    @classmethod
    def compute_frames_index_to_sample(cls, source: Any, target: Any, **kwargs: Any) -> list[int]:
        return list(range(12))


class TestMidway:
    """The resolution changes after six frames."""

    DATA = staticmethod(
        lambda container: b"".join(
            clip(container=container, frames=6, width=width, height=height)
            for width, height in ((128, 96), (160, 128))
        )
    )

    @pytest.mark.parametrize("way", WAYS[:2], ids=["auto", "sequential"])
    @pytest.mark.parametrize("container", ["mpegts", "h264"])
    def test_as_opencv_has_it(self, container: str, way: dict[str, Any]) -> None:
        """OpenCV scales later frames to the size of the first, and so does the reference."""
        expected, _ = read_plainly(self.DATA(container), range(12))
        frames, metadata = Dozen.load_bytes(self.DATA(container), **way)
        assert metadata["frames_indices"] == list(range(12))
        assert frames.tobytes() == expected.tobytes()

    @pytest.mark.parametrize("container", ["mpegts", "h264"])
    def test_by_exact_index(self, container: str) -> None:
        """PyAV's frames are of two sizes, which is told with both."""
        with pytest.raises(InvalidMediaError, match=r"resolution midway.*128 x 96.*160 x 128"):
            Dozen.load_bytes(self.DATA(container), backend="pyav")
        with pytest.raises(InvalidMediaError, match=r"resolution midway.*128 x 96.*160 x 128"):
            read_video(self.DATA(container), lambda _: list(range(12)), Dozen, backend="pyav", size=(32, 32))
        frames, _ = OpenCVVideoBackend.load_bytes(self.DATA(container), backend="pyav", num_frames=1)
        assert frames.shape == (1, 96, 128, 3)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out, doubled or zeroed, half of the time near the beginning."""
    damaged = bytearray(data)
    for _ in range(rng.choice([1, 4, 30])):
        at = rng.randrange(len(data) if rng.random() < 0.5 else 600)
        damage = rng.randrange(4)
        if damage == 0:
            damaged[at : at + 1] = bytes([rng.randrange(256)])
        elif damage == 1:
            del damaged[at : at + rng.randrange(1, 40)]
        elif damage == 2:
            damaged[at:at] = damaged[at : at + rng.randrange(1, 200)]
        else:
            damaged[at : at + 8] = bytes(8)
    return bytes(damaged)


class TestMutated:
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("kind", CLIPS)
    def test_random_damage(self, kind: str, way: dict[str, Any]) -> None:
        """Damage anywhere in a file: frames or a ValueError, in every way."""
        rng = random.Random(kind)
        for _ in range(20):
            data = damaged(small(kind), rng)
            frames_or_error(lambda d=data: OpenCVVideoBackend.load_bytes(d, num_frames=5, **way))


class TestDeadline:
    @in_every_way
    def test_time_is_up(self, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]) -> None:
        """A video that takes longer than the setting admits ends in an error that names it."""
        monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "0.000001")
        with pytest.raises(LimitExceededError, match="VLLM_VIDEO_DECODE_TIMEOUT_S"):
            OpenCVVideoBackend.load_bytes(clip(), num_frames=4, **way)

    @in_every_way
    def test_no_limit(self, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]) -> None:
        """0 is no limit."""
        monkeypatch.setenv("VLLM_VIDEO_DECODE_TIMEOUT_S", "0")
        assert len(OpenCVVideoBackend.load_bytes(clip(), num_frames=4, **way)[0]) == 4


class Blind(OpenCVVideoBackend):
    """OpenCV as in a wheel without the decoder: it opens the stream and gives no frame."""

    @classmethod
    def _read_frames(cls, cap: Any, frame_indices: Any, num_expected_frames: int, max_frame_idx: int) -> Any:
        return np.empty((0, 96, 128, 3), np.uint8), 0, []


class TestRescue:
    def test_pyav_answers(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where OpenCV gives not one frame and PyAV does, its frames are the answer, with one warning."""
        with caplog.at_level(logging.WARNING, "mmmedia"):
            frames, metadata = Blind.load_bytes(clip(), num_frames=4)
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 19, 39, 59]
        assert metadata["video_backend"] == "opencv"
        assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (60, 25.0, 2.4)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "PyAV" in caplog.text

    def test_neither_can(self) -> None:
        """Where PyAV can't either, the error says that no frame could be read."""
        data = clip()
        start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
        with pytest.raises(InvalidMediaError, match=r"No frame could be read.*60 frames"):
            Blind.load_bytes(data[:start] + bytes(end - start) + data[end:], num_frames=4)
