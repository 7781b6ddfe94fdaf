"""Audio: what decoding costs over the plain libraries; decoders side by side; and the three resamplers.

python benchmarks/audio.py
"""

import io
import sys
from pathlib import Path

import librosa
import numpy as np
import soundfile

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from _machine import describe, paired

from mmmedia.audio import resample_audio_librosa, resample_audio_pyav, resample_audio_scipy
from mmmedia.errors import MediaError
from mmmedia.media.audio import load_audio, load_audio_pyav, load_audio_soundfile
from support.sounds import encode, encode_av, speech_like

ROUNDS = 9


def plain(data: bytes, sr: float | None = None) -> np.ndarray:
    """The plainest way: soundfile, the mean of the channels, librosa."""
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        samples, rate = file.read(dtype="float32").T, file.samplerate
    if samples.ndim > 1:
        samples = np.mean(samples, axis=0)
    return samples if sr is None else librosa.resample(samples, orig_sr=rate, target_sr=sr)


def main() -> None:
    print(describe(), "\n")
    minute = speech_like(60, 44_100, channels=2)
    print("60 s of stereo at 44.1 kHz          ours     plain   ours/plain (median of pairs)")
    for container, codec in (
        ("WAV", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ):
        data = encode(minute, 44_100, container, codec)
        for sr in (None, 16_000):
            ours, theirs, ratio = paired(
                lambda data=data, sr=sr: load_audio(io.BytesIO(data), sr=sr),
                lambda data=data, sr=sr: plain(data, sr),
                ROUNDS,
            )
            name = f"{container} {codec}" + (f" to {sr} Hz" if sr else "")
            print(f"{name:30s} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms   {ratio:.2f}")
    m4a = encode_av(minute, 44_100)
    ours, theirs, ratio = paired(lambda: load_audio(io.BytesIO(m4a), sr=None), lambda: plain_av(m4a), ROUNDS)
    print(f"{'M4A AAC, plain PyAV':30s} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms   {ratio:.2f}")
    decoders(minute)
    mono = minute[:, 0].copy()
    print("\n60 s of mono, 44.1 to 16 kHz        this    librosa   ratio")
    for resample in (resample_audio_librosa, resample_audio_pyav, resample_audio_scipy):
        ours, theirs, ratio = paired(
            lambda resample=resample: resample(mono, orig_sr=44_100, target_sr=16_000),
            lambda: librosa.resample(mono, orig_sr=44_100, target_sr=16_000),
            ROUNDS,
        )
        print(f"{resample.__name__:30s} {ours * 1e3:7.1f} ms {theirs * 1e3:7.1f} ms   {ratio:.2f}")


def decoders(minute: np.ndarray) -> None:
    """Each codec by both libraries and by what `load_audio` takes, and how far apart their samples are."""
    print("\n60 s of stereo, by decoder        libsndfile   FFmpeg     ours   apart: FFmpeg, ours")
    for container, codec, rate in (
        ("OGG", "OPUS", 48_000), ("OGG", "VORBIS", 44_100), ("MP3", "MPEG_LAYER_III", 44_100),
        ("FLAC", "PCM_16", 44_100), ("WAV", "PCM_16", 44_100), ("WAV", "IMA_ADPCM", 44_100),
        ("WAV", "MS_ADPCM", 44_100), ("WAV", "ULAW", 44_100),
    ):  # fmt: skip
        data = encode(minute, rate, container, codec)
        expected = load_audio_soundfile(io.BytesIO(data), sr=None)[0]
        seconds, apart = [], []
        for load in (load_audio_soundfile, load_audio_pyav, load_audio):
            try:
                ours, _, _ = paired(
                    lambda load=load, data=data: load(io.BytesIO(data), sr=None), lambda: None, 5
                )
            except MediaError:
                seconds.append("     -   ")
                continue
            samples = load(io.BytesIO(data), sr=None)[0]
            count = min(len(samples), len(expected))
            seconds.append(f"{ours * 1e3:6.0f} ms")
            apart.append(f"{np.abs(samples[:count] - expected[:count]).max():.0e}")
        print(f"{container + ' ' + codec:32s} {'  '.join(seconds)}   {', '.join(apart[1:])}")


def plain_av(data: bytes) -> np.ndarray:
    """The plainest way through PyAV: every frame as an array, joined, averaged."""
    import av

    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.concatenate(frames, axis=1).mean(axis=0)


if __name__ == "__main__":
    main()
