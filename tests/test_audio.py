"""Waveforms: channels, resampling, splitting."""

import math
import sys

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mmmedia.audio
from mmmedia.audio import (
    MONO_AUDIO_SPEC,
    PASSTHROUGH_AUDIO_SPEC,
    AudioResampler,
    AudioSpec,
    ChannelReduction,
    find_split_point,
    get_audio_duration,
    normalize_audio,
    resample_audio_librosa,
    resample_audio_pyav,
    resample_audio_scipy,
    resample_audio_soxr,
    resample_audio_torchaudio,
    split_audio,
)
from mmmedia.errors import InvalidArgumentError
from support import torch_codecs
from support.sounds import sine, speech_like

RESAMPLERS = (resample_audio_librosa, resample_audio_pyav, resample_audio_scipy)


# ------------------------------------------------------------------------------------------------ length


@pytest.mark.parametrize("y", [np.zeros(8000), np.zeros((2, 8000)), torch.zeros(8000), [0.0] * 8000])
def test_duration_is_samples_over_rate(y):
    assert get_audio_duration(y=y, sr=16_000) == 0.5
    assert type(get_audio_duration(y=y, sr=16_000)) is float


@pytest.mark.parametrize("sr", [0, -1, math.nan, math.inf, None, "16000"])
def test_duration_needs_a_positive_rate(sr):
    with pytest.raises(ValueError, match="sr must be a positive number"):
        get_audio_duration(y=np.zeros(10), sr=sr)


def test_a_single_number_has_no_duration():
    with pytest.raises(ValueError, match="single number"):
        get_audio_duration(y=np.float32(1), sr=16_000)


# ---------------------------------------------------------------------------------------------- channels


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean", [1.5, -1.0, 0.0]),
        ("first", [1.0, -2.0, 0.0]),
        ("max", [2.0, 0.0, 0.0]),
        ("sum", [3.0, -2.0, 0.0]),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
def test_channels_are_reduced_in_either_layout_and_library(library, reduction, expected, transposed):
    audio = np.float32([[1, -2, 0], [2, 0, 0]])
    audio = library(np.ascontiguousarray(audio.T) if transposed else audio)
    result = normalize_audio(audio, AudioSpec(1, ChannelReduction(reduction)))
    assert type(result) is type(audio)
    assert result.dtype == audio.dtype
    assert result.tolist() == expected


def test_what_needs_no_change_comes_back_as_it_is():
    audio, stereo = np.zeros(5, np.float32), np.zeros((2, 5), np.float32)
    assert normalize_audio(audio, MONO_AUDIO_SPEC) is audio
    assert normalize_audio(stereo, PASSTHROUGH_AUDIO_SPEC) is stereo
    assert not PASSTHROUGH_AUDIO_SPEC.needs_normalization
    assert MONO_AUDIO_SPEC.needs_normalization
    assert AudioSpec() == MONO_AUDIO_SPEC


def test_channel_counts_other_than_one():
    audio = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert normalize_audio(audio, AudioSpec(4)).shape == (4, 6)
    assert np.array_equal(normalize_audio(audio, AudioSpec(2)), audio[:2])
    assert np.array_equal(normalize_audio(audio[:1], MONO_AUDIO_SPEC), audio[0])


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((5,), 2, "Cannot expand mono audio to 2"),
        ((2, 5), 3, "Cannot expand audio of 2 channels to 3"),
        ((1, 2, 5), 1, "Unsupported audio shape"),
        ((), 1, "Unsupported audio shape"),
    ],
)
def test_what_cannot_be_given(shape, channels, message):
    with pytest.raises(ValueError, match=message):
        normalize_audio(np.zeros(shape, np.float32), AudioSpec(channels))


def test_a_spec_is_judged_when_it_is_made():
    with pytest.raises(ValueError, match="at least 1"):
        AudioSpec(0)
    with pytest.raises(ValueError, match="Unknown channel reduction 'median'"):
        AudioSpec(1, "median")
    assert AudioSpec(1, "max").channel_reduction is ChannelReduction.MAX
    assert repr(AudioSpec(1)) == "AudioSpec(channels=1, reduction=mean)"
    assert repr(PASSTHROUGH_AUDIO_SPEC) == "AudioSpec(passthrough)"


# -------------------------------------------------------------------------------------------- resampling

RATES = [
    (44_100, 16_000),
    (16_000, 44_100),
    (48_000, 8_000),
    (11_025.5, 16_000),
    (22_050, 22_051),
    (8_000, 96_000),
]


@pytest.mark.parametrize(("orig", "target"), [*RATES, (11_025, 24_000)])
@pytest.mark.parametrize("samples", [1, 2, 441, 50_001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_librosa_method_gives_librosas_bytes(orig, target, samples, dtype):
    audio = np.random.default_rng(samples).standard_normal((2, samples)).astype(dtype)
    ours = resample_audio_librosa(audio, orig_sr=orig, target_sr=target)
    theirs = librosa.resample(audio, orig_sr=orig, target_sr=target, res_type="soxr_hq")
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize(("orig", "target"), RATES)
def test_a_tone_keeps_its_pitch_phase_and_strength(resample, orig, target):
    time = np.arange(int(orig))[:, None] / orig
    tones = (0.5 * np.sin(2 * np.pi * np.array([440.0, 1000.0]) * time)).astype(np.float32).T
    result = resample(tones, orig_sr=orig, target_sr=target)
    expected_time = np.arange(result.shape[1])[:, None] / target
    expected = (0.5 * np.sin(2 * np.pi * np.array([440.0, 1000.0]) * expected_time)).T
    middle = slice(result.shape[1] // 10, -result.shape[1] // 10)
    assert result.dtype == np.float32
    assert np.abs(result - expected)[:, middle].max() < 2e-3


@pytest.mark.parametrize("resample", RESAMPLERS)
def test_what_is_above_half_the_new_rate_goes_instead_of_folding_back(resample):
    result = resample(sine(7_000, 1, 48_000), orig_sr=48_000, target_sr=8_000)
    assert np.sqrt(np.mean(result[1000:-1000] ** 2)) < 2e-3


@pytest.mark.parametrize("resample", [resample_audio_pyav, resample_audio_scipy])
@given(
    samples=st.integers(0, 5_000),
    orig=st.one_of(st.integers(4_000, 200_000), st.floats(4_000, 200_000)),
    target=st.one_of(st.integers(4_000, 200_000), st.floats(4_000, 200_000)),
)
@settings(max_examples=40, deadline=None)
def test_the_length_is_exact_for_any_rates(resample, samples, orig, target):
    from fractions import Fraction

    audio = np.ones(samples, dtype=np.float32)
    result = resample(audio, orig_sr=orig, target_sr=target)
    assert result.shape == (math.ceil(samples * Fraction(target) / Fraction(orig)),)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("resample", RESAMPLERS)
class TestEveryResampler:
    def test_equal_rates_give_the_same_object(self, resample):
        audio = np.zeros(10, np.float32)
        assert resample(audio, orig_sr=16_000, target_sr=16_000.0) is audio

    @pytest.mark.parametrize("shape", [(0,), (2, 0)])
    def test_no_samples_give_no_samples(self, resample, shape):
        result = resample(np.zeros(shape, np.float32), orig_sr=44_100, target_sr=16_000)
        assert result.shape == shape

    @pytest.mark.parametrize(
        ("orig", "target", "message"),
        [
            (0, 16_000, "orig_sr must be a positive"),
            (16_000, -1, "target_sr must be a positive"),
            (math.nan, 16_000, "orig_sr must be a positive"),
            (16_000, math.inf, "target_sr must be a positive"),
            (1, 1_000_000, "too far apart"),
            (1e300, 1, "too far apart"),
        ],
    )
    def test_impossible_rates(self, resample, orig, target, message):
        with pytest.raises(ValueError, match=message):
            resample(np.ones(10, np.float32), orig_sr=orig, target_sr=target)

    @pytest.mark.parametrize(
        ("audio", "message"),
        [
            (np.ones(10, np.int16), "floating-point numbers"),
            (np.float32([0, math.nan]), "not finite"),
            (np.float32([0, math.inf]), "not finite"),
            (np.float32(1), "single number"),
        ],
    )
    def test_impossible_waveforms(self, resample, audio, message):
        with pytest.raises(ValueError, match=message):
            resample(audio, orig_sr=44_100, target_sr=16_000)

    def test_halves_are_resampled_as_float32(self, resample):
        assert resample(np.ones(10, np.float16), orig_sr=2, target_sr=1).dtype == np.float32

    def test_views_and_many_dimensions(self, resample):
        audio = np.random.default_rng(0).standard_normal((3000, 2, 2)).astype(np.float32).T
        result = resample(audio, orig_sr=24_000, target_sr=16_000)
        assert result.shape == (2, 2, 2000)
        assert np.array_equal(result[1, 0], resample(audio[1, 0].copy(), orig_sr=24_000, target_sr=16_000))

    def test_coprime_giants_stay_small(self, resample):
        audio = sine(440, 0.2, 96_000)
        result = resample(audio, orig_sr=95_999_989, target_sr=95_999_971)
        assert np.abs(result[2000:-2000] - audio[2000:-2000]).max() < 2e-2


@pytest.mark.parametrize("resample", RESAMPLERS)
@pytest.mark.parametrize(("orig", "target"), [(200_000.5, 1), (1, 192_000), (2**31 - 1, 16_000)])
def test_far_apart_rates_are_bounded_work(resample, orig, target):
    result = resample(np.full(40, 0.5, np.float32), orig_sr=orig, target_sr=target)
    assert result.shape == (math.ceil(40 * target / orig),)
    assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("method", "function"), list(zip(("librosa", "pyav", "scipy"), RESAMPLERS, strict=True))
)
def test_the_resampler_object_uses_its_method(method, function):
    audio = speech_like(0.2, 44_100)
    resampler = AudioResampler(target_sr=16_000, method=method)
    assert np.array_equal(
        resampler.resample(audio, orig_sr=44_100), function(audio, orig_sr=44_100, target_sr=16_000)
    )
    assert resampler.resample(audio, orig_sr=16_000) is audio
    assert method in repr(resampler)


def test_a_resampler_without_a_target_or_with_an_unknown_method():
    with pytest.raises(RuntimeError, match="target_sr"):
        AudioResampler().resample(np.zeros(1, np.float32), orig_sr=1)
    with pytest.raises(InvalidArgumentError, match="Invalid resampling method: 'magic'"):
        AudioResampler(16_000, method="magic")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MMMEDIA_COMPAT", "0.20")
        magic = AudioResampler(16_000, method="magic")
    with pytest.raises(InvalidArgumentError, match="Invalid resampling method: 'magic'"):
        magic.resample(np.zeros(9, np.float32), orig_sr=8_000)


# --------------------------------------------------------------------------------------------- splitting


@given(
    seconds=st.floats(0, 20),
    rate=st.sampled_from([100, 1_000.5, 8_000]),
    longest=st.floats(0.05, 30),
    share=st.floats(0, 0.99),
    window=st.integers(1, 2_000),
    channels=st.integers(1, 2),
)
@settings(max_examples=80, deadline=None)
def test_clips_are_short_enough_and_joined_are_the_whole(seconds, rate, longest, share, window, channels):
    audio = np.random.default_rng(0).standard_normal((channels, int(seconds * rate))).astype(np.float32)
    audio = audio[0] if channels == 1 else audio
    with pytest.MonkeyPatch.context() as patched:
        if channels > 1:
            patched.setenv("MMMEDIA_COMPAT", "0.20")
        clips = split_audio(audio, rate, longest, share * longest, window)
    if not clips:
        assert audio.shape[-1] == 0
        return
    assert np.array_equal(np.concatenate(clips, axis=-1), audio)
    assert all(0 < clip.shape[-1] <= longest * rate for clip in clips)
    assert all(np.shares_memory(clip, audio) for clip in clips)


def test_speech_is_cut_in_its_pauses():
    audio = speech_like(12, 8_000)
    clips = split_audio(audio, 8_000, 3, 1, 400)
    for clip in clips[:-1]:
        assert len(clip) >= 2 * 8_000
    starts = np.cumsum([len(clip) for clip in clips])[:-1]
    assert all(np.abs(audio[start : start + 400]).max() < 0.01 for start in starts)


def test_the_quietest_window_is_found_and_the_first_of_equals():
    audio = np.ones(32_000, np.float32)
    audio[16_000:17_600] = 0
    assert find_split_point(audio, 0, 32_000, 1_600) == 16_000
    assert find_split_point(audio, 1_600 * 3 + 100, 32_000, 1_600) == 16_100
    assert find_split_point(np.zeros(100), 10, 90, 7) == 10
    assert find_split_point(np.stack([audio, audio]), 0, 32_000, 1_600) == 16_000
    assert find_split_point((audio * 9_000).astype(np.int16), 0, 32_000, 1_600) == 16_000


@pytest.mark.parametrize(("end", "expected"), [(100, 100), (109, 100), (110, 100), (121, 110)])
def test_a_stretch_of_about_one_window(end, expected, monkeypatch):
    audio = np.ones(200)
    audio[110:120] = 0.5
    assert find_split_point(audio, 100, end, 10) == expected
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert find_split_point(audio, 100, end, 10) == (end if end < 110 else expected)


def test_a_window_of_nan_is_not_the_quietest():
    audio = np.ones(100)
    audio[20:40] = math.nan
    audio[60:70] = 0.5
    assert find_split_point(audio, 0, 100, 10) == 60
    assert find_split_point(np.full(100, math.nan), 30, 100, 10) == 30
    assert [len(clip) for clip in split_audio(np.full(25, math.nan), 1, 10, 2, 1)] == [8, 8, 9]


def test_several_channels_are_not_split():
    with pytest.raises(ValueError, match=r"1-D; got the shape \(2, 100\)"):
        split_audio(np.ones((2, 100)), 10, 1, 0, 1)


def test_soxr_goes_channel_by_channel_to_its_own_length():
    import soxr

    audio = np.stack([speech_like(0.1, 44_100), -speech_like(0.1, 44_100)])
    result = resample_audio_soxr(audio, orig_sr=44_100, target_sr=16_000)
    for row, channel in zip(result, audio, strict=True):
        assert np.array_equal(row, soxr.resample(channel, 44_100, 16_000))
    assert resample_audio_soxr(audio, orig_sr=8_000, target_sr=8_000) is audio
    assert resample_audio_soxr(audio[:, :0], orig_sr=8_000, target_sr=16_000).shape == (2, 0)


def test_torchaudio_by_its_stand_in(monkeypatch):
    torch = pytest.importorskip("torch")
    torch_codecs.install(monkeypatch)
    mmmedia.audio._get_torchaudio_resampler.cache_clear()
    threads = torch.get_num_threads()
    audio = speech_like(0.1, 44_100).astype(np.float64)
    result = resample_audio_torchaudio(audio, orig_sr=44_100, target_sr=16_000)
    assert (result.dtype, result.shape) == (np.float32, (1_600,))
    assert torch.get_num_threads() == threads
    mmmedia.audio._get_torchaudio_resampler.cache_clear()


def test_torchaudio_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.transforms", None)
    mmmedia.audio._get_torchaudio_resampler.cache_clear()
    with pytest.raises(ImportError, match="pip install torchaudio"):
        AudioResampler(16_000, method="torchaudio").resample(np.zeros(100, np.float32), orig_sr=8_000)


@pytest.mark.parametrize(("found", "method"), [(None, "soxr"), (object(), "torchaudio")])
def test_the_default_is_torchaudio_where_it_is_there(found, method, monkeypatch, caplog):
    monkeypatch.setattr(mmmedia.audio, "find_spec", lambda _: found)
    mmmedia.audio.default_resampling_method.cache_clear()
    assert [AudioResampler().method for _ in range(3)] == [method] * 3
    assert len(caplog.records) == (method == "soxr")
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert AudioResampler().method == "librosa"
    mmmedia.audio.default_resampling_method.cache_clear()


@pytest.mark.parametrize("method", ["pyav", "scipy", "soxr", "torchaudio", "librosa"])
def test_methods_are_looked_up_and_judged_when_called(method, monkeypatch):
    resampler = AudioResampler(16_000, method=method)
    monkeypatch.setattr(f"mmmedia.audio.resample_audio_{method}", lambda audio, **rates: rates)
    assert resampler.resample(np.zeros(1), orig_sr=8_000) == {"orig_sr": 8_000, "target_sr": 16_000}
    resampler.method = "magic"
    with pytest.raises(ValueError, match="Invalid resampling method: 'magic'"):
        resampler.resample(np.zeros(1), orig_sr=8_000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0, 1), "sample_rate must be a positive"),
        ((10, 0.01, 0, 1), "holds no sample"),
        ((10, math.nan, 0, 1), "holds no sample"),
        ((10, 1, -0.1, 1), "must be from 0"),
        ((10, 1, 1, 1), "must be from 0"),
        ((10, 1, 0.5, 0), "min_energy_window"),
    ],
)
def test_impossible_splits(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_audio(np.ones(100), *arguments)
    assert split_audio(np.ones(100), 10, math.inf, 0, 1)[0].shape == (100,)
