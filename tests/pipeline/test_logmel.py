"""Log-mel features are Whisper's, whatever the length and the rate of the sound."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import soxr
import torch
from transformers import WhisperFeatureExtractor

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.pipeline import LogMelExtractor, logmel

VALUE_RANGE = 2.0  # log-mel features lie between about -1 and 1.5
# One second to a chunk keeps the tests short; the last lengths are at and over its end.
LENGTHS = [1, 100, 200, 399, 400, 401, 8000, 15_799, 15_800, 15_999, 16_000, 16_001, 40_000]


def sound(length, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(length) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * (200 + 900 * time) * time) + rng.normal(0, 0.02, length)
    return wave.astype(np.float32)


def whispers(reference, wave, **kwargs):
    return reference(wave, sampling_rate=16_000, return_tensors="np", **kwargs)["input_features"][0]


@pytest.mark.parametrize("config", [{}, {"feature_size": 128}, {"n_fft": 512, "hop_length": 200}], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_features_are_whispers(length, config):
    reference = WhisperFeatureExtractor(chunk_length=1, **config)
    ours = LogMelExtractor.from_config(reference.to_dict())
    expected = whispers(reference, sound(length))
    got = ours(sound(length), 16_000)
    assert got.dtype == torch.float32
    assert tuple(got.shape) == expected.shape
    assert np.abs(got.numpy() - expected).max() <= 1e-5 * VALUE_RANGE


def test_a_whole_chunk_of_thirty_seconds_is_whispers():
    reference = WhisperFeatureExtractor()
    for wave in (sound(480_000), sound(50_000), np.zeros(1000, np.float32)):
        got = LogMelExtractor()(wave, 16_000).numpy()
        assert np.abs(got - whispers(reference, wave)).max() <= 1e-5 * VALUE_RANGE


@pytest.mark.parametrize("length", [400, 401, 1600, 12_345])
def test_without_padding_features_are_whispers_as_well(length):
    reference = WhisperFeatureExtractor()
    got = LogMelExtractor.from_config(reference.to_dict(), chunk_length=None)(sound(length), 16_000).numpy()
    expected = whispers(reference, sound(length), padding=False)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * VALUE_RANGE


def test_padding_with_another_value_is_whispers_as_well():
    reference = WhisperFeatureExtractor(chunk_length=1, padding_value=0.25)
    got = LogMelExtractor.from_config(reference.to_dict())(sound(9000), 16_000).numpy()
    assert np.abs(got - whispers(reference, sound(9000))).max() <= 1e-5 * VALUE_RANGE


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 12_345, 96_000.5, 1, 3])
@pytest.mark.parametrize("seconds", [0.3, 3])
def test_odd_rates_are_resampled_to_whispers(rate, seconds):
    """As if the whole sound had been resampled first, though what will be cut off is not."""
    wave = sound(max(1, int(rate * seconds)), seed=int(rate))
    resampled = soxr.resample(wave, rate, 16_000, quality="HQ")
    reference = WhisperFeatureExtractor(chunk_length=1)
    length = int(np.ceil(len(wave) * 16_000 / rate))
    expected = whispers(reference, np.pad(resampled, (0, max(0, length - len(resampled))))[:length])
    got = LogMelExtractor.from_config(reference.to_dict())(wave, rate).numpy()
    assert np.abs(got - expected).max() <= 1e-3 * VALUE_RANGE


def test_prepare_takes_what_the_connector_returns():
    extractor = LogMelExtractor(chunk_length=1)
    wave = sound(4000)
    (item,) = extractor.prepare((wave, 16_000.0)).items
    assert torch.equal(item, extractor(wave.astype(np.float64), 16_000))


@pytest.mark.parametrize(
    ("wave", "rate", "error", "fragment"),
    [
        (np.zeros((2, 800), np.float32), 16_000, InvalidArgumentError, r"one channel .* shape \(2, 800\)"),
        (
            np.zeros(800, np.int16),
            16_000,
            InvalidArgumentError,
            "one channel of floating point samples, not int16",
        ),
        (np.array([0.1, np.nan]), 16_000, InvalidMediaError, "NaN or infinite samples"),
        (np.array([0.1, np.inf]), 8_000, InvalidMediaError, "NaN or infinite samples"),
        (sound(800), 0, InvalidArgumentError, "positive number of Hz, not 0"),
        (sound(800), float("nan"), InvalidArgumentError, "positive number of Hz, not nan"),
    ],
)
def test_what_is_no_sound_is_refused(wave, rate, error, fragment):
    with pytest.raises(error, match=fragment):
        LogMelExtractor(chunk_length=1)(wave, rate)


def test_too_short_for_a_window_is_refused_where_nothing_pads():
    with pytest.raises(InvalidArgumentError, match="200 samples at 16000 Hz are too few for a window of 400"):
        LogMelExtractor(chunk_length=None)(sound(200), 16_000)
    assert LogMelExtractor(chunk_length=1)(np.empty(0, np.float32), 44_100).shape == (80, 100)


@pytest.mark.parametrize(
    ("fields", "fragment"),
    [
        ({"n_mels": 0}, "n_mels must be a positive integer"),
        ({"sample_rate": 8000}, "f_max must be above 0 and at most half the sample rate, 4000.0"),
        ({"chunk_length": 0.01}, "chunk_length must hold one window"),
        ({"padding_value": float("inf")}, "padding_value must be finite"),
    ],
)
def test_fields_out_of_place_are_refused(fields, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        LogMelExtractor(**fields)


@pytest.mark.parametrize(
    ("config", "fragment"),
    [
        (3, "dictionary of a preprocessor_config.json, not int"),
        ({}, "feature_extractor_type None is not known"),
        (
            {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1},
            "Wav2Vec2FeatureExtractor",
        ),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}, "random noise"),
    ],
)
def test_configurations_of_another_kind_are_refused(config, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        LogMelExtractor.from_config(config)


def test_fingerprints_tell_settings_apart():
    assert (
        LogMelExtractor().fingerprint
        == LogMelExtractor().fingerprint
        != LogMelExtractor(n_mels=128).fingerprint
    )


@pytest.mark.parametrize(
    ("rate", "n_fft", "n_mels", "f_max"),
    [
        (16_000, 400, 80, 8000.0), (16_000, 400, 128, 8000.0), (24_000, 512, 64, 900.0),
        (44_100, 2048, 128, 22_050.0), (8000, 64, 3, 4000.0), (48_000, 1001, 80, 1000.0),
    ],
)  # fmt: skip
def test_the_bands_are_librosa_s_to_the_last_bit(rate, n_fft, n_mels, f_max):
    """Without its import, which takes a compiler."""
    librosa = pytest.importorskip("librosa")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bands narrower than a bin
        theirs = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmax=f_max)
    ours = logmel._mel_filters(rate, n_fft, n_mels, f_max)
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.tobytes() == theirs.tobytes()


def test_features_do_not_load_librosa():
    code = (
        "import sys, numpy as np; from mmmedia.pipeline import LogMelExtractor\n"
        "LogMelExtractor()(np.zeros(16000, np.float32), 16000)\n"
        "assert not {'librosa', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
