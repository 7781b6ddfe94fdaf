"""`AudioMediaIO`: encoded sound to a waveform, by libsndfile first and by FFmpeg for what that does not know.

What libsndfile reads comes out sample for sample as ``soundfile.read(dtype="float32")`` gives it, channels
averaged, but for Opus, whose last bits may differ: each codec has its fastest right decoder, and
``benchmarks/audio.py`` prints them side by side. A float file may therefore hold samples beyond [-1, 1]; they
are kept. A file that is cut short, breaks off while decoding, or holds NaN or infinite samples is refused
rather than half returned. What is several files in one (chained Ogg, MP3 behind MP3) is returned whole, at
the rate of the first. With ``MMMEDIA_COMPAT=0.20`` it is the first of them, and Opus is libsndfile's.

Where torchcodec is installed it decodes, as in vLLM 0.33, unless another decoder is named or
``MMMEDIA_COMPAT=0.20`` is set. It reads the same files: what goes for containers, several files in one, cut
files and limits goes for it too.
"""

import functools
import io
import math
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.exceptions import HTTPResponseSizeExceededError
from mmmedia.media.base import Chargeable, MediaIO, Reservable, decode_base64, encode_base64
from mmmedia.media.embedding import EmbeddingMediaIO
from mmmedia.media.isolation import apart
from mmmedia.media.sound_files import (
    AudioSource,
    Length,
    Waveform,
    audio_decoder,
    decode_by_codec,
    decode_pyav,
    decode_soundfile,
    decode_torchcodec,
    load,
    no_torchcodec,
    warn_of_no_torchcodec,
    words,
)
from mmmedia.packages import packages_for
from mmmedia.tensors import checked_sparse_tensors
from mmmedia.work import isolated

AUDIO_BACKENDS: Final = ("auto", "soundfile", "pyav", "torchcodec")
"""Decoders by name; "auto" is torchcodec where it is installed, else the other two in that order."""

# By vLLM's name: one lock for all embeddings.
check_sparse_tensor_invariants_threadsafe = checked_sparse_tensors
# Frames written at a time.
_WRITE_SAMPLES = 1 << 14
_NO_LIMIT: Final = 1 << 62


def __getattr__(name: str) -> Any:
    if name in ("soundfile", "pybase64"):  # by which tests of engines reach what encodes and decodes
        return import_module(name)
    if name == "AudioDecoder":  # likewise: of torchcodec, None where there is none
        return audio_decoder()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class AudioMediaIO(MediaIO[tuple[Waveform, float]]):
    """Loads sound to ``(waveform, sampling_rate)``.

    The waveform is float32 ``(samples,)``, channels averaged, at the file's own rate in Hz. Full scale is
    [-1, 1]; what a file of floats, or a lossy codec, holds beyond that is kept.

    Args:
        decoded_budget: charged with the bytes of the waveform; where it can `reserve`, before decoding.
        **kwargs: kept in `kwargs`, for subclasses, but for ``audio_backend``: one of `AUDIO_BACKENDS`.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown backend.
        mmmedia.exceptions.HTTPResponseSizeExceededError: (a `ValueError`, from every load) an encoded file
            larger than `VLLM_MAX_AUDIO_CLIP_FILESIZE_MB`, which 0.20 did not mind.
        InvalidMediaError: (a `ValueError`, from every load) not sound, or broken, cut short or empty.
        LimitExceededError: (a `ValueError`, from every load) longer than
            `VLLM_MAX_AUDIO_DECODE_DURATION_S` or `VLLM_MAX_AUDIO_DECODE_BYTES` admit.

    >>> import numpy as np
    >>> audio_io = AudioMediaIO()
    >>> encoded = audio_io.encode_base64((np.zeros(800, dtype=np.float32), 16_000))
    >>> waveform, sampling_rate = audio_io.load_base64("audio/wav", encoded)
    >>> waveform.shape, waveform.dtype, sampling_rate
    ((800,), dtype('float32'), 16000)
    """

    modality = "audio"

    def __init__(self, *, decoded_budget: Chargeable | None = None, **kwargs: Any) -> None:
        super().__init__()
        self.audio_backend = _backend(kwargs.pop("audio_backend", None), "audio_backend")
        self.decoded_budget = decoded_budget
        self.kwargs = kwargs

    def get_max_bytes(self) -> int | None:
        """Return how many bytes an encoded sound may have, `None` for any number."""
        limit = envs.VLLM_MAX_AUDIO_CLIP_FILESIZE_MB
        return limit << 20 if limit > 0 and envs.MMMEDIA_COMPAT != "0.20" else None

    def load_bytes(self, data: bytes) -> tuple[Waveform, float]:
        """Load from an encoded file in memory."""
        self._check_size(len(data))
        return self._load_memory(data)

    def load_base64(self, media_type: str, data: str) -> tuple[Waveform, float]:  # noqa: ARG002  # the bytes say it
        """Load from base64 text; `media_type` is not looked at, as the bytes tell what they are."""
        limit = self.get_max_bytes()
        if limit is not None and len(data) > 4 * math.ceil(limit / 3):
            raise HTTPResponseSizeExceededError(limit, len(data) * 3 // 4)
        return self.load_bytes(decode_base64(data))

    def load_file(self, filepath: Path) -> tuple[Waveform, float]:
        """Load from a file."""
        self._check_size(Path(filepath).stat().st_size)
        return self._load_memory(Path(filepath).read_bytes()) if isolated.is_on() else self._load(filepath)

    @apart("sound")
    def _load_memory(self, data: bytes) -> tuple[Waveform, float]:
        return self._load(io.BytesIO(data))

    def _check_size(self, size: int) -> None:
        limit = self.get_max_bytes()
        if limit is not None and size > limit:
            raise HTTPResponseSizeExceededError(limit, size)

    def _load(self, source: AudioSource) -> tuple[Waveform, float]:
        budget = self.decoded_budget
        if budget is None:
            return load_audio(source, sr=None, backend=self.audio_backend)
        if not hasattr(budget, "settle"):
            loaded = load_audio(source, sr=None, backend=self.audio_backend)
            budget.charge(loaded[0].nbytes)
            return loaded
        return self._load_reserving(source, cast("Reservable", budget))

    def _load_reserving(self, source: AudioSource, budget: Reservable) -> tuple[Waveform, float]:
        """Load within what the budget grants, and give back what is not used."""
        most = envs.VLLM_MAX_AUDIO_DECODE_BYTES
        most = most if most > 0 else _NO_LIMIT
        granted, actual = budget.reserve(most), 0
        try:
            waveform, rate = load_audio(source, sr=None, backend=self.audio_backend, max_decode_bytes=granted)
            actual = waveform.nbytes
        except ValueError as error:
            if granted < most and "VLLM_MAX_AUDIO_DECODE_BYTES" in str(error):
                raise LimitExceededError(
                    f"The audio decodes to more than the {granted} bytes that are left for this request "
                    "(VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES)."
                ) from error
            raise
        finally:
            budget.settle(granted, actual)
        return waveform, rate

    def encode_base64(self, media: tuple[npt.NDArray[Any], float], *, audio_format: str = "WAV") -> str:
        """Encode ``(waveform, sampling_rate)`` as base64 of a file, in any format that soundfile writes.

        Args:
            media: ``(samples,)`` or ``(samples, channels)``, and its rate in Hz.
            audio_format: "WAV", "FLAC", "OGG", "MP3", …

        Raises:
            InvalidArgumentError: (a `ValueError`) a format that soundfile can't write, or can't at that rate
                or with that many channels.
        """
        import soundfile

        waveform, rate = np.asarray(media[0]), media[1]
        channels = waveform.shape[1] if waveform.ndim == 2 else 1
        buffer = io.BytesIO()
        try:
            if len(waveform) <= _WRITE_SAMPLES or audio_format.upper() != "OGG":
                soundfile.write(buffer, waveform, int(rate), format=audio_format)
                return encode_base64(buffer.getvalue())
            with soundfile.SoundFile(buffer, "w", int(rate), channels, format=audio_format) as file:
                for start in range(0, len(waveform), _WRITE_SAMPLES):  # libvorbis overflows its stack on more
                    file.write(waveform[start : start + _WRITE_SAMPLES])
        except (soundfile.SoundFileError, ValueError, TypeError) as error:
            raise InvalidArgumentError(
                f"Can't write audio of shape {waveform.shape} at {rate} Hz as {audio_format!r}: "
                f"{words(error)}"
            ) from error
        return encode_base64(buffer.getvalue())


class AudioEmbeddingMediaIO(EmbeddingMediaIO):
    """Loads an audio embedding, a dense tensor on the CPU."""

    modality = "audio_embedding"


@packages_for("A sound")
def load_audio(
    path: AudioSource,
    *,
    sr: float | None = 22050,
    mono: bool = True,
    max_duration_s: float | None = None,
    max_decode_bytes: int | None = None,
    backend: str | None = None,
) -> tuple[Waveform, float]:
    """Load sound from a file or from memory.

    Args:
        path: a path, or a binary file object such as `io.BytesIO`, read from its start.
        sr: the rate wanted in Hz, got by soxr in high quality; `None` keeps the file's own.
        mono: average the channels.
        max_duration_s: the longest admitted, in seconds, 0 for any length; `None`:
            `VLLM_MAX_AUDIO_DECODE_DURATION_S`.
        max_decode_bytes: the most bytes admitted, as float32, 0 for any number; `None`:
            `VLLM_MAX_AUDIO_DECODE_BYTES`.
        backend: one of `AUDIO_BACKENDS`. "auto" or `None`: torchcodec where it is installed; else libsndfile,
            and FFmpeg through PyAV for what that does not know. A named one stands alone.

    Returns:
        The waveform, float32 ``(samples,)`` or, with ``mono=False``, ``(channels, samples)``; and its rate.

    Raises:
        InvalidMediaError: (a `ValueError`) "Invalid or unsupported audio file." and why, or
            "No audio stream found" in a video.
        LimitExceededError: (a `ValueError`) longer than the two limits admit.
        InvalidArgumentError: (a `ValueError`) an unknown backend; a rate that torchcodec does not have.
        MissingPackageError: (an `ImportError`) the backend that was named is not installed.
        OSError: the path can't be opened.

    >>> import soundfile
    >>> file = io.BytesIO()
    >>> soundfile.write(file, np.zeros((4410, 2)), 44_100, format="FLAC")
    >>> load_audio(file, sr=16_000)[0].shape, load_audio(file, sr=None, mono=False)[0].shape
    ((1600,), (2, 4410))
    """
    name = _backend(backend, "audio backend")
    if not isinstance(path, str | os.PathLike) and not path.seekable():
        path = io.BytesIO(path.read())  # more than one decoder may read it
    if name == "torchcodec" or (name == "auto" and envs.MMMEDIA_COMPAT != "0.20"):
        try:
            return load_audio_torchcodec(
                path, sr=sr, mono=mono, max_duration_s=max_duration_s, max_decode_bytes=max_decode_bytes
            )
        except ImportError:
            if name == "torchcodec":
                raise
            warn_of_no_torchcodec()
    decode = {"pyav": decode_pyav, "soundfile": decode_soundfile}.get(name, decode_by_codec)
    return load(path, sr, mono, decode, Length(max_duration_s, max_decode_bytes))


def load_audio_soundfile(
    path: AudioSource,
    *,
    sr: float | None = 22050,
    mono: bool = True,
    max_duration_s: float | None = None,
    max_decode_bytes: int | None = None,
) -> tuple[Waveform, float]:
    """Load sound through libsndfile alone; arguments, results and errors as in `load_audio`."""
    return load(path, sr, mono, decode_soundfile, Length(max_duration_s, max_decode_bytes))


def load_audio_pyav(
    path: AudioSource,
    *,
    sr: float | None = 22050,
    mono: bool = True,
    max_duration_s: float | None = None,
    max_decode_bytes: int | None = None,
) -> tuple[Waveform, float]:
    """Load sound, or the first audio track of a video, through FFmpeg alone; otherwise as `load_audio`."""
    return load(path, sr, mono, decode_pyav, Length(max_duration_s, max_decode_bytes))


def load_audio_torchcodec(
    path: AudioSource,
    *,
    sr: float | None = 22050,
    mono: bool = True,
    max_duration_s: float | None = None,
    max_decode_bytes: int | None = None,
) -> tuple[Waveform, float]:
    """Load sound through torchcodec alone, which also resamples; otherwise as `load_audio`.

    Raises:
        MissingPackageError: (an `ImportError`) torchcodec is not installed, or finds no FFmpeg.
        InvalidArgumentError: (a `ValueError`) `sr` is no whole number.
    """
    open_decoder = sys.modules[__name__].AudioDecoder
    if open_decoder is None:
        raise no_torchcodec()
    decode = functools.partial(decode_torchcodec, open_decoder=open_decoder, sr=sr)
    return load(path, sr, mono, decode, Length(max_duration_s, max_decode_bytes))


def _backend(name: object, what: str) -> str:
    if name is None:
        return "auto"
    if name not in AUDIO_BACKENDS:
        raise InvalidArgumentError(f"Unknown {what} {name!r:.64}; there are: {', '.join(AUDIO_BACKENDS)}.")
    return str(name)
