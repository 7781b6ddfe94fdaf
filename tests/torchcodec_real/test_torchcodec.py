"""torchcodec and torchaudio themselves, by `nox -s torchcodec`; skipped where they are not installed."""

import io

import numpy as np
import pytest

from mmmedia.audio import resample_audio_torchaudio
from mmmedia.media.audio import load_audio, load_audio_soundfile
from mmmedia.video import VideoBackend
from support.clips import clip, read_number

pytestmark = pytest.mark.usefixtures("_installed")


@pytest.fixture
def _installed() -> None:
    pytest.importorskip("torchcodec")
    pytest.importorskip("torchaudio")


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames(codec: str) -> None:
    data = clip(frames=90, width=96, height=64, gop=15, codec=codec)
    frames, metadata = VideoBackend.load_bytes(data, 5, backend="torchcodec")
    assert [read_number(frame) for frame in frames.numpy()] == metadata["frames_indices"]
    assert metadata["frames_indices"] == VideoBackend.load_bytes(data, 5)[1]["frames_indices"]


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3", "OGG"])
def test_sounds(container: str) -> None:
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(32_000) / 30) / 2, 16_000, format=container)
    ours, rate = load_audio(file, sr=None, backend="torchcodec")
    theirs, _ = load_audio_soundfile(file, sr=None)
    assert rate == 16_000
    assert abs(len(ours) - len(theirs)) <= 2 * 1152
    shorter = min(len(ours), len(theirs))
    np.testing.assert_allclose(ours[:shorter], theirs[:shorter], atol=2e-3)


def test_resampling() -> None:
    wave = np.sin(np.arange(44_100) / 30).astype(np.float32)
    assert resample_audio_torchaudio(wave, orig_sr=44_100, target_sr=16_000).shape == (16_000,)
