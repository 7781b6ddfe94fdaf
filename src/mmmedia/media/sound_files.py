"""Files of sound to samples: what a file consists of, and the decoders, each within limits."""

import functools
import io
import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt

from mmmedia import envs
from mmmedia.audio import resample_audio_librosa
from mmmedia.containers import admit, identify, missing_bytes, open_av
from mmmedia.containers.truncation import with_true_length
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, MissingPackageError
from mmmedia.media.links import Link, frames_begin, mp3_links, ogg_links, opus_rate

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)
# Which packages are there is told to who looks at logs, not printed by whoever never set them up.
logger.addHandler(logging.NullHandler())

Waveform = npt.NDArray[np.float32]
AudioSource = str | os.PathLike[str] | BinaryIO

# MPEG audio, in whatever container, may end two frames before what its header counts: encoders disagree on
# whether their tag is a frame, and decoders keep back what the last one would overlap with.
_MPEG_TOLERANCE = 2 * 1152
# Codecs of frames round up to whole ones, and begin with what they need to get going: so many frames more.
_PADDING_FRAMES = 4
_MPEG_PADDING = _PADDING_FRAMES * 1152
_EXACT_CODECS = frozenset({"flac", "alac", "wavpack", "tta", "ape", "tak", "truehd", "mlp"})
_PROBE = 4096
# What libsndfile may see, by first bytes. Its readers of sampler dumps, MATLAB and the like are old code that
# no one sends speech in; one of them prints to the standard output what is wrong with a file.
_SOUNDFILE_MAGIC = (
    b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"caff", b"fLaC", b"OggS", b"ID3",
    b"NIST_1A", b"Creative Voice File",
)  # fmt: skip
# By first bytes, what counts its samples in its header, in the end truly (`with_true_length`).
_COUNTED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"riff", b"FORM", b".snd", b"caff")
# What is neither chained nor without a beginning. The rest is read before it is opened.
_NEVER_CHAINED = (*_COUNTED, b"fLaC", b"NIST_1A")
# Opus of a lower rate libsndfile decodes at that rate; FFmpeg knows but 48 kHz.
_OPUS_BELOW = 24_000
_IMA_ADPCM = b"fmt \x14\0\0\0\x11\0"
# libsndfile's count of frames where the header leaves it open.
_UNKNOWN_FRAMES = (1 << 63) - 1
# FFmpeg's frames hold about a thousand samples; so many are converted at once.
_BATCH_SAMPLES = 1 << 17
_MAX_PLANES = 8  # of an AVFrame; PyAV looks for the end of more than that where there is none


_NO_FFMPEG: Final = "Could not load libtorchcodec"
# Seconds that torchcodec decodes beyond a limit, by which it shows.
_BEYOND: Final = 1.0
# What libvorbis may give beyond the end of a stream, in samples at its own rate.
_VORBIS_EXCESS: Final = 8192


class _UnknownFormatError(InvalidMediaError):
    """Nothing that libsndfile knows, so that FFmpeg may try."""


class Length:
    """How long the sound is so far, held against what is admitted.

    Args:
        longest: seconds, 0 for any number; `None`: as the operator has it.
        largest: bytes as float32, likewise.
    """

    def __init__(self, longest: float | None = None, largest: int | None = None) -> None:
        self.longest = envs.VLLM_MAX_AUDIO_DECODE_DURATION_S if longest is None else longest
        self.largest = envs.VLLM_MAX_AUDIO_DECODE_BYTES if largest is None else largest
        self._samples: dict[int, int] = {}  # by rate: sums of seconds would round
        self._size = 0

    def add(self, samples: int, rate: int, channels: int) -> None:
        """Count what has been decoded: samples of each channel."""
        self._samples[rate] = self._samples.get(rate, 0) + samples
        self._size += 4 * samples * channels

    def check(self, samples: int = 0, rate: int = 1, channels: int = 0, padding: float = 0) -> None:
        """Refuse what has been decoded together with so much that will be.

        Args:
            samples: of each channel, that will be decoded.
            rate: of those, in Hz.
            channels: of those.
            padding: seconds that an encoder may have added to what was a sound of the longest length.
        """
        seconds = sum(count / each for each, count in self._samples.items()) + samples / rate
        self.check_sums(seconds, self._size + 4 * samples * channels, padding)

    def check_sums(self, seconds: float, size: int, padding: float = 0) -> None:
        """Refuse sound of so many seconds, or bytes as float32, if that is more than is admitted.

        What is as long as the limit passes, and so do its `padding` seconds.
        """
        if 0 < self.longest < seconds - padding:
            raise LimitExceededError(
                f"The audio exceeds maximum allowed duration: it lasts {round(seconds, 6)} s or more, over "
                f"the limit of {self.longest:g} s (VLLM_MAX_AUDIO_DECODE_DURATION_S)."
            )
        if 0 < self.largest < size:
            raise LimitExceededError(
                f"The audio decodes to {size} bytes or more, over the limit of {self.largest} "
                "(VLLM_MAX_AUDIO_DECODE_BYTES)."
            )


_Piece = tuple[Waveform, int]  # ``(channels, samples)`` and their rate in Hz
_Decoder = Callable[[BinaryIO, bool, Length], list[_Piece]]


def load(
    path: AudioSource, sr: float | None, mono: bool, decode: _Decoder, length: Length
) -> tuple[Waveform, float]:
    """Decode all files of which a file consists, and join them."""
    with _opened(path) as file:
        pieces = [piece for part in _parts(file) for piece in decode(part, mono, length)]
    if not pieces:
        raise _invalid("It holds no samples.")
    samples, rate = _joined(pieces), pieces[0][1]
    return _finish(samples[0] if mono else np.ascontiguousarray(samples), rate, sr, length)


def decode_by_codec(file: BinaryIO, mono: bool, length: Length) -> list[_Piece]:
    """Decode one file by the fastest right decoder of its codec."""
    head = file.read(64)
    file.seek(0)
    is_opus = (opus_rate(head) or 0) > _OPUS_BELOW and envs.MMMEDIA_COMPAT != "0.20"
    if is_opus and _has_libopus():
        return decode_pyav(file, mono, length, "libopus")
    if head.startswith(b"RIFF") and head[12:22] == _IMA_ADPCM:
        with suppress(InvalidMediaError):
            return decode_pyav(file, mono, length)
    try:
        return decode_soundfile(file, mono, length)
    except _UnknownFormatError:
        return decode_pyav(file, mono, length)


@contextmanager
def _opened(path: AudioSource) -> Iterator[BinaryIO]:
    """A file to read, at its start."""
    if isinstance(path, io.BytesIO):
        file: BinaryIO = io.BytesIO(path.getvalue())  # shares the memory; the caller's position stays
    elif isinstance(path, str | os.PathLike):
        file = Path(path).open("rb")  # noqa: SIM115  # closed below
    else:
        if path.seekable():
            path.seek(0)
        file = io.BytesIO(path.read())
    with file:
        yield file


def _parts(file: BinaryIO) -> Iterator[BinaryIO]:
    """The files of which a file consists, each with all that its header declares."""
    for part in _links(file):
        missing = missing_bytes(part)
        if missing:
            raise _invalid(f"Truncated: {missing} bytes are missing at its end.")
        yield with_true_length(part)


class Uncounted(io.BytesIO):
    """Frames of MPEG audio in a file that does not say how many there are.

    Args:
        data: the file.
        samples: how many they hold for each channel, by walking along them.
    """

    def __init__(self, data: bytes, samples: int) -> None:
        super().__init__(data)
        self.samples = samples


def _links(file: BinaryIO) -> list[BinaryIO]:
    """The files that a file is chained of, or it alone; MPEG audio from where its frames begin."""
    head = file.read(_PROBE)
    file.seek(0)
    if head.startswith(_NEVER_CHAINED) or envs.MMMEDIA_COMPAT == "0.20":
        return [file]
    data = file.read()
    file.seek(0)
    links = [Link(data)]
    name = _container(data)
    if name == "ogg":
        links = [Link(link) for link in ogg_links(data)]
    elif name is None and data.startswith(b"ID3"):
        links = mp3_links(data)  # behind several tags
    elif name in ("mp3", "aac", *_BY_CODES, None) and not data.startswith(b"ID3"):
        links = [Link(data[frames_begin(data) :])]
        name = _container(links[0].data)
    if name == "mp3":
        links = mp3_links(links[0].data)
    if links == [Link(data)]:
        return [file]
    return [
        io.BytesIO(link.data) if link.samples is None else Uncounted(link.data, link.samples)
        for link in links
    ]


# What is told by a few start codes could be a sound that begins in the midst of a frame.
_BY_CODES = ("h264", "hevc", "m4v", "mpegvideo")


def _container(data: bytes) -> str | None:
    """FFmpeg's name of what a file is by its first bytes; `None`: unknown."""
    try:
        return identify(data)
    except InvalidMediaError:
        return None


@functools.cache
def _has_libopus() -> bool:
    """Whether FFmpeg was built with the decoder that libsndfile has as well.

    FFmpeg's own is twice as fast, but only of stereo and of speech at few bits it makes other samples, up to
    half of full scale apart.
    """
    import av

    return "libopus" in av.codecs_available


def _joined(pieces: list[_Piece]) -> Waveform:
    """Pieces as one, at the rate of the first; of one channel as if it were in all."""
    if len(pieces) == 1:
        return pieces[0][0]
    same_rate = _at_one_rate(pieces)
    channels = max(len(piece) for piece in same_rate)
    if any(len(piece) not in (1, channels) for piece in same_rate):
        raise _invalid("Its number of channels changes midway.")
    rows = [np.broadcast_to(piece, (channels, piece.shape[1])) for piece in same_rate]
    return np.concatenate(rows, axis=1)


def _invalid(reason: str) -> InvalidMediaError:
    return InvalidMediaError(f"Invalid or unsupported audio file. {reason}")


def _finish(samples: Waveform, rate: float, sr: float | None, length: Length) -> tuple[Waveform, float]:
    """The last steps of both ways: judge the samples, resample."""
    if not samples.size:
        raise _invalid("It holds no samples.")
    if not np.isfinite(samples).all():
        raise _invalid("It holds samples that are not finite (NaN or infinite).")
    if sr is None or sr == rate:
        return samples, rate
    if sr > 0 and math.isfinite(sr):
        length.check_sums(0, math.ceil(samples.nbytes * (sr / rate)))
    return cast("Waveform", resample_audio_librosa(samples, orig_sr=rate, target_sr=sr)), sr


def _average(channels: Waveform) -> Waveform:
    """``(channels, samples)`` to ``(samples,)``: bit for bit ``np.mean(channels, axis=0)``, but faster."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        if len(channels) >= 8:  # from here on NumPy adds in another order
            return cast("Waveform", np.mean(channels, axis=0))
        if len(channels) == 1:
            return cast("Waveform", channels[0])
        total = channels[0] + channels[1]
        for channel in channels[2:]:
            total += channel
        total += np.float32(0)  # NumPy's sum of nothing but negative zeros is a positive one
        total /= np.float32(len(channels))
        return cast("Waveform", total)


# -------------------------------------------------------------------------------------------- libsndfile


def decode_soundfile(file: BinaryIO, mono: bool, length: Length) -> list[_Piece]:
    """Decode one file by libsndfile."""
    import soundfile

    head = file.read(20)
    if not head.startswith(_SOUNDFILE_MAGIC) and head[:1] != b"\xff":  # the last: frames of MPEG audio
        raise _UnknownFormatError(
            "Invalid or unsupported audio file. By its first bytes, none of libsndfile's."
        )
    try:
        sound = soundfile.SoundFile(_Seekable(file))
        if isinstance(file, Uncounted) and 0 < sound.frames < file.samples:
            sound = soundfile.SoundFile(_Seekable(_lengthened(file, sound.frames)))
    except (soundfile.SoundFileError, TypeError) as error:
        raise _UnknownFormatError(f"Invalid or unsupported audio file. {words(error)}") from error
    with sound:
        frames, channels, rate = sound.frames, sound.channels, int(sound.samplerate)
        if not frames and head.startswith(_COUNTED):  # FFmpeg would take the chunks behind them for samples
            raise _invalid("It holds no samples.")
        if frames in (0, _UNKNOWN_FRAMES):  # as some writers to a pipe leave it; libsndfile needs the number
            raise _UnknownFormatError("Invalid or unsupported audio file. It holds no samples.")
        expected = frames
        if isinstance(file, Uncounted):  # libsndfile's number is a guess
            frames, expected = min(frames, file.samples), file.samples
        is_mpeg = sound.subtype.startswith("MPEG")
        length.check(frames, rate, channels, _MPEG_PADDING / rate if is_mpeg else 0)
        try:
            samples: Waveform = sound.read(out=np.empty((frames, channels), dtype=np.float32))
        except (soundfile.SoundFileError, MemoryError) as error:
            raise _invalid(f"Broken or truncated: {words(error)}") from error
        if len(samples) < expected - (_MPEG_TOLERANCE if is_mpeg else 0):
            raise _invalid(f"Truncated: it declares {expected} samples and holds {len(samples)}.")
    length.add(len(samples), rate, channels)
    return [(_average(samples.T)[None] if mono else samples.T, rate)]


def _lengthened(file: Uncounted, guessed: int) -> BinaryIO:
    """A file for which libsndfile guesses no fewer samples than it has, by its length; it reads no more.

    Frames differ by an eighth at most; a guess that is farther off has another reason.
    """
    data = file.getvalue()
    needed = min(len(data) * file.samples // guessed, len(data) * 5 // 4)
    return io.BytesIO(data.ljust(needed + _PROBE, b"\0"))


class _Seekable:
    """A file as libsndfile wants it: without a name to guess from, and a wrong seek moves nothing.

    An exception inside a callback from C could only be printed.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self.tell, self._seek, self._readinto = file.tell, file.seek, cast("io.BytesIO", file).readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            return self._readinto(buffer)
        except OSError:
            return 0


def words(error: Exception) -> str:
    """What a library says of a fault, without the name of the file object."""
    return str(
        getattr(error, "error_string", None) or getattr(error, "strerror", None) or type(error).__name__
    )


# -------------------------------------------------------------------------------------------- torchcodec


def audio_decoder() -> Any:
    """Return the `AudioDecoder` of torchcodec; `None` where it is not installed, or finds no FFmpeg."""
    try:
        from torchcodec.decoders import AudioDecoder
    except ImportError:
        return None
    except RuntimeError as error:
        if _NO_FFMPEG not in str(error):
            raise
        return None
    return AudioDecoder


def no_torchcodec() -> MissingPackageError:
    """What to raise where there is no torchcodec to be used."""
    return MissingPackageError(
        "The torchcodec audio backend needs torchcodec, and an FFmpeg that it finds: "
        "pip install mmmedia[torchcodec]."
    )


@functools.cache
def warn_of_no_torchcodec() -> None:
    """Say so, once."""
    logger.warning("Sounds are decoded by libsndfile and PyAV. %s", no_torchcodec())


def decode_torchcodec(
    file: BinaryIO, mono: bool, length: Length, *, open_decoder: Any, sr: float | None = None
) -> list[_Piece]:
    """Decode one file by torchcodec, at its own rate or at that of `sr`."""
    if sr is not None and not (sr > 0 and sr == int(sr)):
        raise InvalidArgumentError(f"torchcodec resamples to whole numbers of samples a second; got {sr!r}.")
    file.seek(0)
    data = file.read()
    try:
        data = admit(data).data  # FFmpeg opens other files, and URLs, for formats that only name them
    except InvalidMediaError as error:
        raise _invalid(str(error)) from error
    try:
        decoder = open_decoder(data, sample_rate=None if sr is None else int(sr))
        metadata = decoder.metadata
        native = int(metadata.sample_rate)
        rate, channels, seconds = (
            int(sr or native),
            int(metadata.num_channels or 1),
            metadata.duration_seconds,
        )
        padding = 0.0 if metadata.codec in _EXACT_CODECS else _MPEG_PADDING / native
        if seconds is not None:
            length.check(int(seconds * rate), rate, channels, padding)
        stop = length.longest + _BEYOND if length.longest > 0 else None
        samples: Waveform = decoder.get_samples_played_in_range(0.0, stop).data.numpy()
    except RuntimeError as error:
        if _NO_FFMPEG in str(error):
            raise no_torchcodec() from error
        raise _invalid(f"Broken or truncated: {words(error)}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise _invalid("torchcodec finds no sound in it.") from error
    if metadata.codec == "vorbis" and seconds is not None:
        excess = samples.shape[1] - round(seconds * rate)
        if 0 < excess <= math.ceil(_VORBIS_EXCESS * rate / native):
            samples = samples[:, :-excess]
    length.add(samples.shape[1], rate, len(samples))
    length.check(padding=padding)
    return [(_average(samples)[None] if mono else samples, rate)]


# ------------------------------------------------------------------------------------------------ FFmpeg


def decode_pyav(file: BinaryIO, mono: bool, length: Length, decoder: str = "") -> list[_Piece]:
    """Decode one file by FFmpeg, by that decoder or the one it takes by itself."""
    import av

    file.seek(0)
    try:
        with open_av(file.read()) as container:
            if not container.streams.audio:
                raise _NoAudioError("No audio stream found in the file.")
            return list(_decoded(container, mono, length, decoder))
    except (_NoAudioError, LimitExceededError):
        raise
    except InvalidMediaError as error:
        raise _invalid(str(error)) from error
    # IndexError: PyAV meets a packet of a stream that the header did not announce.
    except (av.FFmpegError, ValueError, IndexError, MemoryError, NotImplementedError, OSError) as error:
        raise _invalid(f"Broken or truncated: {words(error)}") from error


class _NoAudioError(InvalidMediaError):
    """A container without an audio track."""


def _decoded(
    container: "av.container.InputContainer", mono: bool, length: Length, decoder: str
) -> Iterator[_Piece]:
    """Decode the first audio track: ``(channels, samples)`` float32 pieces with their rates, in order.

    Limits are checked before a frame is kept. A piece ends where the format of the frames changes.
    """
    from av.stream import Discard

    track = container.streams.audio[0]
    for stream in container.streams:
        if stream is not track:
            stream.discard = Discard.all
    context: Any = _context(track, decoder) if decoder else track.codec_context
    if context is None:
        raise InvalidMediaError("The audio track is of an unknown codec.")
    is_exact = context.name.startswith("pcm") or context.name in _EXACT_CODECS
    padding = 0.0
    batch: list[av.AudioFrame] = []
    samples_in_batch = 0
    for packet in container.demux(track):
        for frame in context.decode(packet if packet.size else None):
            if frame.is_corrupt:
                raise InvalidMediaError("Broken or truncated: FFmpeg found a corrupt frame.")
            if not frame.samples:
                continue
            if frame.sample_rate < 1:
                raise InvalidMediaError(f"A sampling rate of {frame.sample_rate} Hz.")
            if batch and (samples_in_batch >= _BATCH_SAMPLES or _kind(batch[0]) != _kind(frame)):
                yield _as_float(batch, mono), batch[0].sample_rate
                batch, samples_in_batch = [], 0
            batch.append(frame)
            samples_in_batch += frame.samples
            length.add(frame.samples, frame.sample_rate, frame.layout.nb_channels)
            padding = 0.0 if is_exact else max(padding, _PADDING_FRAMES * frame.samples / frame.sample_rate)
            if samples_in_batch >= _BATCH_SAMPLES:
                length.check(padding=padding)
    length.check(padding=padding)
    if batch:
        yield _as_float(batch, mono), batch[0].sample_rate


def _context(track: "av.AudioStream", decoder: str) -> "av.AudioCodecContext":
    """A decoder by its name, for the packets of a track; its samples are floats."""
    import av

    context = cast("av.AudioCodecContext", av.CodecContext.create(decoder, "r"))
    context.extradata = track.codec_context.extradata
    context.options = {"request_sample_fmt": "flt"}
    return context


def _kind(frame: "av.AudioFrame") -> tuple[str, int, int]:
    return frame.format.name, frame.sample_rate, frame.layout.nb_channels


def _as_float(frames: "list[av.AudioFrame]", mono: bool) -> Waveform:
    """Frames of one kind as float32 ``(channels, samples)``; integers are divided by their full scale."""
    channels = frames[0].layout.nb_channels
    kind = frames[0].format
    if kind.name.startswith("s64"):  # which PyAV has no array type for
        frames = _converted(frames, "dbl")
    elif kind.is_planar and channels > _MAX_PLANES:
        frames = _converted(frames, kind.packed.name)
    raw = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    if not frames[0].format.is_planar:
        raw = raw.reshape(-1, channels).T
    with np.errstate(over="ignore", invalid="ignore"):  # of doubles; what is not finite is refused later
        samples: Waveform = raw.astype(np.float32, copy=False)
    if raw.dtype == np.uint8:
        samples -= np.float32(128)
    if raw.dtype.kind in "iu":
        samples /= np.float32(1 << (8 * raw.dtype.itemsize - 1))
    return _average(samples)[None] if mono else samples


def _converted(frames: "list[av.AudioFrame]", kind: str) -> "list[av.AudioFrame]":
    """Frames with their samples in another format."""
    import av

    converter = av.AudioResampler(format=kind)
    return [converted for frame in frames for converted in converter.resample(frame)]


def _at_one_rate(pieces: list[tuple[Waveform, int]]) -> list[Waveform]:
    """Pieces joined where their rates agree, and resampled to the first rate where they do not."""
    first = pieces[0][1]
    result: list[Waveform] = []
    run: list[Waveform] = []
    for index, (piece, rate) in enumerate(pieces):
        run.append(piece)
        following = pieces[index + 1] if index + 1 < len(pieces) else None
        if following is not None and following[1] == rate and len(following[0]) == len(piece):
            continue
        joined = run[0] if len(run) == 1 else np.concatenate(run, axis=1)
        result.append(cast("Waveform", resample_audio_librosa(joined, orig_sr=rate, target_sr=first)))
        run = []
    return result
