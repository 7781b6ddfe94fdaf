"""Files that were cut: in the midst of a picture, or between pictures that need each other."""

import io
import re
import tempfile
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mmmedia.cli.report import InspectIO
from mmmedia.errors import InvalidMediaError, NotSeekableError
from mmmedia.video import OpenCVVideoBackend, excerpt
from mmmedia.video.decoders.packets import index
from support import corpus
from support.clips import clip, read_number
from support.kinds import KINDS, WAYS
from support.picking import Pick


@lru_cache(maxsize=16)
def index_first(data: bytes) -> bytes:
    """An MP4 whose index stands before the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"  # FFmpeg opens it a second time by its name
        with (
            av.open(io.BytesIO(data)) as source,
            av.open(str(path), "w", options={"movflags": "faststart"}) as out,
        ):
            stream = source.streams.video[0]
            copy = out.add_stream_from_template(stream, opaque=True)
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
        return path.read_bytes()


def numbers_of(data: bytes) -> list[int]:
    """The number that each packet's picture shows, in decode order, of a whole file."""
    packets = index.build(data)
    return np.argsort(np.argsort(packets.pts, kind="stable")).tolist()


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {}),
        ("libx264", {"x264-params": "threads=1:sliced-threads=0:bframes=3:b-pyramid=normal"}),
        ("libx265", {}),
        ("libsvtav1", {}),
    ],
)
@pytest.mark.parametrize("part", [0.4, 0.7, 0.95])
def test_all_that_is_there_of_an_mp4(
    codec: str, options: dict[str, str], part: float, way: dict[str, str]
) -> None:
    """Every picture whose packet is whole comes, whatever decodes it."""
    more = {} if codec == "libsvtav1" else {"bframes": 2}
    data = index_first(clip(codec=codec, frames=60, **more, **({"options": options} if options else {})))
    cut = data[: int(len(data) * part)]
    packets = index.build(data)
    there = (packets.offset + packets.size <= len(cut)).tolist()
    expected = sorted(number for number, whole in zip(numbers_of(data), there, strict=True) if whole)
    frames, metadata = OpenCVVideoBackend.load_bytes(cut, num_frames=-1, **way)
    assert [read_number(frame) for frame in frames] == expected
    assert metadata["total_num_frames"] == len(expected)
    assert metadata["frames_indices"] == list(range(len(expected)))


OPEN_ENDED = [
    ("libx264", "mpegts"),
    ("libx264", "h264"),
    ("libx264", "mpeg"),
    ("libx265", "mpegts"),
    ("libx265", "hevc"),
    ("mpeg2video", "mpegts"),
    ("mpeg2video", "mpeg"),
    ("mpeg2video", "mpeg2video"),
    ("mpeg4", "m4v"),
    ("mjpeg", "mjpeg"),
]


@pytest.mark.parametrize(("codec", "container"), OPEN_ENDED)
def test_half_a_picture_at_the_end(codec: str, container: str) -> None:
    """Where a file does not say how long its last packet is, a cut is seen, or made no difference."""
    more = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    data = clip(codec=codec, container=container, frames=40, gop=12, **more)
    whole = index.build(data)
    assert not whole.corrupt.any()
    assert len(whole) == 40
    seen = 0
    for cut in (data[: len(data) * part // 16] for part in range(6, 16)):
        packets = index.build(cut)
        last = len(packets) - 1
        intact = packets.payload(last).rstrip(b"\0") == whole.payload(last).rstrip(b"\0")
        assert not (packets.corrupt[-1] and intact)
        seen += int(packets.corrupt[-1])
        slow, metadata = OpenCVVideoBackend.load_bytes(cut, num_frames=7, decode="sequential")
        assert len(slow) == min(7, metadata["total_num_frames"])
        assert metadata["frames_indices"][-1] == metadata["total_num_frames"] - 1
        try:
            fast, same = OpenCVVideoBackend.load_bytes(cut, num_frames=7, decode="seek")
        except NotSeekableError:
            assert not intact or packets.corrupt.any()
            continue
        assert np.array_equal(fast, slow)
        assert same == metadata
    assert seen


def from_the_second_group(data: bytes) -> bytes:
    """What `ffmpeg -ss … -c copy` makes of an HEVC file: all from its second key frame, which is at 40 ms."""
    buffer = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"}
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="matroska", options=options) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        begin = None
        keys = 0
        for packet in source.demux(stream):
            keys += bool(packet.size) and packet.is_keyframe
            if not packet.size or keys < 2:
                continue
            if begin is None:
                begin = packet.pts - int(0.04 / packet.time_base)
            packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
            packet.stream = copy
            out.mux(packet)
    return buffer.getvalue()


def test_pictures_of_a_time_below_zero() -> None:
    """Behind the first key frame stand pictures that can't be decoded, and that Matroska tells no time of."""
    options = {"x265-params": "log-level=none:keyint=20:min-keyint=20:open-gop=1:bframes=3:b-adapt=0"}
    whole = clip(codec="libx265", frames=60, options=options, container="mp4")
    data = from_the_second_group(whole)
    with av.open(io.BytesIO(data)) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert None in times
    # Times that nobody told can't agree with the order in the headers.
    for way in [each for each in WAYS if each["decode"] != "seek"]:
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=-1, **way)
        assert [read_number(frame) for frame in frames] == list(range(20, 60)), way
        assert metadata["total_num_frames"] == 40, way
    part = excerpt(data, [0, 30])
    with av.open(io.BytesIO(part.data)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [read_number(shown[position]) for position in part.positions] == [20, 50]


@pytest.mark.parametrize("backend", ["opencv", "pyav"])
@pytest.mark.parametrize("size", [200, 900])
def test_an_mp4_cut_within_its_index(backend: str, size: int) -> None:
    """The message says so, whatever decodes it."""
    data = index_first(clip())
    with pytest.raises(InvalidMediaError, match="cut short before its index"):
        OpenCVVideoBackend.load_bytes(data[:size], num_frames=4, backend=backend)


def test_half_an_animated_webp() -> None:
    """The frames that are whole, which Pillow alone would not give."""
    file = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 255, (12, 40, 60, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    images[0].save(file, "WEBP", save_all=True, append_images=images[1:], duration=80, lossless=True)
    whole = file.getvalue()
    starts = [match.start() for match in re.finditer(b"ANMF", whole)]
    assert len(starts) == 12
    frames, metadata = OpenCVVideoBackend.load_bytes(whole[: starts[7] + 100], num_frames=-1)
    assert np.array_equal(frames, noise[:7])
    assert metadata["total_num_frames"] == 7
    assert metadata["duration"] == pytest.approx(7 * 0.08)
    assert InspectIO().load_bytes(whole[: starts[7] + 100])["frames"] == 7


@pytest.mark.parametrize("more", [0, 30])
def test_half_an_animated_png(more: int) -> None:
    """A frame that is announced, and of which nothing is there, does not count."""
    file = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 255, (12, 40, 60, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=80)
    whole = file.getvalue()
    starts = [match.end() for match in re.finditer(b"fcTL", whole)]
    frames, metadata = OpenCVVideoBackend.load_bytes(whole[: starts[7] + 30 + more], num_frames=-1)
    assert np.array_equal(frames, noise[:7])
    assert metadata["total_num_frames"] == 7
    assert metadata["duration"] == pytest.approx(7 * 0.08)


@pytest.mark.parametrize("part", [0.5, 0.8])
def test_half_an_avif_sequence(part: float) -> None:
    """What is there of it, the same in every way."""
    whole = KINDS["avif sequence"].make()
    data = whole[: int(len(whole) * part)]
    total = OpenCVVideoBackend.load_bytes(data, num_frames=1)[1]["total_num_frames"]
    assert 0 < total < OpenCVVideoBackend.load_bytes(whole, num_frames=1)[1]["total_num_frames"]
    for way in WAYS:
        frames, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=-1, **way)
        assert metadata["frames_indices"] == list(range(total))
        assert [read_number(frame) for frame in frames] == list(range(total))


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(("bframes", "first"), [(0, 5), (1, 4), (1, 5), (2, 4), (2, 5), (2, 6)])
def test_frames_that_a_decoder_makes_up(bframes: int, first: int, way: dict[str, str]) -> None:
    """Of MPEG-4 that begins with what refers to nothing FFmpeg gives a frame before all others."""
    data = clip(codec="mpeg4", container="matroska", frames=40, width=128, height=96, gop=15, bframes=bframes)
    data = corpus.remux([data], "matroska", lambda packets: packets[first:])
    total = OpenCVVideoBackend.load_bytes(data, num_frames=1)[1]["total_num_frames"]
    wanted = list(range(total - 20, total))  # from the next key frame on
    frames, metadata = Pick.load_bytes(data, indices=wanted, **way)
    assert metadata["frames_indices"] == wanted
    assert [read_number(frame) for frame in frames] == list(range(20, 40))


def test_an_excerpt_of_such() -> None:
    data = clip(codec="mpeg4", container="matroska", frames=40, width=128, height=96, gop=15, bframes=1)
    data = corpus.remux([data], "matroska", lambda packets: packets[4:])
    part = excerpt(data, [2, 30])
    assert part.reason is not None
    with av.open(io.BytesIO(part.data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == part.frames
    assert read_number(frames[part.positions[1]]) == 40 - part.source.total_frames_num + 30
