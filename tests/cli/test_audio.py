"""`mmmedia audio`: the sound that `load_audio` gives, as a file."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mmmedia
from support.clips import clip
from support.command_line import program, run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two seconds in two channels, of which the right one is louder than full scale."""
    path = tmp_path / "sound.wav"
    times = np.arange(16_000) / 8000
    both = np.stack([0.5 * np.sin(400 * times), 1.5 * np.sin(900 * times)], axis=1)
    soundfile.write(path, both, 8000, subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ([], {}),
        (["--rate", 16000], {"sampling_rate": 16000}),
        (["--channels"], {"mono": False}),
        (["--start", "0:00.5", "--end", 1], {"start": 0.5, "end": 1}),
    ],
)
def test_writes_what_load_audio_gives(
    source: Path, tmp_path: Path, options: list[object], keywords: dict[str, object]
) -> None:
    """The same samples, all of them with --float."""
    target = tmp_path / "out.wav"
    result = run("audio", source, "-o", target, "--float", *options)
    assert result.exit_code == 0, result.output
    expected, rate = mmmedia.load_audio(source, **keywords)
    written, written_rate = soundfile.read(target, dtype="float32")
    assert written_rate == rate
    assert written.T.tolist() == expected.tolist()
    assert result.stdout.startswith(f"{target}  {len(written) / rate:.2f} s · {rate:g} Hz · ")


def test_formats(source: Path, tmp_path: Path) -> None:
    """By the suffix; 16 bits unless told otherwise; the sound of a video too."""
    for name, form, subtype in (
        ("a.wav", "WAV", "PCM_16"), ("a.flac", "FLAC", "PCM_16"), ("a.ogg", "OGG", "VORBIS"),
        ("a.mp3", "MP3", "MPEG_LAYER_III"), ("a.opus", "OGG", "OPUS"),
    ):  # fmt: skip
        assert run("audio", source, "-o", tmp_path / name).exit_code == 0
        info = soundfile.info(tmp_path / name)
        assert (info.format, info.subtype, info.channels) == (form, subtype, 1)
    (tmp_path / "clip.mp4").write_bytes(clip(audio=True))
    assert run("audio", tmp_path / "clip.mp4", "-o", tmp_path / "clip.wav", "--channels").exit_code == 0
    assert soundfile.info(tmp_path / "clip.wav").channels == 2


def test_through_pipes(source: Path) -> None:
    """WAV on standard output, the words on standard error."""
    done = program("audio", "-", "-o", "-", "-r", "4000", stdin=source.read_bytes())
    assert done.returncode == 0
    waveform, rate = soundfile.read(io.BytesIO(done.stdout))
    assert (len(waveform), rate) == (8000, 4000)
    assert done.stderr.decode().startswith("-  2.00 s · 4000 Hz · mono")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["-o", "a.xyz"], 2, "no sound that can be written"),
        (["-o", "a.mp3", "--float"], 2, "no samples of 32 bits"),
        (["-o", "a.mp3", "--rate", 1234567], 2, "MP3 does not take 1 channels at 1.23457e+06 Hz"),
        (["-o", "a.wav", "--start", 9], 2, "ends at 2 s"),
        (["-o", "sound.wav"], 1, "It is there already"),
    ],
)
def test_errors(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    status: int,
    said: str,
) -> None:
    """A line, and no file."""
    monkeypatch.chdir(tmp_path)
    result = run("audio", source, *options)
    assert (result.exit_code, result.stderr.count("\n")) == (status, 1)
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sound.wav"]
