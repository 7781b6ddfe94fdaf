"""Which containers are known by their first bytes; what names other files is none."""

from collections.abc import Callable
from typing import Any

import av
import pytest
from hypothesis import given, settings, strategies as st

import mmmedia
from mmmedia import containers
from mmmedia.containers import described, identify, open_av, signatures
from mmmedia.errors import InvalidMediaError
from support import sounds
from support.clips import clip
from support.scripts import CONCAT, DASH, PLAYLIST, SDP

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
            b"MM\0*\0\0\0\x08" + 9 * b"\x01\x03\0\x03\0\0\0\x01",
            b"MM\0*\0\0\0\x08" + 9 * b"\x01\0\0\x04\0\0\0\x01",
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
                st.sampled_from([magic for magic, _ in signatures._MAGIC] + [b"ID3", b"RIFF", b"FORM", b"G"]),
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
        if data.startswith(textual) or data[4:8] in signatures._FIRST_BOXES:
            return
        with pytest.raises(InvalidMediaError):
            identify(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "It is an HTML page"),
        (b"\n  <HTML lang=de>", "It is an HTML page"),
        (b'{"error": "no such key"}', "It is a JSON text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"%PDF-1.7", "It is a PDF."),
        (b"PK\3\4" + bytes(60), "It is a ZIP archive."),
        (b"\x1f\x8b\x08" + bytes(60), "compressed by gzip."),
    ],
)
def test_what_is_no_media_at_all_is_said_in_words(data: bytes, words: str) -> None:
    """Whatever it was taken for."""
    for load in (mmmedia.load_image, mmmedia.load_video, mmmedia.load_audio):
        with pytest.raises(InvalidMediaError) as raised:
            load(data)
        assert words in str(raised.value)
    assert described(b"\0\1\2 nothing known") == ""


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x67\x64\0\x1f", "h264"),
        (b"\x09\xf0", "h264"),
        (b"\x40\x01\x0c\x01", "hevc"),
        (b"\x46\x01\x50", "hevc"),
        (b"\x1f\xff", None),
        (b"\x80\x01", None),
    ],
)
def test_raw_streams_by_their_first_unit(head: bytes, name: str | None) -> None:
    """Also where no picture follows."""
    data = b"\0\0\0\1" + head + b"\xaa" * 40
    if name is None:
        with pytest.raises(InvalidMediaError):
            identify(data)
    else:
        assert identify(data) == name
