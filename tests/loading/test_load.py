"""One thing from wherever it is."""

import asyncio
import base64
import io
import os
from fractions import Fraction
from pathlib import Path

import av
import fsspec
import numpy as np
import pytest
import requests
from PIL import Image

import mmmedia
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    LimitExceededError,
    LocalFileError,
    LocalFileNotFoundError,
    RefusedURLError,
)
from mmmedia.media import ImageMediaIO, MediaConnector, MediaWithBytes
from support.clips import clip, read_number, two_streams
from support.needs import torch_for
from support.server import reply
from support.sounds import encode, sine

CLIP = clip(frames=60, audio=True)
SOUND = encode(sine(440, 0.5, 16_000), 16_000)


def png(image: Image.Image | None = None) -> bytes:
    file = io.BytesIO()
    (image or Image.new("RGB", (40, 20), "red")).save(file, "PNG")
    return file.getvalue()


KINDS = {
    "image": (png(), mmmedia.load_image, mmmedia.aload_image, lambda picture: np.asarray(picture).tobytes()),
    "video": (CLIP, mmmedia.load_video, mmmedia.aload_video, lambda video: video.frames.tobytes()),
    "audio": (SOUND, mmmedia.load_audio, mmmedia.aload_audio, lambda sound: sound.waveform.tobytes()),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_form_of_a_source_is_the_same_thing(
    kind: str, tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of all kinds, URLs, bytes and open files; from functions and from event loops."""
    data, load, aload, content = KINDS[kind]
    path = tmp_path / "a näme with: signs#.bin"
    path.write_bytes(data)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with fsspec.open("memory://bucket/dir/file.bin", "wb") as file:
        file.write(data)
    expected = content(load(data))
    with path.open("rb") as opened:
        opened.seek(3)
        sources = [
            path, str(path), f"~/{path.name}", path.name, Path(path.name), path.as_uri(), bytearray(data),
            memoryview(data), io.BytesIO(data), opened, "memory://bucket/dir/file.bin",
            f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}",
            server.route("/file", reply(data)),
        ]  # fmt: skip
        for source in sources:
            assert content(load(source)) == expected, source
            assert content(asyncio.run(aload(source))) == expected, source
        assert opened.tell() == 3


def test_what_is_no_source_is_refused(kind: str, tmp_path: Path) -> None:
    """With words that say what would be."""
    _, load, aload, _ = KINDS[kind]
    with pytest.raises(InvalidArgumentError, match=r"int: a .* is loaded from a path, a URL, bytes"):
        load(7)
    with pytest.raises(InvalidArgumentError, match="NoneType"):
        asyncio.run(aload(None))
    text = tmp_path / "text"
    text.write_text("words")
    with text.open() as file, pytest.raises(InvalidArgumentError, match='mode "rb"'):
        load(file)


def test_a_missing_file_is_named_with_where_it_was_looked_for(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a file URL; a directory is another error."""
    _, load, _, _ = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalFileNotFoundError, match=f"no file 'clip.mp4' in '{tmp_path}'"):
        load("clip.mp4")
    with pytest.raises(FileNotFoundError):
        load("file:///nowhere/clip.mp4")
    with pytest.raises(LocalFileError, match="is a directory"):
        load(tmp_path)
    with pytest.raises(LocalFileError):
        load("a\0b")


def test_a_device_is_no_file(kind: str) -> None:
    """It may never end, and all that is read of a pipe is kept."""
    _, load, _, _ = KINDS[kind]
    with pytest.raises(LocalFileError, match="'/dev/zero' is a device"):
        load("/dev/zero")


def test_a_url_keeps_every_limit_and_policy(kind: str, server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the connector, which the caller's own file does not meet."""
    data, load, _, _ = KINDS[kind]
    url = server.route("/file", reply(data))
    monkeypatch.setenv("MMMEDIA_MEDIA_EGRESS_BLOCK_PRIVATE", "1")
    with pytest.raises(RefusedURLError):
        load(url)
    monkeypatch.delenv("MMMEDIA_MEDIA_EGRESS_BLOCK_PRIVATE")
    with pytest.raises(requests.HTTPError):
        load(server.url("/missing"))


def test_buckets_that_are_listed_are_the_only_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a list the one that the caller names is admitted; schemes that are no stores never are."""
    data, load, _, _ = KINDS[kind]
    with fsspec.open("memory://bucket/file.bin", "wb") as file:
        file.write(data)
    assert load("memory://bucket/file.bin") is not None
    monkeypatch.setenv("MMMEDIA_MEDIA_ALLOWED_BUCKETS", "memory://other")
    with pytest.raises(RefusedURLError):
        load("memory://bucket/file.bin")
    monkeypatch.delenv("MMMEDIA_MEDIA_ALLOWED_BUCKETS")
    with pytest.raises(RefusedURLError):
        load("ftp://host/file.bin")


# Pictures.


def test_pictures_that_are_there_become_what_a_file_would() -> None:
    """Upright, over white, in the mode wanted; those of Pillow, arrays, and what the connector returns."""
    red = np.zeros((20, 40, 3), np.uint8)
    red[..., 0] = 255
    wrapped = MediaWithBytes(Image.fromarray(red), b"")
    for source in (red, Image.fromarray(red), wrapped, Image.fromarray(red).convert("P")):
        picture = mmmedia.load_image(source)
        assert type(picture) is Image.Image
        assert np.array_equal(np.asarray(picture), red)
    clear = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    assert mmmedia.load_image(clear).getpixel((0, 0)) == (255, 255, 255)
    assert mmmedia.load_image(clear, image_mode=None).mode == "RGBA"
    turned = Image.new("RGB", (4, 2))
    turned.getexif()[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "JPEG", exif=turned.getexif())
    assert mmmedia.load_image(Image.open(file)).size == mmmedia.load_image(file).size == (2, 4)
    assert mmmedia.load_image(red, max_pixels=200).size == mmmedia.load_image(png(), max_pixels=200).size


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.float32), np.zeros(3, np.uint8), np.zeros((2, 2, 7), np.uint8)]
)
def test_arrays_that_are_no_pictures_are_refused(array: np.ndarray) -> None:
    """Saying what would be one."""
    with pytest.raises(InvalidArgumentError, match="height, width, 3"):
        mmmedia.load_image(array)


# Videos.


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ({"num_frames": 3}, [0, 29, 59]),
        ({"num_frames": -1}, list(range(60))),
        ({"fps": 2}, [0, 19, 39, 59]),
        ({"fps": 5, "num_frames": 2}, [0, 59]),
        ({"indices": [5, -1, 5, 0]}, [5, 59, 5, 0]),
        ({"indices": np.array([7, 3])}, [7, 3]),
        ({"timestamps": [0, 0.04, 0.079, 2.39]}, [0, 1, 1, 59]),
        ({"start": 1.0, "end": 1.4, "num_frames": 3}, [25, 29, 34]),
        ({"start": 2.0}, list(range(50, 60))),
        ({"sampler": "opencv", "num_frames": 2}, [0, 59]),
        ({"sampler": "Qwen2VLVideoProcessor", "fps": 5}, None),
        ({"sampler": lambda video: [video.total_frames_num - 2]}, [58]),
        ({}, None),
    ],
)  # fmt: skip
def test_frames_are_those_that_are_asked_for(keywords: dict, expected: list[int] | None) -> None:
    """Each shows its number, and is timed by it."""
    if keywords.get("sampler") == "Qwen2VLVideoProcessor":
        torch_for("qwen2_vl")
    video = mmmedia.load_video(CLIP, **keywords)
    frames, metadata = video
    assert [read_number(frame) for frame in frames] == metadata["frames_indices"]
    assert video.timestamps == pytest.approx([number / 25 for number in metadata["frames_indices"]])
    assert metadata["total_num_frames"] == 60
    if expected is not None:
        assert metadata["frames_indices"] == expected
    elif not keywords:
        assert len(frames) == 32


def test_frames_are_those_of_the_connector(tmp_path: Path) -> None:
    """What a notebook looks at is what a model is given."""
    url = "data:video/mp4;base64," + base64.b64encode(CLIP).decode()
    for options in (
        {"num_frames": 8},
        {"fps": 3, "num_frames": -1},
        {"start": 0.5, "end": 2.0, "num_frames": 4},
    ):
        frames, metadata = MediaConnector({"video": options}).fetch_video(url)
        video = mmmedia.load_video(CLIP, **options)
        assert np.array_equal(video.frames, frames)
        assert video.metadata == metadata


def vfr() -> bytes:
    """Frames that are shown ever longer."""
    ticks = [number * (number + 1) // 2 for number in range(30)]
    return clip(frames=30, timestamps=ticks, time_base=Fraction(1, 50))


def test_times_are_true_where_the_rate_varies() -> None:
    """Those of the packets, not of the average rate; and a moment is that of the frame on screen."""
    data = vfr()
    true = [number * (number + 1) / 100 for number in range(30)]
    assert mmmedia.load_video(data, num_frames=-1).timestamps == pytest.approx(true)
    video = mmmedia.load_video(data, timestamps=[0, 1.0, 4.0, 4.19999, 4.2])
    assert video.metadata["frames_indices"] == [0, 9, 19, 19, 20]
    assert [read_number(frame) for frame in video.frames] == [0, 9, 19, 19, 20]
    part = mmmedia.load_video(data, start=4.0, end=5.0, num_frames=-1)
    assert part.timestamps == pytest.approx([4.2, 4.62])


@pytest.mark.parametrize("name", [name for name in mmmedia.video.SAMPLERS if name != "pynvvideocodec"])
def test_a_sampler_of_each_name_takes_what_its_loader_takes(name: str) -> None:
    """Where the loader takes each frame once."""
    torch_for(name)
    data = clip(frames=200, gop=50)
    loader = mmmedia.VIDEO_LOADER_REGISTRY.get(name)
    counts = {"num_frames": 32} if name in ("opencv", "nemotron_vl", "openpangu") else {}
    _, metadata = loader.load_bytes(data, **counts)
    found = mmmedia.load_video(data, sampler=name).metadata["frames_indices"]
    repeated = metadata["frames_indices"]
    assert found in (repeated, repeated[:-1])  # some say the last twice, to be even


def test_a_sampler_of_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    data = clip(frames=200, gop=50)
    with pytest.raises(InvalidArgumentError, match=r"sampler: .*opencv_dynamic"):
        mmmedia.load_video(data, sampler="nobody's")


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"indices": [0], "num_frames": 3}, "indices: .*num_frames"),
        ({"indices": [0], "timestamps": [0]}, "indices: .*timestamps"),
        ({"timestamps": [0], "start": 1}, "timestamps: .*start"),
        ({"indices": [60]}, "indices: .*no frame 60: it has 60"),
        ({"indices": [-61]}, "no frame -61"),
        ({"indices": []}, "at least one frame"),
        ({"indices": [0.5]}, "whole numbers"),
        ({"timestamps": [9.0]}, r"timestamps: 9 s is beyond the video, which ends at 2\.4 s"),
        ({"timestamps": [-1]}, "not negative"),
        ({"timestamps": ["soon"]}, "expected seconds"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_frames": 2.5}, "num_frames=2.5"),
        ({"fps": 0}, "fps=0"),
        ({"start": 3.0}, "start=3: the video ends"),
        ({"start": 2, "end": 1}, "end behind the start"),
        ({"sampler": "opencv_dynamic", "num_frames": 4}, "num_frames: the sampler 'opencv_dynamic'"),
        ({"sampler": lambda _: [0], "fps": 4}, "function"),
        ({"size": 0}, "size=0"),
        ({"size": "big"}, "size='big'"),
        ({"stream": 1}, "stream=1: the file has one stream"),
    ],
)
def test_a_wrong_keyword_is_named_first(keywords: dict, words: str) -> None:
    """The message begins with what the caller wrote."""
    with pytest.raises(InvalidArgumentError, match=words):
        mmmedia.load_video(CLIP, **keywords)


def test_frames_come_in_the_size_that_is_asked_for() -> None:
    """(height, width), or the longer side, beyond which they are only made smaller."""
    sizes = {64: (48, 64), 1000: (96, 128), (10, 20): (10, 20), (192, 256): (192, 256)}
    for size, (height, width) in sizes.items():
        video = mmmedia.load_video(CLIP, num_frames=2, size=size)
        assert video.frames.shape == (2, height, width, 3)
        assert (video.height, video.width) == (height, width)
    whole = mmmedia.load_video(CLIP, num_frames=2).frames
    half = mmmedia.load_video(CLIP, num_frames=2, size=64).frames
    mean = whole.reshape(2, 48, 2, 64, 2, 3).mean(axis=(2, 4))
    assert np.abs(half - mean).max() <= 1


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_best_of_several_streams_is_taken_unless_told_otherwise(container: str, tmp_path: Path) -> None:
    """The one that the file marks as the one to show, as players choose; any by its number."""
    sizes = [(48, 64), (96, 128)]
    for default in (0, 1):
        data = two_streams(container, default)
        path = tmp_path / "clip.bin"
        path.write_bytes(data)
        for source in (data, path):
            best = mmmedia.load_video(source, num_frames=2)
            assert (best.height, best.width) == sizes[default]
        for number, size in enumerate(sizes):
            video = mmmedia.load_video(data, stream=number)
            assert (video.height, video.width) == size
            assert [read_number(frame) & 255 for frame in video.frames] == list(range(12))
            assert video.timestamps == pytest.approx([each / 25 for each in range(12)])
        with pytest.raises(InvalidArgumentError, match="stream=2: the file has 2 streams"):
            mmmedia.load_video(data, stream=2)


def test_a_file_that_is_no_video_is_refused_by_its_path_as_by_its_bytes(tmp_path: Path) -> None:
    """Empty, a text, or broken; also where a stream is asked for."""
    path = tmp_path / "clip.mp4"
    for data in (b"", b"only words", CLIP[:3000], b"\x1a\x45\xdf\xa3" + bytes(500)):
        path.write_bytes(data)
        for keywords in ({}, {"stream": 0}):
            for source in (data, path):
                with pytest.raises(InvalidMediaError):
                    mmmedia.load_video(source, **keywords)


def test_frames_that_are_there_are_chosen_from() -> None:
    """An array is a video without times; without a wish all of it."""
    frames = np.arange(10, dtype=np.uint8).repeat(4 * 4 * 3).reshape(10, 4, 4, 3)
    assert len(mmmedia.load_video(frames)[0]) == 10
    video = mmmedia.load_video(frames, num_frames=2, size=(2, 2))
    assert video.frames[:, 0, 0, 0].tolist() == [0, 9]
    assert video.frames.shape == (2, 2, 2, 3)
    assert video.timestamps == []
    with pytest.raises(InvalidArgumentError, match=r"uint8 \(frames, height, width, 3\)"):
        mmmedia.load_video(frames.astype(np.float32))


def test_a_sequence_of_jpegs_is_a_video() -> None:
    """As engines are sent it, in a data URL."""
    frames = np.zeros((3, 8, 16, 3), np.uint8)
    text = mmmedia.VideoMediaIO(ImageMediaIO()).encode_base64(frames)
    video = mmmedia.load_video(f"data:video/jpeg;base64,{text}")
    assert video.frames.shape == frames.shape


def test_lost_frames_are_an_error() -> None:
    """Not a shorter answer in silence."""
    data = bytearray(clip(frames=12, gop=1))
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    with pytest.raises(InvalidMediaError, match="frames can't be decoded"):
        mmmedia.load_video(bytes(data), num_frames=-1)


def test_limits_of_videos_count_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They bound memory, and the message names the setting that raises them."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    monkeypatch.setenv("MMMEDIA_MAX_VIDEO_DECODE_BYTES", "1000")
    with pytest.raises(LimitExceededError, match="VLLM_MAX_VIDEO_DECODE_BYTES"):
        mmmedia.load_video(path)


def test_a_device_makes_a_tensor_of_the_frames() -> None:
    """With everything else as it is."""
    torch = pytest.importorskip("torch")
    video = mmmedia.load_video(CLIP, num_frames=2, device="cpu")
    assert isinstance(video.frames, torch.Tensor)
    assert video.to_tensor().shape == (2, 3, 96, 128)
    assert np.array_equal(video.frames.numpy(), mmmedia.load_video(CLIP, num_frames=2).frames)
    assert repr(video).startswith("Video(2 of 60 frames, 128x96")
    assert video.sheet().width > 100


# Sounds.


def test_a_sound_comes_at_its_rate_or_the_one_wanted() -> None:
    """As the media IO loads it, resampled and cut."""
    waveform, rate = mmmedia.load_audio(SOUND)
    assert (waveform.shape, waveform.dtype, rate) == ((8000,), np.float32, 16_000)
    sound = mmmedia.load_audio(SOUND, sampling_rate=8000)
    assert (sound.waveform.shape, sound.sampling_rate) == ((4000,), 8000)
    part = mmmedia.load_audio(SOUND, start=0.1, end=0.25)
    assert np.array_equal(part.waveform, waveform[1600:4000])
    assert mmmedia.load_audio(CLIP).sampling_rate == 48_000


def test_channels_are_averaged_unless_told_otherwise() -> None:
    """Of files and of arrays alike."""
    both = np.stack([np.full(800, 0.5, np.float32), np.zeros(800, np.float32)])
    data = encode(both.T, 8000)
    for source in (data, (both, 8000)):
        assert mmmedia.load_audio(source, mono=False).waveform.shape == (2, 800)
        assert mmmedia.load_audio(source).waveform == pytest.approx(np.full(800, 0.25), abs=1e-3)
    assert mmmedia.load_audio((np.full(80, 16384, np.int16), 8000)).waveform[0] == 0.5
    assert mmmedia.load_audio((both[0], 8000), sampling_rate=16_000).waveform.shape == (1600,)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"sampling_rate": 0}, "sampling_rate=0"),
        ({"start": 7.0}, "start=7: the sound ends at 0.5 s"),
        ({"start": 0.3, "end": 0.2}, "end behind the start"),
    ],
)
def test_wrong_keywords_of_sounds(keywords: dict, words: str) -> None:
    """Named first."""
    with pytest.raises(InvalidArgumentError, match=words):
        mmmedia.load_audio(SOUND, **keywords)
    with pytest.raises(InvalidArgumentError, match=words):
        mmmedia.load_audio((np.zeros(8000, np.float32), 16_000), **keywords)
    with pytest.raises(InvalidArgumentError, match="waveform"):
        mmmedia.load_audio((np.zeros((2, 2, 2)), 16_000))


def test_a_long_file_of_one_s_own_is_no_fault(
    tmp_path: Path, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of length are for what strangers chose."""
    path = tmp_path / "podcast.wav"
    path.write_bytes(SOUND)
    monkeypatch.setenv("MMMEDIA_MAX_AUDIO_DECODE_DURATION_S", "0.1")
    assert mmmedia.load_audio(path).duration == 0.5
    assert mmmedia.load_audio(path.as_uri()).duration == 0.5
    with pytest.raises(LimitExceededError):
        mmmedia.load_audio(server.route("/podcast.wav", reply(SOUND)))
    with pytest.raises(LimitExceededError):
        mmmedia.load_audio(SOUND)


def test_an_event_loop_only_waits(tmp_path: Path) -> None:
    """Many at once, on one loop."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)

    async def all_of_them() -> list:
        return await asyncio.gather(*(mmmedia.aload_video(path, num_frames=2) for _ in range(4)))

    assert all(video.frames.shape == (2, 96, 128, 3) for video in asyncio.run(all_of_them()))


def test_the_clips_of_these_tests_have_sound_and_pictures() -> None:
    """Or the tests above would test less than they say."""
    with av.open(io.BytesIO(CLIP)) as container:
        assert len(container.streams.video) == len(container.streams.audio) == 1
    assert os.sep == "/"
