"""Files of this machine: whatever is swapped meanwhile, nothing outside of the allowed directory is read."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmmedia.errors import LocalFileError, MediaError
from mmmedia.media import MediaConnector, local as local_module
from mmmedia.media.local import opened_below
from support.clips import clip

INSIDE, OUTSIDE = 8000, 11025
"""The rates, in Hz, of the sound that may be loaded and of the one that may not."""


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A directory that file URLs may name, with a sound, a picture and a video, beside one like it."""
    for name, rate in (("allowed", INSIDE), ("secret", OUTSIDE)):
        directory = tmp_path / name
        directory.mkdir()
        soundfile.write(directory / "sound.wav", np.zeros(400, np.float32), rate)
        Image.new("RGB", (8, 6), "green" if rate == INSIDE else "red").save(directory / "picture.png")
        (directory / "video.mp4").write_bytes(clip() if rate == INSIDE else b"secret")
    return tmp_path / "allowed"


def _sound(connector: MediaConnector, path: Path) -> bool:
    return connector.fetch_audio(path.as_uri())[1] == INSIDE


def _sound_async(connector: MediaConnector, path: Path) -> bool:
    return asyncio.run(connector.fetch_audio_async(path.as_uri()))[1] == INSIDE


def _picture(connector: MediaConnector, path: Path) -> bool:
    return connector.fetch_image(path.as_uri()).media.getpixel((0, 0)) == (0, 128, 0)


def _video(connector: MediaConnector, path: Path) -> bool:
    return len(connector.fetch_video(path.as_uri())[0]) > 0


def _swap_for_link(path: Path) -> None:
    """Replace a file, at once, by a link to its namesake in the other directory."""
    new = path.with_suffix(".new")
    new.symlink_to(path.parent.parent / "secret" / path.name)
    new.replace(path)


class _Swapping:
    """A budget that swaps a file when it is charged for it: after the check, before it is decoded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def charge(self, number_of_bytes: int) -> None:
        assert number_of_bytes == self.path.stat().st_size
        _swap_for_link(self.path)


@pytest.mark.parametrize(
    ("name", "is_inside"),
    [("sound.wav", _sound), ("sound.wav", _sound_async), ("picture.png", _picture), ("video.mp4", _video)],
)
def test_a_file_swapped_after_the_check_is_read_as_it_was(
    allowed: Path, name: str, is_inside: Callable[[MediaConnector, Path], bool]
) -> None:
    path = allowed / name
    connector = MediaConnector(allowed_local_media_path=allowed, download_budget=_Swapping(path))
    assert is_inside(connector, path)
    assert path.is_symlink()


@pytest.mark.parametrize("part", ["sound.wav", "sub"])
def test_a_part_swapped_between_looking_and_opening_is_an_error(
    allowed: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (allowed / "sub").mkdir()
    (allowed / "sub" / "sound.wav").write_bytes((allowed / "sound.wav").read_bytes())
    path = allowed / ("sound.wav" if part == "sound.wav" else "sub/sound.wav")
    resolve = os.path.realpath

    def resolve_then_swap(name: Any) -> str:
        resolved = resolve(name)
        if name == str(path):
            (allowed / part).rename(allowed / "aside")
            (allowed / part).symlink_to(allowed.parent / "secret" / ("" if part == "sub" else part))
        return resolved

    monkeypatch.setattr(local_module.os.path, "realpath", resolve_then_swap)
    with pytest.raises(LocalFileError, match="Cannot open"):
        MediaConnector(allowed_local_media_path=allowed).fetch_audio(path.as_uri())


@contextlib.contextmanager
def _swapped_all_the_time(path: Path) -> Iterator[None]:
    """Have a thread swap a file for a link to outside, and back, inside the block."""
    stop = threading.Event()
    data = path.read_bytes()
    outside = path.parent.parent / "secret" / path.name

    def swap() -> None:
        new = path.with_suffix(".new")
        while not stop.is_set():
            new.symlink_to(outside)
            new.replace(path)
            new.write_bytes(data)
            new.replace(path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_sound_swapped_back_and_forth_is_never_the_one_outside(allowed: Path) -> None:
    path = allowed / "sound.wav"
    connector = MediaConnector(allowed_local_media_path=allowed)
    seen = set()
    with _swapped_all_the_time(path):
        for _ in range(2000):
            with contextlib.suppress(MediaError):
                seen.add(connector.fetch_audio(path.as_uri())[1])
    assert seen == {INSIDE}


def test_a_file_that_grows_is_what_it_was_when_it_was_opened(allowed: Path) -> None:
    path = allowed / "a.bin"
    path.write_bytes(b"before")
    with opened_below(allowed, str(path)) as file, path.open("ab") as more:
        more.write(b" and after")
        more.flush()
        assert file.size == 6
        assert file.read() == b"before"


def test_a_file_that_shrinks_is_an_error(allowed: Path) -> None:
    path = allowed / "a.bin"
    path.write_bytes(b"before")
    with opened_below(allowed, str(path)) as file:
        os.truncate(path, 2)
        with pytest.raises(LocalFileError, match="4 bytes shorter"):
            file.read()


def test_a_file_that_comes_piece_by_piece_is_read_whole(
    allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.read
    monkeypatch.setattr(local_module.os, "read", lambda descriptor, size: read(descriptor, min(size, 3)))
    (allowed / "a.bin").write_bytes(b"0123456789")
    with opened_below(allowed, str(allowed / "a.bin")) as file:
        assert file.read() == b"0123456789"


def test_a_directory_of_the_same_name_within_itself(allowed: Path) -> None:
    within = allowed / "sub" / "sub"
    within.mkdir(parents=True)
    (within / "a.bin").write_bytes(b"within")
    with opened_below(allowed, str(within / "a.bin")) as file:
        assert file.read() == b"within"
