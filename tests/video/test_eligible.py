"""Which streams may be decoded by seeking: a reason for every refusal."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.eligible import CONTAINERS, PIXEL_FORMATS, Reference, judge
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.packets.index import NO_PTS, NOT_FOUND, PacketIndex
from support import corpus
from support.clips import clip

CLIP: dict[str, Any] = {"frames": 40, "width": 96, "height": 64}
ARRAYS = ("pts", "dts", "offset", "size", "key")
AGREES = Reference(total=40, width=96, height=64, rotation=0)


@pytest.fixture(scope="module")
def stream() -> PacketIndex:
    return index.build(clip(**CLIP))


def refusal(packets: PacketIndex, reference: Reference | None = AGREES) -> str:
    with pytest.raises(CannotSeekError) as error:
        judge(packets, reference)
    return str(error.value)


def remuxed(change: Any) -> bytes:
    return corpus.remux([clip(**CLIP, bframes=0)], "matroska", change)


def edited(array: Any, position: Any, value: Any) -> Any:
    copy = array.copy()
    copy[position] = value
    return copy


def test_what_is_eligible(stream: PacketIndex) -> None:
    """A plain clip, with and without something to agree with."""
    for reference in (AGREES, None):
        structure = judge(stream, reference)
        assert structure.access_points[0]
        assert len(structure.access_points) == 40


CHANGES: list[tuple[str, Any]] = [
    ("container", lambda s: {"container": "avi"}),
    ("attached picture", lambda s: {"attached_picture": True}),
    ("no packets", lambda s: {name: getattr(s, name)[:0] for name in ARRAYS}),
    ("parameters change midway", lambda s: {"side_data": True}),
    ("packets not stored as they are", lambda s: {"offset": edited(s.offset, 3, NOT_FOUND)}),
    ("pixel format", lambda s: {"pix_fmt": "yuv420p12le"}),
    ("pixel format", lambda s: {"pix_fmt": ""}),
    ("frame size", lambda s: {"width": 98}),
    ("frame size", lambda s: {"height": 62}),
    ("frame count", lambda s: {"declared_frames": 41}),
    ("corrupt packets", lambda s: {"corrupt": edited(s.corrupt, 7, True)}),
    ("hidden frames", lambda s: {"discard": edited(s.discard, 0, True)}),
    ("missing timestamps", lambda s: {"pts": edited(s.pts, 5, NO_PTS)}),
    ("duplicate timestamps", lambda s: {"pts": edited(s.pts, 5, s.pts[6])}),
    ("decoding timestamps out of order", lambda s: {"dts": edited(s.dts, 5, s.dts[6])}),
    ("leading pictures at the start", lambda s: {"pts": edited(s.pts, 5, s.pts[0] - 1)}),
    ("codec", lambda s: {"codec": "mpeg2video"}),
    ("no key frame at the start", lambda s: {"key": edited(s.key, 0, False)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "change"), CHANGES, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_a_reason_for_every_refusal(stream: PacketIndex, reason: str, change: Any) -> None:
    """One thing about the stream is not as it must be."""
    assert refusal(dataclasses.replace(stream, **change(stream))) == reason


@pytest.mark.parametrize(
    ("reason", "reference"),
    [
        ("rotation", AGREES._replace(rotation=90)),
        ("frame size", AGREES._replace(width=98)),
        ("frame size", AGREES._replace(height=98)),
        ("frame count", AGREES._replace(total=39)),
        ("frame count", AGREES._replace(total=41)),
    ],
)
def test_opencv_says_otherwise(stream: PacketIndex, reason: str, reference: Reference) -> None:
    """The reference would give other frames; where nothing need equal it, that is no matter."""
    assert refusal(stream, reference) == reason
    judge(stream, None)


def test_a_count_that_is_estimated_decides_nothing() -> None:
    """Matroska declares no count: OpenCV works one out from the duration."""
    packets = index.build(clip(**CLIP, container="matroska"))
    assert packets.declared_frames == 0
    judge(packets, AGREES._replace(total=37))


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("container", lambda: clip(**CLIP, container="avi")),
        ("container", lambda: clip(**CLIP, container="mpegts")),
        ("container", lambda: clip(**CLIP, container="flv")),
        ("container", lambda: clip(**CLIP, container="h264")),
        ("codec", lambda: clip(**CLIP, codec="libvpx", container="webm")),
        ("codec", lambda: clip(**CLIP, codec="ffv1", container="matroska")),
        ("codec", lambda: clip(**CLIP, codec="mpeg2video", container="matroska")),
        ("pixel format", lambda: clip(**CLIP, codec="ffv1", container="matroska", pix_fmt="bgr0")),
        ("rotation", lambda: corpus.rotate(clip(**CLIP), 90)),
        ("hidden frames", lambda: corpus.hide_lead_in(clip(**CLIP), 5 * 512)),
        ("interlaced", lambda: clip(**CLIP, **corpus.x264("tff=1"))),
        ("duplicate timestamps", lambda: remuxed(corpus.doubled({9}))),
        ("damaged or unusual headers", lambda: remuxed(corpus.without({9}))),
        ("no key frame at the start", lambda: remuxed(corpus.without({0}))),
    ],
)  # fmt: skip
def test_real_files(reason: str, data: Any) -> None:
    """The same reasons, met in files."""
    from mmmedia.video.decoders import opencv

    encoded = data()
    capture = opencv.open_capture(encoded)
    reference = opencv.reference(capture, opencv.source_metadata(capture))
    assert refusal(index.build(encoded), reference) == reason


def test_key_frames_out_of_order() -> None:
    """A key frame that shows before an earlier one."""
    packets = index.build(clip(**CLIP, gop=1, codec="mpeg4", container="matroska"))
    pts = packets.pts.copy()
    pts[[10, 11]] = pts[[11, 10]]
    swapped = dataclasses.replace(packets, pts=pts)
    assert refusal(swapped) in {"key frames out of order", "display order differs from timestamps"}


def test_allow_lists_are_those_that_the_differential_test_covers() -> None:
    """A new format or container is for the differential test first."""
    from support.corpus import FURTHER_FORMATS

    tried = {"yuv420p"}.union(*FURTHER_FORMATS.values())
    unreached = {"yuvj422p", "yuvj444p"}
    assert tried | unreached >= PIXEL_FORMATS
    assert len(CONTAINERS) == 2
    assert not np.any([name in CONTAINERS for name in ("avi", "mpegts")])
