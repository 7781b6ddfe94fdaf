"""Sounds that are several files in one, and frames that do not stand where the file begins."""

import io
import math

import av
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.media import sound_files
from mmmedia.media.audio import load_audio, load_audio_pyav, load_audio_soundfile
from mmmedia.media.links import (
    MAX_LINKS,
    adts_frame,
    frames_begin,
    mp3_links,
    mpeg_frame,
    ogg_links,
    opus_rate,
)
from support.sounds import encode, encode_av, sine, speech_like

RATE = 16_000
ID3V2 = b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128)
ID3V2_WITH_FOOTER = b"ID3\x04\x00\x10\x00\x00\x01\x00" + bytes(128) + b"3DI\x04\x00\x10\x00\x00\x01\x00"
ID3V1 = b"TAG" + b"a title".ljust(125, b"\0")
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (40).to_bytes(4, "little") + bytes(16) + bytes(40)


def tones(container: str, codec: str, *, rates: tuple[int, ...], channels: int = 1, seconds: float = 0.6):
    """Files of one tone each, an octave apart, and their frequencies."""
    frequencies = [220 * 2**number for number in range(len(rates))]
    encoder = encode if container.isupper() else encode_av
    files = [
        encoder(sine(frequency, seconds + 0.1 * number, rate, channels), rate, container, codec)
        for number, (frequency, rate) in enumerate(zip(frequencies, rates, strict=True))
    ]
    return files, frequencies


def heard(waveform: np.ndarray, rate: int, begin: float, end: float) -> float:
    """The loudest frequency between two times."""
    part = waveform[int(begin * rate) : int(end * rate)]
    return float(np.abs(np.fft.rfft(part * np.hanning(len(part)))).argmax() * rate / len(part))


def check_sequence(data: bytes, files: list[bytes], frequencies: list[int]) -> None:
    """All of it is there, in order, at the rate of the first, with every loader that reads it."""
    alone = [load_audio(io.BytesIO(file), sr=None) for file in files]
    seconds = [len(waveform) / rate for waveform, rate in alone]
    waveform, rate = load_audio(io.BytesIO(data), sr=None)
    assert rate == alone[0][1]
    assert len(waveform) == pytest.approx(sum(seconds) * rate, abs=2 * len(files))
    if all(each == rate for _, each in alone) and not adts_frame(data[:6]):  # those are one stream
        assert np.array_equal(waveform, np.concatenate([each for each, _ in alone]))
    begin = 0.0
    for length, frequency in zip(seconds, frequencies, strict=True):
        assert heard(waveform, rate, begin + 0.1, begin + length - 0.1) == pytest.approx(frequency, abs=10)
        begin += length


CHAINS = [
    ("OGG", "VORBIS", (48_000,) * 3), ("OGG", "VORBIS", (16_000, 44_100)), ("OGG", "OPUS", (48_000,) * 3),
    ("OGG", "OPUS", (16_000,) * 2), ("OGG", "OPUS", (16_000, 48_000)), ("ogg", "flac", (16_000,) * 3),
    ("ogg", "libopus", (48_000,) * 2), ("MP3", "MPEG_LAYER_III", (16_000,) * 3),
    ("MP3", "MPEG_LAYER_III", (16_000, 44_100, 24_000)), ("mp3", "libmp3lame", (44_100,) * 2),
    ("mp3", "libmp3lame", (48_000, 8_000)), ("mp2", "mp2", (48_000, 24_000)), ("adts", "aac", (48_000,) * 2),
]  # fmt: skip


@pytest.mark.parametrize(("container", "codec", "rates"), CHAINS)
def test_everything_is_returned(container, codec, rates):
    """The first was: 1.0 s of 2.5 s, and no error."""
    files, frequencies = tones(container, codec, rates=rates)
    check_sequence(b"".join(files), files, frequencies)


def test_results_of_0_20(monkeypatch):
    """The first of several, and the bits of libsndfile."""
    for container, codec in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS")):
        files, _ = tones(container, codec, rates=(48_000, 48_000))
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        first = load_audio(io.BytesIO(b"".join(files)), sr=None)[0]
        assert first.tobytes() == load_audio_soundfile(io.BytesIO(files[0]), sr=None)[0].tobytes()
        monkeypatch.delenv("MMMEDIA_COMPAT")
        assert len(load_audio(io.BytesIO(b"".join(files)), sr=None)[0]) > 2 * len(first)


def test_ogg_links_of_different_codecs():
    files = [
        encode(sine(220, 0.6, 48_000), 48_000, "OGG", "VORBIS"),
        encode(sine(440, 0.7, 48_000), 48_000, "OGG", "OPUS"),
        encode_av(sine(880, 0.8, 48_000), 48_000, "ogg", "flac"),
    ]
    check_sequence(b"".join(files), files, [220, 440, 880])


@pytest.mark.parametrize("loader", [load_audio_soundfile, load_audio_pyav])
def test_each_way_by_name_returns_everything(loader):
    for container, codec in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        files, _ = tones(container, codec, rates=(RATE, RATE))
        waveform, _ = loader(io.BytesIO(b"".join(files)), sr=None)
        assert len(waveform) == pytest.approx(1.3 * RATE, abs=576)


@pytest.mark.parametrize(
    "between",
    [
        b"",
        ID3V2,
        ID3V2 + ID3V2,
        ID3V2_WITH_FOOTER,
        ID3V1,
        ID3V1 + ID3V2,
        APE,
        APE + ID3V1,
        bytes(1000),
        b"\xff" * 50,
        b"?" * 300,
    ],
    ids=[
        "nothing",
        "ID3v2",
        "twice",
        "footer",
        "ID3v1",
        "both",
        "APE",
        "APE and ID3v1",
        "zeros",
        "ones",
        "text",
    ],
)
def test_whatever_stands_between_mp3_files(between):
    """Tags, padding and stray bytes belong to no sound."""
    files, frequencies = tones("MP3", "MPEG_LAYER_III", rates=(RATE, RATE, RATE))
    check_sequence(between.join(files), files, frequencies)
    for tag in (ID3V2, ID3V2_WITH_FOOTER, ID3V2 + ID3V2):
        check_sequence(tag + between.join(files) + ID3V1, files, frequencies)


def test_mono_and_stereo():
    """One channel is in all; the mean is the mean of each."""
    stereo = encode(sine(440, 0.5, RATE, 2), RATE, "MP3")
    mono = encode(sine(220, 0.5, RATE), RATE, "MP3")
    for data in (stereo + mono, mono + stereo):
        both, _ = load_audio(io.BytesIO(data), sr=None, mono=False)
        assert both.shape == (2, 2 * 8000)
        mean, _ = load_audio(io.BytesIO(data), sr=None)
        np.testing.assert_allclose(mean, both.mean(axis=0), atol=1e-6)
        mean[0] = 1  # the caller's own


def without_tag(data: bytes) -> bytes:
    frame = mpeg_frame(data[:4])
    assert frame is not None
    assert b"Xing" in data[: frame.length] or b"Info" in data[: frame.length]
    return data[frame.length :]


def test_frames_without_a_tag_behind_a_file_whose_tag_counts_its_own():
    """What speech servers send: one header for the first sentence."""
    files, _ = tones("MP3", "MPEG_LAYER_III", rates=(RATE, RATE))
    waveform, _ = load_audio(io.BytesIO(files[0] + without_tag(files[1])), sr=None)
    assert len(waveform) == pytest.approx(1.3 * RATE, abs=2 * 1152)
    assert heard(waveform, RATE, 0.75, 1.2) == pytest.approx(440, abs=10)


@pytest.mark.parametrize("counted", [0, 3, 0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_tag_that_does_not_count_its_own_frames(counted):
    """A placeholder, and a count that its server never came back to; the frames are what is there."""
    data = bytearray(encode(speech_like(1, RATE), RATE, "MP3"))
    at = data.index(b"Xing")
    assert data[at + 7] & 1
    data[at + 8 : at + 12] = counted.to_bytes(4)
    data[at + 7] = 1
    waveform, _ = load_audio(io.BytesIO(data), sr=None)
    assert len(waveform) == pytest.approx(RATE, abs=2 * 1152)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_frames_of_varying_bit_rates_without_a_tag(rate, channels):
    """By the length of the first frame there would be half as many, or twice."""
    wave = speech_like(1.5, rate, channels)
    data = without_tag(encode(wave, rate, "MP3"))
    for loader in (load_audio, load_audio_soundfile):
        waveform, _ = loader(io.BytesIO(data), sr=None)
        assert len(waveform) == pytest.approx(len(wave), abs=2.5 * 1152)


def constant(seconds: float, rate: int, bits: int, codec: str = "libmp3lame", channels: int = 1) -> bytes:
    """MPEG audio at a constant bit rate that begins with its first frame, as recorders and radio send it."""
    buffer, wave = io.BytesIO(), sine(440, seconds, rate, channels).reshape(-1, channels)
    container = "mp3" if codec == "libmp3lame" else "mp2"
    untagged = {"write_xing": "0", "id3v2_version": "0"} if container == "mp3" else {}
    with av.open(buffer, "w", format=container, options=untagged) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.bit_rate, layout = bits, "stereo" if channels == 2 else "mono"
        stream.layout = layout
        samples = (wave * 32_000).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate = rate
        for part in av.AudioResampler(stream.format, layout, rate, frame_size=1152).resample(frame):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def decoded(data: bytes) -> int:
    """How many samples there are, of all frames."""
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


PICTURE = b"ID3\x04\x00\x00\x00\x06\x00\x00" + bytes(6 << 14)
APE_PICTURE = APE[:12] + (90_032).to_bytes(4, "little") + bytes(16) + bytes(90_000)


@pytest.mark.parametrize("padded", [False, True], ids=["", "a longer frame first"])
@pytest.mark.parametrize(
    ("rate", "bits"), [(44_100, 32_000), (22_050, 8_000), (11_025, 8_000), (24_000, 32_000)]
)
def test_all_of_a_constant_bit_rate(rate: int, bits: int, padded: bool) -> None:
    """By the length of the first frame there are more than there are, or less: refused, or cut."""
    data = constant(25, rate, bits)
    while padded and rate % 2_000 and not data[2] & 2:
        frame = mpeg_frame(data[:4])
        assert frame is not None
        data = data[frame.length :]
    for loader in (load_audio, load_audio_soundfile, load_audio_pyav):
        assert len(loader(io.BytesIO(data), sr=None)[0]) == decoded(data)


@pytest.mark.parametrize(
    ("front", "behind"), [(PICTURE, b""), (b"", APE_PICTURE), (PICTURE, APE_PICTURE + ID3V1)]
)
@pytest.mark.parametrize("codec", ["libmp3lame", "mp2"])
def test_pictures_in_tags_are_no_sound(codec: str, front: bytes, behind: bytes, monkeypatch) -> None:
    """They were: more samples declared than there were, and too long for a limit."""
    data = constant(5, 48_000, 64_000, codec)
    monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "5.2")
    expected, _ = load_audio(io.BytesIO(data), sr=None)
    assert len(expected) == decoded(data)
    waveform, _ = load_audio(io.BytesIO(front + data + behind), sr=None)
    assert np.array_equal(waveform, expected)


def test_a_guess_that_is_far_off_makes_nothing_large() -> None:
    """A file is lengthened by a fourth at most, so that libsndfile sees all of it."""
    file = sound_files.Uncounted(constant(1, 24_000, 32_000), 10**12)
    assert len(sound_files._lengthened(file, 1).read()) < 2 * len(file.getvalue()) + 4096
    with pytest.raises(InvalidMediaError, match="Broken or truncated"):
        sound_files.decode_soundfile(file, True, sound_files.Length())


def test_a_constant_bit_rate_as_long_as_the_limit(monkeypatch) -> None:
    data = constant(30, 44_100, 32_000)
    monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "30")
    assert len(load_audio(io.BytesIO(data), sr=None)[0]) == decoded(data)
    monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "29.5")
    with pytest.raises(LimitExceededError, match=r"over the limit of 29\.5 s"):
        load_audio(io.BytesIO(data))


def whole(data: bytes) -> list[bytes]:
    """The files of which one is made, none of which needs its samples counted."""
    links = mp3_links(data)
    assert {link.samples for link in links} == {None}
    return [link.data for link in links]


def test_one_file_is_left_alone():
    """Bit for bit what it was, whatever tags it has."""
    for container, codec in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        data = encode(speech_like(0.5, RATE), RATE, container, codec)
        assert (ogg_links(data) if container == "OGG" else whole(data)) == [data]
    data = ID3V2 + encode(speech_like(0.5, RATE), RATE, "MP3") + APE + ID3V1
    assert whole(data) == [data]


def test_streams_side_by_side_are_no_chain():
    """Sound beside another stream in one Ogg file: their pages are mixed, both begin at its beginning."""
    pages = [b"OggS\0" + bytes([kind]) + bytes(20) + b"\1\1." for kind in (2, 2, 0, 0, 4)]
    data = b"".join(pages)
    assert ogg_links(data) == [data]
    assert ogg_links(data + data) == [data, data]


def test_a_link_that_is_cut_is_no_half_result():
    for container, codec, cut in (
        ("OGG", "VORBIS", -100),
        ("OGG", "OPUS", -100),
        ("MP3", "MPEG_LAYER_III", -300),
    ):
        files, _ = tones(container, codec, rates=(RATE, RATE))
        for data in (files[0] + files[1][:cut], files[0][:cut] + files[1]):
            with pytest.raises(InvalidMediaError, match="Truncated"):
                load_audio(io.BytesIO(data))


def test_limits_are_those_of_the_whole(monkeypatch):
    for container, codec in (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")):
        file = encode(speech_like(1, RATE), RATE, container, codec)
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "3")
        assert len(load_audio(io.BytesIO(file * 3), sr=None)[0]) == 3 * RATE
        with pytest.raises(LimitExceededError, match=r"lasts 4\.0 s or more, over the limit of 3 s"):
            load_audio(io.BytesIO(file * 4))
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_BYTES", str(8 * RATE))
        with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_BYTES"):
            load_audio(io.BytesIO(file * 3))
        monkeypatch.delenv("VLLM_MAX_AUDIO_DECODE_BYTES")


def test_thousands_of_links_are_refused():
    page = b"OggS\0\2" + bytes(20) + b"\1\1." + b"OggS\0\0" + bytes(20) + b"\1\1."
    assert len(ogg_links(page * MAX_LINKS)) == MAX_LINKS
    frame = encode(speech_like(0.1, RATE), RATE, "MP3")
    for data in (page * (MAX_LINKS + 1), frame * (MAX_LINKS + 1)):
        with pytest.raises(InvalidMediaError, match="thousands of files"):
            load_audio(io.BytesIO(data))


# ---------------------------------------------------------------------------------- where frames begin

SPOKEN = {
    "mp3": encode(speech_like(1, RATE), RATE, "MP3"),
    "mp3, stereo": encode(speech_like(1, 44_100, 2), 44_100, "MP3"),
    "mp3, constant": encode_av(speech_like(1, 44_100, 2), 44_100, "mp3", "libmp3lame"),
    "mp2": encode_av(speech_like(1, 48_000), 48_000, "mp2", "mp2"),
    "adts": encode_av(speech_like(1, 48_000, 2), 48_000, "adts", "aac"),
}


@pytest.mark.parametrize("cut", [1, 3, 50, 100, 300, 700])
@pytest.mark.parametrize("kind", SPOKEN)
def test_a_sound_that_begins_within_a_frame(kind, cut):
    """A download that was resumed, a radio that was tuned in: the rest of the frame is skipped."""
    data = SPOKEN[kind]
    data = data[data.index(b"\xff") + cut :]
    whole, rate = load_audio(io.BytesIO(SPOKEN[kind]), sr=None)
    waveform, same_rate = load_audio(io.BytesIO(data), sr=None)
    assert same_rate == rate
    assert len(whole) - 5 * 1152 < len(waveform) < len(whole) + 2 * 1152


@pytest.mark.parametrize(
    "text", [b"ICY 200 OK\r\nicy-name: a radio\r\n\r\n", b"\r\n", b"x" * 1000, bytes(700), b"\xff\xfb" * 9]
)
@pytest.mark.parametrize("kind", SPOKEN)
def test_a_sound_behind_some_text(kind, text):
    data = SPOKEN[kind]
    data = data[data.index(b"\xff") :]
    expected = load_audio(io.BytesIO(data), sr=None)[0]
    assert np.array_equal(load_audio(io.BytesIO(text + data), sr=None)[0], expected)


def test_frames_are_believed_by_their_number():
    """Three of one kind, or two at the end of the file; a header alone is no sound."""
    frame = b"\xff\xfb\x90\x00".ljust(417, b"\0")
    assert mpeg_frame(frame[:4]).length == 417
    assert [frames_begin(b"text" + frame * count) for count in (0, 1, 2, 3)] == [None, None, 4, 4]
    assert frames_begin(frame * 2 + b"and more") is None
    assert frames_begin(bytes(4096) + frame * 3) is None
    other = b"\xff\xfb\x94\x00".ljust(384, b"\0")
    assert frames_begin(frame + other + frame) is None
    adts = b"\xff\xf1\x50\x80\x02\x1f\xfc".ljust(16, b"\0")
    assert adts_frame(adts).length == 16
    assert frames_begin(b"text" + adts * 3) == 4
    for data in (b"hello, this is no sound\n" * 200, b"\xff" * 5000, bytes(5000), frame, b""):
        with pytest.raises(InvalidMediaError):
            load_audio(io.BytesIO(data))


def test_scripts_before_frames_are_still_no_scripts():
    """What is decoded are the frames; nothing of what stands before them is followed."""
    script = b"ffconcat version 1.0\nfile /etc/hostname\n"
    expected = load_audio(io.BytesIO(SPOKEN["mp3"]), sr=None)[0]
    assert np.array_equal(load_audio(io.BytesIO(script + SPOKEN["mp3"]), sr=None)[0], expected)
    with pytest.raises(InvalidMediaError, match="concat script"):
        load_audio(io.BytesIO(script))


@pytest.mark.parametrize(
    ("header", "length", "kind"),
    [
        ("fffb9000", 417, (3, 3, 44_100, False)), ("fffb92c0", 418, (3, 3, 44_100, True)),
        ("fff388c4", 288, (2, 3, 16_000, True)), ("ffe318c4", 72, (0, 3, 8_000, True)),
        ("fffd8400", 384, (3, 2, 48_000, False)), ("ffff9400", 288, (3, 1, 48_000, False)),
        ("fff58400", 384, (2, 2, 24_000, False)), ("ffffffff", None, None), ("fffb0000", None, None),
        ("fffbf000", None, None), ("fffb9c00", None, None), ("ffe9_9000".replace("_", ""), None, None),
        ("00000000", None, None), ("fffb", None, None),
    ],
)  # fmt: skip
def test_headers(header, length, kind):
    frame = mpeg_frame(bytes.fromhex(header))
    assert frame == (None if length is None else (length, kind))


def test_opus_rates():
    for rate, expected in ((8000, 8000), (16_000, 16_000), (48_000, 48_000)):
        assert opus_rate(encode(sine(440, 0.1, rate), rate, "OGG", "OPUS")) == expected
    assert opus_rate(encode(sine(440, 0.1, RATE), RATE, "OGG", "VORBIS")) is None
    assert opus_rate(b"") is None


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_has_the_samples_of_libsndfile(channels):
    """FFmpeg's own decoder, twice as fast, has others: of speech at few bits, of stereo at any."""
    for wave in (speech_like(1, 48_000, channels), sine(3000, 1, 48_000, channels)):
        for bits in (12_000, 24_000, 64_000):
            data = _opus(wave, bits)
            ours, _ = load_audio(io.BytesIO(data), sr=None, mono=False)
            theirs, _ = load_audio_soundfile(io.BytesIO(data), sr=None, mono=False)
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() < 1e-6


def _opus(wave: np.ndarray, bit_rate: int) -> bytes:
    import av

    file, layout = io.BytesIO(), "mono" if wave.ndim == 1 else "stereo"
    with av.open(file, "w", format="ogg") as output:
        track = output.add_stream("libopus", rate=48_000, options={"application": "voip"})
        track.layout, track.bit_rate = layout, bit_rate
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(np.atleast_2d(wave.T)), "fltp", layout)
        frame.sample_rate, frame.pts = 48_000, 0
        converter = av.AudioResampler(format=track.format, layout=layout, rate=48_000)
        for part in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(track.encode(part))
        output.mux(track.encode(None))
    return file.getvalue()


PIECES = [
    *SPOKEN.values(),
    ID3V2,
    ID3V1,
    APE,
    encode(sine(440, 0.3, 48_000), 48_000, "OGG", "VORBIS"),
    b"\xff",
    b"OggS\0\2",
]


@given(
    st.lists(st.tuples(st.sampled_from(PIECES), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
)
@settings(max_examples=150, deadline=None)
def test_any_mixture_is_a_sound_or_an_error_of_ours(pieces, edits):
    data = bytearray()
    for piece, begin, end in pieces:
        low, high = sorted((int(begin * len(piece)), math.ceil(end * len(piece))))
        data += piece[low:high] if begin < 0.7 else piece
    for where, value in edits:
        if data:
            data[int(where * (len(data) - 1))] = value
    try:
        waveform, rate = load_audio(io.BytesIO(data), sr=None)
    except ValueError:
        return
    assert waveform.ndim == 1
    assert np.isfinite(waveform).all()
    assert rate > 0


@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\xff\xfb\x90\x00", b"ID3", b"OggS\0", b"APETAGEX", b"TAG"]),
)
@settings(max_examples=300, deadline=None)
def test_links_of_any_bytes(rest, head):
    data = head + rest
    assert len((frames_begin(data) is not None and data) or b"") <= len(data)
    assert b"".join(ogg_links(data)) == data
    assert mp3_links(data)


@pytest.mark.parametrize("counted", [0, 1, 5, 1 << 30])
@pytest.mark.parametrize("more", [0, 1, 3])
def test_a_tag_with_no_frame_behind_it_is_left_as_it_is(counted: int, more: int) -> None:
    """Found by the fuzz session: there is no frame after which another tag could be made."""
    head = bytes([0xFF, 0xFB, 0x90, 0x64])
    frame = mpeg_frame(head)
    assert frame is not None
    tag = head + bytes(32) + b"Xing" + (1).to_bytes(4) + counted.to_bytes(4)
    data = tag.ljust(frame.length, b"\0") + head[:more]
    assert whole(data) == [data]
