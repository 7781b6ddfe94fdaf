"""The reader for qwen-vl-utils and qwen-omni-utils."""

import sys
from pathlib import Path

import pytest

from mmmedia.errors import LocalFileNotFoundError, MissingPackageError
from mmmedia.integrations import qwen
from mmmedia.media import MediaConnector
from support import needs, qwen_stand_in
from support.clips import clip
from support.server import reply

CLIPS = {
    "h264.mp4": clip(frames=100, gop=25, bframes=2, width=160, height=96),
    "hevc.mp4": clip(codec="libx265", frames=60),
    "vp9.webm": clip(codec="libvpx-vp9", container="webm", frames=90),
}
OPTIONS = [{}, {"nframes": 8}, {"fps": 4.0}, {"video_start": 0.5, "video_end": 2.0}]


def test_without_these_packages_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in ("qwen_vl_utils", "qwen_omni_utils"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match="pip install qwen-vl-utils"):
        qwen.register()


@pytest.fixture(params=[None, *qwen._MODULES], ids=["stand-in", "vl", "omni"])
def process(request, monkeypatch: pytest.MonkeyPatch):
    """A module of such a package, as it was before; or one that stands in for it."""
    pytest.importorskip("torch")
    module = qwen_stand_in
    if request.param is None:
        monkeypatch.setattr(qwen, "_MODULES", (module.__name__,))
    else:
        needs.torchvision()
        module = pytest.importorskip(request.param)
    monkeypatch.setattr(module, "VIDEO_READER_BACKENDS", dict(module.VIDEO_READER_BACKENDS))
    monkeypatch.setattr(module, "FORCE_QWENVL_VIDEO_READER", None)
    module.get_video_reader_backend.cache_clear()
    yield module
    module.get_video_reader_backend.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in CLIPS.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_of_torchcodecs_reader(process, folder, name, options):
    torch = pytest.importorskip("torch")
    if not process.is_torchcodec_available():
        pytest.skip("needs torchcodec")
    qwen.register()
    wanted = {"video": str(folder / name), **options}
    theirs, facts, rate = process.VIDEO_READER_BACKENDS["torchcodec"](wanted)
    frames, metadata, sampled = process.VIDEO_READER_BACKENDS["mmmedia"](wanted)
    assert torch.equal(frames, theirs)
    assert {**metadata, "video_backend": ""} == {**facts, "video_backend": ""}
    assert sampled == rate


def test_videos_are_read_by_it_from_then_on(process, folder):
    assert process.__name__.partition(".")[0] in qwen.register()
    assert process.get_video_reader_backend() == "mmmedia"
    pixels, rate = process.fetch_video(
        {"video": str(folder / "h264.mp4"), "nframes": 4}, return_video_sample_fps=True
    )
    assert pixels.shape[:2] == (4, 3)
    assert rate == 1.0


def test_it_may_be_one_among_others(process):
    qwen.register(default=False)
    assert process.FORCE_QWENVL_VIDEO_READER is None
    assert "mmmedia" in process.VIDEO_READER_BACKENDS


def test_the_first_error_is_the_one_that_is_seen(process, folder):
    qwen.register()
    qwen.register()
    with pytest.raises(LocalFileNotFoundError, match=r"nothing\.mp4"):
        process.fetch_video({"video": str(folder / "nothing.mp4")})


def test_torchvisions_reader_still_answers_who_asks_for_it(process):
    asked = []
    process.VIDEO_READER_BACKENDS["torchvision"] = lambda ele: asked.append(ele) or "its answer"
    qwen.register()
    assert process.VIDEO_READER_BACKENDS["torchvision"]({"video": "x"}) == "its answer"
    assert asked == [{"video": "x"}]


def test_urls_are_fetched_by_the_connector(process, folder, server):
    url = server.route("/clip.mp4", reply(CLIPS["h264.mp4"]))
    qwen.register(connector=MediaConnector(allowed_media_domains=["127.0.0.1"]))
    assert process.fetch_video({"video": url, "nframes": 4}).shape[0] == 4
    qwen.register(connector=MediaConnector(allowed_media_domains=["example.org"]))
    with pytest.raises(ValueError, match="allowed"):
        process.fetch_video({"video": url, "nframes": 4})
