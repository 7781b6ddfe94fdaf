"""Decoders of sound by name, torchcodec's way, the size of an encoded file, and budgets."""

import base64
import io
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
import soundfile

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError, MissingPackageError
from mmmedia.exceptions import HTTPResponseSizeExceededError, VLLMValidationError
from mmmedia.media import sound_files
from mmmedia.media.audio import (
    AudioMediaIO,
    load_audio,
    load_audio_pyav,
    load_audio_soundfile,
    load_audio_torchcodec,
)
from mmmedia.media.base import MediaDecodedBudget
from mmmedia.media.connector import MediaConnector
from support import torch_codecs

RATE = 16_000
WAVE = (np.sin(np.arange(2 * RATE) / 30) / 2).astype(np.float32)


def encoded(container: str = "WAV", wave: np.ndarray = WAVE, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=container, subtype=subtype)
    return file.getvalue()


class Piped(io.RawIOBase):
    """A file that can't be read twice."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """That torchcodec is not there is said once a process."""
    sound_files.warn_of_no_torchcodec.cache_clear()
    yield
    sound_files.warn_of_no_torchcodec.cache_clear()


@pytest.fixture
def torchcodec(monkeypatch: pytest.MonkeyPatch) -> type[torch_codecs.AudioDecoder]:
    pytest.importorskip("torch")
    return torch_codecs.install(monkeypatch)[0]


class TestNames:
    def test_a_named_decoder_stands_alone(self) -> None:
        """libsndfile does not get FFmpeg's help, nor the other way round."""
        data = encoded()
        for name, load in (("soundfile", load_audio_soundfile), ("pyav", load_audio_pyav)):
            expected = load(io.BytesIO(data), sr=None)[0]
            assert np.array_equal(load_audio(io.BytesIO(data), sr=None, backend=name)[0], expected)
        ivf = b"DKIF" + bytes(60)
        with pytest.raises(InvalidMediaError, match="none of libsndfile's"):
            load_audio(io.BytesIO(ivf), backend="soundfile")

    @pytest.mark.parametrize("name", ["ffmpeg", "", 3])
    def test_unknown(self, name: Any) -> None:
        """It is refused when a media IO is made, and when it is used."""
        with pytest.raises(InvalidArgumentError, match="there are: auto, soundfile, pyav, torchcodec"):
            AudioMediaIO(audio_backend=name)
        with pytest.raises(ValueError, match="Unknown audio_backend"):
            AudioMediaIO(audio_backend=name)
        with pytest.raises(ValueError, match="Unknown audio backend"):
            load_audio(io.BytesIO(encoded()), backend=name)

    def test_the_keyword_is_eaten(self) -> None:
        """What is left goes to subclasses."""
        media_io = AudioMediaIO(audio_backend="pyav", x=1)
        assert (media_io.audio_backend, media_io.kwargs) == ("pyav", {"x": 1})
        connector = MediaConnector({"audio": {"audio_backend": "soundfile"}})
        url = "data:audio/wav;base64," + base64.b64encode(encoded()).decode()
        assert connector.fetch_audio(url)[0].shape == WAVE.shape

    def test_missing_torchcodec(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By name it is an error that says what to install; by default there is one warning, and sound."""
        monkeypatch.setitem(sys.modules, "torchcodec", None)
        with pytest.raises(MissingPackageError, match=r"mmmedia\[torchcodec\]"):
            load_audio(io.BytesIO(encoded()), backend="torchcodec")
        with pytest.raises(ImportError):
            AudioMediaIO(audio_backend="torchcodec").load_bytes(encoded())
        with caplog.at_level(logging.WARNING, logger="mmmedia"):
            for _ in range(3):
                assert load_audio(io.BytesIO(encoded()), sr=None)[0].shape == WAVE.shape
        assert [record.levelname for record in caplog.records] == ["WARNING"]


class TestTorchcodec:
    def test_is_the_default_where_it_is_there(
        self, torchcodec: type[torch_codecs.AudioDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not so in 0.20, nor where another is named."""
        waveform, rate = load_audio(io.BytesIO(encoded()), sr=8_000)
        assert (waveform.shape, rate, waveform.dtype) == ((RATE,), 8_000, np.float32)
        assert len(torchcodec.made) == 1
        load_audio(io.BytesIO(encoded()), backend="soundfile")
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        load_audio(io.BytesIO(encoded()))
        assert len(torchcodec.made) == 1

    def test_channels(self, torchcodec: type[torch_codecs.AudioDecoder]) -> None:
        """Averaged, or as they are."""
        stereo = encoded("FLAC", np.stack([WAVE, -WAVE / 2], axis=1))
        mono = load_audio_torchcodec(io.BytesIO(stereo), sr=None)[0]
        both = load_audio_torchcodec(io.BytesIO(stereo), sr=None, mono=False)[0]
        assert both.shape == (2, len(WAVE))
        assert np.array_equal(mono, both.mean(axis=0))

    def test_whole_rates_only(self, torchcodec: type[torch_codecs.AudioDecoder]) -> None:
        with pytest.raises(InvalidArgumentError, match="whole numbers"):
            load_audio_torchcodec(io.BytesIO(encoded()), sr=8_000.5)

    def test_no_more_is_decoded_than_shows_that_it_is_too_much(
        self, torchcodec: type[torch_codecs.AudioDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By what the file declares, or else a second beyond the limit."""
        data = encoded("WAV", np.zeros(20 * RATE, np.float32))
        with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_DURATION_S"):
            load_audio_torchcodec(io.BytesIO(data), sr=None, max_duration_s=3)
        assert torchcodec.made[-1].decoded == 0
        monkeypatch.setattr(torchcodec, "claimed", 1.0)
        with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_DURATION_S"):
            load_audio_torchcodec(io.BytesIO(data), sr=None, max_duration_s=3)
        assert torchcodec.made[-1].decoded == 4 * RATE
        with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_BYTES"):
            load_audio_torchcodec(io.BytesIO(data), sr=None, max_decode_bytes=20 * RATE * 4 - 1)
        assert load_audio_torchcodec(io.BytesIO(data), sr=None, max_duration_s=20)[0].shape == (20 * RATE,)

    def test_vorbis_is_cut_to_its_length(
        self, torchcodec: type[torch_codecs.AudioDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of other codecs, and by more than a block, nothing is cut."""
        monkeypatch.setattr(torchcodec, "excess", 100)
        vorbis = encoded("OGG", subtype="VORBIS")
        assert load_audio_torchcodec(io.BytesIO(vorbis), sr=None)[0].shape == WAVE.shape
        assert load_audio_torchcodec(io.BytesIO(encoded()), sr=None)[0].shape == (len(WAVE) + 100,)
        monkeypatch.setattr(torchcodec, "excess", 8193)
        assert load_audio_torchcodec(io.BytesIO(vorbis), sr=None)[0].shape == (len(WAVE) + 8193,)

    def test_errors(
        self, torchcodec: type[torch_codecs.AudioDecoder], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its own are faults of the file, but where it finds no FFmpeg; scripts are not shown to it."""
        with pytest.raises(InvalidMediaError, match="Invalid or unsupported audio file"):
            load_audio_torchcodec(io.BytesIO(b"RIFF" + bytes(40)))
        made = len(torchcodec.made)
        with pytest.raises(InvalidMediaError):
            load_audio_torchcodec(io.BytesIO(b"ffconcat version 1.0\nfile /etc/passwd\n"))
        assert len(torchcodec.made) == made

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("Could not load libtorchcodec. Likely causes: …")

        monkeypatch.setattr(sys.modules["torchcodec.decoders"], "AudioDecoder", broken)
        with pytest.raises(MissingPackageError, match="an FFmpeg that it finds"):
            load_audio_torchcodec(io.BytesIO(encoded()))
        piped = io.BufferedReader(Piped(encoded()))  # is read once, by whichever decodes it
        expected = load_audio_soundfile(io.BytesIO(encoded()), sr=None)[0]
        assert np.array_equal(load_audio(piped, sr=None)[0], expected)
        for error, words in (
            (RuntimeError("bad frame"), "Broken or truncated"),
            (TypeError(), "no sound in it"),
        ):
            monkeypatch.setattr(sys.modules["torchcodec.decoders"], "AudioDecoder", Mock(side_effect=error))
            with pytest.raises(InvalidMediaError, match=words):
                load_audio_torchcodec(io.BytesIO(encoded()))

    def test_another_in_its_place(self, torchcodec: type[torch_codecs.AudioDecoder]) -> None:
        """Tests of engines put one into the module, or `None` for none."""
        other = type("Other", (torchcodec,), {"excess": 100})
        with patch("mmmedia.media.audio.AudioDecoder", other):
            assert load_audio_torchcodec(io.BytesIO(encoded()), sr=None)[0].shape == (len(WAVE) + 100,)
        with (
            patch("mmmedia.media.audio.AudioDecoder", None),
            pytest.raises(ImportError, match="torchcodec audio"),
        ):
            load_audio_torchcodec(io.BytesIO(encoded()))


class TestLimitsByArgument:
    @pytest.mark.parametrize("load", [load_audio, load_audio_soundfile, load_audio_pyav])
    def test_they_win_over_the_settings(self, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Equal passes."""
        data = encoded()
        monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_DURATION_S", "1")
        with pytest.raises(LimitExceededError, match="limit of 1 s"):
            load(io.BytesIO(data), sr=None)
        size = 4 * len(WAVE)
        assert len(load(io.BytesIO(data), sr=None, max_duration_s=2, max_decode_bytes=size)[0]) == len(WAVE)
        with pytest.raises(LimitExceededError, match=r"limit of 1.9 s"):
            load(io.BytesIO(data), sr=None, max_duration_s=1.9)
        with pytest.raises(LimitExceededError, match=f"limit of {size - 1} "):
            load(io.BytesIO(data), sr=None, max_duration_s=0, max_decode_bytes=size - 1)


class TestEncodedSize:
    def test_every_way(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Bytes, base64 before it is decoded, a file before it is read: 400 for an engine."""
        monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "1")
        media_io = AudioMediaIO()
        assert media_io.get_max_bytes() == 1 << 20
        data = encoded("WAV", np.zeros(RATE * 40, np.float32))
        path = tmp_path / "a.wav"
        path.write_bytes(data)
        url = "data:audio/wav;base64," + base64.b64encode(data).decode()
        connector = MediaConnector(allowed_local_media_path=tmp_path)
        loads: list[Any] = [
            lambda: media_io.load_bytes(data),
            lambda: media_io.load_file(path),
            lambda: media_io.load_base64("audio/wav", "!" * (2 << 20)),
            lambda: connector.fetch_audio(url),
            lambda: connector.fetch_audio(path.as_uri()),
        ]
        for load in loads:
            with pytest.raises(HTTPResponseSizeExceededError, match="Maximum file size exceeded") as caught:
                load()
            assert isinstance(caught.value, VLLMValidationError)
            assert (caught.value.parameter, caught.value.value > 1) == ("audio_filesize_mb", True)
        monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
        assert media_io.load_bytes(data)[0].shape == (RATE * 40,)
        monkeypatch.delenv("MMMEDIA_COMPAT")
        monkeypatch.setenv("VLLM_MAX_AUDIO_CLIP_FILESIZE_MB", "0")
        assert media_io.load_file(path)[0].shape == (RATE * 40,)


class TestBudget:
    def test_reserved_and_settled(self) -> None:
        """What the waveform takes is used, and nothing by a file that fails."""
        budget = MediaDecodedBudget(10 * len(WAVE))
        media_io = AudioMediaIO(decoded_budget=budget)
        media_io.load_bytes(encoded())
        assert budget.used == 4 * len(WAVE)
        with pytest.raises(InvalidMediaError):
            media_io.load_bytes(b"nothing")
        media_io.load_bytes(encoded())
        assert budget.used == 8 * len(WAVE)
        with pytest.raises(LimitExceededError, match="VLLM_MAX_MEDIA_REQUEST_DECODE_BYTES"):
            media_io.load_bytes(encoded())
        assert budget.reserve(10 * len(WAVE)) == 2 * len(WAVE)

    def test_by_the_connector(self) -> None:
        """It hands its budget on, and does not charge it twice."""
        budget = MediaDecodedBudget()
        url = "data:audio/wav;base64," + base64.b64encode(encoded()).decode()
        MediaConnector(decoded_budget=budget).fetch_audio(url)
        assert budget.used == 4 * len(WAVE)

    def test_one_that_only_charges(self) -> None:
        charged: list[int] = []

        class Purse:
            def charge(self, num_bytes: int) -> None:
                charged.append(num_bytes)

        AudioMediaIO(decoded_budget=Purse()).load_bytes(encoded())
        assert charged == [4 * len(WAVE)]


def test_encoding_goes_through_soundfile_write() -> None:
    """Where tests of engines watch it."""
    with patch("mmmedia.media.audio.soundfile.write") as write:
        write.side_effect = lambda file, *_, **__: file.write(b"sound")
        assert base64.b64decode(AudioMediaIO().encode_base64((WAVE, RATE))) == b"sound"
        write.assert_called_once()
