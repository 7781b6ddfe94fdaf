"""The strings that OpenCV makes of the names of a stream's methods."""

import gc
import io
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from mmmedia.video.decoders import opencv
from mmmedia.video.decoders.opencv import capture, lost_strings, stream
from support.clips import clip

CPYTHON = pytest.mark.skipif(not lost_strings._COUNTS_REFERENCES, reason="references are not counted")


@CPYTHON
def test_reading_a_video_loses_no_memory() -> None:
    """OpenCV makes a string for each call, which nobody would let go of: here some thirty for a clip."""
    data = clip(frames=60, width=64, height=48)

    def read() -> None:
        capture = opencv.open_capture(data)
        while capture.grab():
            pass

    for _ in range(5):
        read()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(50):
        read()
    gc.collect()
    assert sys.getallocatedblocks() - before < 150


@CPYTHON
def test_a_string_is_let_go_of_only_if_it_was_lost() -> None:
    def fresh() -> str:
        return "".join(("re", "ad"))

    kept = [fresh() for _ in range(5)]
    last = lost_strings.LostString()
    for text in kept[:1] * 3:  # the same each time, so somebody keeps it
        last.replace_by(text)
    del last, text
    assert lost_strings._references(kept) == lost_strings._OWN_REFERENCES

    nobodys = lost_strings.LostString()
    for _ in range(3):  # new each time, and let go of by who made it
        nobodys.replace_by(fresh())
    assert lost_strings._references(nobodys._held) == lost_strings._OWN_REFERENCES


def test_a_replaced_capture_makes_its_own_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[stream.Stream] = []

    class Fake:
        def __init__(self, given: stream.Stream, *_: object) -> None:
            streams.append(given)

    monkeypatch.setattr(cv2, "VideoCapture", Fake)
    capture._open(b"content", 0, [])
    names = ["".join(("re", "ad")) for _ in range(3)]
    assert [getattr(streams[0], name)(2) for name in names] == [b"co", b"nt", b"en"]
    assert lost_strings._references(names) == lost_strings._OWN_REFERENCES


def test_what_is_read_is_what_is_there() -> None:
    read = stream.Stream(b"0123456789")
    assert (read.seek(4), read.read(3), read.tell()) == (4, b"456", 7)
    assert read.seek(-(1 << 40)) == 10
    assert np.array_equal(np.frombuffer(read.getvalue(), np.uint8), np.arange(48, 58, dtype=np.uint8))


@CPYTHON
def test_this_opencv_loses_them() -> None:
    """Where it no longer does (4.11 to 5.0 do), `lost_strings` has nothing left to do and can go."""
    names: list[str] = []

    class Noting(io.BytesIO):
        def __getattribute__(self, name: str) -> Any:
            names.append(name)
            return super().__getattribute__("read" if name == "read" else name)

    while_open: Any = Noting(clip(frames=60, width=64, height=48))
    video = cv2.VideoCapture(while_open, cv2.CAP_FFMPEG, [])
    assert video.grab()
    del video
    read = [name for name in names if name == "read"]
    del names[:]
    assert lost_strings._references(read) > lost_strings._OWN_REFERENCES
