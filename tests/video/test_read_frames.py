"""Frames of a video by their numbers."""

import io
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

import mmmedia
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LimitExceededError
from mmmedia.video import OpenCVVideoBackend, excerpt, read_frames
from mmmedia.video.decoders.fit import fit
from mmmedia.video.decoders.read import read_video
from support import corpus
from support.clips import clip
from support.kinds import KINDS

DATA = clip(frames=40, gop=10)
WHOLE, _ = OpenCVVideoBackend.load_bytes(DATA, num_frames=-1)


@pytest.mark.parametrize("decode", ["sequential", "seek", None])
@pytest.mark.parametrize("wanted", [[0], [39], [3, 17, 31], [31, 3, 17], [5, 5, 2, 5], range(40)])
def test_frames_come_in_the_order_in_which_they_are_asked_for(wanted, decode):
    frames, indices, source = read_frames(DATA, wanted, decode=decode)
    assert indices == list(wanted)
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, WHOLE[list(wanted)])
    assert source.total_frames_num == 40


def test_who_chooses_is_told_what_the_video_is():
    seen = []

    def choose(video):
        seen.append(video)
        return np.array([video.total_frames_num - 1, 0])

    frames, indices, source = read_frames(DATA, choose)
    assert seen == [source]
    assert indices == [39, 0]
    assert all(type(number) is int for number in indices)
    assert np.array_equal(frames, WHOLE[[39, 0]])


@pytest.mark.parametrize(
    "source", [DATA, bytearray(DATA), memoryview(DATA)], ids=lambda data: type(data).__name__
)
def test_any_buffer_is_a_source(source):
    assert np.array_equal(read_frames(source, [7])[0], WHOLE[[7]])


def test_a_path_is_a_source(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(DATA)
    assert np.array_equal(read_frames(path, [7])[0], WHOLE[[7]])
    assert np.array_equal(read_frames(str(path), [7])[0], WHOLE[[7]])


@pytest.mark.parametrize(
    ("wanted", "fragment"),
    [([], "at least one frame"), ([40], "no frame 40: it has 40"), ([0, -1], "no frame -1")],
)
def test_frames_that_there_are_not_are_refused(wanted, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        read_frames(DATA, wanted)
    with pytest.raises(InvalidArgumentError, match=fragment):
        read_frames(DATA, lambda _: wanted)


def test_a_file_cut_before_the_end_of_its_first_frame_is_what_is_at_fault():
    """Whatever is asked for, be it counted from the end, and not who asks."""
    data = clip(codec="libvpx", container="webm", frames=5, width=320, height=240)
    cut = data[: data.index(b"\x1f\x43\xb6\x75") + 200]
    for wanted in ([0], lambda video: [video.total_frames_num - 1]):
        with pytest.raises(InvalidMediaError, match="no frames"):
            read_frames(cut, wanted)
        with pytest.raises(InvalidMediaError, match="no frames"):
            excerpt(cut, wanted)
    with pytest.raises(InvalidMediaError, match="no frames"):
        mmmedia.load_video(cut, indices=[-1])


def _damaged() -> bytes:
    """A clip of key frames, of which the second has no headers left."""
    data = bytearray(clip(frames=12, gop=1))
    frames = sorted(find_frames(bytes(data)))
    start, size = frames[5]
    data[start + 4 : start + size] = bytes(size - 4)
    return bytes(data)


def find_frames(data: bytes) -> list[tuple[int, int]]:
    with av.open(io.BytesIO(data)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def test_frames_that_cannot_be_decoded_are_counted_or_left_out():
    data = _damaged()
    _, present, _ = read_frames(data, range(12), missing="drop")
    lost = sorted(set(range(12)) - set(present))
    assert lost
    with pytest.raises(InvalidMediaError, match=rf"{len(lost)} of 12 frames can't be decoded: {lost[0]}"):
        read_frames(data, range(12))
    frames, indices, _ = read_frames(data, [11, lost[0], 0], missing="drop")
    assert indices == [11, 0]
    assert len(frames) == 2


def test_repeated_frames_count_against_the_limit(monkeypatch: pytest.MonkeyPatch):
    size = WHOLE[0].nbytes
    monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(3 * size))
    assert len(read_frames(DATA, [1, 1, 1])[0]) == 3
    with pytest.raises(LimitExceededError):
        read_frames(DATA, [1, 1, 1, 1])


def test_another_word_is_refused():
    with pytest.raises(InvalidArgumentError, match="missing='skip'"):
        read_frames(DATA, [0], missing="skip")  # type: ignore[arg-type]


WIDE_GAMUT = "log-level=none:keyint=10:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
SIZED = {
    "plain": lambda: DATA,
    "turned": lambda: corpus.write_matrix(clip(frames=40, gop=10), 0, 1, -1, 0),
    "mirrored": lambda: corpus.write_matrix(clip(frames=40, gop=10), -1, 0, 0, 1),
    "wide gamut": lambda: clip(
        frames=30, codec="libx265", pix_fmt="yuv420p10le", options={"x265-params": WIDE_GAMUT}
    ),
    "animation": KINDS["animated png"].make,
}


@pytest.mark.parametrize(
    "way",
    [{"decode": "sequential"}, {"decode": "seek"}, {"backend": "pyav", "decode": "sequential"}],
    ids=lambda way: "-".join(way.values()),
)
@pytest.mark.parametrize("name", SIZED)
def test_frames_in_another_size_are_those_in_their_own_made_so(name, way):
    """Byte for byte, whichever way they are decoded."""
    if (name, way["decode"]) == ("animation", "seek"):
        pytest.skip("no way to seek there")
    data = SIZED[name]()
    wanted = [2, 7, 9]
    whole = read_video(data, lambda _: wanted, OpenCVVideoBackend, **way).frames
    for size in (40, (31, 57), (150, 200)):
        fitted = read_video(data, lambda _: wanted, OpenCVVideoBackend, size=size, **way).frames
        assert max(fitted.shape[1:3]) == (size if isinstance(size, int) else max(size))
        assert np.array_equal(fitted, [fit(frame, fitted.shape[1:3]) for frame in whole])


@pytest.mark.parametrize("decode", ["sequential", "seek"])
def test_frames_in_their_own_size_never_lie_together(decode):
    """Where they are asked for in a smaller one."""
    read_frames(DATA, [0], decode=decode, size=32)
    tracemalloc.start()
    frames, _, _ = read_frames(DATA, range(40), decode=decode, size=32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frames.shape == (40, 24, 32, 3)
    assert peak < WHOLE.nbytes / 2


def test_what_counts_is_the_size_that_is_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VLLM_MAX_VIDEO_DECODE_BYTES", str(WHOLE.nbytes // 2))
    with pytest.raises(LimitExceededError):
        read_frames(DATA, range(40))
    assert len(read_frames(DATA, range(40), size=32)[0]) == 40
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "5000")
    with pytest.raises(LimitExceededError, match="128 x 96"):
        read_frames(DATA, [0], size=32)
