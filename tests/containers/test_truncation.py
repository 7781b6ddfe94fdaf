"""What a file declares beyond its end."""

import io
import struct

import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.containers import missing_bytes
from support.sounds import BY_FFMPEG, BY_SOUNDFILE, encode, encode_av, speech_like

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
