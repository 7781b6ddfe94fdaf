"""The packet index of real files in every container."""

import dataclasses
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.packets.index import NO_PTS, NOT_FOUND
from support import corpus, sounds
from support.clips import clip

CLIP: dict[str, Any] = {"frames": 50, "width": 96, "height": 64}


@pytest.mark.parametrize(
    ("container", "name"),
    [("mp4", "mov,mp4,m4a,3gp,3g2,mj2"), ("mov", "mov,mp4,m4a,3gp,3g2,mj2"), ("matroska", "matroska,webm")],
)
def test_what_it_says_of_a_stream(container: str, name: str) -> None:
    """Size, codec, clock and flags; the payloads where they stand in the file."""
    data = clip(**CLIP, container=container)
    packets = index.build(data)
    assert len(packets) == 50
    assert (packets.container, packets.codec, packets.pix_fmt) == (name, "h264", "yuv420p")
    assert (packets.width, packets.height, packets.rate) == (96, 64, 25)
    assert packets.key.sum() == 3
    assert not packets.discard.any()
    assert not packets.corrupt.any()
    assert packets.is_first
    assert not packets.side_data
    assert packets.declared_frames == (0 if container == "matroska" else 50)
    seconds = packets.pts[packets.display_order] * float(packets.time_base)
    assert np.allclose(np.diff(seconds), 1 / 25, atol=2e-3)
    with av.open(__import__("io").BytesIO(data)) as file:
        payloads = [bytes(packet) for packet in file.demux(video=0) if packet.size]
    stored = [
        data[at : at + size] for at, size in zip(packets.offset.tolist(), packets.size.tolist(), strict=True)
    ]
    assert stored == payloads


def test_display_order() -> None:
    """The n-th frame is the packet with the n-th timestamp, though B-frames come later than they show."""
    packets = index.build(clip(**CLIP))
    assert (np.diff(packets.pts) < 0).any()
    assert (np.diff(packets.pts[packets.display_order]) > 0).all()


def test_packets_and_decoder_give_the_frames() -> None:
    """A decoder of the index, fed its packets, gives every frame."""
    packets = index.build(clip(**CLIP, container="matroska"))
    decoder = packets.decoder()
    assert decoder.thread_count == 1
    shown = [
        frame.pts for packet in [*map(packets.packet, range(50)), None] for frame in decoder.decode(packet)
    ]
    assert shown == sorted(packets.pts.tolist())


def test_missing_timestamps() -> None:
    """Raw streams have none."""
    packets = index.build(clip(**CLIP, container="h264"))
    assert (packets.pts == NO_PTS).any()


def test_payloads_that_are_not_stored_as_they_are() -> None:
    """A transport stream cuts them up: they are put together."""
    data = clip(**CLIP, container="mpegts")
    packets = index.build(data)
    assert not (packets.offset == NOT_FOUND).any()
    with av.open(__import__("io").BytesIO(data)) as file:
        assert [packets.payload(n) for n in range(50)] == [
            bytes(packet) for packet in file.demux(video=0) if packet.size
        ]


def test_hidden_packets() -> None:
    """What an edit list hides is flagged."""
    hidden = index.build(corpus.hide_lead_in(clip(**CLIP, bframes=0), 5 * 512))
    assert hidden.discard.any()
    assert len(hidden) == 50


def test_the_first_video_stream_counts() -> None:
    """Sound and a second video stream are passed over."""
    packets = index.build(clip(**CLIP, audio=True, extra_video=(128, 96)))
    assert (packets.width, packets.height, len(packets)) == (96, 64, 50)


def test_a_file_cut_short() -> None:
    """What there is of a stream that ends too early."""
    data = clip(**CLIP, container="matroska")
    packets = index.build(data[: len(data) // 2])
    assert 5 < len(packets) < 50


def test_no_packets() -> None:
    """A track that promises frames of which not one is there."""
    data = clip(**CLIP, container_options={"movflags": "frag_keyframe+empty_moov"})
    packets = index.build(data[: data.index(b"moof") - 4])
    assert len(packets) == 0
    assert packets.display_order.tolist() == []


def test_no_video() -> None:
    """A file of sound alone, and what is no media at all."""
    with pytest.raises(InvalidMediaError, match="No video stream"):
        index.build(sounds.encode_av(sounds.sine(440, 0.5, 48_000), 48_000, "mp4", "aac"))
    with pytest.raises(InvalidMediaError):
        index.build(b"dear diary")


def test_rate_of_a_silent_container() -> None:
    """Without a rate: one tick of the container's clock."""

    class Silent:
        guessed_rate = average_rate = None
        time_base = Fraction(1, 30)

    assert index._rate(Silent()) == 30
    Silent.time_base = None
    assert index._rate(Silent()) == 1


def test_it_is_frozen() -> None:
    """Nobody changes an index that threads share."""
    packets = index.build(clip(**CLIP))
    with pytest.raises(dataclasses.FrozenInstanceError):
        packets.codec = "vp9"
