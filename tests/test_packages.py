"""Packages that are missing are named, with what installs them; no file is blamed."""

import asyncio
import pickle
import sys

import numpy as np
import pytest

import mmmedia
from mmmedia.batch import Decoder
from mmmedia.errors import MissingPackageError
from mmmedia.packages import missing_package, packages_for
from mmmedia.video import OpenCVVideoBackend, excerpt, read_frames
from support.clips import clip
from support.sounds import encode, sine

CLIP = clip(frames=12)
SOUND = encode(sine(440, 0.1, 16_000), 16_000)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """As if they were not installed."""
    for package in packages:
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("package", "use"),
    [
        ("cv2", lambda: mmmedia.load_video(CLIP)),
        ("cv2", lambda: asyncio.run(mmmedia.aload_video(CLIP))),
        ("cv2", lambda: Decoder("video", threads=1)(CLIP)),
        ("cv2", lambda: OpenCVVideoBackend.load_bytes(CLIP)),
        ("cv2", lambda: read_frames(CLIP, [0])),
        ("av", lambda: excerpt(CLIP, [0])),
        ("soundfile", lambda: mmmedia.load_audio(SOUND)),
        ("soundfile", lambda: mmmedia.AudioMediaIO().load_bytes(SOUND)),
        ("soundfile", lambda: Decoder("audio")(SOUND)),
        ("soxr", lambda: mmmedia.load_audio(SOUND, sampling_rate=8000)),
        ("torch", lambda: mmmedia.load_video(CLIP, num_frames=2, device="cpu")),
        ("torch", lambda: mmmedia.load_video(CLIP, num_frames=2).to_tensor()),
        ("torch", lambda: mmmedia.load_audio(SOUND).to_tensor()),
        ("fsspec", lambda: mmmedia.load_image("memory://bucket/a.png")),
    ],
)
def test_a_missing_package_is_named_with_what_installs_it(
    package: str, use, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is asked, in whichever way."""
    without(monkeypatch, package)
    with pytest.raises(
        MissingPackageError, match=rf"pip install '?(mmmedia\[)?{package.replace('cv2', 'opencv')}"
    ):
        use()


def test_what_is_not_missing_but_broken_is_not_ours_to_explain() -> None:
    """An import that fails inside a package, or of a package that nobody here needs."""
    assert missing_package(ImportError("libGL.so.1: cannot open", name="cv2")) is None
    for error in (ModuleNotFoundError("x", name="colour"), ImportError("libGL.so.1")):
        with pytest.raises(type(error)) as raised, packages_for("A video"):
            raise error
        assert raised.value is error
    with pytest.raises(MissingPackageError, match=r"^own words$"), packages_for("A video"):
        raise MissingPackageError("own words")


def test_the_error_keeps_the_name_of_the_package() -> None:
    """As an `ImportError` does, also when it comes from another process."""
    error = missing_package(ModuleNotFoundError("", name="cv2.gapi"), "A video")
    assert error is not None
    assert error.name == "cv2"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert isinstance(error, ImportError)


def test_pictures_need_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow and NumPy are enough."""
    without(monkeypatch, "cv2", "av", "torch", "soundfile", "soxr", "scipy", "librosa")
    assert mmmedia.load_image(np.zeros((2, 3, 3), np.uint8)).size == (3, 2)
