"""Pictures made of fields, recordings joined byte by byte, tiny streams, colours of no formula."""

import re
from typing import Any

import numpy as np
import pytest

from mmmedia import containers
from mmmedia.errors import NotSeekableError
from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.decoders.bitstreams import mpeg4
from mmmedia.video.decoders.bitstreams.bits import escape, unescape
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields
from mmmedia.video.decoders.packets import index
from support import corpus
from support.clips import clip, read_number
from support.kinds import KINDS, SIZE, WAYS

FIELDS = {
    "codec": "libx265",
    "options": {"x265-params": "log-level=none:interlace=tff:keyint=10:min-keyint=10"},
}
WOVEN: dict[str, Any] = {"codec": "mpeg4", "options": {"flags": "+ildct+ilme"}, "gop": 10}


def check(data: bytes, numbers: list[int], *, seeks: bool) -> None:
    """Every frame under its own number, in every way; parts where `seeks` says that they can be told."""
    for way in WAYS:
        for count in (7, -1):
            if way["decode"] == "seek" and not seeks:
                with pytest.raises(NotSeekableError):
                    OpenCVVideoBackend.load_bytes(data, num_frames=count, **way)
                continue
            frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=count, **way)
            assert metadata["total_num_frames"] == len(numbers)
            indices = metadata["frames_indices"]
            assert len(indices) == (count if count > 0 else len(numbers))
            assert [read_number(frame) for frame in frames] == [numbers[each] for each in indices]


class TestFields:
    @pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts", "hevc"])
    def test_interlaced_hevc(self, container: str) -> None:
        """Whose headers hold an escape in front of what says so."""
        data = clip(**SIZE, **FIELDS, container=container)
        assert may_hold_fields(index.build(data))
        check(data, list(range(60)), seeks=False)

    def test_hevc_that_becomes_interlaced(self) -> None:
        data = clip(**SIZE, codec="libx265", container="mpegts", frames=20)
        data += clip(**SIZE, **FIELDS, container="mpegts", frames=20, seed=1)
        check(data, [*range(20), *range(20)], seeks=False)

    def test_hevc_that_does_not_say_what_it_is(self) -> None:
        """Neither flag of its source: its first picture tells."""

        def hush(data: bytes) -> bytes:
            def rewrite(found: re.Match[bytes]) -> bytes:
                plain = bytearray(unescape(found[0][3:]))
                plain[8] &= 0x3F
                return found[0][:3] + escape(bytes(plain))

            return re.sub(
                rb"\x00\x00\x01\x42\x01.*?(?=\x00\x00\x01|\x00\x00\x00\x01)", rewrite, data, flags=re.DOTALL
            )

        for fields, interlaced in ((FIELDS, True), ({"codec": "libx265"}, False)):
            data = clip(**SIZE, **fields, container="hevc", frames=20)
            hushed = hush(data)
            assert hushed != data
            assert may_hold_fields(index.build(hushed)) is interlaced
            frames, metadata = OpenCVVideoBackend.load_bytes(hushed, num_frames=5)
            assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 4, 9, 14, 19]

    @pytest.mark.parametrize("container", ["matroska", "mp4", "mpegts", "hevc"])
    def test_progressive_hevc_goes_by_parts(self, container: str) -> None:
        data = clip(**SIZE, codec="libx265", container=container, bframes=0)
        assert not may_hold_fields(index.build(data))
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=4, decode="seek")
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"]

    @pytest.mark.parametrize("container", ["avi", "mp4", "matroska", "mpegts"])
    def test_interlaced_mpeg4(self, container: str) -> None:
        data = clip(**SIZE, **WOVEN, container=container)
        assert mpeg4.may_hold_fields(index.build(data))
        check(data, list(range(60)), seeks=False)

    def test_mpeg4_that_becomes_interlaced(self) -> None:
        data = clip(**SIZE, codec="mpeg4", container="mpegts", frames=20)
        data += clip(**SIZE, **WOVEN, container="mpegts", frames=20, seed=1)
        check(data, [*range(20), *range(20)], seeks=False)

    @pytest.mark.parametrize("container", ["avi", "mp4"])
    def test_progressive_mpeg4_goes_by_parts(self, container: str) -> None:
        data = clip(**SIZE, codec="mpeg4", gop=10, container=container)
        assert not may_hold_fields(index.build(data))
        check(data, list(range(60)), seeks=True)


class TestJoins:
    @pytest.mark.parametrize("codec", ["libx264", "libx265"])
    def test_two_matroska_files_with_b_frames(self, codec: str) -> None:
        """Behind the join, decoding times are guesses that go back time and again."""
        fields: dict[str, Any] = {**SIZE, "codec": codec, "container": "matroska", "frames": 40, "gop": 27}
        data = clip(**fields, bframes=3) + clip(**fields, bframes=3, seed=1)
        packets = index.build(data)
        assert index.segments(packets).tolist() == [0] * 40 + [1] * 40
        check_order(data, [*range(40), *range(40)])

    def test_pauses_are_no_joins(self) -> None:
        """A time that goes back between B-frames, by however much, begins no new stretch."""
        times = [0, 20, 40, 60, 8000, 8020, 8040, 20000, 20020, 20040, 20060, 20080]
        fields = {"timestamps": times, "time_base": corpus.Fraction(1, 1000), "frames": len(times)}
        data = clip(**SIZE, **fields, container="matroska", bframes=3)
        packets = index.build(data)
        assert (np.diff(packets.pts) < -1000).any()
        assert not index.segments(packets).any()
        check_order(data, list(range(len(times))))

    def test_two_mp4_files_with_b_frames(self) -> None:
        """A player shows the first alone; so do its tables count."""
        fields: dict[str, Any] = {**SIZE, "frames": 40}
        first = clip(**fields, bframes=3)
        data = first + clip(**fields, bframes=0, seed=1)
        assert index.build(data).pts.tolist() == index.build(first).pts.tolist()
        check_order(data, list(range(40)))


def check_order(data: bytes, numbers: list[int]) -> None:
    """As `check`, but that parts need not be told."""
    for way in WAYS:
        try:
            frames, metadata = OpenCVVideoBackend.load_bytes(data, **way)
        except NotSeekableError:
            assert way["decode"] == "seek"
            continue
        assert metadata["frames_indices"] == list(range(len(numbers)))
        assert [read_number(frame) for frame in frames] == numbers


class TestShortTransportStreams:
    @pytest.mark.parametrize("frames", [1, 2])
    @pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
    def test_a_few_packets(self, codec: str, frames: int) -> None:
        """Fewer than FFmpeg's probe trusts."""
        data = clip(width=96, height=64, codec=codec, frames=frames, container="mpegts")
        small = clip(width=96, height=16, codec=codec, frames=frames, container="mpegts")
        for each in (data, small):
            frames_, metadata = OpenCVVideoBackend.load_bytes(each)
            assert [read_number(frame) for frame in frames_] == metadata["frames_indices"]
            assert len(frames_) == frames

    def test_null_packets_follow(self) -> None:
        packet = b"\x47\x1f\xff\x10".ljust(188, b"\xff")
        short = containers.Admitted(packet * 2 + packet[:100], "mpegts")
        made = containers.recognisable(short)
        assert made[: len(short.data)] == short.data
        assert len(made) % 188 == 0
        assert {made[at] for at in range(0, len(made), 188)} == {0x47}
        long = containers.Admitted(packet * 12, "mpegts")
        assert containers.recognisable(long) is long.data
        other = containers.Admitted(b"RIFF", "avi")
        assert containers.recognisable(other) is other.data
        blurays = containers.Admitted((b"\0\0\0\0" + packet) * 3, "mpegts")
        assert containers.recognisable(blurays) is blurays.data


class TestColours:
    @pytest.mark.parametrize(
        "colours", ["transfer=log100:colorprim=film", "transfer=log316", "colormatrix=ictcp"]
    )
    def test_colours_without_a_formula(self, colours: str, caplog: pytest.LogCaptureFixture) -> None:
        """OpenCV hands out memory as it found it; these are PyAV's pictures, as a player shows them."""
        options = {"preset": "veryfast", "x264-params": f"keyint=10:{colours}"}
        data = clip(**SIZE, options=options)
        check(data, list(range(60)), seeks=False)
        assert "can't convert its colours" in caplog.text
        plain = clip(**SIZE, options={"preset": "veryfast", "x264-params": "keyint=10"})
        expected, _ = OpenCVVideoBackend.load_bytes(plain, num_frames=4)
        for way in ({}, {"backend": "pyav"}):
            frames, _ = OpenCVVideoBackend.load_bytes(data, num_frames=4, **way)
            assert np.array_equal(frames, expected)


CORPUS = {
    "h264": {},
    "h264, pyramid": {
        "bframes": 3,
        "options": {"preset": "veryfast", "x264-params": "ref=4"},
    },
    "h264, slices": {"options": {"preset": "veryfast", "x264-params": "slices=4"}},
    "hevc": {"codec": "libx265"},
    "hevc, 10 bit": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp8": {"codec": "libvpx", "container": "webm"},
    "vp9": {"codec": "libvpx-vp9", "container": "webm"},
    "av1": {"codec": "libsvtav1"},
    "mpeg4": {"codec": "mpeg4", "container": "avi", "bframes": 2},
    "mpeg2": {"codec": "mpeg2video", "container": "mpegts", "bframes": 2},
    "mjpeg": {"codec": "mjpeg", "container": "mov", "pix_fmt": "yuvj420p"},
    "prores": {"codec": "prores_ks", "container": "mov", "pix_fmt": "yuv422p10le"},
    "ffv1": {"codec": "ffv1", "container": "matroska"},
    "fields": {**corpus.x264("tff=1")},
    "hevc fields": FIELDS,
}


# Intact ones of the differential test, and the clip whose times tell another order.
SEEDS = [seed for seed in range(22) if corpus.draw(seed).intact]


@pytest.mark.parametrize("name", [*CORPUS, *KINDS, *SEEDS])
def test_the_same_bytes_whatever_the_threads(name: str | int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1, 2, 4 and 16 decoder threads, by OpenCV and by PyAV, each in sequence and by parts."""
    import cv2

    from mmmedia.video.decoders import pyav
    from mmmedia.video.decoders.opencv import capture

    if isinstance(name, int):
        data = corpus.draw(name).make()
    else:
        data = KINDS[name].make() if name in KINDS else clip(**SIZE, **CORPUS[name], frames=40)
    open_really, decode_really = capture._open, pyav._decode
    answers: dict[str, set[tuple[bytes, str]]] = {}
    for threads in (1, 2, 4, 16):
        parameters = [cv2.CAP_PROP_N_THREADS, threads]
        monkeypatch.setattr(capture, "_open", lambda d, api, _, p=parameters: open_really(d, api, p))
        # As many as a machine has, where one is not asked for.
        monkeypatch.setattr(
            pyav, "_decode", lambda d, threads, begin=0, n=threads: decode_really(d, threads or n, begin)
        )
        for way in WAYS:
            try:
                frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=6, **way)
            except NotSeekableError:
                assert way["decode"] == "seek"
                continue
            answers.setdefault(str(way), set()).add((frames.tobytes(), str(metadata)))
    assert {way: len(found) for way, found in answers.items()} == dict.fromkeys(answers, 1)
