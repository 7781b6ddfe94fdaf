"""Options that are misspelt are told of once; the types know every option that there is."""

import inspect
import logging
from typing import get_type_hints

import pytest

from mmmedia import options
from mmmedia.media import ImageMediaIO, MediaConnector
from mmmedia.media.image import _KEYWORDS
from mmmedia.options import KNOWN, MediaIOKwargs, VideoMetadata, warn_of_slips
from mmmedia.video import SAMPLERS, VIDEO_LOADER_REGISTRY, OpenCVVideoBackend
from mmmedia.video.codecs.options import BACKEND_OPTIONS
from support.clips import clip


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_warned", set())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"video": {"num_frame": 4}}, "['video'] has no option 'num_frame': did you mean num_frames?"),
        ({"videos": {"num_frames": 4}}, " has no option 'videos': did you mean video?"),
        ({"image": {"image_modes": "L"}}, "['image'] has no option 'image_modes': did you mean image_mode?"),
        ({"audio": {"audio_backed": 1}},
         "['audio'] has no option 'audio_backed': did you mean audio_backend?"),
    ],
)  # fmt: skip
def test_a_slip_is_told_of_once(given: dict, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """However many connectors are made."""
    for _ in range(3):
        MediaConnector(given)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"media_io_kwargs{words}"
    ]


def test_what_looks_like_nothing_is_somebody_s_own(caplog: pytest.LogCaptureFixture) -> None:
    """Loaders of third parties have options, and engines modalities, of which nobody here knows."""
    MediaConnector({"video": {"my_magic": 1, "num_frames": 4}, "touch": {"a": 1}, "audio": None})
    warn_of_slips({"video": None})
    assert caplog.records == []


def test_the_types_know_all_that_there_is() -> None:
    """Every keyword of loaders, samplers, decoders and media IOs has its type, and the dict its keys."""
    video = {name for options in BACKEND_OPTIONS.values() for name in options}
    for sampler in SAMPLERS.values():
        video |= set(sampler.options)
        loader = VIDEO_LOADER_REGISTRY.get(sampler.name)
        for method in (loader.load_bytes, getattr(loader, "load_bytes_opencv", loader.load_bytes)):
            parameters = inspect.signature(method).parameters.values()
            video |= {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    assert video - {"data", "args"} <= KNOWN["video"]
    assert KNOWN["image"] == {*_KEYWORDS, *inspect.signature(ImageMediaIO).parameters} - {
        "kwargs", "decoded_budget",
    }  # fmt: skip
    assert set(get_type_hints(MediaIOKwargs)) == set(KNOWN)
    _, metadata = OpenCVVideoBackend.load_bytes(clip(frames=4))
    hints = get_type_hints(VideoMetadata)
    assert list(metadata) == list(hints)
    kinds = {name: kind for name, kind in hints.items() if isinstance(kind, type)}
    assert all(isinstance(metadata[name], kind) for name, kind in kinds.items())
