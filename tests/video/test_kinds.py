"""What people send: every frame under its own number, counts and lengths that are true, upright."""

import io
import logging
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from mmmedia.errors import InvalidMediaError, NotSeekableError
from mmmedia.media import ImageMediaIO, VideoMediaIO
from mmmedia.video import Molmo2VideoBackend, OpenCVDynamicVideoBackend, OpenCVVideoBackend
from support import sounds
from support.clips import clip, read_number
from support.kinds import KINDS, SIZE, Kind, front_first, with_sound

WAYS: list[dict[str, Any]] = [
    {"decode": "sequential"},
    {"decode": "auto"},
    {"decode": "seek"},
    {"backend": "pyav"},
    {"backend": "pyav", "decode": "sequential"},
]
REQUESTS: list[tuple[Any, dict[str, Any]]] = [
    (OpenCVVideoBackend, {"num_frames": 8}),
    (OpenCVVideoBackend, {}),
    (OpenCVDynamicVideoBackend, {"fps": 2}),
    (Molmo2VideoBackend, {"num_frames": 5, "frame_sample_mode": "uniform_last_frame"}),
]


def check(kind: Kind, loader: Any, options: dict[str, Any], way: dict[str, Any]) -> None:
    frames, metadata = loader.load_bytes(kind.make(), **options, **way)
    total, indices = metadata["total_num_frames"], metadata["frames_indices"]
    assert total == len(kind.numbers)
    assert [read_number(kind.turn(frame)) for frame in frames] == [kind.numbers[index] for index in indices]
    if loader is OpenCVVideoBackend:
        assert len(indices) == min(total, options.get("num_frames", total))
    else:
        assert indices
    if kind.seconds is not None:
        assert metadata["duration"] == pytest.approx(kind.seconds, rel=0.04)
        assert metadata["fps"] == pytest.approx(total / metadata["duration"])


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name: str, way: dict[str, Any]) -> None:
    """By every loader and in every way; where parts can't be told, "seek" says so."""
    for loader, options in REQUESTS:
        try:
            check(KINDS[name], loader, options, way)
        except NotSeekableError:
            assert way == {"decode": "seek"}


@pytest.mark.parametrize("part", [0.6, 0.8])
@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")],
)
def test_cut_downloads(container: str, codec: str, part: float, caplog: pytest.LogCaptureFixture) -> None:
    """What is there is to be had, and counted; one warning tells."""
    data = clip(**SIZE, container=container, codec=codec, gop=10)
    data = front_first(data) if container == "mp4" else data
    data = data[: int(len(data) * part)]
    for way in WAYS[:2]:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "mmmedia"):
            frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=8, **way)
        total = metadata["total_num_frames"]
        assert 12 < total < 60 * part + 10
        assert len(frames) == 8
        assert [read_number(frame) for frame in frames][:7] == metadata["frames_indices"][:7]
        assert metadata["frames_indices"][-1] == total - 1
        assert [record.message for record in caplog.records if "cut short" in record.message]


def test_a_download_that_is_cut_before_its_index() -> None:
    """An MP4 whose index stands at the end."""
    data = clip(**SIZE)
    with pytest.raises(InvalidMediaError, match=r"Could not open video stream.*before its index"):
        OpenCVVideoBackend.load_bytes(data[: data.index(b"moov") - 100])


@pytest.mark.parametrize("way", WAYS[:4], ids=str)
def test_a_song_with_a_cover_is_no_video(way: dict[str, Any]) -> None:
    """The picture of an album is not a film of it."""
    import av
    from PIL import Image

    jpeg, buffer = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64), (255, 0, 0)).save(jpeg, "JPEG")
    song = sounds.encode_av(sounds.sine(440, 0.5, 48_000), 48_000, "mp4", "aac")
    with (
        av.open(io.BytesIO(song)) as read,
        av.open(io.BytesIO(jpeg.getvalue())) as still,
        av.open(buffer, "w", format="mp4") as out,
    ):
        sound = out.add_stream_from_template(read.streams.audio[0])
        cover = out.add_stream_from_template(still.streams.video[0], opaque=True)
        cover.disposition = av.stream.Disposition.attached_pic
        for source, stream in ((still, cover), (read, sound)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    with pytest.raises(InvalidMediaError, match=r"Could not open video stream|No video stream"):
        OpenCVVideoBackend.load_bytes(buffer.getvalue(), **way)


@pytest.mark.parametrize("way", WAYS[:4], ids=str)
def test_a_song_with_a_cover_of_asf_is_no_video(way: dict[str, Any]) -> None:
    """There a cover is a stream like any other, of one picture; what has more is a video."""
    fields: dict[str, Any] = {"codec": "mjpeg", "container": "asf", "pix_fmt": "yuvj420p", "audio": True}
    with pytest.raises(InvalidMediaError, match=r"Could not open video stream|No video stream"):
        OpenCVVideoBackend.load_bytes(clip(**SIZE, **fields, frames=1, sound_seconds=1.0), **way)
    assert len(OpenCVVideoBackend.load_bytes(clip(**SIZE, **fields, frames=6), **way)[0]) == 6


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_pictures_far_apart_in_a_transport_stream(way: dict[str, Any]) -> None:
    """The first one ends where the next begins, which FFmpeg by itself does not wait for."""
    data = clip(
        **SIZE, container="mpegts", frames=4, timestamps=[0, 60, 120, 180], time_base=Fraction(1),
        audio=True, sound_seconds=180.0,
    )  # fmt: skip
    frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=4, **way)
    assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 1, 2, 3]
    assert metadata["duration"] == pytest.approx(240, abs=1)


@pytest.mark.parametrize("way", [WAYS[0], WAYS[1], WAYS[4]], ids=str)
def test_a_single_jpeg(way: dict[str, Any]) -> None:
    """A stream of one picture; of two as well, which no longer is a picture."""
    data = clip(**SIZE, codec="mjpeg", container="mjpeg", frames=1, pix_fmt="yuvj420p")
    frames, metadata = OpenCVVideoBackend.load_bytes(data, **way)
    assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0]
    assert (metadata["total_num_frames"], metadata["fps"], metadata["duration"]) == (1, 25.0, 0.04)


class TestCompat:
    def test_headers_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`MMMEDIA_COMPAT=0.20`: what OpenCV says of a file is believed, and what is not there left out."""
        data = with_sound("matroska", 5.0)
        _, right = OpenCVVideoBackend.load_bytes(data, num_frames=8)
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        frames, claimed = OpenCVVideoBackend.load_bytes(data, num_frames=8)
        assert (right["total_num_frames"], len(right["frames_indices"])) == (60, 8)
        assert claimed["total_num_frames"] > 100
        assert len(frames) == len(claimed["frames_indices"]) < 8

    def test_short_clips(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """There, a clip too short for its rate has nothing to sample."""
        data = clip(**SIZE, frames=8)
        assert OpenCVDynamicVideoBackend.load_bytes(data, fps=2)[1]["frames_indices"] == [0]
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        with pytest.raises(InvalidMediaError, match="Nothing to sample"):
            OpenCVDynamicVideoBackend.load_bytes(data, fps=2)


class TestPart:
    """`start` and `end` in seconds."""

    @pytest.mark.parametrize("way", WAYS[:4], ids=str)
    def test_a_part_is_sampled_as_if_it_were_the_whole(self, way: dict[str, Any]) -> None:
        data = clip(**SIZE)
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=5, start=1.0, end=2.0, **way)
        assert metadata["frames_indices"] == [25, 31, 37, 43, 49]
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
        whole = OpenCVVideoBackend.load_bytes(data, num_frames=1)[1]
        for name in ("total_num_frames", "fps", "duration"):
            assert metadata[name] == whole[name]

    def test_by_the_clock_where_the_rate_varies(self) -> None:
        data = KINDS["screen recording"].make()
        _, metadata = OpenCVVideoBackend.load_bytes(data, start=4.0, end=4.1)
        assert metadata["frames_indices"] == [8, 9, 10, 11, 12]
        _, metadata = OpenCVVideoBackend.load_bytes(data, start=5.0, end=6.0)
        assert metadata["frames_indices"] == [27]  # what is on the screen then

    def test_every_loader(self) -> None:
        data = clip(**SIZE)
        assert OpenCVDynamicVideoBackend.load_bytes(data, fps=5, start=2)[1]["frames_indices"] == [50, 55]
        _, metadata = Molmo2VideoBackend.load_bytes(data, start=0.2, end=0.4)
        assert metadata["frames_indices"] == [5, 6, 7, 8, 9]
        media_io = VideoMediaIO(ImageMediaIO(), num_frames=2, start=1, end=2)
        assert media_io.load_bytes(data)[1]["frames_indices"] == [25, 49]
        png = KINDS["animated png"].make()
        assert OpenCVVideoBackend.load_bytes(png, start=0.1, end=0.4)[1]["frames_indices"] == [1, 2, 3]

    @pytest.mark.parametrize(
        "keywords",
        [{"start": -1}, {"start": 2, "end": 1}, {"start": 99}, {"end": "soon"}, {"start": float("nan")}],
    )
    def test_no_part(self, keywords: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"start|end"):
            OpenCVVideoBackend.load_bytes(clip(**SIZE), **keywords)


def test_pictures_of_a_wide_gamut() -> None:
    """PQ in BT.2020: OpenCV's bytes, whichever way they come."""
    colours = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    fields = {"codec": "libx265", "pix_fmt": "yuv420p10le", "frames": 30, **SIZE}
    data = clip(**fields, options={"x265-params": f"log-level=none:keyint=10:{colours}"})
    expected, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=3, decode="sequential")
    plain, _ = OpenCVVideoBackend.load_bytes(clip(**fields), num_frames=3)
    assert np.abs(expected.astype(int) - plain).mean() > 5
    for way in ({"decode": "seek"}, {"backend": "pyav", "decode": "sequential"}):
        frames, same = OpenCVVideoBackend.load_bytes(data, num_frames=3, **way)
        assert np.array_equal(frames, expected)
        assert same["frames_indices"] == metadata["frames_indices"]
