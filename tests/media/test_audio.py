"""Encoded sound to waveforms: equality with soundfile, FFmpeg for the rest, limits, hostile files."""

import io
import math
import struct
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings, strategies as st

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError
from mmmedia.media import AudioEmbeddingMediaIO, AudioMediaIO, sound_files
from mmmedia.media.audio import load_audio, load_audio_pyav, load_audio_soundfile
from support.sounds import (
    BY_FFMPEG,
    BY_SOUNDFILE,
    encode,
    encode_av,
    flac_declaring,
    sine,
    speech_like,
    wav_header,
    wav_of_unknown_length,
)

RATE = 16_000
SPEECH = speech_like(0.5, RATE, channels=2)


def read(data, **kwargs):
    """What librosa and engines do; `soundfile.read` seeks first, after which MP3 differs in its last bits."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return file.read(dtype="float32", **kwargs), file.samplerate


def in_soundfile(container, codec, wave=SPEECH, rate=RATE):
    if container == "SVX":
        wave = wave[:, 0]
    return encode(wave, rate, container, codec)


def in_ffmpeg(container, codec, wave=None, rate=48_000, **options):
    return encode_av(
        speech_like(0.5, rate, channels=2) if wave is None else wave, rate, container, codec, **options
    )


# ---------------------------------------------------------------------------------- what soundfile reads


@pytest.mark.parametrize(("container", "codec"), BY_SOUNDFILE)
class TestEqualityWithSoundfile:
    def test_native_mono_is_the_mean_of_what_soundfile_reads(self, container, codec):
        data = in_soundfile(container, codec)
        expected, rate = read(data)
        expected = expected if expected.ndim == 1 else expected.T.mean(axis=0)
        waveform, sampling_rate = AudioMediaIO().load_bytes(data)
        assert waveform.tobytes() == expected.tobytes()
        assert (waveform.shape, waveform.dtype) == (expected.shape, np.float32)
        assert (sampling_rate, type(sampling_rate)) == (rate, int)

    def test_channels_and_resampling_are_librosas(self, container, codec):
        data = in_soundfile(container, codec)
        for mono in (True, False):
            expected, rate = read(data, always_2d=not mono)
            expected = librosa.to_mono(expected.T) if mono else expected.T
            expected = librosa.resample(expected, orig_sr=rate, target_sr=24_000)
            waveform, sampling_rate = load_audio(io.BytesIO(data), sr=24_000, mono=mono)
            assert waveform.tobytes() == expected.tobytes()
            assert sampling_rate == 24_000
            assert waveform.flags.c_contiguous
            assert waveform.ndim == (1 if mono else 2)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 7, 8, 9, 16])
def test_the_mean_is_numpys_for_any_number_of_channels(channels):
    wave = np.random.default_rng(channels).uniform(-1, 1, (1001, channels)).astype(np.float32)
    wave[::7] = 0.0
    wave[3::7] = -0.0
    data = encode(wave, RATE, "WAV", "FLOAT")
    samples = read(data, always_2d=True)[0].T
    mean = samples[0] if channels == 1 else samples.mean(axis=0)
    assert load_audio(io.BytesIO(data), sr=None)[0].tobytes() == mean.tobytes()
    assert load_audio(io.BytesIO(data), sr=None, mono=False)[0].tobytes() == samples.tobytes()
    assert load_audio(io.BytesIO(data))[1] == 22_050


def test_float_samples_beyond_one_are_kept():
    wave = np.float32([0, 1.5, -3])
    assert AudioMediaIO().load_bytes(encode(wave, RATE, "WAV", "FLOAT"))[0].tolist() == wave.tolist()


@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_F000, 0xFFFF_FFFF - 44, 0])
def test_a_wav_written_into_a_pipe_is_read_to_its_end(length):
    data = wav_of_unknown_length(SPEECH, RATE, length)
    assert np.array_equal(
        AudioMediaIO().load_bytes(data)[0], AudioMediaIO().load_bytes(encode(SPEECH, RATE))[0]
    )


@pytest.mark.parametrize("rate", [8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.3, 0.5, 1.0, 1.7, 2.5])
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_in_wav(rate, seconds, channels):
    """The tolerance belongs to the codec: all 90 were refused, short by 104 to 1628 samples."""
    wave = sine(440, seconds, rate, channels)
    waveform, same_rate = AudioMediaIO().load_bytes(in_ffmpeg("wav", "libmp3lame", wave, rate))
    assert same_rate == rate
    assert 0 <= len(waveform) - len(wave) < 3 * 1152
    assert np.abs(waveform).max() == pytest.approx(
        np.abs(wave.reshape(len(wave), -1).mean(axis=1)).max(), abs=0.05
    )


def test_ima_adpcm_has_the_samples_of_libsndfile():
    """FFmpeg takes half the time; what it does not read, libsndfile does."""
    data = encode(SPEECH, RATE, "WAV", "IMA_ADPCM")
    assert (
        AudioMediaIO().load_bytes(data)[0].tobytes()
        == load_audio_soundfile(io.BytesIO(data), sr=None)[0].tobytes()
    )


def test_a_flac_written_into_a_pipe_is_read_to_its_end():
    data = encode(SPEECH, RATE, "FLAC")
    streamed = AudioMediaIO().load_bytes(flac_declaring(data, 0))[0]
    assert np.array_equal(streamed, AudioMediaIO().load_bytes(data)[0])


# ------------------------------------------------------------------------------------- what FFmpeg reads


@pytest.mark.parametrize(("container", "codec"), BY_FFMPEG)
def test_ffmpeg_reads_what_libsndfile_does_not(container, codec):
    wave = sine(440, 0.5, 48_000, channels=2)
    data = in_ffmpeg(container, codec, wave)
    with pytest.raises(InvalidMediaError, match="Invalid or unsupported audio file"):
        load_audio_soundfile(io.BytesIO(data))
    waveform, rate = AudioMediaIO().load_bytes(data)
    assert (rate, type(rate), waveform.dtype) == (48_000, int, np.float32)
    assert 0 <= len(waveform) - len(wave) < 4_000
    spectrum = np.abs(np.fft.rfft(waveform[4_800:9_600])) / 2_400  # ten hertz apart
    assert np.argmax(spectrum) == 44
    assert spectrum[44] == pytest.approx(0.375, abs=0.03)


@pytest.mark.parametrize(
    ("container", "codec"), [("matroska", "flac"), ("matroska", "pcm_s16le"), ("mov", "pcm_s24le")]
)
def test_lossless_tracks_come_out_as_their_own_samples(container, codec):
    wave = (np.round(speech_like(3.1, RATE, channels=2) * 32_768) / 32_768).astype(np.float32)
    channels, rate = load_audio(io.BytesIO(in_ffmpeg(container, codec, wave, RATE)), sr=None, mono=False)
    assert rate == RATE
    assert np.array_equal(channels, wave.T)
    assert channels.flags.c_contiguous


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "flac", "alac"]
)
def test_both_ways_agree_on_the_scale_of_samples(codec):
    wave = np.float32([-1, -0.5, 0, 0.5, 0.25] * 200)
    container = {"alac": "mov", "flac": "flac"}.get(codec, "wav")
    data = in_ffmpeg(container, codec, wave, RATE)
    waveform = load_audio_pyav(io.BytesIO(data), sr=None)[0]
    if codec != "alac":
        assert np.array_equal(waveform, load_audio_soundfile(io.BytesIO(data), sr=None)[0])
    assert np.abs(waveform[: len(wave)] - wave).max() <= (1 / 100 if codec == "pcm_u8" else 1 / 32_000)


def test_the_sound_of_a_video_is_its_first_audio_track():
    wave = sine(440, 0.8, 48_000)
    waveform, rate = load_audio(io.BytesIO(in_ffmpeg("mp4", "aac", wave, video=True)), sr=16_000)
    assert rate == 16_000
    assert len(waveform) == pytest.approx(0.8 * 16_000, abs=1_000)
    assert np.abs(waveform).max() > 0.4


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_a_video_without_sound_says_so(container):
    data = in_ffmpeg(container, "", video=True, audio=False)
    with pytest.raises(ValueError, match="No audio stream found"):
        AudioMediaIO().load_bytes(data)


def _aac_of_16_channels(wave: np.ndarray) -> bytes:
    file, layout = io.BytesIO(), "hexadecagonal"
    with av.open(file, "w", format="mp4") as output:
        track = output.add_stream("aac", rate=48000, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave.T).reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts = 48000, 0
        converter = av.AudioResampler(format=track.format, layout=layout, rate=48000)
        for part in [*converter.resample(frame), *converter.resample(None)]:
            output.mux(track.encode(part))
        output.mux(track.encode(None))
    return file.getvalue()


def _wav_of_64_bits(wave: np.ndarray) -> bytes:
    samples = (wave.T.astype(np.float64) * 2.0**63).astype("<i8")
    channels = len(wave)
    kind = struct.pack("<HHIIHH", 1, channels, 48000, 48000 * 8 * channels, 8 * channels, 64)
    body = samples.tobytes()
    chunks = b"WAVEfmt " + struct.pack("<I", len(kind)) + kind + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize(
    ("encoded", "channels"), [(_wav_of_64_bits, 8), (_wav_of_64_bits, 15), (_aac_of_16_channels, 16)]
)
def test_more_channels_than_a_frame_has_planes(encoded: Callable[[np.ndarray], bytes], channels: int) -> None:
    """PyAV looks for planes beyond the eighth wherever the memory leads; found by the fuzz session."""
    tones = [sine(200 + 50 * channel, 0.1, 48000) for channel in range(channels)]
    wave = np.stack(tones)
    data = encoded(wave)
    for _ in range(20):
        loaded, rate = load_audio(io.BytesIO(data), sr=None, mono=False)
        assert (rate, len(loaded)) == (48000, channels)
        if encoded is _wav_of_64_bits:
            np.testing.assert_allclose(loaded, wave, atol=1e-6)
        else:
            for channel, tone in zip(loaded, tones, strict=True):
                loudest = np.abs(np.fft.rfft(channel[1024:5120] * np.hanning(4096))).argmax() * 48000 / 4096
                expected = np.abs(np.fft.rfft(tone[:4096] * np.hanning(4096))).argmax() * 48000 / 4096
                assert abs(loudest - expected) < 30


def test_surround_sound_is_averaged_like_numpy_does():
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, (4_000, 6)).astype(np.float32)
    data = in_ffmpeg("matroska", "pcm_f32le", wave, RATE)
    assert np.array_equal(AudioMediaIO().load_bytes(data)[0], wave.T.mean(axis=0))


def test_a_stream_whose_format_changes_midway_goes_on_in_the_first_format():
    first = in_ffmpeg("adts", "aac", sine(440, 1, 48_000, channels=2))
    second = in_ffmpeg("adts", "aac", sine(440, 1, 24_000), 24_000)
    for mono in (True, False):
        waveform, rate = load_audio(io.BytesIO(first + second), sr=None, mono=mono)
        assert rate == 48_000
        assert waveform.shape[-1] == pytest.approx(2 * 48_000, abs=8_000)
    assert waveform.shape[0] == 2


def test_channel_counts_that_do_not_fit_each_other_are_an_error():
    first = in_ffmpeg("adts", "aac", sine(440, 0.5, 48_000, channels=2))
    second = in_ffmpeg("adts", "aac", sine(440, 0.5, 48_000, channels=6))
    with pytest.raises(ValueError, match="number of channels changes midway"):
        load_audio(io.BytesIO(first + second), mono=False)


# ------------------------------------------------------------------------------ paths, objects, base64


def test_paths_and_file_objects(tmp_path):
    data = encode(SPEECH, RATE, "FLAC")
    file = tmp_path / "voice.raw"  # a name that soundfile would take for headerless samples
    file.write_bytes(data)
    expected = AudioMediaIO().load_bytes(data)[0]
    memory = io.BytesIO(data)
    memory.seek(7)
    with file.open("rb") as opened:
        for source in (file, str(file), memory, opened):
            assert np.array_equal(load_audio(source, sr=None)[0], expected)
    assert memory.tell() == 7
    assert not memory.closed
    assert np.array_equal(AudioMediaIO().load_file(file)[0], expected)
    movie = tmp_path / "movie.mp4"
    movie.write_bytes(in_ffmpeg("mp4", "aac", video=True))
    assert AudioMediaIO().load_file(movie)[1] == 48_000


def test_a_path_is_never_a_url(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_audio("http://127.0.0.1:9/voice.wav")
    with pytest.raises(IsADirectoryError):
        load_audio(tmp_path)


@pytest.mark.parametrize("audio_format", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_base64_round_trip(audio_format):
    audio_io = AudioMediaIO(a_keyword=1)
    encoded = audio_io.encode_base64((SPEECH, RATE), audio_format=audio_format)
    waveform, rate = audio_io.load_base64("audio/whatever", encoded)
    assert audio_io.kwargs == {"a_keyword": 1}
    assert rate == RATE
    assert len(waveform) == len(SPEECH)
    assert np.abs(waveform - SPEECH.mean(axis=1)).mean() < 0.01


def test_minutes_of_sound_are_encoded_to_ogg():
    minutes = np.zeros((44_100 * 90, 2), np.float32)
    encoded = AudioMediaIO().encode_base64((minutes, 44_100), audio_format="OGG")
    assert AudioMediaIO().load_base64("audio/ogg", encoded)[0].shape == (len(minutes),)


def test_base64_with_a_bad_character():
    encoded = AudioMediaIO().encode_base64((SPEECH, RATE))
    with pytest.raises(ValueError, match="Invalid base64"):
        AudioMediaIO().load_base64("audio/wav", encoded[:-5] + "!" + encoded[-4:])


@pytest.mark.parametrize(
    ("media", "audio_format"),
    [
        ((SPEECH, RATE), "JPEG"),
        ((SPEECH, 0), "WAV"),
        ((np.zeros((2, 2, 2)), RATE), "WAV"),
        ((SPEECH, 12_345), "OPUS"),
    ],
)
def test_what_soundfile_cannot_write(media, audio_format):
    with pytest.raises(InvalidArgumentError, match="Can't write audio of shape"):
        AudioMediaIO().encode_base64(media, audio_format=audio_format)


def test_audio_embeddings_round_trip():
    torch = pytest.importorskip("torch")
    embedding = torch.randn(3, 8).to(torch.bfloat16)
    loader = AudioEmbeddingMediaIO()
    assert torch.equal(loader.load_base64("", loader.encode_base64(embedding)), embedding)


@pytest.mark.parametrize("sr", [0, -5, math.nan, math.inf, 10**9])
def test_an_impossible_rate_is_refused(sr):
    with pytest.raises(ValueError, match=r"positive number|over the limit"):
        load_audio(io.BytesIO(encode(SPEECH, RATE)), sr=sr)


# --------------------------------------------------------------------------------------------- hostile

WAV = encode(SPEECH, RATE)
ID3_100_MB = (
    b"ID3\x04\x00\x00" + bytes([100 << 20 >> shift & 127 for shift in (21, 14, 7, 0)]) + bytes(100 << 20)
)

INVALID = {
    "empty": b"",
    "one byte": b"R",
    "text": b"hello, this is no sound at all\n" * 50,
    "zeros": bytes(5_000),
    "sampler dump": encode(SPEECH[:, 0], RATE, "SDS"),
    "MATLAB": encode(SPEECH, RATE, "MAT5"),
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "ffconcat": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "playlist": b"#EXTM3U\n#EXTINF:9,\nfile:///etc/hostname\n",
    "header over garbage": b"RIFF\x00\x10\x00\x00WAVE" + bytes(range(256)) * 16,
    "header alone": WAV[:44],
    "no samples": wav_header(),
    "no samples, FLAC": encode(np.zeros((0, 1)), RATE, "FLAC"),
    "no samples, Ogg": encode(np.zeros((0, 1)), RATE, "OGG"),
    "0 channels": wav_header(channels=0, body=bytes(800)),
    "65535 channels": wav_header(channels=65_535, body=bytes(800)),
    "0 Hz": wav_header(rate=0, body=bytes(800)),
    "2^32 - 1 Hz": wav_header(rate=0xFFFF_FFFF, body=bytes(800)),
    "0 bits": wav_header(bits=0, body=bytes(800)),
    "FLAC declares too much": flac_declaring(encode(SPEECH, RATE, "FLAC"), 9_000),
    "NaN": encode(np.float32([0, math.nan, 0]), RATE, "WAV", "FLOAT"),
    "infinite": encode(np.float32([[0, 0], [math.inf, -math.inf]]), RATE, "WAV", "FLOAT"),
    "too large for float32": encode(np.array([1e300]), RATE, "WAV", "DOUBLE"),
    "too large for float32, Matroska": in_ffmpeg(
        "matroska", "pcm_f64le", np.float32([1e38] * 9), RATE
    ).replace(np.float64(np.float32(1e38)).tobytes(), np.float64(1e300).tobytes()),
    "NaN in Matroska": in_ffmpeg("matroska", "pcm_f32le", np.float32([math.nan] * 100), RATE),
    "ID3 tag of 100 MB and nothing": ID3_100_MB,
}


@pytest.mark.parametrize("kind", INVALID)
def test_what_is_no_sound_has_one_clear_error(kind, monkeypatch):
    monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "0")
    with pytest.raises(InvalidMediaError, match=r"^Invalid or unsupported audio file\. \S") as caught:
        AudioMediaIO().load_bytes(INVALID[kind])
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 300
    assert "BytesIO" not in str(caught.value)


def test_scripts_are_named_and_open_nothing(tmp_path):
    target = tmp_path / "secret.wav"
    target.write_bytes(WAV)
    script = f"ffconcat version 1.0\nfile {target}\n".encode()
    for load in (load_audio, load_audio_pyav):
        with pytest.raises(ValueError, match="concat script"):
            load(io.BytesIO(script))
    (tmp_path / "list.wav").write_bytes(script)
    with pytest.raises(ValueError, match="concat script"):
        load_audio(tmp_path / "list.wav")


def test_sound_behind_an_id3_tag_of_100_mb(monkeypatch):
    monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "0")
    waveform, rate = AudioMediaIO().load_bytes(ID3_100_MB + encode(SPEECH, RATE, "MP3"))
    assert rate == RATE
    assert len(waveform) == pytest.approx(len(SPEECH), abs=3_000)


TRUNCATED = [
    *((container, codec, encode) for container, codec in BY_SOUNDFILE),
    # A transport stream is open-ended: FFmpeg drops the frame that was cut, and nothing tells.
    *((container, codec, encode_av) for container, codec in BY_FFMPEG if container != "mpegts"),
]


@pytest.mark.parametrize("cut", [0.05, 0.5, 0.9, "10 bytes"])
@pytest.mark.parametrize(("container", "codec", "encoder"), TRUNCATED)
def test_a_file_cut_short_is_never_half_a_result(container, codec, encoder, cut):
    data = in_soundfile(container, codec) if encoder is encode else in_ffmpeg(container, codec)
    if (container, cut) == ("avi", "10 bytes"):
        pytest.skip("what is cut is the index behind the samples")
    part = data[:-10] if cut == "10 bytes" else data[: int(len(data) * cut)]
    with pytest.raises(InvalidMediaError, match=r"^Invalid or unsupported audio file"):
        AudioMediaIO().load_bytes(part)


@pytest.mark.parametrize("flags", ["faststart", "frag_keyframe+empty_moov"])
def test_an_mp4_cut_in_its_samples(tmp_path, flags):
    data = in_ffmpeg("mp4", "aac", options={"movflags": flags}, path=tmp_path / "voice.m4a")
    assert len(AudioMediaIO().load_bytes(data)[0]) > 20_000
    with pytest.raises(ValueError, match=r"Truncated: \d+ bytes are missing"):
        AudioMediaIO().load_bytes(data[: len(data) * 2 // 3])


def test_flac_with_a_wrong_rate_in_its_header_is_read_by_its_frames():
    data = flac_declaring(encode(SPEECH, RATE, "FLAC"), len(SPEECH), 0)
    assert AudioMediaIO().load_bytes(data)[1] == RATE


class TestLimits:
    def test_seconds_are_refused_by_the_header(self, monkeypatch):
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "0.4")
        for data in (
            WAV,
            encode(SPEECH, RATE, "OGG"),
            in_ffmpeg("mp4", "aac"),
            in_ffmpeg("matroska", "pcm_s16le"),
        ):
            with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_DURATION_S"):
                AudioMediaIO().load_bytes(data)

    @pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000])
    @pytest.mark.parametrize(
        ("container", "codec"),
        [("wav", "pcm_s16le"), ("matroska", "pcm_s16le"), ("matroska", "flac"), ("mp4", "aac"),
         ("adts", "aac"), ("mp3", "libmp3lame"), ("wav", "libmp3lame")],
    )  # fmt: skip
    def test_exactly_at_the_limit_passes_whichever_way(self, monkeypatch, container, codec, rate):
        """What an encoder adds to fill its frames counts as much as the sound that it was made of."""
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "3")
        wave = speech_like(3, rate)
        data = in_ffmpeg(container, codec, wave, rate)
        longer = in_ffmpeg(container, codec, np.concatenate([wave, wave[: rate * 2 // 3]]), rate)
        for load in (load_audio, load_audio_pyav):
            assert len(load(io.BytesIO(data), sr=16_000)[0]) >= 3 * 16_000 - 1
            with pytest.raises(LimitExceededError, match="over the limit of 3 s"):
                load(io.BytesIO(longer))

    @pytest.mark.parametrize("load", [load_audio, load_audio_pyav])
    def test_one_sample_more_does_not_and_the_message_shows_it(self, monkeypatch, load):
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "600")
        data = wav_header(rate=8000, bits=8, body=bytes(600 * 8000 + 1))
        with pytest.raises(LimitExceededError, match=r"lasts 600\.000125 s or more, over the limit of 600 s"):
            load(io.BytesIO(data))
        assert (
            len(load(io.BytesIO(wav_header(rate=8000, bits=8, body=bytes(600 * 8000))), sr=None)[0])
            == 4_800_000
        )

    def test_bytes_are_those_of_all_channels(self, monkeypatch):
        monkeypatch.setenv("MMMEDIA_MAX_AUDIO_DECODE_BYTES", str(SPEECH.nbytes))
        assert AudioMediaIO().load_bytes(WAV)[0].nbytes * 2 == SPEECH.nbytes
        monkeypatch.setenv("MMMEDIA_MAX_AUDIO_DECODE_BYTES", str(SPEECH.nbytes - 1))
        for data in (WAV, in_ffmpeg("matroska", "flac", SPEECH, RATE)):
            with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_BYTES"):
                AudioMediaIO().load_bytes(data)

    def test_the_resampled_waveform_counts_too(self, monkeypatch):
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_BYTES", str(SPEECH.nbytes))
        with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_BYTES"):
            load_audio(io.BytesIO(WAV), sr=192_000)

    def test_no_limit(self, monkeypatch):
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "0")
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_BYTES", "-1")
        data = encode(np.zeros(700, np.float32), 1, "WAV")
        assert AudioMediaIO().load_bytes(data)[0].shape == (700,)
        with pytest.raises(ValueError, match="Invalid or unsupported"):
            AudioMediaIO().load_bytes(flac_declaring(encode(SPEECH, RATE, "FLAC"), (1 << 36) - 1))

    @pytest.mark.parametrize("declared", [10 * 3600 * RATE, (1 << 36) - 1])
    def test_hours_of_silence_are_refused_at_once(self, declared):
        with pytest.raises(LimitExceededError, match="over the limit of 600 s"):
            AudioMediaIO().load_bytes(flac_declaring(encode(SPEECH, RATE, "FLAC"), declared))

    def test_hours_of_silence_that_declare_no_length_stop_at_the_limit(self, monkeypatch):
        silence = encode(np.zeros(RATE * 30, np.int16), RATE, "FLAC")
        assert len(silence) < 20_000
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "20")
        with pytest.raises(LimitExceededError, match="over the limit of 20 s"):
            AudioMediaIO().load_bytes(flac_declaring(silence, 0))

    def test_a_rate_of_1_hz_is_hours_of_sound(self):
        with pytest.raises(LimitExceededError, match="DURATION_S"):
            AudioMediaIO().load_bytes(wav_header(rate=1, body=bytes(2_000)))


# -------------------------------------------------------------------------------- many, and mutated ones


def test_many_threads_load_at_once():
    files = [in_soundfile(*kind) for kind in BY_SOUNDFILE[:10]] + [in_ffmpeg(*kind) for kind in BY_FFMPEG[:6]]
    expected = [AudioMediaIO().load_bytes(data)[0] for data in files]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            results = pool.map(lambda data: AudioMediaIO().load_bytes(data)[0], files)
            assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True))


SEEDS = [encode(SPEECH[:2000, 0] if c == "SVX" else SPEECH[:2000], RATE, c, k) for c, k in BY_SOUNDFILE]
SEEDS += [in_ffmpeg(c, k, speech_like(0.1, 48_000, 2)) for c, k in BY_FFMPEG]


@given(
    seed=st.integers(0, len(SEEDS) - 1),
    edits=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.one_of(st.none(), st.floats(0, 1)),
)
@settings(max_examples=150, deadline=None)
def test_mutated_files_give_a_waveform_or_a_value_error(seed, edits, cut):
    data = bytearray(SEEDS[seed])
    for where, in_header, value in edits:
        data[int(where * (min(len(data), 256 if in_header else len(data)) - 1))] = value
    data = bytes(data if cut is None else data[: int(cut * len(data))])
    try:
        waveform, rate = load_audio(io.BytesIO(data), sr=None)
    except ValueError:
        return
    assert waveform.ndim == 1
    assert waveform.size > 0
    assert waveform.dtype == np.float32
    assert np.isfinite(waveform).all()
    assert rate > 0


def test_loading_a_wav_needs_neither_torch_nor_librosa_nor_av(tmp_path):
    (tmp_path / "voice.wav").write_bytes(WAV)
    code = (
        "import sys; from mmmedia.media.audio import load_audio;"
        f"load_audio({str(tmp_path / 'voice.wav')!r}, sr=8000);"
        "print(sorted({'torch', 'librosa', 'numba', 'cv2', 'av', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_a_file_that_fails_to_seek_or_to_read_has_ended() -> None:
    """Within a callback from C nothing can be raised."""

    class Failing(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            raise OSError("no more")

    file = sound_files._Seekable(Failing(b"abcdef"))
    assert file.seek(4) == 4
    assert file.seek(-1) == 4
    assert file.seek(1 << 70) == 4
    assert file.readinto(bytearray(2)) == 0
