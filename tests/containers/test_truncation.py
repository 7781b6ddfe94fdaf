"""What a file declares beyond its end."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.containers.truncation import is_placeholder, missing_bytes, with_true_length
from mmmedia.errors import InvalidMediaError
from mmmedia.media.audio import load_audio
from support.sounds import BY_FFMPEG, BY_SOUNDFILE, encode, encode_av, flac_declaring, speech_like, wav_header

SPEECH = speech_like(0.2, 16_000)
W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
MAGIC = [
    b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"caff", b"OggS\0", b"\x1a\x45\xdf\xa3", b"\0\0\0\x18ftyp",
    b"ID3", W64, b"\xff\xfb\x90\x00", b"",
]  # fmt: skip


def missing(data: bytes) -> int:
    file = io.BytesIO(data)
    result = missing_bytes(file)
    assert file.tell() == 0
    return result


@pytest.mark.parametrize(
    ("container", "codec", "encoder"),
    [*((*kind, encode) for kind in BY_SOUNDFILE), *((*kind, encode_av) for kind in BY_FFMPEG)],
)
def test_nothing_is_missing_from_a_whole_file(container, codec, encoder):
    rate = 16_000 if encoder is encode else 48_000
    data = encoder(SPEECH, rate, container, codec)
    assert missing(data) == 0
    assert missing(data + b"trailing bytes") == 0
    file = io.BytesIO(data)
    assert with_true_length(file) is file


@pytest.mark.parametrize("container", ["WAV", "RF64", "W64", "AIFF", "AU", "SVX", "CAF", "MP3"])
def test_what_was_cut_off_is_counted_to_the_byte(container):
    data = encode(SPEECH, 16_000, container)
    whole = missing(data[:-1]) - 1  # chunks behind the samples do not count
    assert whole <= 0
    assert missing(data[: len(data) // 2]) == len(data) - len(data) // 2 + whole


def test_mp3_behind_an_id3_tag():
    data = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128) + encode(SPEECH, 16_000, "MP3")
    assert (missing(data), missing(data[:-100])) == (0, 100)


MP3 = b"\xff\xfb\x90\x00" + bytes(32)
CASES = {
    "box of 64-bit size": (struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(50), 50),
    "box to the end": (struct.pack(">I4s", 0, b"mdat") + bytes(50), 0),
    "box of no media": (struct.pack(">I4s", 500, b"free") + bytes(50), 0),
    "boxes side by side": (struct.pack(">I4s", 8, b"free") + struct.pack(">I4s", 20, b"moov"), 12),
    "open-ended segment": (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x01" + b"\xff" * 7 + bytes(9), 0),
    "segment of 100": (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xe4" + bytes(60), 40),
    "EBML of another kind": (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x68\xe4" + bytes(60), 0),
    "EBML of unknown size": (b"\x1a\x45\xdf\xa3\xff\x18\x53\x80\x67\xe4" + bytes(60), 0),
    "EBML of impossible size": (b"\x1a\x45\xdf\xa3\x00" + bytes(60), 0),
    "AU of unknown length": (b".snd" + struct.pack(">II", 24, 0xFFFF_FFFF) + bytes(12), 0),
    "CAF of unknown length": (b"caff" + bytes(4) + struct.pack(">4sq", b"data", -1), 0),
    "W64 without samples": (W64 + bytes(24) + bytes(64), 0),
    "WAV without samples": (b"RIFF" + bytes(4) + b"WAVE" + b"fmt " + bytes(4), 0),
    "AVI": (b"RIFF" + bytes(4) + b"AVI " + b"LIST" + struct.pack("<I", 104) + b"movi", 100),
    "Ogg page cut in its header": (b"OggS\0" + bytes(15), 1),
    "Ogg page cut in its table": (b"OggS\0" + bytes(21) + b"\x05" + b"\x01", 1),
    "Ogg page cut in its body": (b"OggS\0" + bytes(21) + b"\x02" + b"\xff\x03" + bytes(200), 58),
    "Ogg without a page": (b"OggS\x01" + bytes(50), 0),
    "MP3 without a tag": (b"\xff\xfb\x90\x00" + bytes(100), 0),
    "MP3 tag without a size": (MP3 + b"Xing" + struct.pack(">II", 1, 9) + bytes(60), 0),
    "MP3 tag with a size alone": (MP3 + b"Xing" + struct.pack(">II", 2, 99) + bytes(20), 31),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_headers_by_hand(case):
    data, expected = CASES[case]
    assert missing(data) == expected


@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_get_an_answer(magic, rest):
    assert missing(magic + rest) >= 0


@pytest.mark.parametrize("magic", [b"\0\0\0\x08free", b"RIFF\0\0\0\0WAVE", b"caff\0\0\0\0"])
def test_a_million_empty_chunks_are_not_searched_to_the_end(magic):
    class Counting(io.BytesIO):
        reads = 0

        def read(self, size=-1):
            self.reads += 1
            return super().read(size)

    file = Counting(magic + (b"\0\0\0\x08free" if b"free" in magic else b"junk\0\0\0\0") * 200_000)
    assert missing_bytes(file) == 0
    assert file.reads < 60_000


# ------------------------------------------------------------------------------------------------ the rule

# Where in a file its length stands, by how to find it, and how it is written.
FIELDS = {
    "WAV": (b"data", 4, "<I"), "AIFF": (b"SSND", 4, ">I"), "AU": (b".snd", 8, ">I"),
    "CAF": (b"data", 4, ">q"), "W64": (b"data", 16, "<Q"), "RF64": (b"ds64", 16, "<Q"),
    "SVX": (b"BODY", 4, ">I"),
}  # fmt: skip
PLACEHOLDERS = [
    0, 2_000_000_000, 1 << 30, 0x7FFF_FFFF, 0x7FFF_FFFF - 44, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF - 44,
    0x7FFF_F000, 1_000_000_000, 3_000_000_000, 123_456_789,
]  # fmt: skip
CONTAINERS = [
    *((name, "PCM_16") for name in FIELDS),
    ("WAV", "FLOAT"),
    ("AIFF", "ULAW"),
    ("AU", "FLOAT"),
    ("CAF", "ALAW"),
]


def declaring(data: bytes, container: str, length: int) -> bytes:
    """The file with another length in its header."""
    name, offset, code = FIELDS[container]
    at = data.index(name) + offset
    if container in ("CAF", "W64", "RF64") and length == 0xFFFF_FFFF:
        length = -1 if container == "CAF" else (1 << 64) - 1
    field = struct.pack(code, length)
    return data[:at] + field + data[at + len(field) :]


@pytest.mark.parametrize("length", PLACEHOLDERS)
@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_behind_a_placeholder_is_what_is_there(container, codec, length):
    """Whoever streams writes the header first, and one of these numbers."""
    data = encode(SPEECH, 16_000, container, codec)
    streamed = declaring(data, container, length)
    assert missing(streamed) == 0
    expected, rate = load_audio(io.BytesIO(data), sr=None)
    waveform, same_rate = load_audio(io.BytesIO(streamed), sr=None)
    assert same_rate == rate
    assert np.array_equal(waveform[: len(expected)], expected)
    assert len(waveform) - len(expected) <= 400  # chunks behind the samples of a file that was not streamed


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9, 0.99])
@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_behind_a_length_that_was_counted_something_is_missing(container, codec, share):
    """Whatever came of a download that was cut, down to a twentieth of it."""
    data = encode(np.tile(SPEECH, 100), 16_000, container, codec)
    part = data[: int(len(data) * share)]
    with pytest.raises(InvalidMediaError, match="Truncated: "):
        load_audio(io.BytesIO(part))


@pytest.mark.parametrize("order", ["FLAC", "OGG", "MP3", "adts", "mp4", "webm"])
def test_containers_that_do_not_count_bytes_ahead(order):
    """The same question asked of the others: cut is an error where anything tells, streamed is whole."""
    encoder = encode if order.isupper() else encode_av
    codec = {"adts": "aac", "mp4": "aac", "webm": "libopus", "OGG": "VORBIS"}.get(order)
    data = encoder(SPEECH, 48_000, order, codec)
    whole = load_audio(io.BytesIO(data), sr=None)[0]
    with pytest.raises(InvalidMediaError):
        load_audio(io.BytesIO(data[: len(data) // 2]))
    streamed = {
        "FLAC": lambda: flac_declaring(data, 0),
        "MP3": lambda: data.replace(b"Xing" + data[data.index(b"Xing") + 4 :][:4], b"Xing" + bytes(4)),
        "webm": lambda: encode_av(SPEECH, 48_000, order, codec, options={"live": "1"}),
        "mp4": lambda: encode_av(
            SPEECH, 48_000, order, codec, options={"movflags": "frag_keyframe+empty_moov"}
        ),
    }.get(order, lambda: data)()
    assert missing(streamed) == 0
    assert len(load_audio(io.BytesIO(streamed), sr=None)[0]) == pytest.approx(len(whole), abs=1200)


@pytest.mark.parametrize(
    ("length", "there", "can_be_far_off", "expected"),
    [
        (0, 10, True, True), (-1, 10, True, True), (1000, 40, True, False), (100_000, 1600, True, False),
        (100_000, 1500, True, True), (100_000, 1500, False, False), (1 << 30, 1 << 29, False, True),
        ((1 << 30) + 65_536, 1 << 29, True, True), ((1 << 30) + 65_537, 1 << 29, True, False),
        ((1 << 30) - 65_537, 1 << 29, True, False), (999_950_000, 10**8, True, True),
        (65_000, 60_000, True, False), (100_000, 1000, True, False), (1 << 30, 1, True, True),
        ((1 << 63) - 1, 1 << 29, False, True), (1500, 1000, True, False),
    ],
)  # fmt: skip
def test_the_rule(length, there, can_be_far_off, expected):
    assert is_placeholder(length, there, can_be_far_off) is expected


def test_an_empty_sound_before_other_chunks_is_no_placeholder():
    """Zero is meant where what follows are chunks up to the end."""
    data = wav_header() + b"LIST" + struct.pack("<I", 10) + b"INFOhello "
    file = io.BytesIO(data)
    assert with_true_length(file) is file
    with pytest.raises(InvalidMediaError, match="no samples"):
        load_audio(io.BytesIO(data))


@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_bytes_keep_their_length(magic, rest):
    file = with_true_length(io.BytesIO(magic + rest))
    assert len(file.read()) == len(magic + rest)
