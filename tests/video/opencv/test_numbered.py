"""Frames told by their times: which number each has, and that a lost one is noticed."""

from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import pytest

from mmmedia import containers
from mmmedia.errors import NotSeekableError
from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.decoders.opencv.capture import open_capture
from mmmedia.video.decoders.opencv.numbered import ClockError, Numbered, Steps, Times
from mmmedia.video.decoders.packets import index
from support.clips import clip, read_number
from support.kinds import SIZE, WAYS


def without_quantiser(data: bytes, position: int) -> bytes:
    """Spoil the header of an MPEG-4 picture of 25 a second, so that its decoder gives none for it."""
    start = int(index.build(data).offset[position])
    at = data.index(b"\0\0\1\xb6", start) + 4
    spoilt = bytearray(data)
    assert not spoilt[at] & 0x20  # no new second begins, so that everything is where it is expected
    spoilt[at + 1] &= 0xFC
    spoilt[at + 2] &= 0x1F
    return bytes(spoilt)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("options", "position", "lost"), [({"gop": 1}, 5, 5), ({"bframes": 2}, 5, 4)])
def test_no_frame_takes_the_number_of_a_lost_one(
    options: dict[str, Any], position: int, lost: int, way: dict[str, Any]
) -> None:
    """In AVI as well, which tells no times of frames."""
    data = without_quantiser(clip(codec="mpeg4", container="avi", frames=40, **SIZE, **options), position)
    for count in (40, 9, 8):
        wanted = np.linspace(0, 39, count).astype(int).tolist()
        try:
            frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=count, **way)
        except NotSeekableError:
            assert way["decode"] == "seek"
            assert lost in wanted
            continue
        indices = metadata["frames_indices"]
        assert metadata["total_num_frames"] == 40
        assert [read_number(frame) for frame in frames] == indices
        assert indices == [number for number in wanted if number != lost]


class TestSteps:
    def test_frames_that_come_with_a_later_packet(self) -> None:
        """The last ones come behind all packets, and tell nothing."""
        clock = Steps([0.0, 40.0, 80.0, 120.0, 160.0])
        assert [clock.number(time, n) for n, time in enumerate([80.0, 120.0, 160.0, 0.0, 0.0])] == [
            0,
            1,
            2,
            3,
            4,
        ]

    def test_a_lost_frame(self) -> None:
        clock = Steps([0.0, 40.0, 80.0, 120.0, 160.0])
        assert clock.number(0.0, 0) == 0
        with pytest.raises(ClockError):
            clock.number(80.0, 1)

    def test_uneven_packets(self) -> None:
        clock = Steps([0.0, 3080.0, 3120.0])
        assert [clock.number(time, n) for n, time in enumerate([0.0, 3080.0, 3120.0])] == [0, 1, 2]
        assert Steps([0.0]).number(0.0, 0) == 0


def test_it_is_read_as_a_capture_of_opencv() -> None:
    """Frame by frame, and ahead to another, as loaders of others do."""
    capture = open_capture(containers.admit(clip(frames=30, **SIZE)))
    numbered = Numbered(capture, 30, Times(list(range(30)), range(30), 0, Fraction(1, 25)))
    seen = []
    for ahead in (0, 10, 11, 29):
        assert numbered.set(cv2.CAP_PROP_POS_FRAMES, ahead)
        ok, picture = numbered.read()
        assert ok
        seen.append(read_number(picture[..., ::-1]))
    assert seen == [0, 10, 11, 29]
    assert not numbered.set(cv2.CAP_PROP_POS_FRAMES, 3)
    assert not numbered.set(cv2.CAP_PROP_FPS, 3)
    assert numbered.read() == (False, None)
