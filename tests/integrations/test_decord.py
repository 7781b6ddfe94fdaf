"""decord's `VideoReader`, on this library's decoders."""

import dataclasses
import importlib.util
import io
import os
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pytest

from mmmedia.errors import InvalidArgumentError, LimitExceededError
from mmmedia.integrations import decord as ours
from mmmedia.integrations.decord import DECORDError, VideoReader, cpu, gpu, reader
from mmmedia.integrations.decord.playhead import Playhead
from mmmedia.video import read_frames
from mmmedia.video.decoders.packets.index import build
from mmmedia.video.decoders.shown import shown_frames
from support import corpus, decord_worker
from support.clips import clip, read_number
from support.kinds import KINDS

H264 = clip(frames=60, gop=20, bframes=2)
CLIPS = {
    "h264": H264,
    "vp9": clip(codec="libvpx-vp9", container="webm", frames=40),
    "mpeg4": clip(codec="mpeg4", frames=40, bframes=0, width=160, height=120),
}


def of(data: bytes, **options: object) -> VideoReader:
    return VideoReader(io.BytesIO(data), **options)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The numbers of each request for frames that no kept decoder answered."""
    made = []

    def spy(data: bytes, wanted: list[int]) -> object:
        made.append(list(wanted))
        return read_frames(data, wanted)

    monkeypatch.setattr(reader, "read_frames", spy)
    return made


# With decord itself.


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """What decord answers, by clip and question."""
    if importlib.util.find_spec("decord") is None:
        pytest.skip("needs decord")
    folder = tmp_path_factory.mktemp("decord")
    paths = []
    for name, data in CLIPS.items():
        paths.append(folder / f"{name}.{'webm' if name == 'vp9' else 'mp4'}")
        paths[-1].write_bytes(data)
    run([sys.executable, decord_worker.__file__, folder / "answers.npz", *paths], check=True, timeout=100)
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


@pytest.mark.parametrize("way", decord_worker.WAYS)
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_decords_byte_for_byte(name, way, theirs):
    expected = theirs[f"{name} {way}"]
    got = decord_worker.plain(decord_worker.WAYS[way](of(CLIPS[name], ctx=cpu(0))))
    assert len(got) > 3
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("fact", decord_worker.FACTS)
@pytest.mark.parametrize("name", CLIPS)
def test_what_a_reader_tells_of_a_video_is_what_decord_tells(name, fact, theirs):
    got = decord_worker.plain(decord_worker.FACTS[fact](of(CLIPS[name])))
    assert got.shape == theirs[f"{name} {fact}"].shape
    assert np.allclose(got, theirs[f"{name} {fact}"])


# Where decord is wrong.


@pytest.mark.parametrize("kind", ["longer sound, mpegts", "lossless trim", "begins within a group, mpegts"])
def test_streams_and_copied_cuts_give_what_a_player_shows(kind):
    numbers = list(KINDS[kind].numbers)
    video = of(KINDS[kind].make())
    assert [read_number(frame) for frame in video] == numbers
    assert [read_number(frame) for frame in video.get_batch(range(len(video)))] == numbers


def test_times_begin_with_the_first_frame_also_in_a_stream():
    video = of(clip(container="mpegts"))
    assert np.allclose(video.get_frame_timestamp([0, 1]), [[0, 0.04], [0.04, 0.08]])
    assert np.allclose(video.get_frame_timestamp(slice(1, 3)), [[0.04, 0.08], [0.08, 0.12]])


def test_key_frames_are_counted_as_they_are_shown_also_in_an_avi():
    assert of(clip(codec="libx265", frames=40)).get_key_indices() == [0, 20]
    assert of(clip(codec="mpeg4", container="avi")).get_key_indices() == [0, 20, 40]


# One frame at a time.


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_by_itself_is_that_of_a_whole_request(kind):
    data = KINDS[kind].make()
    whole, _, source = read_frames(data, lambda video: range(video.total_frames_num))
    video = of(data)
    assert len(video) == source.total_frames_num
    for number, frame in enumerate(video):
        assert np.array_equal(frame, whole[number]), number


@pytest.mark.parametrize("seed", range(61, 71))
def test_so_it_is_with_any_shape_of_stream(seed):
    data = corpus.draw(seed).make()
    whole, _, source = read_frames(data, lambda video: range(video.total_frames_num))
    video = of(data)
    steps = np.random.default_rng(seed).integers(-4, 9, 20).cumsum() % source.total_frames_num
    for number in steps.tolist():
        assert np.array_equal(video[number], whole[number]), number


def test_who_goes_ahead_asks_for_nothing_anew(requests):
    video = of(H264)
    whole = video.get_batch(range(60))
    requests.clear()
    for number in [*range(12), 12, 30, 31, 31, 59]:
        assert np.array_equal(video[number], whole[number])
    assert requests == []
    assert np.array_equal(video[5], whole[5])
    assert np.array_equal(video[6], whole[6])
    assert requests == [[5]]


def test_a_decoder_skips_to_a_better_place_to_begin():
    video = of(clip(frames=60, gop=20, bframes=0))
    head = video._contents.playhead
    assert head is not None
    fed = []
    packet = head._packets.packet
    object.__setattr__(head._packets, "packet", lambda position: fed.append(position) or packet(position))
    for number in (3, 50, 53):
        assert read_number(video[number]) == number
    assert min(position for position in fed if position > 10) == 40
    assert len(fed) == len(set(fed))


def test_damage_ends_what_a_kept_decoder_says(requests):
    data = bytearray(clip(frames=40, gop=40, bframes=0, codec="mpeg4", container="avi"))
    whole = of(bytes(data))
    packets = whole._contents.playhead._packets
    start = int(packets.offset[20])
    data[start : start + int(packets.size[20])] = bytes(int(packets.size[20]))
    video = of(bytes(data))
    expected, present, _ = read_frames(bytes(data), range(len(video)), missing="drop")
    requests.clear()
    rows = dict(zip(present, expected, strict=True))
    for number in range(len(video)):
        if number in rows:
            assert np.array_equal(video[number], rows[number]), number
        else:
            with pytest.raises(DECORDError):
                video[number]
    assert requests


# The rest of its ways.


def test_next_seek_and_skip():
    video = of(H264)
    assert [read_number(video.next()) for _ in range(3)] == [0, 1, 2]
    video.skip_frames(2)
    assert read_number(video.next()) == 5
    video.seek_accurate(33)
    assert [read_number(video.next()), read_number(video.next())] == [33, 34]
    video.seek(39)
    assert read_number(video.next()) == 39
    assert read_number(video[-1]) == 59
    with pytest.raises(StopIteration):
        video.next()


def test_frames_beyond_the_ends_are_index_errors():
    video = of(H264)
    for index in (60, -61):
        with pytest.raises(IndexError, match="of 60 frames"):
            video[index]
        with pytest.raises(IndexError):
            video.get_batch([0, index])
        with pytest.raises(IndexError):
            video.seek(index)
    assert video.get_batch([]).shape == (0, 96, 128, 3)
    assert [read_number(frame) for frame in video.get_batch(np.array([-1, 0]))] == [59, 0]


def test_frames_come_in_the_size_that_is_asked_for():
    assert of(H264, width=64, height=48).get_batch([0, 5]).shape == (2, 48, 64, 3)
    assert of(H264, width=64)[3].shape == (96, 64, 3)
    assert repr(of(H264, width=64)) == "VideoReader(a file object, 60 frames, 64x96, 25 fps)"
    assert of(corpus.rotate(H264, 90))[0].shape == (128, 96, 3)


def test_a_path_may_be_text_or_a_path(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(H264)
    assert len(VideoReader(str(path))) == len(VideoReader(path, cpu(0), num_threads=1)) == 60
    assert repr(str(path)) in repr(VideoReader(str(path)))


def test_what_cannot_be_read_is_a_runtime_error(tmp_path: Path):
    with pytest.raises(DECORDError, match=r"nothing\.mp4"):
        VideoReader(str(tmp_path / "nothing.mp4"))
    with pytest.raises(RuntimeError, match="Error reading a file object"):
        of(b"no video")
    with pytest.raises(DECORDError, match="CPU only"):
        gpu(0)


def test_limits_stay_in_force(monkeypatch: pytest.MonkeyPatch):
    video = of(H264)
    monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(3 * 96 * 128 * 3))
    with pytest.raises(LimitExceededError):
        video.get_batch(range(4))
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
    with pytest.raises(LimitExceededError):
        video[0]


def test_the_older_release_counts_by_headers(monkeypatch: pytest.MonkeyPatch, requests):
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")
    assert read_number(of(H264)[4]) == 4
    assert requests == [[4]]


def test_the_bridge_says_what_arrays_are():
    torch = pytest.importorskip("torch")
    video = of(H264)
    try:
        ours.bridge.set_bridge("torch")
        assert isinstance(video[0], torch.Tensor)
        assert video.get_batch([0, 1]).shape == (2, 96, 128, 3)
    finally:
        ours.bridge.reset_bridge()
    assert type(video[0].asnumpy()) is np.ndarray
    with pytest.raises(InvalidArgumentError, match="'mxnet'"):
        ours.bridge.set_bridge("mxnet")


def test_install_makes_import_decord_mean_this(monkeypatch: pytest.MonkeyPatch):
    for name in ("decord", "decord.base", "decord.bridge", "decord.logging"):
        monkeypatch.setitem(sys.modules, name, None)
    ours.install()
    import decord
    from decord.bridge import set_bridge

    assert decord.VideoReader is VideoReader
    assert set_bridge is ours.bridge.set_bridge
    assert decord.base.DECORDError is DECORDError
    assert importlib.util.find_spec("decord") is not None


def test_the_level_of_logging_is_ffmpegs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL", raising=False)
    ours.logging.set_level(ours.logging.QUIET)
    assert os.environ["OPENCV_FFMPEG_LOGLEVEL"] == "-8"
    monkeypatch.delenv("OPENCV_FFMPEG_LOGLEVEL")


def test_what_is_damaged_is_not_read_on() -> None:
    """Whatever came before is as it was; how much of the rest is wrong can't be told."""
    packets = build(H264)
    shown = shown_frames(packets)
    data, at = bytearray(packets.data), int(packets.offset[30])
    data[at : at + int(packets.size[30])] = bytes(int(packets.size[30]))
    sound = Playhead(packets, shown)
    damaged = Playhead(dataclasses.replace(packets, data=bytes(data)), shown)
    came = [damaged.read(number) for number in range(60)]
    lost = next(number for number, picture in enumerate(came) if picture is None)
    assert 20 <= lost <= 33
    assert all(picture is None for picture in came[lost:])
    for number in range(20):
        assert np.array_equal(came[number], sound.read(number))
