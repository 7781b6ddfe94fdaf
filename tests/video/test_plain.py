"""Which MP4s are plain, and that nothing else is taken for it."""

import logging
from typing import Any

import pytest

from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.plain import plain_video, stays_plain
from support import corpus
from support.clips import clip, read_number
from support.kinds import KINDS, with_cover

CLIP: dict[str, Any] = {"frames": 40, "width": 96, "height": 64}


def with_a_large_sample(data: bytes, track: int) -> bytes:
    """An MP4 whose tables say of a track's fifth sample that it reaches beyond the end of the file."""
    at = -1
    for _ in range(track + 1):
        at = data.index(b"stsz", at + 1)
    at += 16 + 4 * 4
    return data[:at] + (1 << 24).to_bytes(4, "big") + data[at + 4 :]


def becomes_interlaced() -> bytes:
    """An MP4 whose second half brings a parameter set of its own, as where recordings are joined."""
    parts = [clip(**CLIP, container="h264"), clip(**CLIP, **corpus.x264("tff=1"), container="h264")]
    return corpus.remux([b"".join(parts)], "mp4")


def test_what_becomes_interlaced() -> None:
    for way in ({"decode": "sequential"}, {"decode": "auto"}, {"backend": "pyav"}):
        frames, metadata = OpenCVVideoBackend.load_bytes(becomes_interlaced(), num_frames=8, **way)
        assert [read_number(frame) for frame in frames] == [each % 40 for each in metadata["frames_indices"]]


def with_a_large_box(data: bytes, name: bytes) -> bytes:
    """An MP4 with a box that reaches beyond the one in which it stands."""
    at = data.index(name) - 4
    return (
        data[:at] + (int.from_bytes(data[at : at + 4], "big") + (1 << 26)).to_bytes(4, "big") + data[at + 4 :]
    )


def test_a_sample_that_is_not_there() -> None:
    """It ends the video, whatever the header claims, by whichever way the first frame is read."""
    data = with_a_large_sample(clip(**CLIP, codec="libvpx-vp9"), 0)
    totals = {
        OpenCVVideoBackend.load_bytes(data, num_frames=1, **way)[1]["total_num_frames"]
        for way in ({"decode": "sequential"}, {"decode": "auto"}, {"backend": "pyav"})
    }
    assert totals in ({4}, {5})  # half a picture may be one


@pytest.mark.parametrize(
    "fields", [{}, {"bframes": 0}, {"audio": True}, {"container": "mov"}, {"codec": "libvpx-vp9"}]
)
def test_plain_ones(fields: dict[str, Any]) -> None:
    data = clip(**CLIP, **fields)
    plain = plain_video(data)
    assert plain is not None
    assert plain[:3] == (40, 64, 96)
    assert stays_plain(data, plain)


@pytest.mark.parametrize(
    "data",
    [
        lambda: clip(**CLIP, container="matroska"),
        lambda: clip(**CLIP, container_options={"movflags": "frag_keyframe+empty_moov"}),
        lambda: clip(**CLIP, extra_video=(64, 64)),
        lambda: clip(**CLIP, **corpus.x264("tff=1")),
        lambda: clip(**CLIP, codec="libx265"),
        lambda: clip(**CLIP, codec="libsvtav1"),
        lambda: corpus.rotate(clip(**CLIP), 90),
        lambda: corpus.hide_lead_in(clip(**CLIP), 512),
        lambda: with_cover(first=True),
        lambda: with_cover(first=False),
        lambda: clip(**CLIP)[:-100],
        lambda: clip(**CLIP)[:3000],
        lambda: with_a_large_sample(clip(**CLIP, codec="libvpx-vp9"), 0),
        lambda: with_a_large_sample(clip(**CLIP, audio=True), 1),
        lambda: with_a_large_box(clip(**CLIP), b"mdia"),
        lambda: b"\0\0\0\x10ftypisom\0\0\0\0",
        *(
            KINDS[name].make
            for name in ("variable rate, mp4", "earlier sound, mp4", "lossless trim", "mirrored")
        ),
    ],
)
def test_others(data: Any) -> None:
    assert plain_video(data()) is None


def test_what_does_not_stay_plain() -> None:
    data = becomes_interlaced()
    plain = plain_video(data)
    assert plain is not None
    assert not stays_plain(data, plain)


def test_it_spares_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short request of a plain file is answered without a look at its packets, and the same."""
    data = clip(**CLIP)
    expected = OpenCVVideoBackend.load_bytes(data, num_frames=5, decode="seek")
    monkeypatch.setattr(index, "build_open", lambda *_: pytest.fail("looked at packets"))
    frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=5)
    assert frames.tobytes() == expected[0].tobytes()
    assert metadata == expected[1]


def test_what_is_damaged_is_looked_at_closely(caplog: pytest.LogCaptureFixture) -> None:
    """Where a frame does not come, packets tell which it is; what is left out is said once, of the answer."""
    data = bytearray(clip(**CLIP, codec="libvpx-vp9"))
    packets = index.build(bytes(data))
    at, size = int(packets.offset[20]), int(packets.size[20])
    data[at + 2 : at + size] = bytes(size - 2)
    assert plain_video(bytes(data)) is not None
    with caplog.at_level(logging.WARNING, "mmmedia"):
        _, metadata = OpenCVVideoBackend.load_bytes(bytes(data))
    assert metadata["total_num_frames"] == 40
    indices = metadata["frames_indices"]
    assert len(indices) < 40
    first = min(set(range(40)).difference(indices))
    said = "\n".join(record.getMessage() for record in caplog.records)
    left_out = f"Left out {40 - len(indices)} of 40 wanted frames that could not be read"
    assert said == f"{left_out}, the first at index {first}."


@pytest.mark.parametrize("fields", [{}, {"codec": "mpeg4"}, {"audio": True}, {"bframes": 0}])
def test_any_byte_of_a_table_may_be_wrong(fields: dict[str, Any]) -> None:
    """Then it is plain all the same, or another way is taken; there is no third."""
    data = clip(**{**CLIP, "frames": 12, **fields})
    begin = data.index(b"moov") - 4
    answers = set()
    for number, at in enumerate(range(begin, len(data))):
        damaged = bytearray(data)
        damaged[at] ^= (0xFF, 0x01, 0x80)[number % 3]
        found = plain_video(bytes(damaged))
        answers.add(found is None)
        assert found is None or found.total >= 2
    assert True in answers
