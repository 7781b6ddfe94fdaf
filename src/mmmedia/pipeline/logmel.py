"""Sounds to the log-mel features that audio encoders take."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia.audio import resample_audio_librosa
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.hashing import content_hash
from mmmedia.pipeline.configs import mel_fields
from mmmedia.pipeline.prepared import Preprocessed
from mmmedia.pipeline.sizes import check_positive

if TYPE_CHECKING:
    import torch

_FLOOR = 1e-10  # the least power that is told from silence


@dataclass(frozen=True)
class LogMelExtractor:
    """Waveforms to log-mel features as Whisper's feature extractor computes them.

    A sound is resampled, cut or padded to `chunk_length`, and its power in `n_mels` bands (Slaney's scale and
    normalisation) over a periodic Hann window is put on a logarithmic scale: log10, no more than 8 below the
    greatest value, then (x + 4) / 4.

    Attributes:
        sample_rate: of the model, in Hz.
        n_fft: samples in one window.
        hop_length: samples from one window to the next.
        n_mels: bands.
        f_max: upper end of the highest band in Hz.
        chunk_length: seconds that every sound is cut or padded to; `None` keeps its length.
        padding_value: the sample that fills up a shorter sound.

    >>> LogMelExtractor()(np.zeros(16000, np.float32), 16000).shape
    torch.Size([80, 3000])
    """

    sample_rate: int = 16000
    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 80
    f_max: float = 8000.0
    chunk_length: float | None = 30
    padding_value: float = 0.0

    def __post_init__(self) -> None:
        check_positive(
            sample_rate=self.sample_rate, n_fft=self.n_fft, hop_length=self.hop_length, n_mels=self.n_mels
        )
        if not 0 < self.f_max <= self.sample_rate / 2:
            raise InvalidArgumentError(
                f"f_max must be above 0 and at most half the sample rate, {self.sample_rate / 2} Hz, "
                f"not {self.f_max!r}."
            )
        if self.chunk_length is not None and not self.chunk_length * self.sample_rate >= self.n_fft:
            raise InvalidArgumentError(
                f"chunk_length must hold one window of n_fft samples, not {self.chunk_length!r} s."
            )
        if not math.isfinite(self.padding_value):
            raise InvalidArgumentError(f"padding_value must be finite, not {self.padding_value!r}.")

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **overrides: Any) -> "LogMelExtractor":
        """Make one from the ``preprocessor_config.json`` of a Whisper model.

        Args:
            config: the parsed file; a key that is absent or null has Whisper's default.
            overrides: fields of this class that win over the configuration.

        Raises:
            InvalidArgumentError: (a `ValueError`) another kind of extractor, or a value out of place.

        >>> config = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 128}
        >>> LogMelExtractor.from_config(config).n_mels
        128
        """
        return cls(**{**mel_fields(config), **overrides})

    @property
    def fingerprint(self) -> str:
        """A name for these settings, the same in every process; part of the keys of the encoder cache."""
        return content_hash(["log-mel", asdict(self)])

    def __call__(self, waveform: npt.ArrayLike, sample_rate: float) -> "torch.Tensor":
        """Return the features of one sound, float32 (n_mels, frames).

        Args:
            waveform: samples of one channel, floating point, nominally in -1..1.
            sample_rate: their rate in Hz; another than the extractor's is resampled (soxr, high quality).

        Raises:
            InvalidArgumentError: (a `ValueError`) not one channel of floating point samples, a rate that is
                no positive number, or too few samples for one window where nothing pads them.
            InvalidMediaError: (a `ValueError`) samples that are NaN or infinite.
        """
        import torch

        samples = self._samples(waveform, sample_rate)
        length = len(samples) if self.chunk_length is None else int(self.chunk_length * self.sample_rate)
        if length <= self.n_fft // 2:
            raise InvalidArgumentError(
                f"{length} samples at {self.sample_rate} Hz are too few for a window of {self.n_fft}: "
                "give a chunk_length to pad them."
            )
        samples = samples[:length]
        frames = length // self.hop_length
        # Padding is not transformed: where windows hold nothing but zeros, the result is known. One window
        # of zeros after the last sample keeps what is transformed apart from the mirrored end.
        used = min(length, max(len(samples), self.n_fft) + self.n_fft) if self.padding_value == 0 else length
        padded = np.full(used, self.padding_value, np.float32)
        padded[: len(samples)] = samples
        spectrum = torch.stft(
            torch.from_numpy(padded), self.n_fft, self.hop_length,
            window=torch.hann_window(self.n_fft), return_complex=True,
        )[:, :frames]  # fmt: skip
        power = spectrum.real.square() + spectrum.imag.square()
        bands = torch.from_numpy(_mel_filters(self.sample_rate, self.n_fft, self.n_mels, self.f_max)) @ power
        features = torch.full((self.n_mels, frames), _FLOOR)
        torch.clamp(bands, min=_FLOOR, out=features[:, : bands.shape[1]])
        features.log10_()
        return features.clamp_(min=features.max() - 8.0).add_(4.0).div_(4.0)

    def prepare(self, audio: tuple[npt.ArrayLike, float]) -> Preprocessed:
        """Return one sound as its encoder takes it.

        Args:
            audio: waveform and rate, as `MediaConnector.fetch_audio` returns them.
        """
        return Preprocessed((self(*audio),))

    def _samples(self, waveform: npt.ArrayLike, sample_rate: float) -> npt.NDArray[np.float32]:
        """Return the samples at the extractor's rate."""
        samples = np.asarray(waveform)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise InvalidArgumentError(
                f"Expected one channel of floating point samples, not {samples.dtype} of shape "
                f"{samples.shape}."
            )
        if not (math.isfinite(sample_rate) and sample_rate > 0):
            raise InvalidArgumentError(f"A sample rate must be a positive number of Hz, not {sample_rate!r}.")
        if self.chunk_length is not None:  # the rest is cut off; the filter looks ahead a little
            samples = samples[: math.ceil((self.chunk_length + 1) * sample_rate) + 1024]
        samples = samples.astype(np.float32, copy=False)
        if not np.isfinite(samples).all():
            raise InvalidMediaError(f"NaN or infinite samples in a waveform of {len(samples)}.")
        if sample_rate != self.sample_rate and len(samples):
            samples = resample_audio_librosa(samples, orig_sr=sample_rate, target_sr=self.sample_rate)
        return samples


@lru_cache(maxsize=16)
def _mel_filters(sample_rate: int, n_fft: int, n_mels: int, f_max: float) -> npt.NDArray[np.float32]:
    """Return the weights of the bands, float32 (n_mels, 1 + n_fft // 2); bit for bit those of librosa.

    A band is a triangle between the middles of its neighbours, of which each has the same area.
    """
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    edges = _hertz(np.linspace(0, _mels(f_max), n_mels + 2))[:, None]
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = -((left - frequencies) / (middle - left)), (right - frequencies) / (right - middle)
    triangles = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    filters: npt.NDArray[np.float32] = (triangles * (2 / (right - left))).astype(np.float32)
    return filters


# Slaney's scale: 3 mels for each 200 Hz up to 1000 Hz, from there on 27 for each factor of 6.4.
_LINEAR_HZ, _BREAK_HZ, _BREAK_MELS, _LOG_STEP = 200 / 3, 1000.0, 15.0, math.log(6.4) / 27


def _mels(hertz: float) -> float:
    """Return a frequency on Slaney's scale.

    >>> _mels(200), _mels(6400)
    (3.0, 42.0)
    """
    if hertz < _BREAK_HZ:
        return hertz / _LINEAR_HZ
    return _BREAK_MELS + math.log(hertz / _BREAK_HZ) / _LOG_STEP


def _hertz(mels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mels - _BREAK_MELS))
    found: npt.NDArray[np.float64] = np.where(mels < _BREAK_MELS, _LINEAR_HZ * mels, above)
    return found
