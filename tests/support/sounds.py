"""Sounds made on the spot, and encoded by real encoders."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import soundfile

# Containers that libsndfile reads, and those that only FFmpeg does: (container, codec).
BY_SOUNDFILE = (
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
    ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("CAF", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"),
    ("SVX", "PCM_16"),
)  # fmt: skip
BY_FFMPEG = (
    ("mp4", "aac"), ("adts", "aac"), ("webm", "libopus"), ("matroska", "flac"), ("matroska", "pcm_s16le"),
    ("mov", "pcm_s24le"), ("mov", "pcm_u8"), ("mov", "alac"), ("avi", "pcm_s16le"), ("mpegts", "aac"),
    ("flv", "aac"), ("wav", "pcm_s64le"), ("mp4", "libopus"),
)  # fmt: skip


def sine(
    frequency: float, seconds: float, rate: int, channels: int = 1, amplitude: float = 0.5
) -> np.ndarray:
    """Float32 `(samples,)`, or `(samples, channels)` in which each channel is fainter than the one before."""
    wave = amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return _spread(wave, channels)


def speech_like(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Syllables of harmonics with pauses between them: the shape of speech, without a voice."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time + seed)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 12) if k * 150 < rate / 2)
    syllables = np.clip(np.sin(2 * np.pi * 2.5 * time), 0, None) ** 0.5
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(time))
    return _spread(0.3 * voice * syllables + noise * syllables, channels)


def _spread(wave: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1:
        return wave.astype(np.float32)
    return np.stack([wave / (1 + channel) for channel in range(channels)], axis=1).astype(np.float32)


def encode(wave: np.ndarray, rate: int, container: str = "WAV", codec: str | None = None) -> bytes:
    """Encode by soundfile."""
    file = io.BytesIO()
    channels = 1 if wave.ndim == 1 else wave.shape[1]
    with soundfile.SoundFile(file, "w", rate, channels, codec, format=container) as output:
        for start in range(0, len(wave), 1 << 14):  # libvorbis overflows its stack on minutes at once
            output.write(wave[start : start + (1 << 14)])
    return file.getvalue()


def encode_av(
    wave: np.ndarray,
    rate: int,
    container: str = "mp4",
    codec: str = "aac",
    *,
    video: bool = False,
    audio: bool = True,
    options: dict[str, str] | None = None,
    path: Path | None = None,
) -> bytes:
    """Encode `(samples,)` or `(samples, channels)` by FFmpeg; with `video`, beside grey pictures."""
    file = io.BytesIO() if path is None else path  # to move its index to the front, FFmpeg needs a path
    samples = np.ascontiguousarray(np.atleast_2d(wave.T), dtype=np.float32)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(file, "w", format=container, options=options or {}) as output:
        pictures = output.add_stream("libx264", rate=10) if video else None
        sound = output.add_stream(codec, rate=rate) if audio else None
        if sound is not None:
            sound.layout = layout
        if pictures is not None:
            pictures.width = pictures.height = 32
            for shade in range(8):
                picture = av.VideoFrame.from_ndarray(
                    np.full((32, 32, 3), 20 * shade, np.uint8), format="rgb24"
                )
                output.mux(pictures.encode(picture))
            output.mux(pictures.encode(None))
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            converter = av.AudioResampler(format=sound.format, layout=layout, rate=rate)
            for part in [*converter.resample(frame), *converter.resample(None)]:
                output.mux(sound.encode(part))
            output.mux(sound.encode(None))
    return file.getvalue() if path is None else path.read_bytes()


def wav_of_unknown_length(wave: np.ndarray, rate: int, length: int = 0xFFFF_FFFF) -> bytes:
    """A 16-bit WAV as a program writes it into a pipe: the header was written before the length was known."""
    data = encode(wave, rate, "WAV", "PCM_16")
    at = data.index(b"data")
    head = data[:4] + struct.pack("<I", length) + data[8:at]
    return head + b"data" + struct.pack("<I", length) + data[at + 8 :]


def flac_declaring(data: bytes, samples: int, rate: int | None = None) -> bytes:
    """`data`, a FLAC file, with another count of samples, and another rate, in its header."""
    fields = int.from_bytes(data[18:26], "big")
    fields = fields >> 36 << 36 | samples
    if rate is not None:
        fields = fields & (1 << 44) - 1 | rate << 44
    return data[:18] + fields.to_bytes(8, "big") + data[26:]


def wav_header(*, channels: int = 1, rate: int = 16_000, bits: int = 16, body: bytes = b"") -> bytes:
    """A PCM WAV with any numbers in its header."""
    width = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate, rate * width & 0xFFFF_FFFF, width & 0xFFFF, bits)
    chunks = b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
