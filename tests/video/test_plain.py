"""Which videos are plain, and that nothing else is taken for it."""

import contextlib
import logging
import os
import random
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from mmmedia import containers
from mmmedia.containers import ebml
from mmmedia.errors import InvalidMediaError
from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.decoders import eligible, opencv, sparse
from mmmedia.video.decoders.bitstreams.colours import are_converted
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields, sequences
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.opencv.numbered import Steps, Times, times
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.plain import PlainVideo, avi, plain_video, stays_plain
from mmmedia.video.decoders.plain.video import Outline
from mmmedia.video.decoders.plan import seeking_pays
from mmmedia.video.decoders.shown import Shown, shown_frames
from support import corpus
from support.clips import clip, read_number
from support.kinds import KINDS, with_cover

CLIP: dict[str, Any] = {"frames": 40, "width": 96, "height": 64}
USUAL: dict[str, Any] = {"colorspace": Colorspace.ITU709, "color_range": ColorRange.MPEG}
MILLI = Fraction(1, 1000)
SLOWER = [*range(0, 800, 40), *range(800, 6800, 300)]


def plain_of(data: bytes) -> PlainVideo | None:
    """What the quick look finds, and what may be acted upon."""
    plain = plain_video(containers.admit(data))
    return plain if plain is not None and stays_plain(data, plain) else None


def is_damaged(packets: index.PacketIndex) -> bool:
    """Whether units of H.264 don't fit into their packets: then nobody knows whether they are of fields."""
    try:
        sequences(packets)
    except CannotSeekError:
        return True
    return False


def check(data: bytes) -> bool:
    """Whether a file is plain; if it is, and as the decoder claims, its packets must say all the same."""
    try:
        plain = plain_of(data)
        if plain is None:
            return False
        capture = opencv.open_capture(data)
    except InvalidMediaError:
        return False
    claim = opencv.claimed_metadata(capture)
    if opencv.frame_size(capture) != (plain.height, plain.width):
        return False
    packets = index.build(data)
    shown = shown_frames(packets)
    assert packets.is_first
    assert packets.matrix is None
    assert (plain.total, plain.codec) == (shown.total, {"libdav1d": "av1"}.get(packets.codec, packets.codec))
    assert (shown.made_up, shown.begin) == (0, 0)
    assert shown.metadata(claim, packets.rate) == plain.metadata(claim)
    assert not may_hold_fields(packets) or is_damaged(packets)
    assert are_converted(packets)
    clock, full = plain.clock(), times(packets, shown)
    assert plain.shown.seconds == shown.seconds
    assert plain.shown.times == shown.times
    assert full is None or type(clock) is type(full)
    if isinstance(clock, Times) and isinstance(full, Times):
        assert [time - clock._start for time in clock._pts] == [time - full._start for time in full._pts]
    if isinstance(clock, Steps) and isinstance(full, Steps):
        assert clock._packets == pytest.approx(full._packets)
    check_outline(plain.outline, packets, shown)
    return True


def check_outline(outline: Outline, packets: index.PacketIndex, shown: Shown) -> None:
    """Where the container says that parts don't pay, they don't for all that the packets say either."""
    try:
        known, structure, positions = eligible.judge(packets, shown)
    except CannotSeekError:
        return
    assert list(outline.order) == positions.tolist()
    assert set(np.flatnonzero(structure.access_points)) <= set(outline.keys)
    assert set(np.flatnonzero(structure.disposable)) <= set(np.flatnonzero(outline.disposable))
    for count in (1, 2, 3, 5, 8, 16, 32):
        wanted = sorted(set(np.linspace(0, shown.total - 1, count, dtype=int).tolist()))
        for workers in (1, 2, 4):
            with contextlib.suppress(CannotSeekError):
                plan = sparse.make_plan(known, structure, positions[wanted])
                pays = seeking_pays(plan.spans, structure.disposable, wanted[-1], workers)
                assert outline.may_pay(wanted, workers) or not pays


def with_a_large_sample(data: bytes, track: int) -> bytes:
    """An MP4 whose tables say of a track's fifth sample that it reaches beyond the end of the file."""
    at = -1
    for _ in range(track + 1):
        at = data.index(b"stsz", at + 1)
    at += 16 + 4 * 4
    return data[:at] + (1 << 24).to_bytes(4, "big") + data[at + 4 :]


def becomes_interlaced(container: str = "mp4") -> bytes:
    """A file whose second half brings a parameter set of its own, as where recordings are joined."""
    parts = [clip(**CLIP, container="h264"), clip(**CLIP, **corpus.x264("tff=1"), container="h264")]
    return corpus.remux([b"".join(parts)], container)


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


def with_other_samples(data: bytes) -> bytes:
    """An MP4 whose samples are of a description that there is not."""
    at = data.index(b"stsc") + 4 + 8 + 8
    return data[:at] + (2).to_bytes(4, "big") + data[at + 4 :]


def with_more_times(data: bytes) -> bytes:
    """An MP4 with times for two thousand million samples."""
    at = data.index(b"stts") + 4 + 8
    return data[:at] + (1 << 31).to_bytes(4, "big") + data[at + 4 :]


def with_a_turned_movie(data: bytes) -> bytes:
    """An MP4 that is turned as a whole, and not its track."""
    at = data.index(b"mvhd") + 4 + 36
    return data[:at] + struct.pack(">5i", 0, 1 << 16, 0, -1 << 16, 0) + data[at + 20 :]


def with_a_hidden_frame(data: bytes, bit: int) -> bytes:
    """A WebM of VP8 or VP9 with the bit cleared that says that its tenth frame is shown."""
    at = int(index.build(data).offset[9])
    return data[:at] + bytes([data[at] & ~bit]) + data[at + 1 :]


def test_a_sample_that_is_not_there() -> None:
    """It ends the video, whatever the header claims, by whichever way the first frame is read."""
    data = with_a_large_sample(clip(**CLIP, codec="libvpx-vp9"), 0)
    totals = {
        OpenCVVideoBackend.load_bytes(data, num_frames=1, **way)[1]["total_num_frames"]
        for way in ({"decode": "sequential"}, {"decode": "auto"}, {"backend": "pyav"})
    }
    assert totals in ({4}, {5})  # half a picture may be one


PLAIN: dict[str, dict[str, Any]] = {
    "mp4": {},
    "mp4 without b-frames": {"bframes": 0},
    "mp4 with sound": {"audio": True},
    "mp4 that tells colours": {**USUAL, **corpus.x264("colormatrix=bt709")},
    "mov": {"container": "mov"},
    "mp4 of vp9": {"codec": "libvpx-vp9"},
    "mp4 of av1": {"codec": "libsvtav1", **USUAL},
    "matroska": {"container": "matroska"},
    "matroska with sound that tells colours": {"container": "matroska", "audio": True, **USUAL},
    "matroska of av1": {"container": "matroska", "codec": "libsvtav1"},
    "webm of vp8": {"container": "webm", "codec": "libvpx"},
    "webm of vp9 with sound": {"container": "webm", "codec": "libvpx-vp9", "audio": True},
    "avi": {"container": "avi", "codec": "mpeg4", "bframes": 0},
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_ones(name: str) -> None:
    data = clip(**CLIP, **PLAIN[name])
    plain = plain_of(data)
    assert plain is not None
    assert (plain.total, plain.height, plain.width) == (40, 64, 96)
    assert check(data)


@pytest.mark.parametrize("name", PLAIN)
def test_the_index_is_spared(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short request of a plain file is answered without a look at its packets, and the same."""
    data = clip(**CLIP, **PLAIN[name])
    expected = OpenCVVideoBackend.load_bytes(data, num_frames=5, decode="seek")
    monkeypatch.setattr(index, "build_open", lambda *_: pytest.fail("looked at packets"))
    frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=5)
    assert frames.tobytes() == expected[0].tobytes()
    assert metadata == expected[1]


@pytest.mark.parametrize(
    "data",
    [
        lambda: clip(**CLIP, container_options={"movflags": "frag_keyframe+empty_moov"}),
        lambda: clip(**CLIP, extra_video=(64, 64)),
        lambda: clip(**CLIP, **corpus.x264("tff=1")),
        lambda: clip(**CLIP, codec="libx265"),
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
        lambda: with_other_samples(clip(**CLIP)),
        lambda: with_more_times(clip(**CLIP)),
        lambda: with_a_turned_movie(clip(**CLIP)),
        lambda: clip(**CLIP, **corpus.x264("colormatrix=YCgCo")),
        lambda: clip(**CLIP, container="mpegts"),
        lambda: clip(**CLIP, container="matroska", codec="libx265"),
        lambda: clip(**CLIP, container="matroska", extra_video=(64, 64)),
        lambda: clip(**CLIP, container="matroska", **corpus.x264("tff=1")),
        lambda: clip(**CLIP, container="matroska", **corpus.x264("colormatrix=YCgCo")),
        lambda: clip(**CLIP, container="matroska", timestamps=SLOWER, time_base=MILLI),
        lambda: clip(**CLIP, container="matroska", audio=True)[:-100],
        lambda: clip(**CLIP, container="matroska") + clip(**CLIP, container="matroska"),
        lambda: corpus.remux([clip(**CLIP, gop=20)], "matroska", corpus.without(set(range(7)))),
        lambda: corpus.remux([clip(**CLIP, bframes=0)], "matroska", corpus.doubled({9})),
        lambda: with_a_hidden_frame(clip(**CLIP, container="webm", codec="libvpx-vp9"), 0x02),
        lambda: with_a_hidden_frame(clip(**CLIP, container="webm", codec="libvpx"), 0x10),
        lambda: clip(**CLIP, container="avi", codec="mpeg4", bframes=0, audio=True),  # of empty chunks
        lambda: clip(**CLIP, container="avi", codec="mpeg4", bframes=2),
        lambda: clip(**CLIP, container="avi", codec="mpeg4", bframes=0)[:-100],
        lambda: clip(**CLIP, container="avi", codec="mpeg4", bframes=0).replace(b"movi00dc", b"movi00db"),
        lambda: clip(**CLIP, container="avi", codec="mpeg4", bframes=0).replace(b"idx1", b"JUNK"),
        lambda: clip(
            **CLIP, container="avi", codec="mpeg4", gop=10, bframes=0, options={"flags": "+ildct+ilme"}
        ),
        lambda: clip(**CLIP, container="avi", codec="mjpeg", pix_fmt="yuvj420p"),
        *(
            KINDS[name].make
            for name in (
                *("variable rate, mp4", "earlier sound, mp4", "lossless trim", "mirrored", "live webm"),
                *("screen recording", "slides with a voice", "h264 copied into avi"),
            )
        ),
    ],
)
def test_others(data: Any) -> None:
    assert plain_video(containers.admit(data())) is None


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_what_does_not_stay_plain(container: str) -> None:
    data = becomes_interlaced(container)
    plain = plain_video(containers.admit(data))
    assert plain is not None
    assert not stays_plain(data, plain)


def test_a_size_that_is_not_the_codecs() -> None:
    """Of what a container says of its pictures, limits and plans are not to be taken."""
    data = clip(**CLIP, container="matroska")
    said = b"\xb0\x81\x60\xba\x81\x40"
    assert data.count(said) == 1
    damaged = data.replace(said, b"\xb0\x81\x30\xba\x81\x20")
    assert plain_of(damaged) is not None
    assert not check(damaged)
    frames, metadata = OpenCVVideoBackend.load_bytes(damaged, num_frames=4)
    assert frames.tobytes() == OpenCVVideoBackend.load_bytes(data, num_frames=4)[0].tobytes()
    assert metadata["total_num_frames"] == 40


MANY = 200_000
VOID, HEADER = b"\xec\x80", b"\x1a\x45\xdf\xa3\x80"
INFO, TRACKS = ebml.written(ebml.INFO, b""), ebml.written(ebml.TRACKS, b"")
TIME, PREVIOUS = b"\xe7\x81\0", b"\xab\x81\0"


def segment(*elements: bytes) -> bytes:
    return HEADER + ebml.written(ebml.SEGMENT, b"".join(elements), wide=True)


def of_strings(*names: bytes) -> bytes:
    """An AVI of lists within lists, each of which holds the next many times."""
    content = b""
    for name in names:
        content = (b"LIST" + struct.pack("<I", 4 + len(content)) + name + content) * 300
    return b"RIFF" + struct.pack("<I", 4 + len(content)) + b"AVI " + content


@pytest.mark.parametrize(
    "data",
    [
        lambda: segment(*[VOID] * MANY),
        lambda: segment(INFO, ebml.written(ebml.TRACKS, VOID * MANY)),
        lambda: segment(ebml.written(ebml.INFO, VOID * MANY), TRACKS),
        lambda: corrupt_clusters(PREVIOUS * MANY),
        lambda: corrupt_clusters(ebml.written(ebml.GROUP, VOID * MANY)),
        lambda: of_strings(b"strl", b"hdrl"),
    ],
)
def test_of_small_pieces_few_are_looked_at(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that consists of nothing else is given up soon, however long it is."""
    seen = []
    element, chunks = ebml.element, avi._chunks

    def counted(*arguments: Any) -> Any:
        seen.append(0)
        return element(*arguments)

    def counting(*arguments: Any, **keywords: Any) -> Iterator[Any]:
        for each in chunks(*arguments, **keywords):
            seen.append(0)
            yield each

    monkeypatch.setattr(ebml, "element", counted)
    monkeypatch.setattr(avi, "_chunks", counting)
    made = data()
    assert plain_video(containers.admit(made)) is None
    assert 0 < len(seen) < MANY // 4


def corrupt_clusters(content: bytes) -> bytes:
    """A Matroska file whose only cluster has other content behind its time."""
    made = clip(**CLIP, container="matroska")
    at = made.index(b"\x1f\x43\xb6\x75")
    head = made.index(b"\x18\x53\x80\x67") + 12
    return HEADER + ebml.written(
        ebml.SEGMENT, made[head:at] + ebml.written(ebml.CLUSTER, TIME + content), wide=True
    )


@pytest.mark.parametrize("name", KINDS)
def test_packets_say_the_same_of_kinds(name: str) -> None:
    check(KINDS[name].make())


def drawn(begin: int, count: int) -> Iterator[bytes]:
    """Files of the differential test; some recipes no encoder takes."""
    for seed in range(begin, begin + count):
        with contextlib.suppress(av.FFmpegError, ValueError, IndexError):
            yield corpus.draw(seed).make()


def test_packets_say_the_same_of_drawn_ones() -> None:
    assert {containers.admit(data).name for data in drawn(0, 60) if check(data)} >= {"mov", "matroska"}


def test_what_is_damaged_is_looked_at_closely(caplog: pytest.LogCaptureFixture) -> None:
    """Where a frame does not come, packets tell which it is; what is left out is said once, of the answer."""
    data = bytearray(clip(**CLIP, codec="libsvtav1"))
    packets = index.build(bytes(data))
    at, size = int(packets.offset[20]), int(packets.size[20])
    data[at + 2 : at + size] = bytes(size - 2)
    assert plain_of(bytes(data)) is not None
    with caplog.at_level(logging.WARNING, "mmmedia"):
        _, metadata = OpenCVVideoBackend.load_bytes(bytes(data))
    assert metadata["total_num_frames"] == 40
    indices = metadata["frames_indices"]
    assert len(indices) < 40
    first = min(set(range(40)).difference(indices))
    said = "\n".join(record.getMessage() for record in caplog.records)
    left_out = f"Left out {40 - len(indices)} of 40 wanted frames that could not be read"
    assert said == f"{left_out}, the first at index {first}."


@pytest.mark.parametrize("name", PLAIN)
def test_any_byte_may_be_wrong(name: str) -> None:
    """Then packets say the same all the same, or it is not plain; there is no third."""
    data = clip(**{**CLIP, "frames": 12}, **PLAIN[name])
    rng = random.Random(name)
    tables = [*range(400), *range(len(data) - 1200, len(data))]
    answers = set()
    for at in [*rng.sample(tables, 250), *rng.sample(range(len(data)), 50)]:
        damaged = bytearray(data)
        damaged[at] ^= rng.choice([0xFF, 0x01, 0x80, 0x10])
        answers.add(check(bytes(damaged)))
    assert answers == {True, False}


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_packets_say_the_same_of_many() -> None:
    """In the long run: of `FUZZ_COUNT` drawn files from the seed `FUZZ_SEED` on."""
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(1 << 30))
    count = int(os.environ.get("FUZZ_COUNT", "200"))
    print(f"seed {seed}")  # noqa: T201
    plain = sum(map(check, drawn(seed, count)))
    print(f"{count} files, {plain} plain")  # noqa: T201
