"""Videos for transformers, sampled and decoded here; for its own processors see `test_video_processors`."""

import io
import os
import sys
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MissingPackageError
from mmmedia.integrations.transformers import install, load_video, to_metadata, uninstall, videos, worker_init
from mmmedia.media import MediaConnector
from mmmedia.video import OpenCVVideoBackend, read_frames
from support.clips import clip, read_number
from support.server import reply

transformers = pytest.importorskip("transformers")
video_utils = pytest.importorskip("transformers.video_utils")

CLIP = clip(frames=40, gop=16, bframes=2, width=112, height=96)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "clip.mp4"
    file.write_bytes(CLIP)
    return str(file)


class Options(TypedDict, total=False):
    """What the processor below takes."""

    num_frames: int
    skipped: int
    do_sample_frames: bool
    device: str


class Processor:
    """Samples as a video processor of transformers does, without the rest of one."""

    valid_kwargs = Options
    num_frames = 5
    skipped = 10
    do_sample_frames = False

    def sample_frames(self, metadata, num_frames, skipped):
        return np.arange(num_frames) * (metadata.total_num_frames - skipped) // num_frames + skipped


def test_a_processor_is_asked_which_frames_it_samples(path):
    class Whole:
        video_processor = Processor()

    given = videos(Whole(), [path, Path(path), CLIP, io.BytesIO(CLIP)], num_frames=3)
    assert [frames.shape for frames in given["videos"]] == [(3, 96, 112, 3)] * 4
    assert given["do_sample_frames"] is False
    assert [metadata.frames_indices for metadata in given["video_metadata"]] == [[10, 20, 30]] * 4
    assert np.array_equal(given["videos"][0], read_frames(CLIP, [10, 20, 30])[0])


def test_its_own_options_count_where_none_are_given(path):
    (metadata,) = videos(Processor(), [path], do_sample_frames=True, skipped=0)["video_metadata"]
    assert metadata.frames_indices == [0, 8, 16, 24, 32]


def test_who_samples_nothing_gets_all_frames(path):
    assert len(videos(Processor(), [path])["videos"][0]) == 40
    assert len(videos(Processor(), [path], num_frames=2, do_sample_frames=False)["videos"][0]) == 40


def test_what_is_no_video_processor_is_refused():
    with pytest.raises(InvalidArgumentError, match="dict is no processor"):
        videos({}, [])


def test_without_transformers_it_says_what_to_install(path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers.video_utils", None)
    for call in (
        lambda: load_video(path),
        lambda: to_metadata(OpenCVVideoBackend.load_bytes(CLIP)[1]),
        install,
    ):
        with pytest.raises(MissingPackageError, match=r"mmmedia\[transformers\]"):
            call()


def test_urls_are_fetched_by_the_connector(path, server):
    url = server.route("/clip.mp4", reply(CLIP))
    frames, metadata = load_video(url, num_frames=2)
    assert metadata.frames_indices == [0, 20]
    with pytest.raises(ValueError, match="allowed"):
        load_video(url, connector=MediaConnector(allowed_media_domains=["example.org"]))
    connector = MediaConnector(allowed_local_media_path=Path(path).parent)
    assert np.array_equal(load_video(Path(path).as_uri(), num_frames=2, connector=connector)[0], frames)


# load_video.


@pytest.mark.parametrize("options", [{"num_frames": 7}, {"fps": 5}, {}])
@pytest.mark.parametrize("backend", ["pyav", "opencv"])
def test_load_video_is_transformers_own(backend, options, path):
    theirs, facts = video_utils.load_video(path, backend=backend, **options)
    frames, metadata = load_video(path, backend=backend, **options)
    assert frames.shape == theirs.shape
    assert list(metadata.frames_indices) == list(facts.frames_indices)
    assert {**metadata, "video_backend": "", "frames_indices": 0} == {
        **facts, "video_backend": "", "frames_indices": 0,
    }  # fmt: skip
    if backend == "opencv":  # PyAV's own conversion differs in single steps of 255
        assert np.array_equal(frames, theirs)


def test_frames_come_in_the_order_of_the_rule_also_repeated(path):
    seen = []

    def rule(metadata, step):
        seen.append(metadata)
        return np.array([9, 3, 3]) * step

    frames, metadata = load_video(path, sample_indices_fn=rule, step=2)
    assert [read_number(frame) for frame in frames] == [18, 6, 6]
    assert metadata.frames_indices == [18, 6, 6]
    assert (seen[0].total_num_frames, seen[0].fps, seen[0].duration) == (40, 25.0, 1.6)


def test_what_is_decoded_already_is_handed_on():
    frames = np.zeros((3, 4, 5, 3), np.uint8)
    assert load_video(frames)[0] is frames
    assert load_video(frames)[1] == [None] * 3


def test_errors_say_what_is_wrong(path):
    with pytest.raises(InvalidArgumentError, match="exclude each other"):
        load_video(path, num_frames=2, fps=2)
    with pytest.raises(InvalidMediaError):
        load_video(b"nothing")
    with pytest.raises(ValueError, match="41"):
        load_video(path, num_frames=41)


def test_metadata_become_those_of_transformers(path):
    frames, _, source = read_frames(CLIP, [0, 1])
    _, facts = OpenCVVideoBackend.load_bytes(CLIP, num_frames=2)
    assert facts["do_sample_frames"] is False
    metadata = to_metadata(facts, frames)
    assert isinstance(metadata, video_utils.VideoMetadata)
    assert (metadata.width, metadata.height, metadata.fps) == (112, 96, source.original_fps)
    assert metadata.timestamps == [0.0, 39 / 25]
    assert to_metadata(facts).width is None


def test_install_has_processors_fetch_by_this(path):
    processing = pytest.importorskip("transformers.video_processing_utils")
    before = video_utils.load_video, processing.VideoProcessorMixin.fetch_videos
    processor = processing.VideoProcessorMixin()
    install()
    try:
        install()
        (frames,), (metadata,) = processor.fetch_videos([path], sample_indices_fn=lambda metadata: [4, 2])
        assert [read_number(frame) for frame in frames] == [4, 2]
        assert metadata.video_backend == "mmmedia"
        frames, _ = video_utils.load_video(path, backend="torchcodec", num_frames=3)
        assert len(frames) == 3
        frames, _ = video_utils.VIDEO_DECODERS["mmmedia"](path, lambda metadata: [7])
        assert read_number(frames[0]) == 7
    finally:
        uninstall()
        uninstall()
    assert (video_utils.load_video, processing.VideoProcessorMixin.fetch_videos) == before
    assert "mmmedia" not in video_utils.VIDEO_DECODERS


def test_a_worker_decodes_with_one_thread(monkeypatch: pytest.MonkeyPatch):
    import cv2

    threads = cv2.getNumThreads()
    for name in ("MMMEDIA_VIDEO_DECODE_WORKERS", "MMMEDIA_VIDEO_DECODE_FOR"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # so that what is set is taken back
    try:
        worker_init(3)
        assert cv2.getNumThreads() == 1
        assert os.environ["MMMEDIA_VIDEO_DECODE_WORKERS"] == "1"
    finally:
        cv2.setNumThreads(threads)
