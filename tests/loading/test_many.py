"""Many sources side by side."""

import asyncio
import io
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mmmedia
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, LocalFileNotFoundError
from mmmedia.loading import many
from mmmedia.media import kinds
from mmmedia.sources import FileSource, Window
from support.clips import clip
from support.server import reply, stall
from support.sounds import encode, encode_av, sine

CLIP = clip(frames=12)
SOUND = encode(sine(440, 0.1, 16_000), 16_000)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue()


def gather(*arguments: object, **keywords: object) -> list:
    """The same through both twins."""

    async def collect() -> list:
        return [pair async for pair in mmmedia.aload_many(*arguments, **keywords)]

    results = list(mmmedia.load_many(*arguments, **keywords))
    again = asyncio.run(collect())
    assert [(source, type(result)) for source, result in again] == [
        (source, type(result)) for source, result in results
    ]
    return results


def names(results: list) -> list[str]:
    return [type(result).__name__ for _, result in results]


def test_each_source_comes_with_what_it_is_in_their_order(tmp_path: Path, server) -> None:
    """Of any kind, from anywhere; options go to those that know them."""
    path = tmp_path / "sound.bin"
    path.write_bytes(SOUND)
    sources = [CLIP, path, server.route("/a", reply(png())), "nowhere.mp4", b"words", SOUND]
    results = gather(sources, num_frames=3, sampling_rate=8000)
    assert [source for source, _ in results] == sources
    assert names(results) == [
        "Video", "Audio", "PngImageFile", "LocalFileNotFoundError", "InvalidMediaError", "Audio",
    ]  # fmt: skip
    assert len(results[0][1].frames) == 3
    assert results[1][1].sampling_rate == 8000


def test_of_one_kind_options_are_those_of_its_function() -> None:
    """`kind` also takes what bytes would not say: the sound of a video."""
    with_sound = clip(frames=12, audio=True)
    assert names(gather([with_sound], kind="audio", sampling_rate=8000)) == ["Audio"]
    assert names(gather([with_sound], kind="video", num_frames=2)) == ["Video"]
    assert gather([png()], kind="image", image_mode="L")[0][1].mode == "L"


def test_what_is_there_already_is_taken_too() -> None:
    """Arrays, pictures and waveforms."""
    sources = [np.zeros((2, 4, 4, 3), np.uint8), Image.new("L", (2, 2)), (np.zeros(9, np.float32), 9)]
    assert names(list(mmmedia.load_many(sources))) == ["Video", "Image", "Audio"]
    assert names(list(mmmedia.load_many(sources[:1], num_frames=1))) == ["Video"]


def test_errors_are_returned_skipped_or_raised() -> None:
    """As asked for."""
    sources = [SOUND, b"words", SOUND]
    assert names(gather(sources, on_error="skip")) == ["Audio", "Audio"]
    iterator = mmmedia.load_many(sources, on_error="raise")
    assert type(next(iterator)[1]).__name__ == "Audio"
    with pytest.raises(InvalidMediaError):
        next(iterator)

    async def collect() -> None:
        async for _ in mmmedia.aload_many(sources, on_error="raise"):
            pass

    with pytest.raises(InvalidMediaError):
        asyncio.run(collect())


def test_unordered_ones_come_as_they_are_ready(server) -> None:
    """One that hangs holds up nobody."""
    slow, fast = server.route("/slow", stall()), server.route("/fast", reply(SOUND))
    iterator = mmmedia.load_many([slow, fast], ordered=False, workers=2)
    assert next(iterator)[0] == fast
    iterator.close()

    async def first() -> str:
        iterator = mmmedia.aload_many([slow, fast], ordered=False, workers=2)
        source, _ = await anext(iterator)
        await iterator.aclose()
        return source

    assert asyncio.run(first()) == fast


def test_no_more_is_loaded_ahead_than_workers_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million sources take the memory of a few."""
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield SOUND

    iterator = mmmedia.load_many(endless(), workers=2)
    for _ in range(3):
        next(iterator)
    assert taken <= 3 + 2 * many._WAITING
    iterator.close()


def test_workers_bound_what_is_loaded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads and on event loops."""
    lock, at_work, most = threading.Lock(), 0, 0

    def slow(source: object, **_: object) -> object:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.02)
        with lock:
            at_work -= 1
        return source

    async def aslow(source: object, **options: object) -> object:
        return await asyncio.to_thread(slow, source)

    monkeypatch.setitem(many._LOAD, "image", slow)
    monkeypatch.setitem(many._ALOAD, "image", aslow)
    assert len(gather(range(12), kind="image", workers=3)) == 12
    assert most == 3


def test_a_directory_stands_for_its_files(tmp_path: Path) -> None:
    """In the order of their names; a single source is one."""
    for name in ("b.wav", "a.wav"):
        (tmp_path / name).write_bytes(SOUND)
    (tmp_path / "sub").mkdir()
    for source in (tmp_path, str(tmp_path), tmp_path.as_uri()):
        assert [found.name for found, _ in gather(source)] == ["a.wav", "b.wav"]
    assert names(gather(str(tmp_path / "a.wav"))) == ["Audio"]
    assert names(gather(SOUND)) == ["Audio"]
    assert isinstance(gather("nowhere")[0][1], LocalFileNotFoundError)


@pytest.mark.parametrize(
    "keywords",
    [{"kind": "text"}, {"on_error": "ignore"}, {"workers": 0}, {"workers": True}, {"num_frame": 3}],
)
def test_wrong_keywords_are_refused_at_the_call(keywords: dict) -> None:
    """Not when the first result is taken."""
    with pytest.raises(InvalidArgumentError):
        mmmedia.load_many([], **keywords)


def test_a_bar_is_for_who_waits_and_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts all, and is not there where nobody looks, or tqdm is not installed."""
    bars: list[types.SimpleNamespace] = []

    class Bar:
        def __init__(self, **options: object) -> None:
            self.options, self.count = options, 0
            bars.append(self)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            self.closed = True

        def update(self) -> None:
            self.count += 1

    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
    monkeypatch.setattr(many, "_is_watched", lambda: False)
    gather([SOUND] * 3)
    gather([SOUND] * 3, progress=False)
    assert bars == []
    gather([SOUND, b"words", SOUND], progress=True, on_error="skip")
    assert [(bar.count, bar.closed, bar.options["delay"], bar.options["total"]) for bar in bars] == [
        (3, True, 0, 3)
    ] * 2
    monkeypatch.setattr(many, "_is_watched", lambda: True)
    gather([SOUND])
    assert bars[-1].options["delay"] == 1.0
    list(mmmedia.load_many(iter([SOUND])))
    assert bars[-1].options["total"] is None
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert len(gather([SOUND], progress=True)) == 1


def test_the_real_bar_says_nothing_before_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    """With the tqdm that is installed."""
    pytest.importorskip("tqdm")
    list(mmmedia.load_many([SOUND], progress=True))
    assert "1/1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(), "image"), (b"\xff\xd8\xff\xe0", "image"), (b"RIFF\0\0\0\0WEBPVP8 ", "image"),
        (b"\0\0\0\x1cftypavif", "image"), (b"GIF89a", "image"),
        (SOUND, "audio"), (encode(sine(440, 0.1, 16_000), 16_000, "OGG", "VORBIS"), "audio"),
        (encode_av(sine(440, 0.2, 48_000), 48_000, "mp4", "aac"), "audio"),
        (CLIP, "video"), (clip(frames=4, container="matroska"), "video"),
        (clip(frames=4, codec="mpeg4", container="avi"), "video"),
    ],
)  # fmt: skip
def test_bytes_tell_what_they_are(data: bytes, kind: str, tmp_path: Path) -> None:
    """Also of containers that may hold either; and at a path, where not all is read."""
    assert kinds.kind_of(data) == kind
    path = tmp_path / "file"
    path.write_bytes(data)
    with FileSource(path) as source:
        assert kinds.kind_by_reading(Window(source)) in (kind, None)


def test_a_file_of_any_kind_in_a_data_url() -> None:
    """As bytes, in base64; a sequence of JPEGs by its media type."""
    text = mmmedia.VideoMediaIO(mmmedia.ImageMediaIO()).encode_base64(np.zeros((2, 8, 8, 3), np.uint8))
    sources = [
        f"data:video/jpeg;base64,{text}",
        "data:;base64," + mmmedia.media.base.encode_base64(SOUND),
    ]
    assert names(gather(sources)) == ["Video", "Audio"]
