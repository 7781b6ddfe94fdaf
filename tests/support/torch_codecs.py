"""Stand-ins of torchcodec and torchaudio, as far as this library calls them; the real ones take gigabytes."""

import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr


class AudioDecoder:
    """Reads what libsndfile reads."""

    made: list["AudioDecoder"] = []  # noqa: RUF012
    excess = 0
    claimed: float | None = None

    def __init__(self, source: bytes, *, sample_rate: int | None = None) -> None:
        try:
            samples, native = soundfile.read(io.BytesIO(source), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise RuntimeError(f"Failed to open the input buffer: {error}") from error
        self._rate = sample_rate or native
        if self._rate != native:
            samples = soxr.resample(samples, native, self._rate)
        seconds = len(samples) / self._rate if self.claimed is None else self.claimed
        self._samples = np.concatenate([samples.T, np.ones((samples.shape[1], self.excess), np.float32)], 1)
        self.metadata = SimpleNamespace(
            duration_seconds=seconds,
            sample_rate=native,
            num_channels=samples.shape[1],
            codec="vorbis" if source.startswith(b"OggS") else "pcm_s16le",
        )
        self.decoded = 0
        self.made.append(self)

    def get_samples_played_in_range(self, start: float = 0.0, stop: float | None = None) -> Any:
        import torch

        assert start == 0
        end = self._samples.shape[1] if stop is None else int(stop * self._rate)
        samples = np.ascontiguousarray(self._samples[:, :end])
        self.decoded = samples.shape[1]
        return SimpleNamespace(data=torch.from_numpy(samples), sample_rate=self._rate)


class VideoDecoder:
    """Reads what PyAV reads, on the CPU."""

    made: list["VideoDecoder"] = []  # noqa: RUF012

    def __init__(self, source: bytes, **options: Any) -> None:
        self.options, self.source = options, source
        with av.open(io.BytesIO(source)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate)
            self._frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        height, width = self._frames[0].shape[:2]
        self.metadata = SimpleNamespace(
            num_frames=len(self._frames),
            average_fps=rate,
            duration_seconds=len(self._frames) / rate,
            width=width,
            height=height,
        )
        self.asked: list[int] = []
        self.made.append(self)

    def get_frames_at(self, indices: list[int]) -> Any:
        import torch

        self.asked = list(indices)
        return SimpleNamespace(data=torch.from_numpy(np.stack([self._frames[index] for index in indices])))


class Resample:
    """Resamples by soxr."""

    def __init__(self, orig_freq: int, new_freq: int) -> None:
        self._rates = orig_freq, new_freq

    def __call__(self, rows: Any) -> Any:
        import torch

        assert torch.get_num_threads() == 1
        assert rows.dtype is torch.float32
        return torch.from_numpy(np.ascontiguousarray(soxr.resample(rows.numpy().T, *self._rates).T))


def install(monkeypatch: pytest.MonkeyPatch) -> tuple[type[AudioDecoder], type[VideoDecoder]]:
    """Let both be importable; return decoders that note what they are asked for."""
    audio = type("AudioDecoder", (AudioDecoder,), {"made": []})
    video = type("VideoDecoder", (VideoDecoder,), {"made": []})
    decoders = ModuleType("torchcodec.decoders")
    decoders.AudioDecoder, decoders.VideoDecoder = audio, video  # type: ignore[attr-defined]
    transforms = ModuleType("torchaudio.transforms")
    transforms.Resample = Resample  # type: ignore[attr-defined]
    for name, module in (
        ("torchcodec", ModuleType("torchcodec")),
        ("torchcodec.decoders", decoders),
        ("torchaudio", ModuleType("torchaudio")),
        ("torchaudio.transforms", transforms),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return audio, video
