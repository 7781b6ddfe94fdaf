"""Frames of a file of which only a part is read: those of the whole file, to the last bit."""

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmmedia.errors import InvalidArgumentError, MediaError, NotSparseError
from mmmedia.sources import BytesSource, FileSource, Source
from mmmedia.video import (
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    decode_stats,
    excerpt,
    read_frames,
)
from mmmedia.video.loaders import VIDEO_LOADER_REGISTRY, takes_sources
from mmmedia.video.piecewise.reading import SMALLEST
from support.clips import clip, read_number
from support.corpus import hide_lead_in, rotate, write_matrix
from support.layouts import FRAMES, LAYOUTS, Far, Near, laid_out, long_clip, padded, rewrapped, write_huge

WANTED = [0, 31, 95, 100, 239]


def loaded(
    data: bytes | Source, loader: Any = OpenCVVideoBackend, **how: Any
) -> tuple[bytes, dict[str, Any]]:
    frames, metadata = loader.load_bytes(data, **how)
    return frames.tobytes(), metadata


@pytest.mark.parametrize("kind", [Near, Far])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_frames_are_those_of_the_whole_file(layout: str, kind: type[Near]) -> None:
    """Frames, indices, metadata and excerpts, for a part of the bytes."""
    data = laid_out(layout)
    source = kind(data)
    frames, indices, video = read_frames(source, WANTED, fetch="always")
    reference = read_frames(data, WANTED)
    assert np.array_equal(frames, reference[0])
    assert (indices, video) == reference[1:] == (WANTED, video)
    assert [read_number(frame) for frame in frames] == WANTED
    if kind is Far:
        assert source.fetched < 0.75 * len(data)
    assert excerpt(kind(data), WANTED, fetch="always") == excerpt(data, WANTED)
    for how in (
        {"num_frames": 3},
        {"num_frames": 4, "start": 2.0, "end": 6.5},
        {"fps": 1, "backend": "pyav"},
    ):
        assert loaded(kind(data), fetch="always", **how) == loaded(data, **how)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx-vp9", "mjpeg"])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_other_codecs_too(codec: str, container: str) -> None:
    extra = {"pix_fmt": "yuvj420p"} if codec == "mjpeg" else {}
    data = long_clip(codec, frames=90, container=container, **extra)
    if (codec, container) == ("mjpeg", "matroska"):
        with pytest.raises(NotSparseError, match="codec"):
            read_frames(Far(data), [40], fetch="always")
        return
    for kind in (Near, Far):
        frames, *rest = read_frames(kind(data), [3, 40, 41, 89], fetch="always")
        reference, *others = read_frames(data, [3, 40, 41, 89])
        assert np.array_equal(frames, reference)
        assert rest == others


@pytest.mark.parametrize("layout", ["moov last", "fragments, mfra", "matroska"])
def test_sound_beside_the_pictures_changes_nothing(layout: str) -> None:
    """Nor does it where it is longer than they are, and the header's length is its own."""
    data = laid_out(layout, audio=True, sound_seconds=9.5)
    for kind in (Near, Far):
        assert loaded(kind(data), num_frames=5, fetch="always") == loaded(data, num_frames=5)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: rotate(data, 90),
        lambda data: write_matrix(data, -1, 0, 0, 1),
        lambda data: hide_lead_in(data, 3000),
    ],
    ids=["turned", "mirrored", "edit list"],
)
def test_what_the_header_says_counts(change: Any) -> None:
    data = change(long_clip())
    for loader in (OpenCVVideoBackend, OpenCVDynamicVideoBackend, Molmo2VideoBackend):
        how = {"frame_sample_mode": "uniform_last_frame"} if loader is Molmo2VideoBackend else {}
        reference = loaded(data, loader, num_frames=5, **how)
        assert loaded(Far(data), loader, num_frames=5, fetch="always", **how) == reference


def test_open_groups_and_uneven_times() -> None:
    """A leading picture needs the group before; times that are uneven are told by the tables."""
    options = {"x265-params": "log-level=none:keyint=30:min-keyint=30:scenecut=0:open-gop=1:bframes=4"}
    data = long_clip("libx265", options=options)
    wanted = [*range(56, 66), 130]
    assert np.array_equal(read_frames(Far(data), wanted, fetch="always")[0], read_frames(data, wanted)[0])
    options = {"preset": "ultrafast", "x264-params": "open-gop=1:bframes=3:keyint=30:scenecut=0:b-adapt=0"}
    data = long_clip(options=options)
    for kind in (Near, Far):
        source = kind(data)
        assert np.array_equal(read_frames(source, wanted, fetch="always")[0], read_frames(data, wanted)[0])
        assert source.fetched < 0.7 * len(data)
    times = np.cumsum(np.random.default_rng(3).integers(1, 9, FRAMES)).tolist()
    uneven = long_clip(timestamps=times)
    assert loaded(Far(uneven), num_frames=9, fetch="always") == loaded(uneven, num_frames=9)


def test_pieces_are_read_only_where_that_pays() -> None:
    """From 8 MiB on, and where they are no more than 60 per cent of it."""
    small, large = Near(long_clip()), Near(padded(long_clip()))
    reference = read_frames(long_clip(), WANTED)
    for source in (small, large):
        assert np.array_equal(read_frames(source, WANTED)[0], reference[0])
    assert small.whole is not None
    assert large.whole is None
    assert large.fetched < 2 << 20
    assert large.size > SMALLEST > small.size


def test_most_of_a_file_is_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmmedia.video.piecewise.reading.SMALLEST", 0)
    source = Near(long_clip())
    every = list(range(0, FRAMES, 5))
    assert np.array_equal(read_frames(source, every)[0], read_frames(long_clip(), every)[0])
    assert source.whole is not None
    assert sum(stop - start for start, stop in source.asked) == len(long_clip())  # nothing twice
    source = Near(long_clip())
    excerpt(source, every)
    assert source.whole is not None


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: clip(codec="mpeg4", container="avi"), "container"),
        (lambda: clip(codec="mpeg4", container="mp4", bframes=0), "codec"),
        (lambda: clip(codec="libx264", container="mp4", extra_video=(64, 64)), "tracks"),
        (lambda: clip(codec="libx264", container="matroska", container_options={"live": "1"}), "unknown"),
        (lambda: clip(codec="ffv1", container="matroska"), "codec"),
        (lambda: long_clip()[:-500], "cut short"),
        (lambda: laid_out("moov first")[:-50_000], "cut short"),
        (lambda: laid_out("fragments, mfra")[:-50_000], "cut short"),
        (lambda: laid_out("matroska")[:-50_000], "cut short"),
        (lambda: laid_out("fragments, one sidx")[:1500], "cut short"),
        (lambda: b"\x00\x00\x00\x08moov" + bytes(9), "tracks"),
        (lambda: b"\x00\x00\x00\x18ftypavis" + bytes(12) + long_clip()[28:], "pictures"),
    ],
    ids=[
        "avi", "mpeg4", "two tracks", "live", "ffv1", "cut in its index", "cut in its samples",
        "cut in a fragment", "cut in a cluster", "cut behind its index", "an index of nothing", "pictures",
    ],
)  # fmt: skip
def test_what_the_index_can_not_tell_is_read_whole(make: Any, reason: str) -> None:
    """With the same result or error as of the bytes."""
    data = make()
    for kind in (Near, Far):
        with pytest.raises(NotSparseError, match=reason):
            read_frames(kind(data), [0], fetch="always")
        with pytest.raises(NotSparseError, match=reason):
            excerpt(kind(data), [0], fetch="always")
    outcomes = []
    for source in (data, Near(data)):
        try:
            outcomes.append(read_frames(source, [0])[0].tobytes())
        except MediaError as error:
            outcomes.append(str(error).encode())
    assert outcomes[0] == outcomes[1]


def test_a_rate_that_is_not_constant_is_seen_at_the_key_frames() -> None:
    """Matroska far away tells frames by times; what contradicts that is read whole. Near it is all known."""
    times = np.cumsum(np.random.default_rng(3).integers(1, 9, FRAMES)).tolist()
    data = rewrapped(long_clip(timestamps=times), "matroska")
    with pytest.raises(NotSparseError, match=r"rate"):
        read_frames(Far(data), [100], fetch="always")
    frames, *rest = read_frames(Near(data), [9, 100], fetch="always")
    reference, *others = read_frames(data, [9, 100])
    assert np.array_equal(frames, reference)
    assert rest == others


def test_a_dropped_frame_far_from_what_is_read_shows_in_the_intervals() -> None:
    """The encoder counts frames from key to key: where one never came, its interval is longer."""
    lost = {35, 97}
    times = [time for time in range(FRAMES + len(lost)) if time not in lost]
    options = {"preset": "ultrafast", "crf": "8", "x264-params": "scenecut=0"}
    data = rewrapped(long_clip(timestamps=times, options=options), "matroska")
    with pytest.raises(NotSparseError, match="rate may not be constant"):
        read_frames(Far(data), [0], fetch="always")


def test_a_tag_that_counts_the_frames_leaves_no_doubt() -> None:
    """As mkvmerge writes it: then key frames may be wherever there are cuts, and what is missing is seen."""
    from support.corpus import remux, without

    parts = [long_clip(frames=frames, gop=300, bframes=0) for frames in (35, 52, 20, 80, 53)]
    whole, gap = remux(parts, "mp4"), remux(parts, "mp4", without({30}))
    plain = rewrapped(whole, "matroska")
    with pytest.raises(NotSparseError, match="rate may not be constant"):
        read_frames(Far(plain), [130], fetch="always")
    data = rewrapped(whole, "matroska", frames=str(FRAMES))
    frames, *rest = read_frames(Far(data), [40, 130], fetch="always")
    reference, *others = read_frames(data, [40, 130])
    assert np.array_equal(frames, reference)
    assert rest == others
    for data, told in ((gap, FRAMES - 1), (whole, 12)):
        counted = rewrapped(data, "matroska", frames=str(told))
        with pytest.raises(NotSparseError, match="rate is not constant"):
            read_frames(Far(counted), [130], fetch="always")


def test_a_frame_that_is_missing_in_what_is_read_is_seen() -> None:
    from support.corpus import remux, without

    for lost, wanted in ((100, 110), (3, 110), (236, 0)):
        data = remux([long_clip(bframes=0)], "matroska", without({lost}))
        with pytest.raises(NotSparseError, match="frames are missing"):
            read_frames(Far(data), [wanted], fetch="always")


def test_where_nothing_but_all_will_do() -> None:
    source = Near(long_clip())
    for how in (
        {"decode": "sequential"},
        {"fetch": "never"},
    ):
        read_frames(source, [3], **how)  # type: ignore[arg-type]
    with pytest.raises(NotSparseError, match="one after the other"):
        read_frames(source, [3], decode="sequential", fetch="always")
    with pytest.raises(InvalidArgumentError, match="fetch='often'"):
        read_frames(source, [3], fetch="often")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="no frame 240"):
        read_frames(Near(long_clip()), [240], fetch="always")
    with pytest.raises(InvalidArgumentError, match="no frame 240"):
        excerpt(Near(long_clip()), [240], fetch="always")


def test_the_setting_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "always")
    source = Near(long_clip())
    read_frames(source, [3])
    assert source.whole is None
    monkeypatch.setenv("MMMEDIA_SPARSE_FETCH", "never")
    read_frames(source, [3])
    assert source.whole is not None


def test_which_loaders_take_sources() -> None:
    class Own(OpenCVVideoBackend):
        @classmethod
        def load_bytes(cls, data: bytes, num_frames: int | None = -1, **kwargs: Any) -> Any:
            return super().load_bytes(data, num_frames, **kwargs)

    class Sampler(OpenCVVideoBackend):
        pass

    assert takes_sources(Sampler)
    assert not takes_sources(Own)
    able = {name: takes_sources(type(VIDEO_LOADER_REGISTRY.load(name))) for name in ("opencv", "nemotron_vl")}
    assert able == {"opencv": True, "nemotron_vl": False}


def test_it_counts_as_seeking() -> None:
    before = decode_stats()
    read_frames(Near(long_clip()), [0, 100], fetch="always")
    after = decode_stats()
    assert after.paths["seek"] == before.paths.get("seek", 0) + 1
    assert after.frames_wanted == before.frames_wanted + 2


def test_packets_of_vp8_that_are_not_shown_are_no_frames() -> None:
    """On a disk it is seen which those are; where one stands between key frame and frame, all is read."""
    data = laid_out("webm, VP8")
    with av.open(io.BytesIO(data)) as container:
        payloads = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    at = data.index(payloads[100])
    hidden = data[:at] + bytes([data[at] & ~0x10]) + data[at + 1 :]
    frames, _, video = read_frames(hidden, [20, 200])
    assert video.total_frames_num == FRAMES - 1
    pieces, _, same = read_frames(Near(hidden), [20, 200], fetch="always")
    assert np.array_equal(pieces, frames)
    assert same == video
    for kind in (Near, Far):
        with pytest.raises(NotSparseError, match="packets without a picture"):
            read_frames(kind(hidden), [110], fetch="always")


_READ = """
import resource, sys
from mmmedia.video import read_frames
read_frames({small!r}, [0, 1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames, indices, video = read_frames({large!r}, lambda video: range(0, video.total_frames_num, 30))
assert len(indices) == 8, indices
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_eight_frames_of_four_gigabytes_take_little_memory(tmp_path: Path) -> None:
    """Of a file on a disk no more is read than they need."""
    small, large = tmp_path / "small.mp4", tmp_path / "large.mp4"
    small.write_bytes(long_clip())
    write_huge(large, long_clip(), (4 << 30) // FRAMES)
    assert large.stat().st_size > 4 << 30
    code = _READ.format(small=str(small), large=str(large))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(done.stdout) < 200
    with FileSource(large) as source:
        frames, *_ = read_frames(source, range(0, FRAMES, 30), fetch="always")
    assert np.array_equal(frames, read_frames(long_clip(), range(0, FRAMES, 30))[0])
    assert isinstance(BytesSource(b""), Source)


@pytest.mark.parametrize("layout", ["moov first", "fragments, one sidx", "fragments, mfra", "matroska"])
def test_a_damaged_index_never_does_worse_than_a_refusal(layout: str) -> None:
    """Whatever numbers its tables claim, nothing but an error of ours comes of them."""
    data = laid_out(layout, frames=60)
    tables = [m.start() for m in re.finditer(rb"moov|moof|stco|stsc|stsz|ctts|trun|tfhd|sidx|tfra", data)]
    tables += [m.start() for m in re.finditer(rb"\x1c\x53\xbb\x6b|\x1f\x43\xb6\x75|\x11\x4d\x9b\x74", data)]
    rng = np.random.default_rng(len(layout))
    for _ in range(25):
        broken = bytearray(data)
        at = int(rng.choice(tables)) + int(rng.integers(-4, 40))
        broken[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", rng.bytes(4)])
        for kind in (Near, Far):
            with contextlib.suppress(MediaError):
                read_frames(kind(bytes(broken)), [0, 30], fetch="always")
