"""`Decoder`: rows of one shape, whatever became of them, in any process."""

import io
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmmedia
from mmmedia import envs
from mmmedia.batch import Decoder
from mmmedia.errors import (
    InvalidArgumentError,
    InvalidMediaError,
    InvalidSettingError,
    LocalFileError,
    RefusedURLError,
)
from mmmedia.video import VIDEO_LOADER_REGISTRY, OpenCVVideoBackend
from support.clips import clip, read_number
from support.server import reply
from support.sounds import encode
from support.workers import numbers_and_error

CLIP = clip(frames=60)


def png(size: tuple[int, int] = (40, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", size, (255, 0, 0, 128)).save(file, "PNG")
    return file.getvalue()


def test_a_video_is_frames_metadata_and_no_error(tmp_path: Path) -> None:
    """From bytes, a path and a file URL alike."""
    path = tmp_path / "a clip.mp4"
    path.write_bytes(CLIP)
    decode = Decoder("video", num_frames=4)
    for source in (CLIP, bytearray(CLIP), str(path), path, path.as_uri(), io.BytesIO(CLIP)):
        frames, metadata, error = decode(source)
        assert error is None
        assert [read_number(frame) for frame in frames] == metadata["frames_indices"] == [0, 19, 39, 59]
        assert metadata["timestamps"] == pytest.approx([0, 0.76, 1.56, 2.36])


def test_a_url_is_fetched_under_the_policy_of_the_connector(server) -> None:
    """The keywords of the connector count."""
    url = server.route("/clip.mp4", reply(CLIP))
    assert Decoder("video", num_frames=2)(url).media.shape == (2, 96, 128, 3)
    refused = Decoder("video", num_frames=2, allowed_media_domains=["example.org"])(url)
    assert refused.error.startswith("RefusedURLError: ")


def test_paths_lie_below_the_directory_that_is_allowed(tmp_path: Path) -> None:
    """Where one is named, a path is no more trusted than a file URL."""
    inside, outside = tmp_path / "in", tmp_path / "out.png"
    inside.mkdir()
    outside.write_bytes(png())
    (inside / "in.png").write_bytes(png())
    decode = Decoder("image", allowed_local_media_path=str(inside), on_error="raise")
    assert decode(inside / "in.png").media.shape == (20, 40, 3)
    with pytest.raises(RefusedURLError):
        decode(outside)
    with pytest.raises(RefusedURLError):
        decode(f"{inside}/../out.png")


def test_pictures_and_sounds() -> None:
    """Pixels over white and a waveform, each an array that may be written to."""
    media, metadata, error = Decoder("image")(png())
    assert (media[0, 0].tolist(), metadata, error) == ([255, 127, 127], {"width": 40, "height": 20}, None)
    media[0, 0] = 0
    assert Decoder("image", resize=10)(png()).media.shape == (5, 10, 3)
    media, metadata, error = Decoder("audio")(encode(np.zeros(1600, np.float32), 16_000))
    assert (media.shape, metadata, error) == ((1600,), {"sampling_rate": 16_000.0, "duration": 0.1}, None)


@pytest.mark.parametrize("modality", ["video", "image", "audio"])
def test_what_failed_has_the_form_of_what_did_not(modality: str) -> None:
    """The same keys, types and number of dimensions, so that a column has one type."""
    good = {"video": CLIP, "image": png(), "audio": encode(np.zeros(160, np.float32), 16_000)}[modality]
    decode = Decoder(modality)
    right, wrong = decode(good), decode(b"nothing of the kind, only some words")
    assert wrong.error
    assert wrong.media.size == 0
    assert (wrong.media.ndim, wrong.media.dtype) == (right.media.ndim, right.media.dtype)
    assert {name: type(value) for name, value in wrong.metadata.items()} == {
        name: type(value) for name, value in right.metadata.items()
    }
    if modality == "video":
        wrong.metadata["frames_indices"].append(1)
        assert decode(b"").metadata["frames_indices"] == []


def test_a_damaged_clip_says_how_many_frames_are_lost(tmp_path: Path) -> None:
    """Not fewer frames in silence."""
    data = bytearray(clip(frames=12, gop=1))
    at = len(data) // 3
    data[at : at + 4000] = bytes(4000)
    whole = Decoder("video", num_frames=-1)(bytes(data))
    assert whole.error is not None
    assert "can't be decoded" in whole.error


@pytest.mark.parametrize("on_error", ["null", "drop"])
def test_an_error_is_words(on_error: str) -> None:
    """On one line, with the type first."""
    error = Decoder("video", on_error=on_error)(Path("/nowhere/at all.mp4")).error
    assert error.startswith("LocalFileNotFoundError: ")
    assert "\n" not in error


def test_an_error_is_raised_where_that_is_asked_for() -> None:
    """With its own type."""
    with pytest.raises(InvalidMediaError):
        Decoder("video", on_error="raise")(b"nothing")
    with pytest.raises(LocalFileError):
        Decoder("audio", on_error="raise")("/nowhere.wav")
    with pytest.raises(InvalidArgumentError, match="int"):
        Decoder("audio", on_error="raise")(7)


def test_what_is_nobodys_media_s_fault_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that can't be read would fail every row."""
    monkeypatch.setenv("MMMEDIA_MAX_VIDEO_DECODE_BYTES", "many")
    with pytest.raises(InvalidSettingError):
        Decoder("video")(CLIP)


@pytest.mark.parametrize(
    "arguments",
    [
        {"modality": "text"}, {"on_error": "ignore"}, {"threads": 0}, {"threads": True}, {"resize": 0},
        {"resize": (1, 2, 3)}, {"sampler": "no such"}, {"num_frames": 0}, {"fps": -1.0},
        {"modality": "image", "num_frames": 4}, {"modality": "audio", "resize": 3},
        {"sampler": "opencv_dynamic", "num_frames": 4},
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused_where_it_is_made(arguments: dict) -> None:
    """In the driver, not in a worker."""
    with pytest.raises(InvalidArgumentError):
        Decoder(**{"modality": "video", **arguments})


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_it_travels_to_other_processes(start: str) -> None:
    """Pickled in one that has used it already."""
    decode = Decoder("video", num_frames=3, threads=1, sampler="opencv")
    here = numbers_and_error(decode, CLIP)
    again = pickle.loads(pickle.dumps(decode))
    assert repr(again) == repr(decode) == "Decoder('video', on_error='null', threads=1, resize=None)"
    assert numbers_and_error(again, CLIP) == here == ([0, 29, 59], None)
    with ProcessPoolExecutor(2, get_context(start)) as pool:
        assert list(pool.map(numbers_and_error, [decode] * 3, [CLIP] * 3, timeout=60)) == [here] * 3


class Thirds(OpenCVVideoBackend):
    """Every third frame."""

    @classmethod
    def compute_frames_index_to_sample(cls, source, target, **kwargs):
        return np.arange(0, source.total_frames_num, 3)


def every_fifth(source) -> list[int]:
    return list(range(0, source.total_frames_num, 5))


def test_a_sampler_s_name_is_looked_up_where_it_is_registered() -> None:
    """What travels is the class, as workers know no such name."""
    VIDEO_LOADER_REGISTRY.register("thirds of this test")(Thirds)
    decode = Decoder("video", sampler="thirds of this test")
    assert b"thirds of this test" not in pickle.dumps(decode)
    expected = list(range(0, 60, 3))
    assert pickle.loads(pickle.dumps(decode))(CLIP).metadata["frames_indices"] == expected
    assert Decoder("video", sampler=Thirds)(CLIP).metadata["frames_indices"] == expected
    assert Decoder("video", sampler=every_fifth)(CLIP).metadata["frames_indices"] == list(range(0, 60, 5))


def test_threads_bound_the_workers_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than asked for decode at a time, on any path; and nothing is left set behind it."""
    import cv2

    from mmmedia.work.jobs import worker_count

    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", "7")
    seen = []

    def choose(source) -> list[int]:
        seen.append((worker_count(), envs.MMMEDIA_VIDEO_DECODE_FOR))
        return [1, 50]

    before = cv2.getNumThreads()
    try:
        Decoder("video", threads=2, sampler=choose)(CLIP)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
    assert set(seen) == {(2, "throughput")}
    assert (worker_count(), envs.MMMEDIA_VIDEO_DECODE_FOR) == (7, "latency")


def test_who_sets_latency_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What adapters prefer is a default; a variable wins."""
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_FOR", "latency")
    seen = []
    Decoder("video", sampler=lambda _: seen.append(envs.MMMEDIA_VIDEO_DECODE_FOR) or [0])(CLIP)
    assert set(seen) == {"latency"}


def test_many_threads_may_share_one() -> None:
    """As a framework's threads do."""
    decode = Decoder("video", num_frames=2)
    rows: list = []
    threads = [
        threading.Thread(target=lambda: rows.append(numbers_and_error(decode, CLIP))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == [([0, 59], None)] * 6


def test_decoders_say_nothing_on_the_terminal(tmp_path: Path) -> None:
    """FFmpeg inside OpenCV would write lines for each damaged file."""
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(CLIP[: len(CLIP) // 2])
    code = (
        "import sys; from mmmedia.batch import Decoder\n"
        "row = Decoder('video')(sys.argv[1]); assert row.error, row; print(row.error)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(broken)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    assert "cut short" in result.stdout


def test_it_is_handed_on_by_the_package() -> None:
    """`mmmedia.batch.Decoder`, without another import."""
    assert mmmedia.batch.Decoder is Decoder
