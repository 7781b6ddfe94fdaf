"""Which streams may be decoded by parts: a reason for every refusal."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.eligible import judge
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.packets.index import NO_PTS, NOT_FOUND, PacketIndex
from mmmedia.video.decoders.shown import shown_frames
from support import corpus
from support.clips import clip

CLIP: dict[str, Any] = {"frames": 40, "width": 96, "height": 64}
ARRAYS = ("pts", "dts", "duration", "offset", "size", "key", "discard", "corrupt")


@pytest.fixture(scope="module")
def stream() -> PacketIndex:
    return index.build(clip(**CLIP))


def refusal(packets: PacketIndex) -> str:
    with pytest.raises(CannotSeekError) as error:
        judge(packets, shown_frames(packets))
    return str(error.value)


def remuxed(change: Any) -> bytes:
    return corpus.remux([clip(**CLIP, bframes=0)], "matroska", change)


def edited(array: Any, position: Any, value: Any) -> Any:
    copy = array.copy()
    copy[position] = value
    return copy


@pytest.mark.parametrize(
    "fields",
    [
        {},
        *({"container": container} for container in ("mov", "matroska", "mpegts", "flv", "avi", "h264")),
        *(
            {"codec": "libx265", "container": container}
            for container in ("mp4", "matroska", "mpegts", "hevc")
        ),
        *({"codec": "libvpx", "container": container} for container in ("webm", "avi", "ivf")),
        {"codec": "libvpx-vp9", "container": "webm"},
        {"codec": "libsvtav1"},
        *(
            {"codec": "mpeg4", "bframes": 2, "container": container}
            for container in ("mp4", "avi", "mpegts", "m4v")
        ),
        *(
            {"codec": "mpeg2video", "bframes": 2, "container": c}
            for c in ("mp4", "matroska", "mpegts", "mpeg")
        ),
        *({"codec": "mjpeg", "pix_fmt": "yuvj420p", "container": container} for container in ("mov", "avi")),
        *({"codec": "ffv1", "container": container} for container in ("matroska", "avi")),
        {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "container": "mov"},
        {"codec": "huffyuv", "pix_fmt": "yuv422p", "container": "avi"},
    ],
    ids=str,
)
def test_what_is_eligible(fields: dict[str, Any]) -> None:
    """Every frame has its packet, in the order in which frames are shown."""
    packets = index.build(clip(**CLIP, **fields))
    shown = shown_frames(packets)
    read, structure, positions = judge(packets, shown)
    assert structure.access_points[0]
    assert len(read) == len(positions) == shown.total == 40
    assert sorted(structure.ranks.tolist()) == list(range(40))
    assert structure.ranks[positions].tolist() == list(range(40))


CHANGES: list[tuple[str, Any]] = [
    ("no packets", lambda s: {name: getattr(s, name)[:0] for name in ARRAYS}),
    ("parameters change midway", lambda s: {"side_data": True}),
    ("packets not stored as they are", lambda s: {"offset": edited(s.offset, 3, NOT_FOUND)}),
    ("corrupt packets", lambda s: {"corrupt": edited(s.corrupt, 7, True)}),
    ("display order differs from timestamps", lambda s: {"pts": edited(s.pts, 5, s.pts[30] + 1)}),
    ("codec", lambda s: {"codec": "wmv2"}),
    ("no key frame at the start", lambda s: {"key": edited(s.key, slice(None), False)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "change"), CHANGES, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_a_reason_for_every_refusal(stream: PacketIndex, reason: str, change: Any) -> None:
    """One thing about the stream is not as it must be."""
    assert refusal(dataclasses.replace(stream, **change(stream))) == reason


def test_times_that_are_missing_are_told_by_the_headers(stream: PacketIndex) -> None:
    """Order counts of H.264 say which frame is shown when."""
    untimed = dataclasses.replace(stream, pts=np.full(40, NO_PTS))
    _, _, positions = judge(untimed, shown_frames(untimed))
    assert positions.tolist() == np.argsort(stream.pts).tolist()


@pytest.mark.parametrize("is_open", [False, True])
def test_some_times_that_are_missing(is_open: bool) -> None:
    """Then frames are told by counting them: no good where one of them may not come.

    So it is behind a key frame of open groups, if what stands before it is damaged.
    """
    options = {} if is_open else corpus.x265("keyint=12:open-gop=0:bframes=3")
    packets = index.build(clip(**CLIP, codec="libx265", container="mpegts", gop=12, **options))
    untimed = dataclasses.replace(packets, pts=edited(packets.pts, 30, NO_PTS))
    assert shown_frames(untimed).positions is None
    if is_open:
        assert refusal(untimed) == "display order differs from timestamps"
    else:
        _, _, positions = judge(untimed, shown_frames(untimed))
        assert positions.tolist() == np.argsort(packets.pts).tolist()


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("codec", lambda: clip(**CLIP, codec="wmv2", container="asf")),
        ("interlaced", lambda: clip(**CLIP, **corpus.x264("tff=1"))),
        ("damaged or unusual headers", lambda: remuxed(corpus.without({9}))),
    ],
)
def test_real_files(reason: str, data: Any) -> None:
    """The same reasons, met in files."""
    assert refusal(index.build(data())) == reason


@pytest.mark.parametrize("begins", [5, 20, 30])
def test_what_begins_within_a_group(begins: int) -> None:
    """Frames before the first that can be decoded are not shown; the others are to be had by parts."""
    data = corpus.remux([clip(**CLIP, bframes=0, gop=20)], "matroska", lambda packets: packets[begins:])
    packets = index.build(data)
    shown = shown_frames(packets)
    assert shown.total == 20 if begins <= 20 else shown.total == 0
    if shown.total:
        _, _, positions = judge(packets, shown)
        assert positions.tolist() == list(range(20 - begins, 40 - begins))
