"""Waveforms: their length, channels and sampling rate, and where to cut them.

A waveform is a NumPy array or a torch tensor, 1-D ``(samples,)`` or 2-D ``(channels, samples)``. How one is
decoded from a file stands in `mmmedia.media.audio`.

>>> import numpy as np
>>> get_audio_duration(y=np.zeros((2, 24_000), dtype=np.float32), sr=16_000)
1.5
>>> normalize_audio(np.float32([[0, 1, 1, 1], [1, 1, 0, 0]]), MONO_AUDIO_SPEC)
array([0.5, 1. , 0.5, 0.5], dtype=float32)
>>> AudioResampler(target_sr=16_000).resample(np.zeros(44_100, dtype=np.float32), orig_sr=44_100).shape
(16000,)
"""

import functools
import logging
import math
import threading
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, get_args

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia._quiet import quiet
from mmmedia.errors import InvalidArgumentError, MissingPackageError, MissingRateError

logger = logging.getLogger(__name__)
# Which packages are there is told to who looks at logs, not printed by whoever never set them up.
logger.addHandler(logging.NullHandler())

if TYPE_CHECKING:
    import torch

    AudioT = TypeVar("AudioT", npt.NDArray[Any], torch.Tensor)
else:
    AudioT = TypeVar("AudioT")

FloatArray = npt.NDArray[np.floating[Any]]

# Beyond this ratio of two rates the libraries' filters take minutes or gigabytes.
MAX_RATE_RATIO = 1 << 18
# Polyphase filters have as many phases as the terms of the ratio in lowest terms. Rates without a common
# divisor are taken at the nearest ratio of such terms: over an hour, a fraction of a sample aside.
_MAX_POLYPHASE_STEP = 1 << 16
# Samples that the FFmpeg resampler is fed at a time.
_SWR_BLOCK = 1 << 16

ResamplingMethod = Literal["pyav", "scipy", "soxr", "torchaudio", "librosa"]
RESAMPLING_METHODS: Final = get_args(ResamplingMethod)


def get_audio_duration(*, y: "npt.ArrayLike | torch.Tensor", sr: float = 22050) -> float:
    """Return the length of a waveform in seconds.

    Args:
        y: ``(samples,)`` or ``(channels, samples)``.
        sr: sampling rate in Hz.

    Raises:
        InvalidArgumentError: (a `ValueError`) the rate is not a positive number.
    """
    shape = np.shape(y)
    if not shape:
        raise InvalidArgumentError("A waveform has at least one dimension; got a single number.")
    return float(shape[-1] / _rate("sr", sr))


# --------------------------------------------------------------------------------------------- channels


class ChannelReduction(StrEnum):
    """How several channels become one."""

    MEAN = "mean"
    FIRST = "first"
    MAX = "max"
    SUM = "sum"


@dataclass(frozen=True)
class AudioSpec:
    """The channels that a model wants.

    Attributes:
        target_channels: how many; `None`: as they come.
        channel_reduction: how several become one.
    """

    target_channels: int | None = 1
    channel_reduction: ChannelReduction = ChannelReduction.MEAN

    def __post_init__(self) -> None:
        if self.target_channels is not None and self.target_channels < 1:
            raise InvalidArgumentError(
                f"target_channels must be at least 1, or None; got {self.target_channels}."
            )
        object.__setattr__(self, "channel_reduction", _reduction(self.channel_reduction))

    @property
    def needs_normalization(self) -> bool:
        """Whether a waveform may have to be changed at all."""
        return self.target_channels is not None

    def __repr__(self) -> str:
        if self.target_channels is None:
            return "AudioSpec(passthrough)"
        return f"AudioSpec(channels={self.target_channels}, reduction={self.channel_reduction.value})"


def _reduction(value: ChannelReduction | str) -> ChannelReduction:
    try:
        return ChannelReduction(value)
    except ValueError:
        known = ", ".join(reduction.value for reduction in ChannelReduction)
        raise InvalidArgumentError(f"Unknown channel reduction {value!r}; known: {known}.") from None


MONO_AUDIO_SPEC = AudioSpec(target_channels=1, channel_reduction=ChannelReduction.MEAN)
PASSTHROUGH_AUDIO_SPEC = AudioSpec(target_channels=None)


def normalize_audio(audio: AudioT, spec: AudioSpec) -> AudioT:
    """Return `audio` with the channels that `spec` asks for.

    Args:
        audio: ``(samples,)``, ``(channels, samples)`` or, told by being longer than wide,
            ``(samples, channels)``; a NumPy array or a torch tensor.
        spec: the channels wanted.

    Returns:
        ``(samples,)`` where one channel is wanted, else ``(channels, samples)``, of the same library and
        dtype. Of more channels than a wanted number above one, the first are kept.

    Raises:
        InvalidArgumentError: (a `ValueError`) more than two dimensions, or fewer channels than wanted.
    """
    if not spec.needs_normalization:
        return audio
    wanted = spec.target_channels or 1
    if audio.ndim == 1:
        if wanted > 1:
            raise InvalidArgumentError(f"Cannot expand mono audio to {wanted} channels.")
        return audio
    if audio.ndim != 2:
        raise InvalidArgumentError(
            f"Unsupported audio shape {tuple(audio.shape)}: expected (samples,) or (channels, samples)."
        )
    # NumPy and torch spell what follows alike.
    channels: Any = audio.T if audio.shape[0] > audio.shape[1] else audio
    if len(channels) < wanted:
        raise InvalidArgumentError(f"Cannot expand audio of {len(channels)} channels to {wanted}.")
    if wanted > 1:
        return channels[:wanted]  # type: ignore[no-any-return]
    if len(channels) == 1 or spec.channel_reduction is ChannelReduction.FIRST:
        return channels[0]  # type: ignore[no-any-return]
    if spec.channel_reduction is ChannelReduction.MAX:
        largest = channels.max if isinstance(channels, np.ndarray) else channels.amax
        return largest(0)  # type: ignore[no-any-return]
    reduce = channels.mean if spec.channel_reduction is ChannelReduction.MEAN else channels.sum
    return reduce(0)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------------- resampling


def resample_audio_librosa(audio: FloatArray, *, orig_sr: float, target_sr: float) -> FloatArray:
    """Resample in high quality, through soxr: sample for sample what ``librosa.resample`` gives.

    Args:
        audio: ``(..., samples)``, float32 or float64.
        orig_sr: its rate in Hz; any positive number.
        target_sr: the rate wanted.

    Returns:
        ``(..., ceil(samples * target_sr / orig_sr))``, the length as librosa computes it, in the dtype of
        `audio`; `audio` itself when the rates are equal.

    Raises:
        InvalidArgumentError: (a `ValueError`) not floating-point or not finite, or rates that are not
            positive numbers or more than 262 144 times apart.

    >>> resample_audio_librosa(np.ones(441, dtype=np.float32), orig_sr=44_100, target_sr=16_000).shape
    (160,)
    """
    if _same_rate(audio, orig_sr, target_sr):
        return audio
    samples = _finite(audio)
    length = math.ceil(samples.shape[-1] * (float(target_sr) / orig_sr))

    import soxr  # what librosa calls, without librosa's import of a compiler

    rows = [soxr.resample(row, orig_sr, target_sr, "HQ") for row in _rows(samples)]
    return _stack(rows, samples, length)


def resample_audio_scipy(audio: FloatArray, *, orig_sr: float, target_sr: float) -> FloatArray:
    """Resample with SciPy's polyphase filter; arguments and errors as in `resample_audio_librosa`.

    The result has exactly ``ceil(samples * target_sr / orig_sr)`` samples. Rates without a common divisor
    are taken at the nearest ratio of numbers up to 65 536.

    >>> resample_audio_scipy(np.ones(441, dtype=np.float32), orig_sr=44_100, target_sr=16_000).shape
    (160,)
    """
    if _same_rate(audio, orig_sr, target_sr):
        return audio
    samples = _finite(audio)
    ratio = Fraction(target_sr) / Fraction(orig_sr)
    length = math.ceil(samples.shape[-1] * ratio)
    step = _simple_ratio(ratio)

    from scipy.signal import resample_poly

    rows = [resample_poly(row, step.numerator, step.denominator) for row in _rows(samples)]
    return _stack(rows, samples, length)


def resample_audio_pyav(audio: FloatArray, *, orig_sr: float, target_sr: float) -> FloatArray:
    """Resample with FFmpeg's swresample; otherwise as `resample_audio_scipy`.

    >>> resample_audio_pyav(np.ones(441, dtype=np.float32), orig_sr=44_100, target_sr=16_000).shape
    (160,)
    """
    if _same_rate(audio, orig_sr, target_sr):
        return audio
    samples = _finite(audio)
    ratio = Fraction(target_sr) / Fraction(orig_sr)
    length = math.ceil(samples.shape[-1] * ratio)
    rows = [_swresample(row, _simple_ratio(ratio)) for row in _rows(samples)]
    return _stack(rows, samples, length)


def _swresample(row: FloatArray, ratio: Fraction) -> FloatArray:
    import av

    sample_format = "fltp" if row.dtype == np.float32 else "dblp"
    resampler = av.AudioResampler(format=sample_format, layout="mono", rate=ratio.numerator)
    pieces = []
    for start in range(0, len(row), _SWR_BLOCK):
        block = np.ascontiguousarray(row[None, start : start + _SWR_BLOCK])
        frame = av.AudioFrame.from_ndarray(block, format=sample_format, layout="mono")
        frame.sample_rate = ratio.denominator
        pieces += [piece.to_ndarray() for piece in resampler.resample(frame)]
    pieces += [piece.to_ndarray() for piece in resampler.resample(None)]
    return np.concatenate(pieces, axis=1)[0] if pieces else row[:0]


def resample_audio_soxr(audio: FloatArray, *, orig_sr: float, target_sr: float) -> FloatArray:
    """Resample channel by channel with soxr, in high quality, to the length that soxr gives.

    Arguments and errors as in `resample_audio_librosa`.

    >>> resample_audio_soxr(np.ones(441, dtype=np.float32), orig_sr=44_100, target_sr=16_000).shape
    (160,)
    """
    if _same_rate(audio, orig_sr, target_sr):
        return audio
    samples = _finite(audio)

    import soxr

    rows = [soxr.resample(row, orig_sr, target_sr, "HQ") for row in _rows(samples)]
    return _stack(rows, samples, rows[0].shape[-1] if rows else 0)


def resample_audio_torchaudio(audio: FloatArray, *, orig_sr: float, target_sr: float) -> FloatArray:
    """Resample in float32 with torchaudio; arguments and errors as in `resample_audio_librosa`.

    Raises:
        MissingPackageError: (an `ImportError`) torchaudio is not installed.
    """
    if _same_rate(audio, orig_sr, target_sr):
        return audio
    samples = _finite(audio).astype(np.float32, copy=False)
    try:
        resampler = _get_torchaudio_resampler(round(orig_sr), round(target_sr))
    except ImportError as error:
        raise MissingPackageError(
            'The resampling method "torchaudio" needs the package of that name: pip install torchaudio.'
        ) from error
    import torch

    rows = torch.from_numpy(np.ascontiguousarray(samples))
    with _one_thread, torch.inference_mode():
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # of the whole process, as is whether oneDNN is used
        try:
            with quiet(), torch.backends.mkldnn.flags(enabled=False):  # it warns of Intel's GPUs
                return cast("FloatArray", resampler(rows).numpy())
        finally:
            torch.set_num_threads(threads)


_one_thread = threading.Lock()


@functools.lru_cache(maxsize=32)
def _get_torchaudio_resampler(orig_sr: int, target_sr: int) -> Any:
    from torchaudio.transforms import Resample

    return Resample(orig_sr, target_sr)


@functools.cache
def default_resampling_method() -> ResamplingMethod:
    """Return "torchaudio" where it is installed, else, after a warning, "soxr"; "librosa" as 0.20 has it."""
    if find_spec("torchaudio") is not None:
        return "torchaudio"
    logger.warning("torchaudio is not installed: sounds are resampled by soxr.")
    return "soxr"


class AudioResampler:
    """Resamples whatever comes to one rate.

    Args:
        target_sr: the rate wanted, in Hz; `None`: not known, and `resample` refuses.
        method: "pyav" (FFmpeg), "scipy" (polyphase), "soxr", "torchaudio" or "librosa" (soxr, to librosa's
            length); `None`: "torchaudio" where it is installed, else "soxr", and with ``MMMEDIA_COMPAT=0.20``
            "librosa".

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown method; with ``MMMEDIA_COMPAT=0.20`` only when it is
            used.
    """

    def __init__(self, target_sr: float | None = None, method: ResamplingMethod | None = None) -> None:
        if method is None:
            method = "librosa" if envs.MMMEDIA_COMPAT == "0.20" else default_resampling_method()
        if envs.MMMEDIA_COMPAT != "0.20":
            _check_method(method)
        self.target_sr = target_sr
        self.method: ResamplingMethod = method

    def resample(self, audio: FloatArray, *, orig_sr: float) -> FloatArray:
        """Return `audio` at the target rate; itself when it has that rate already.

        Raises:
            MissingRateError: (a `RuntimeError` and a `ValueError`) no `target_sr` was given.
            InvalidArgumentError: as in `resample_audio_librosa`, and of the method.
            MissingPackageError: (an `ImportError`) the method's package is not installed.
        """
        if self.target_sr is None:
            raise MissingRateError("Audio resampling is not supported when `target_sr` is not provided.")
        _check_method(self.method)
        # Looked up when called, so that who replaces a function of this module is asked.
        resample = globals()[f"resample_audio_{self.method}"]
        return cast("FloatArray", resample(audio, orig_sr=orig_sr, target_sr=self.target_sr))

    def __repr__(self) -> str:
        return f"AudioResampler(target_sr={self.target_sr}, method={self.method!r})"


def _check_method(method: object) -> None:
    if method not in RESAMPLING_METHODS:
        raise InvalidArgumentError(
            f"Invalid resampling method: {method!r}. Supported: {', '.join(RESAMPLING_METHODS)}."
        )


def _rate(name: str, value: float) -> float:
    try:
        if math.isfinite(value) and value > 0:
            return value
    except TypeError:
        pass
    raise InvalidArgumentError(f"{name} must be a positive number of samples a second; got {value!r}.")


def _same_rate(audio: FloatArray, orig_sr: float, target_sr: float) -> bool:
    _rate("orig_sr", orig_sr)
    _rate("target_sr", target_sr)
    if np.ndim(audio) < 1:
        raise InvalidArgumentError("A waveform has at least one dimension; got a single number.")
    if not 1 / MAX_RATE_RATIO <= target_sr / orig_sr <= MAX_RATE_RATIO:
        raise InvalidArgumentError(f"Rates too far apart to resample: {orig_sr!r} Hz to {target_sr!r} Hz.")
    return orig_sr == target_sr


def _finite(audio: FloatArray) -> FloatArray:
    samples = np.asarray(audio)
    if samples.dtype == np.float16:
        samples = samples.astype(np.float32)
    if samples.dtype not in (np.float32, np.float64):
        raise InvalidArgumentError(
            f"A waveform to resample is of floating-point numbers, not {samples.dtype}."
        )
    if not np.isfinite(samples).all():
        raise InvalidArgumentError("The waveform has samples that are not finite (NaN or infinite).")
    return samples


def _rows(samples: FloatArray) -> FloatArray:
    """Every channel as a contiguous row; no rows when there are no samples."""
    return np.ascontiguousarray(samples).reshape(-1, samples.shape[-1]) if samples.size else samples[:0]


def _stack(rows: "list[FloatArray]", samples: FloatArray, length: int) -> FloatArray:
    """Put resampled rows into the leading shape of `samples`, cut or zero-filled to `length`."""
    if len(rows) == 1 and samples.ndim == 1 and len(rows[0]) == length and rows[0].dtype == samples.dtype:
        return rows[0]
    result = np.zeros((math.prod(samples.shape[:-1]), length), dtype=samples.dtype)
    for target, row in zip(result, rows, strict=False):
        target[: len(row)] = row[:length]
    return result.reshape(*samples.shape[:-1], length)


def _simple_ratio(ratio: Fraction) -> Fraction:
    """The nearest ratio of numbers small enough to build a polyphase filter for."""
    if ratio > 1:
        return 1 / _simple_ratio(1 / ratio)
    return ratio.limit_denominator(max(_MAX_POLYPHASE_STEP, math.ceil(1 / ratio)))


# -------------------------------------------------------------------------------------------- splitting


def split_audio(
    audio_data: npt.NDArray[Any],
    sample_rate: float,
    max_clip_duration_s: float,
    overlap_duration_s: float,
    min_energy_window_size: int,
) -> list[npt.NDArray[Any]]:
    """Cut a long waveform into clips where it is quiet.

    Args:
        audio_data: ``(samples,)``; with ``MMMEDIA_COMPAT=0.20`` also ``(channels, samples)``.
        sample_rate: in Hz.
        max_clip_duration_s: no clip is longer, in seconds.
        overlap_duration_s: how far before that length the quietest place may lie, in seconds. The clips
            themselves do not overlap.
        min_energy_window_size: samples over which quiet is measured.

    Returns:
        The clips in order, views of `audio_data` that joined give it again; none for no samples.

    Raises:
        InvalidArgumentError: (a `ValueError`) several channels, a clip would hold less than one sample, or
            the overlap is negative or not shorter than the clip.

    >>> [len(clip) for clip in split_audio(np.ones(25), 1, 10, 0, 1)]
    [10, 10, 5]
    """
    if audio_data.ndim != 1 and envs.MMMEDIA_COMPAT != "0.20":
        shape = tuple(audio_data.shape)
        raise InvalidArgumentError(f"split_audio expects mono audio, 1-D; got the shape {shape}.")
    rate = _rate("sample_rate", sample_rate)
    if not max_clip_duration_s * rate >= 1:
        raise InvalidArgumentError(
            f"max_clip_duration_s={max_clip_duration_s!r} holds no sample at {sample_rate!r} Hz."
        )
    if not 0 <= overlap_duration_s < max_clip_duration_s:
        raise InvalidArgumentError(
            f"overlap_duration_s={overlap_duration_s!r} must be from 0 to below {max_clip_duration_s!r} s."
        )
    total = audio_data.shape[-1]
    longest = int(min(max_clip_duration_s * rate, total))
    overlap = min(int(overlap_duration_s * rate), longest - 1)
    clips = []
    start = 0
    while total - start > longest:
        end = start + longest
        split = find_split_point(audio_data, end - overlap, end, min_energy_window_size)
        if split <= start:
            split = end
        clips.append(audio_data[..., start:split])
        start = split
    if start < total:
        clips.append(audio_data[..., start:])
    return clips


def find_split_point(wav: npt.NDArray[Any], start_idx: int, end_idx: int, min_energy_window: int) -> int:
    """Return where the quietest window (by RMS) between two samples begins.

    Windows lie side by side from `start_idx`; the first of equally quiet ones is taken, none that holds NaN.
    Where there is no window, `start_idx`; with ``MMMEDIA_COMPAT=0.20`` `end_idx`.

    Args:
        wav: ``(samples,)`` or ``(channels, samples)``.
        start_idx: first sample looked at.
        end_idx: the sample after the last.
        min_energy_window: samples in a window, at least one.

    Raises:
        InvalidArgumentError: (a `ValueError`) a window of less than one sample.

    >>> find_split_point(np.array([9.0, 9, 9, 9, 0, 0, 9, 9]), 0, 8, 2)
    4
    """
    window = int(min_energy_window)
    if window < 1:
        raise InvalidArgumentError(
            f"min_energy_window must be at least one sample; got {min_energy_window!r}."
        )
    stretch = np.asarray(wav)[..., start_idx:end_idx]
    # The last window is left out, so that a split stays a window away from the end of the stretch.
    count = max((stretch.shape[-1] - 1) // window, int(stretch.shape[-1] == window))
    if count < 1:
        return int(end_idx if envs.MMMEDIA_COMPAT == "0.20" else start_idx)
    windows = stretch[..., : count * window].reshape(*stretch.shape[:-1], count, window)
    if windows.dtype.kind in "iub":
        windows = windows.astype(np.float64)
    energy = np.square(windows).mean(axis=-1)
    if energy.ndim > 1:
        energy = energy.mean(axis=tuple(range(energy.ndim - 1)))
    loudness = np.sqrt(energy)
    return int(start_idx) + int(np.argmin(np.where(np.isnan(loudness), np.inf, loudness))) * window
