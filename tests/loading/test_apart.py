"""The front door with `MMMEDIA_DECODE_PROCESSES`: nothing is decoded here, and all comes as it would."""

import asyncio
import functools
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image, ImageFile

import mmmedia
from mmmedia import containers
from mmmedia.batch import Decoder
from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.loading.choosing import Choice
from mmmedia.media.isolation import _times
from mmmedia.video.decoders.opencv import capture
from mmmedia.work.isolated.wire import BrokenWireError
from support.clips import clip
from support.layouts import long_clip, padded
from support.server import Server, ranged, reply
from support.sounds import encode, encode_av, sine

pytestmark = [
    pytest.mark.usefixtures("workers_end"),
    pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="decode processes need Linux"),
    pytest.mark.timeout(300),  # the workers import librosa once
]

SOUND = encode(sine(440, 0.5, 16000, 2), 16000)


@pytest.fixture(params=["apart", "here"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where files are decoded; what decodes in this process may not in the first case."""
    if request.param == "apart":
        monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "2")

        def fail(*_: object, **__: object) -> Any:
            raise AssertionError("decoded here")

        for owner, name in (
            (containers, "open_av"), (soundfile, "SoundFile"), (capture, "_open"),
            (ImageFile.ImageFile, "load"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, fail)
    return request.param


@functools.cache
def png() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((60, 40), 60).save(file, "PNG")
    return file.getvalue()


def seen(media: Any) -> Any:
    if isinstance(media, Image.Image):
        return media.mode, media.size, media.tobytes()
    if isinstance(media, mmmedia.Video):
        return media.frames.tobytes(), media.frames.shape, media.metadata, media.timestamps
    return media.waveform.tobytes(), media.waveform.shape, media.sampling_rate


FOUND: dict[str, Any] = {}


def assert_same(name: str, way: str, media: Any) -> None:
    """That what comes of the second way is what came of the first."""
    if way == "apart":
        FOUND[name] = seen(media)
    elif name in FOUND:  # both ways were run
        assert seen(media) == FOUND[name]


def test_pictures(way: str) -> None:
    assert_same("picture", way, mmmedia.load_image(png(), max_pixels=600))


def of_the_middle(video: Any) -> list[int]:
    return [video.total_frames_num // 2]


@pytest.mark.parametrize(
    "keywords",
    [{}, {"num_frames": 3, "size": 40}, {"fps": 2}, {"indices": [-1, 3, 3]}, {"timestamps": [0.2, 0.9]},
     {"start": 0.4, "end": 1.2, "num_frames": 4}, {"sampler": "qwen3_vl"}, {"stream": 0, "num_frames": 2},
     {"sampler": of_the_middle}],
    ids=lambda keywords: " ".join(keywords) or "all",
)  # fmt: skip
def test_videos(way: str, keywords: dict[str, Any]) -> None:
    video = mmmedia.load_video(clip(frames=50, width=96, height=64), **keywords)
    assert_same(f"video {keywords}", way, video)


def test_videos_whose_rate_varies_and_whose_files_are_long(way: str, tmp_path: Path, server: Server) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(padded(long_clip()))
    for name, source in (("path", path), ("url", server.route("/a.mp4", ranged(path.read_bytes())))):
        assert_same(f"long {name}", way, mmmedia.load_video(source, timestamps=[0.5, 7.1]))
    assert all("Range" in request.headers for request in server.requests)


def test_tensors_are_made_here(way: str) -> None:
    torch = pytest.importorskip("torch")
    video = mmmedia.load_video(clip(frames=10), num_frames=2, device="cpu")
    assert isinstance(video.frames, torch.Tensor)


def test_sounds(way: str, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(SOUND)
    for name, source in (("bytes", SOUND), ("path", path)):
        for keywords in ({}, {"mono": False}, {"sampling_rate": 8000}, {"start": 0.1, "end": 0.3}):
            assert_same(f"sound {name} {keywords}", way, mmmedia.load_audio(source, **keywords))
    with pytest.raises(InvalidArgumentError, match="the sound ends at"):
        mmmedia.load_audio(SOUND, start=7.0)


def test_limits_of_sounds_are_those_of_strangers(
    way: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_MAX_AUDIO_DECODE_BYTES", "1000")
    path = tmp_path / "a.wav"
    path.write_bytes(SOUND)
    assert len(mmmedia.load_audio(path).waveform) == 8000
    with pytest.raises(LimitExceededError, match="VLLM_MAX_AUDIO_DECODE_BYTES"):
        mmmedia.load_audio(server.route("/a.wav", reply(SOUND)))


def test_what_it_is_is_found_out_there_as_well(way: str, server: Server) -> None:
    """Of an MP4 only its streams tell."""
    sound = encode_av(sine(440, 0.3, 48000, 2), 48000, "mp4", "aac")
    sources = [sound, clip(frames=10), png(), server.route("/a", reply(sound))]
    results = dict(enumerate(media for _, media in mmmedia.load_many(sources, num_frames=2)))
    for number, media in results.items():
        assert_same(f"any {number}", way, media)


def test_event_loops_and_batches(way: str) -> None:
    data = clip(frames=20)
    assert_same("loop", way, asyncio.run(mmmedia.aload_video(data, num_frames=2)))
    row = Decoder("video", num_frames=2)(data)
    assert row.error is None
    assert_same("row", way, mmmedia.Video(row.media, row.metadata, []))


@pytest.mark.parametrize("told", ["", "!!", "AAAA", 5, "AAAAAAAA+H8=" * 2])
def test_times_that_can_not_be_are_not_believed(told: Any) -> None:
    with pytest.raises(BrokenWireError):
        _times(told, 2)


def test_what_a_caller_has_said_is_asked_of_the_caller() -> None:
    assert Choice.chosen_by_caller
    assert _times(None, 5) is None
    assert np.allclose(_times("AAAAAAAA8D8AAAAAAAAAQA==", 2) or [], [1.0, 2.0])
