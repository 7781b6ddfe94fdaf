"""Which containers a decoder is shown: those of real encoders pass, what names other files does not."""

import ctypes
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia import containers
from mmmedia.containers import identify, open_av
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders import opencv
from support import sounds
from support.clips import clip
from support.watch import Watch

SMALL = {"frames": 12, "width": 128, "height": 96}
VIDEOS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("mp4", "libx264", "mov", {}),
    ("mov", "mpeg4", "mov", {}),
    ("mp4", "libx264", "mov", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ("3gp", "h263", "mov", {}),
    ("matroska", "libx264", "matroska", {}),
    ("webm", "libvpx", "matroska", {}),
    ("avi", "mpeg4", "avi", {}),
    ("mpegts", "libx264", "mpegts", {}),
    ("mpegts", "mpeg2video", "mpegts", {"container_options": {"mpegts_m2ts_mode": "1"}}),
    ("mpeg", "mpeg2video", "mpeg", {}),
    ("vob", "mpeg2video", "mpeg", {}),
    ("flv", "libx264", "flv", {}),
    ("asf", "mpeg4", "asf", {}),
    ("ivf", "libvpx", "ivf", {}),
    ("yuv4mpegpipe", "rawvideo", "yuv4mpegpipe", {}),
    ("gif", "gif", "gif", {"pix_fmt": "rgb8"}),
    ("h264", "libx264", "h264", {}),
    ("hevc", "libx265", "hevc", {}),
    ("mpeg2video", "mpeg2video", "mpegvideo", {}),
    ("mpeg1video", "mpeg1video", "mpegvideo", {}),
    ("m4v", "mpeg4", "m4v", {}),
    ("mjpeg", "mjpeg", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("nut", "mpeg4", "nut", {}),
    ("mxf", "mpeg2video", "mxf", {}),
    ("wtv", "mpeg2video", "wtv", {}),
    ("rm", "rv10", "rm", {}),
    ("ogg", "libvpx", "ogg", {}),
]
SOUNDS = [
    ("wav", "pcm_s16le", "wav"), ("w64", "pcm_s16le", "w64"), ("flac", "flac", "flac"),
    ("mp3", "libmp3lame", "mp3"), ("ipod", "aac", "mov"), ("adts", "aac", "aac"),
    ("aiff", "pcm_s16be", "aiff"),
    ("au", "pcm_s16be", "au"), ("caf", "pcm_s16le", "caf"), ("ogg", "libopus", "ogg"), ("ac3", "ac3", "ac3"),
    ("voc", "pcm_s16le", "voc"), ("tta", "tta", "tta"), ("wv", "wavpack", "wv"),
]  # fmt: skip

FORMS = ["WAV", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "VOC", "SVX"]


class TestRealFiles:
    @pytest.mark.parametrize(
        ("container", "codec", "name", "fields"), VIDEOS, ids=[f"{v[0]}-{v[1]}-{len(v[3])}" for v in VIDEOS]
    )
    def test_video(self, container: str, codec: str, name: str, fields: dict[str, Any]) -> None:
        """What a real muxer writes is recognised, by FFmpeg's own name, and opens."""
        data = clip(container=container, codec=codec, **SMALL, **fields)
        assert identify(data) == name
        with open_av(data) as file:
            assert name in {*file.format.name.split(","), *(["matroska"] if name == "matroska" else [])}
            assert next(file.decode(video=0)).width == 128

    @pytest.mark.parametrize(("container", "codec", "name"), SOUNDS)
    def test_audio(self, container: str, codec: str, name: str) -> None:
        """So are sound files."""
        try:
            data = sounds.encode_av(sounds.sine(440, 0.5, 48_000), 48_000, container, codec)
        except (av.codec.codec.UnknownCodecError, ValueError):
            pytest.skip("this FFmpeg was built without the encoder")
        assert identify(data) == name
        with open_av(data) as file:
            assert next(file.decode(audio=0)).samples > 0

    @pytest.mark.parametrize(
        "form", ["WAV", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "VOC", "SVX"]
    )
    def test_audio_of_another_library(self, form: str) -> None:
        """What libsndfile writes is recognised as well."""
        expected = {"RF64": "wav", "SVX": "iff"}.get(form, form.lower())
        assert identify(sounds.encode(sounds.sine(440, 0.2, 16_000), 16_000, form)) == expected

    def test_transport_stream_cut_anywhere(self) -> None:
        """A capture that begins within a packet is a transport stream still."""
        data = clip(container="mpegts", codec="mpeg2video", **SMALL)
        assert {identify(data[cut:]) for cut in (1, 3, 4, 100, 187, 188, 1000)} == {"mpegts"}

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_buffer(self, kind: Callable[[bytes], Any]) -> None:
        """Bytes, bytearrays and views alike."""
        assert identify(kind(clip(**SMALL))) == "mov"

    @pytest.mark.parametrize("tagged", ["mp3", "flac", "adts"])
    def test_behind_an_id3_tag(self, tagged: str) -> None:
        """A tag in front of a sound file is passed over, whatever its length."""
        codec = {"mp3": "libmp3lame", "flac": "flac", "adts": "aac"}[tagged]
        data = sounds.encode_av(sounds.sine(440, 0.5, 48_000), 48_000, tagged, codec)
        data = data[data.index(b"\xff") :] if tagged == "mp3" else data
        assert identify(id3(b"\0" * 9000) + data) == {"adts": "aac"}.get(tagged, tagged)


def id3(body: bytes) -> bytes:
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + body


CONCAT = b"ffconcat version 1.0\nfile clip.mp4\n"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.ts\n#EXT-X-ENDLIST\n"
SDP = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n"
DASH = b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>'
SCRIPTS = {
    "concat": (CONCAT, "concat script"),
    "concat in capitals": (CONCAT.upper(), "concat script"),
    "m3u8": (PLAYLIST, "M3U playlist"),
    "sdp": (SDP, "SDP text"),
    "dash": (DASH, "XML manifest"),
    "bare mpd": (b"<MPD></MPD>", "XML manifest"),
    "smooth streaming": (b"<SmoothStreamingMedia/>", "XML manifest"),
    "pls": (b"[playlist]\nFile1=http://x/y.mp4", "playlist"),
    "asx": (b"<asx version='3.0'></asx>", "XML manifest"),
    "link": (b"http://127.0.0.1/clip.mp4", "link"),
    "file link": (b"file:///etc/passwd", "link"),
    "rtsp": (b"RTSPtext\nrtsp://127.0.0.1/", "link"),
}


class TestRefused:
    @pytest.mark.parametrize("name", SCRIPTS)
    @pytest.mark.parametrize(
        "before", [b"", b"\xef\xbb\xbf", b" \n\t", b"\0", b"\0\0\0\0", b"\xff\xfe"], ids=repr
    )
    def test_scripts(self, name: str, before: bytes) -> None:
        """What names other files is refused and called what it is, whatever stands before it."""
        data, what = SCRIPTS[name]
        with pytest.raises(InvalidMediaError, match=f"(?i){what}.*refused"):
            identify(before + data)

    def test_utf16_script(self) -> None:
        """So it is in another encoding of text."""
        with pytest.raises(InvalidMediaError, match="refused"):
            identify(CONCAT.decode().encode("utf-16"))

    @pytest.mark.parametrize("inner", [CONCAT, PLAYLIST, SDP, DASH, b"", id3(b"") + CONCAT])
    def test_script_behind_a_tag(self, inner: bytes) -> None:
        """A tag hides nothing: FFmpeg skips it before it looks."""
        for size in (0, 10, 5000):
            with pytest.raises(InvalidMediaError, match="refused"):
                identify(id3(b"\0" * size) + inner)

    @pytest.mark.parametrize(
        "data",
        [
            b"hello, I am a video", b"\0", b"\0" * 5000, b"RIFF", b"RIFF\0\0\0\0WEBP", b"FORM\0\0\0\0ILBM",
            b"ID3",
            b"G" * 3, b"\x1aE", b"\0\0\0\x18fty", b"%PDF-1.7", b"PK\x03\x04", b"\x7fELF" + bytes(60),
            b"\x89PNG\r\n\x1a\n", b"<html>", b"{}", b"#!/bin/sh\n", b"\0\0\1", b"\0\0\1\xff",
            b"\xff\xff\xff\xff",
            b";FFMETADATA1\n", b"WEBVTT\n\n", b"1\n00:00:00,000 --> 00:00:01,000\nhi\n",
        ],
        ids=repr,
    )  # fmt: skip
    def test_no_media(self, data: bytes) -> None:
        """Texts, documents, pictures, programs and stumps of magic numbers are no containers."""
        with pytest.raises(InvalidMediaError, match="not a media container"):
            identify(data)

    def test_empty(self) -> None:
        """Nothing is told as such."""
        with pytest.raises(InvalidMediaError, match="Empty"):
            identify(b"")

    def test_message_holds_no_bytes_of_the_media(self) -> None:
        """The error does not repeat what was sent."""
        with pytest.raises(InvalidMediaError) as caught:
            identify(b"ffconcat version 1.0\nfile secret-name\n")
        assert "secret" not in str(caught.value)

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=600),
            st.builds(
                lambda magic, rest: magic + rest,
                st.sampled_from([magic for magic, _ in containers._MAGIC] + [b"ID3", b"RIFF", b"FORM", b"G"]),
                st.binary(max_size=300),
            ),
            st.builds(lambda text: text.encode("utf-8", "surrogatepass"), st.text(max_size=200)),
        )
    )
    def test_any_bytes(self, data: bytes) -> None:
        """A name on the allow-list, or an error; never anything else."""
        try:
            name = identify(data)
        except InvalidMediaError:
            return
        assert name in containers.FORMAT_WHITELIST.split(",")

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet=st.characters(max_codepoint=0x7E, min_codepoint=0x20), min_size=12, max_size=300))
    def test_printable_text_is_never_media(self, text: str) -> None:
        """No text is taken for a container, but for those whose magic number is text."""
        textual = (b"YUV4MPEG2 ", b"BBCD", b"OggS", b"fLaC", b".snd", b"caff", b"RIFF", b"FORM", b".RMF",
                   b"#!AMR",
                   b"DKIF", b"GIF8", b"MAC ", b"TTA", b"wvpk", b"MP+", b"MPCK", b"DSD ", b"tBaK")  # fmt: skip
        data = text.encode()
        if data.startswith(textual) or data[4:8] in containers._FIRST_BOXES:
            return
        with pytest.raises(InvalidMediaError):
            identify(data)


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A local file beside the process that scripts name, watched."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(**SMALL))
    monkeypatch.chdir(tmp_path)
    with Watch(path) as watch:
        yield watch


class TestFFmpegIsHeld:
    """The second lock: even what passes the first bytes opens nothing."""

    def test_the_attack_is_real(self, watch: Watch) -> None:
        """Without the locks both decoders read the file that the script names, which the watch sees."""
        with av.open(io.BytesIO(CONCAT)) as file:
            assert next(file.decode(video=0)).width == 128
        assert watch.opened()
        assert cv2.VideoCapture(io.BytesIO(CONCAT), cv2.CAP_FFMPEG, []).isOpened()
        assert watch.opened()

    @pytest.mark.parametrize("script", [CONCAT, PLAYLIST, DASH], ids=["concat", "hls", "dash"])
    @pytest.mark.parametrize("open_it", [open_av, opencv.open_capture])
    def test_nothing_is_opened(
        self, watch: Watch, monkeypatch: pytest.MonkeyPatch, open_it: Callable[[bytes], Any], script: bytes
    ) -> None:
        """With `identify` out of the way, FFmpeg refuses the script by the allow-list."""
        monkeypatch.setattr(containers, "identify", lambda data: "mov")
        with pytest.raises(InvalidMediaError, match="Could not open"):
            open_it(script)
        assert not watch.opened()

    @pytest.mark.parametrize("opener", ["containers.open_av", "opencv.open_capture"])
    def test_sdp_waits_for_nobody(self, opener: str) -> None:
        """An SDP text opens no socket to wait on: a process that tries is done at once."""
        code = (
            "from mmmedia import containers\nfrom mmmedia.video.decoders import opencv\n"
            f"containers.identify = lambda data: 'mov'\nopen_it = {opener}\n"
            f"try:\n    open_it({SDP!r})\nexcept ValueError as error:\n    print('refused')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=25, check=True
        )
        assert done.stdout == "refused\n"

    def test_black_list_stays_black(self) -> None:
        """No demuxer that opens other things is on the list."""
        allowed = set(containers.FORMAT_WHITELIST.split(","))
        fetchers = {"concat", "hls", "dash", "sdp", "rtsp", "image2", "image2pipe", "lavfi", "applehttp",
                    "rtp",
                    "v4l2", "tty", "imf", "webm_dash_manifest", "sap", "ffmetadata", "subviewer",
                    "vapoursynth",
                    "libopenmpt", "xcbgrab", "fbdev", "alsa", "mpjpeg", "concatf",
                    "vobsub", "data"}  # fmt: skip
        assert not allowed & fetchers
        assert containers.AV_OPTIONS["protocol_whitelist"] == "none"


VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def c_getenv() -> bytes | None:
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    value: bytes | None = getenv(VARIABLE.encode())
    return value


class TestEnvironment:
    """OpenCV takes its options from one environment variable; others may use it, too."""

    @pytest.mark.parametrize("make", [lambda: clip(**SMALL), lambda: b"\0\0\0\x08ftyp", lambda: CONCAT])
    @pytest.mark.parametrize("before", [None, "", "rtsp_transport;udp"])
    def test_left_as_it_was(
        self, monkeypatch: pytest.MonkeyPatch, make: Callable[[], bytes], before: str | None
    ) -> None:
        """Both Python's and C's environment are afterwards what they were, whether or not it opened."""
        if before is None:
            monkeypatch.delenv(VARIABLE, raising=False)
        else:
            monkeypatch.setenv(VARIABLE, before)
        environment = dict(os.environ)
        try:
            opencv.open_capture(make())
            opened = True
        except InvalidMediaError:
            opened = False
        assert opened == (make() == clip(**SMALL))
        assert dict(os.environ) == environment
        assert c_getenv() == (None if before is None else before.encode())

    def test_operators_options_stay_in_force(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What the operator set goes to FFmpeg beside what holds it; Python never sees ours."""
        seen: list[tuple[bytes | None, str | None]] = []
        monkeypatch.setenv(VARIABLE, "rtsp_transport;udp")
        real = opencv.get_cv2_video_api

        class Capture:
            def __init__(self, *_: object) -> None:
                seen.append((c_getenv(), os.environ.get(VARIABLE)))

            def isOpened(self) -> bool:
                return True

        monkeypatch.setattr(cv2, "VideoCapture", Capture)
        opencv.open_capture(b"anything")
        assert real() == cv2.CAP_FFMPEG
        ((in_c, in_python),) = seen
        assert in_c is not None
        options = dict(option.split(b";") for option in in_c.split(b"|"))
        assert options[b"rtsp_transport"] == b"udp"
        assert options[b"format_whitelist"].decode() == containers.FORMAT_WHITELIST
        assert options[b"protocol_whitelist"] == b"none"
        assert in_python == "rtsp_transport;udp"

    def test_frames_with_operators_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clip opens the same with them set."""
        monkeypatch.setenv(VARIABLE, "video_codec;h264")
        ok, image = opencv.open_capture(clip(**SMALL)).read()
        assert ok
        assert np.asarray(image).shape == (96, 128, 3)


def _box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_tables_that_claim_more_than_there_can_be_are_refused() -> None:
    """FFmpeg would take a gigabyte for the samples that these few bytes claim (found by the fuzz session)."""
    start = _box(b"ftyp", b"isom\0\0\2\0isomiso5")

    def run(count: int) -> bytes:
        return start + _box(b"moof", _box(b"traf", _box(b"trun", bytes(4) + count.to_bytes(4, "big"))))

    assert containers.admit(run(1 << 22)) == "mov"
    with pytest.raises(InvalidMediaError, match="claims 83886080 samples"):
        containers.admit(run(5 << 24))
    many = start + _box(b"moof", _box(b"traf", _box(b"trun", bytes(4) + (1 << 21).to_bytes(4, "big")) * 3))
    with pytest.raises(InvalidMediaError, match="claims"):
        containers.admit(many)
    sizes = _box(b"stsz", bytes(8) + (1 << 30).to_bytes(4, "big"))
    for holder in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        sizes = _box(holder, sizes)
    with pytest.raises(InvalidMediaError, match="claims"):
        containers.admit(start + sizes)


def test_boxes_without_end_are_not_followed_without_end() -> None:
    start = _box(b"ftyp", b"isom\0\0\2\0isomiso5")
    assert containers.admit(start + b"\0\0\0\x08moov" * 300_000) == "mov"
    nested = b"".join((8 * (50_000 - depth)).to_bytes(4, "big") + b"moov" for depth in range(50_000))
    assert containers.admit(start + nested) == "mov"


def _packet(payload: bytes, pid: int = 0x1000, *, starts: bool = True, stuffing: int = 0) -> bytes:
    """A packet of a transport stream."""
    adaptation = bytes((stuffing,)) + bytes(stuffing) if stuffing else b""
    header = bytes((0x47, starts << 6 | pid >> 8, pid & 255, 0x30 if stuffing else 0x10))
    return (header + adaptation + payload).ljust(188, b"\xff")


def _map(*streams: tuple[int, int], padding: int = 0) -> bytes:
    """A program map of these PIDs and types, after descriptors of so many bytes."""
    body = b"\0\1\xc1\0\0\xe1\0" + (0xF000 | padding).to_bytes(2, "big") + bytes(padding)
    for pid, kind in streams:
        body += bytes((kind, 0xE0 | pid >> 8, pid & 255, 0xF0, 0))
    return b"\2" + (0xB000 | len(body) + 4).to_bytes(2, "big") + body + b"crc!"


MPEG2, H264, AAC = 2, 0x1B, 0x0F


@pytest.mark.parametrize("size", [188, 192, 204])
def test_streams_that_become_h264_are_refused(size: int) -> None:
    """FFmpeg ends the process on some of these (found by the fuzz session)."""

    def stream(*packets: bytes) -> bytes:
        filler = [_packet(b"\0" * 184, 0x100, starts=False)] * 16
        return b"".join(packet.ljust(size, b"\0") for packet in [*filler, *packets, *filler])

    def map_packet(*streams: tuple[int, int]) -> bytes:
        return _packet(b"\0" + _map(*streams))

    first, second = map_packet((256, MPEG2), (257, AAC)), map_packet((256, H264))
    for intact in (
        [first, first], [second, second], [first, map_packet((256, 0x24))],
        [first, map_packet((258, H264))], [map_packet((256, H264)), map_packet((256, 0x20))],
    ):  # fmt: skip
        assert containers.admit(stream(*intact)) == "mpegts"

    whole = _map(*((number, AAC) for number in range(300, 360)), (256, H264), padding=90)
    cut = [_packet(b"\0" + whole[:183])]
    cut += [_packet(whole[at : at + 184], starts=False) for at in range(183, len(whole), 184)]
    for changed in (
        [first, second],
        [second, first],
        [_packet(b"\0" + _map((256, MPEG2)) + _map((256, H264)))],
        [first, _packet(b"\3abc" + _map((256, H264)))],
        [first, _packet(b"\0" + _map((256, H264)), stuffing=20)],
        [first, *cut],
        [first, cut[0], _packet(b"", 0x222), *cut[1:]],
        [first, b"lost sync", second],
    ):
        with pytest.raises(InvalidMediaError, match=r"Stream 256 becomes H\.264"):
            containers.admit(stream(*changed))


def test_looking_for_program_maps_takes_no_longer_than_there_is_to_look_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packets that begin in one another, and maps that never end, would take minutes."""
    monkeypatch.setattr(containers, "_MOST_BOXES", 100)
    monkeypatch.setattr(containers, "_FEW_MAPS", 100)
    for pattern, many in (
        (b"\x47\x40\0\x10\0\2\0\3", "tables"),
        (b"\x47\x40\0\x10\0\1\0\3\0", "tables"),
        (_packet(b"\0" + b"\2\xb3\xfd"), "program maps"),
    ):
        with pytest.raises(InvalidMediaError, match=f"more {many} than it can"):
            containers._stream_types(pattern * 20_000)
    assert containers._stream_types(_packet(b"\0" + _map((256, H264))) * 20_000) == {256: {H264}}


@given(data=st.binary(max_size=400), starts=st.lists(st.integers(0, 399), max_size=8))
def test_program_maps_of_any_bytes_are_read(data: bytes, starts: list[int]) -> None:
    changed = bytearray(data)
    for start in starts:
        changed[start : start + 6] = b"\x47\x50\x00\x10\x00\x02"
    for pid, kinds in containers._stream_types(bytes(changed)).items():
        assert 0 <= pid < 8192
        assert all(0 <= kind < 256 for kind in kinds)


def test_texts_that_claim_more_than_there_can_be_are_refused() -> None:
    """FFmpeg would take two gigabytes for a title that is not there (found by the fuzz session)."""

    def file(size: int, kind: bytes = b"AVI ") -> bytes:
        header = b"LIST" + (4 + 8 + 2).to_bytes(4, "little") + b"hdrlJUNK\x02\0\0\0ab"
        frames = b"LIST" + (4 + 8).to_bytes(4, "little") + b"movi00dc\0\0\0\0"
        body = header + frames + b"LIST" + size.to_bytes(4, "little") + b"INFOINAM\x02\0\0\0a\0"
        return b"RIFF" + len(body).to_bytes(4, "little") + kind + body

    assert containers.admit(file(14)) == "avi"
    assert containers.admit(file(1 << 20)) == "avi"  # cut short, perhaps
    for kind in (b"AVI ", b"WAVE"):
        with pytest.raises(InvalidMediaError, match="claims 2147483674 bytes of texts"):
            containers.admit(file((1 << 31) + 26, kind))
