"""Streams that begin in the midst: from the first key frame on every frame has its own number."""

import io
from typing import Any

import av
import pytest

from mmmedia.errors import NotSeekableError
from mmmedia.video import OpenCVVideoBackend, excerpt
from support import corpus
from support.clips import clip, read_number
from support.kinds import SIZE, WAYS
from support.picking import Pick

RAW: list[tuple[str, str, dict[str, Any]]] = [
    ("libx264", "h264", corpus.x264("keyint=12:min-keyint=12:scenecut=0")),
    ("libx265", "hevc", corpus.x265("keyint=12:min-keyint=12")),
    ("libx265", "hevc", corpus.x265("open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0")),
    ("mpeg4", "m4v", {"gop": 12}),
    ("mpeg4", "m4v", {"gop": 12, "bframes": 2}),
    ("mpeg2video", "mpeg2video", {"gop": 12}),
]


def check(data: bytes, least: int) -> None:
    """The last frames, at least so many, are the last of the sixty."""
    for way in WAYS:
        total = OpenCVVideoBackend.load_bytes(data, num_frames=1)[1]["total_num_frames"]
        assert total >= least
        wanted = list(range(total - least, total, 3))
        try:
            frames, metadata = Pick.load_bytes(data, indices=wanted, **way)
        except NotSeekableError:
            assert way["decode"] == "seek"
            continue
        assert metadata["frames_indices"] == wanted
        assert [read_number(frame) for frame in frames] == [60 - total + number for number in wanted], way


@pytest.mark.parametrize(("codec", "container", "options"), RAW, ids=str)
def test_raw_streams(codec: str, container: str, options: dict[str, Any]) -> None:
    """Cut in the midst of a picture, and between two."""
    data = clip(codec=codec, container=container, frames=60, **SIZE, **options)
    third = len(data) // 3
    check(data[third:], 24)
    check(data[data.index(b"\0\0\1", third) :], 24)


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx", "libsvtav1"])
def test_codecs_of_the_web(codec: str) -> None:
    """FFmpeg's VP9 never recovers: it must be given nothing before the first key frame."""
    data = clip(codec=codec, container="matroska", frames=60, gop=16, **SIZE)
    data = corpus.remux([data], "matroska", lambda packets: packets[5:])
    check(data, 40)
    frames, metadata = OpenCVVideoBackend.load_bytes(data)
    assert [read_number(frame) for frame in frames] == list(range(60 - metadata["total_num_frames"], 60))


def test_an_excerpt() -> None:
    """Of a stream whose decoder never recovers, too; by parts, and as a whole."""
    data = clip(codec="libvpx-vp9", container="matroska", frames=60, gop=16, **SIZE)
    data = corpus.remux([data], "matroska", lambda packets: packets[5:])
    part = excerpt(data, [0, 20])
    with av.open(io.BytesIO(part.data)) as container:
        numbers = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    first = 60 - part.source.total_frames_num
    assert [numbers[position] for position in part.positions] == [first, first + 20]


def test_a_transport_stream_behind_a_tag() -> None:
    """As radio stations and players of segments write it."""
    data = clip(container="mpegts", frames=60, **SIZE)
    check(b"ID3\4\0\0\0\0\0\x3f" + bytes(63) + data, 60)
