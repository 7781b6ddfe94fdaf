"""Primaries, transfers and matrices: the same bytes from the fast path as from one pass by OpenCV itself.

The whole table, 18 combinations in four codecs at two depths, is marked `slow`: OpenCV makes a table for each
wide gamut and each of brightness beyond a screen's, which takes seconds a clip.
"""

import io
import re
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.video.reformatter import ColorRange, Colorspace

from mmmedia.errors import NotSeekableError
from mmmedia.video import OpenCVVideoBackend
from mmmedia.video.decoders.bitstreams.colours import are_converted
from mmmedia.video.decoders.colours import is_mapped
from mmmedia.video.decoders.packets import index
from support.captures import read_plainly
from support.clips import clip
from support.corpus import USUAL_COLOURS, WIDE_COLOURS, remux, x264, x265
from support.forking import holds_in_child
from support.picking import Pick

COLOURS = [*USUAL_COLOURS, *WIDE_COLOURS]
CODECS: list[tuple[str, dict[str, Any]]] = [
    ("libx264", {"gop": 8}),
    ("libx265", {"options": {"x265-params": "log-level=none:keyint=8:min-keyint=8"}}),
    ("libvpx-vp9", {"gop": 8}),
    ("libsvtav1", {"gop": 8}),
]
DEPTHS = ["yuv420p", "yuv420p10le"]
Case = tuple[str, dict[str, Any], str, tuple[int, int, int]]
WHOLE: list[Case] = [
    (codec, options, depth, colours) for codec, options in CODECS for depth in DEPTHS for colours in COLOURS
]
# Each of the usual ones once, and two wide ones; codecs and depths take turns.
SAMPLE: list[Case] = [
    (*CODECS[number % 4], DEPTHS[number // 4 % 2], colours)
    for number, colours in enumerate([*USUAL_COLOURS, *WIDE_COLOURS[2:4]])
]
WANTED = [2, 13, 20]
_EBU_3213 = 22

# PyAV's libvpx writes 8 bits only; this one was made by ffmpeg 5.1 and tells no colours:
# -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -crf 30 -b:v 0 -pix_fmt yuv420p10le -profile:v 2 -g 8
VP9_10_BITS = Path(__file__).parents[1] / "data" / "vp9_10_bits.webm"
_KEY, _SPACE_AT = b"\x92\x49\x83\x42", 33  # a key frame of profile 2; where its colour space stands, in bits
_SPACES = {5: 1, 6: 1, 1: 2, 7: 4, 9: 5}


def vp9_10_bits(container: str, primaries: int, transfer: int, matrix: int, colour_range: int) -> bytes:
    """A VP9 clip of 10 bits, its colours written into its container and its frames' headers."""
    buffer = io.BytesIO()
    with av.open(str(VP9_10_BITS)) as source, av.open(buffer, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        context: Any = stream.codec_context
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, colour_range
        for packet in source.demux(video=0):
            if not packet.size:
                continue
            head = int.from_bytes(bytes(packet)[:8], "big")
            if bytes(packet)[:4] == _KEY:
                head &= ~(0b1111 << 64 - _SPACE_AT - 4)
                head |= (_SPACES[matrix] << 1 | colour_range - 1) << 64 - _SPACE_AT - 4
            packet.update(head.to_bytes(8, "big") + bytes(packet)[8:])
            packet.stream = stream
            out.mux(packet)
    return buffer.getvalue()


def encoded(case: Case) -> bytes:
    codec, options, depth, (primaries, transfer, matrix) = case
    container = "mp4" if primaries % 2 else "matroska"
    colour_range = ColorRange.MPEG if transfer % 2 else ColorRange.JPEG
    if (codec, depth) == ("libvpx-vp9", "yuv420p10le"):
        return vp9_10_bits(container, primaries, transfer, matrix, int(colour_range))
    is_unknown = codec == "libx265" and primaries == _EBU_3213
    data = clip(
        codec=codec,
        container=container,
        frames=24,
        width=96,
        height=64,
        pix_fmt=depth,
        primaries=1 if is_unknown else primaries,
        transfer=transfer,
        colorspace=Colorspace(matrix),
        color_range=colour_range,
        **options,
    )
    return with_hevc_primaries(data, container, primaries) if is_unknown else data


def with_hevc_primaries(data: bytes, container: str, primaries: int) -> bytes:
    """The same with other primaries, which x265 does not know, in its headers and its container."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        name = f"hevc_metadata=colour_primaries={primaries}"
        bsf = BitStreamFilterContext(name, source.streams.video[0], stream)
        context: Any = stream.codec_context
        context.color_primaries = primaries
        for packet in source.demux(video=0):
            for each in bsf.filter(packet if packet.size else None):
                each.stream = stream
                out.mux(each)
    return buffer.getvalue()


def check(case: Case, ways: list[dict[str, Any]]) -> None:
    """Fast against sequential; and in more ways, and what OpenCV itself gives."""
    _, _, depth, (primaries, transfer, matrix) = case
    data = encoded(case)
    packets = index.build(data)
    assert packets.colour[1:] == (matrix, primaries, transfer)
    assert packets.pix_fmt.replace("yuvj", "yuv") == depth
    expected, _ = Pick.load_bytes(data, indices=WANTED, decode="sequential")
    for way in ways:
        frames, metadata = Pick.load_bytes(data, indices=WANTED, **way)
        assert metadata["frames_indices"] == WANTED
        assert np.array_equal(frames, expected), (way, np.abs(frames.astype(int) - expected).max())
    if len(ways) > 1:
        assert np.array_equal(read_plainly(data, WANTED)[0], expected)


@pytest.mark.parametrize("case", SAMPLE, ids=str)
def test_some(case: Case) -> None:
    check(case, [{"decode": "seek"}, {"backend": "pyav", "decode": "sequential"}])


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_all(case: Case) -> None:
    check(case, [{"decode": "seek"}])


def test_the_table_is_whole() -> None:
    """What is said of it above; and the wide ones are those that OpenCV maps."""
    assert len(set(COLOURS)) == 18
    assert len(WHOLE) == 18 * 4 * 2
    assert all(is_mapped(primaries, transfer) for primaries, transfer, _ in WIDE_COLOURS)
    assert not any(is_mapped(primaries, transfer) for primaries, transfer, _ in USUAL_COLOURS)
    assert {codec for codec, *_ in SAMPLE} == {codec for codec, _ in CODECS}
    assert sum(colours in WIDE_COLOURS for *_, colours in SAMPLE) == 2


# What OpenCV does not convert, and hands out memory as it found it for: YCgCo, told by the stream alone.
_YCGCO = 8
_SMALL: dict[str, Any] = {"frames": 40, "width": 96, "height": 64}


def told_within(data: bytes, name: str, container: str, begin: int = 0, *, primaries: int = 1) -> bytes:
    """A clip whose headers, from a packet on, tell other colours than its container does."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format=container) as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        matrix = _YCGCO if primaries == 1 else 1
        values = f"colour_primaries={primaries}:transfer_characteristics=1:matrix_coefficients={matrix}"
        if name.startswith("av1"):
            values = values.replace("colour_", "color_")
        bsf = BitStreamFilterContext(f"{name}={values}", source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for packet in [*packets[:begin], *(each for p in [*packets[begin:], None] for each in bsf.filter(p))]:
            packet.stream = stream
            out.mux(packet)
    return buffer.getvalue()


def joined(codec: str, container: str, options: dict[str, Any]) -> bytes:
    raw = {"libx264": "h264", "libx265": "hevc"}[codec]
    parts = [clip(**_SMALL, codec=codec, container=raw, **each) for each in ({}, options)]
    return remux([b"".join(parts)], container)


def mpeg4_becoming(primaries: int, matrix: int) -> bytes:
    """A visual object in front of the second key frame tells its colours (ISO/IEC 14496-2, 6.2.2)."""
    told = f"{0x89:08b}{1:04b}1{5:03b}01{primaries:08b}{1:08b}{matrix:08b}".ljust(48, "1")
    head = b"\0\0\1\xb5" + int(told, 2).to_bytes(6, "big")

    def change(packets: list[Any]) -> list[Any]:
        payload = head + bytes(packets[20])
        made = av.Packet(len(payload))
        made.update(payload)
        made.pts, made.dts, made.time_base = packets[20].pts, packets[20].dts, packets[20].time_base
        made.is_keyframe = packets[20].is_keyframe
        return [*packets[:20], made, *packets[21:]]

    return remux([clip(**_SMALL, codec="mpeg4", bframes=0)], "matroska", change)


def prores_becoming_ycgco() -> bytes:
    data = bytearray(clip(**_SMALL, codec="prores_ks", container="mov", pix_fmt="yuv422p10le"))
    for start in index.build(bytes(data)).offset[20:].tolist():
        data[start + 24] = _YCGCO
    return bytes(data)


BECOMING: dict[str, Callable[[], bytes]] = {
    **{
        f"{codec}, {container}": partial(joined, codec, container, options)
        for codec, options in (("libx264", x264("colormatrix=YCgCo")), ("libx265", x265("colormatrix=ycgco")))
        for container in ("mp4", "matroska", "mpegts")
    },
    "mpeg2video": lambda: told_within(
        clip(**_SMALL, codec="mpeg2video", container="mpegts"), "mpeg2_metadata", "mpegts", 20
    ),
    "libsvtav1": lambda: told_within(clip(**_SMALL, codec="libsvtav1"), "av1_metadata", "mp4", 20),
    "libsvtav1, all of it": lambda: told_within(clip(**_SMALL, codec="libsvtav1"), "av1_metadata", "mp4"),
    "mpeg4": lambda: mpeg4_becoming(1, _YCGCO),
    "prores": prores_becoming_ycgco,
}


@pytest.mark.parametrize("name", BECOMING)
def test_colours_that_only_the_stream_tells(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the container says of them is true of the beginning, or of nothing."""
    data = BECOMING[name]()
    assert index.build(data).colour[1] != _YCGCO
    expected, metadata = OpenCVVideoBackend.load_bytes(data, num_frames=16, backend="pyav")
    for way in ("sequential", "auto"):
        frames, found = OpenCVVideoBackend.load_bytes(data, num_frames=16, decode=way)
        assert found["frames_indices"] == metadata["frames_indices"]
        assert np.array_equal(frames, expected)
        assert "OpenCV can't convert its colours" in caplog.text
        caplog.clear()
    with pytest.raises(NotSeekableError):
        OpenCVVideoBackend.load_bytes(data, num_frames=16, decode="seek")


@pytest.mark.parametrize(("codec", "options"), [("libx264", {}), ("libx265", {}), ("libsvtav1", {})])
def test_usual_colours_that_the_stream_tells(codec: str, options: dict[str, Any]) -> None:
    data = clip(**_SMALL, codec=codec, colorspace=Colorspace.ITU709, primaries=1, transfer=1, **options)
    assert are_converted(index.build(data))


def prores(*colours: int) -> bytes:
    """A clip each frame of which tells primaries, transfer and matrix."""
    data = bytearray(clip(**_SMALL, codec="prores_ks", container="mov", pix_fmt="yuv422p10le"))
    for start in index.build(bytes(data)).offset.tolist():
        data[start + 22 : start + 25] = bytes(colours)
    return bytes(data)


def in_matroska(codec: str, primaries: int) -> bytes:
    tags = {"primaries": 9, "transfer": 14, "colorspace": Colorspace(9)}
    data = clip(**_SMALL, codec=codec, container="matroska", **tags)
    told = b"\x55\xbb\x81"
    assert data.count(told + b"\x09") == 1
    return data.replace(told + b"\x09", told + bytes([primaries]))


def png(primaries: int) -> bytes:
    """A clip of PNGs, which tell colours by numbers in a chunk."""
    data = clip(**_SMALL, codec="png", container="mov", pix_fmt="rgb24", primaries=9, transfer=16)
    chunk = b"cICP" + bytes([primaries, 1, 0, 1])
    assert b"cICP\x09\x10" in data
    return re.sub(rb"cICP.{8}", lambda _: chunk + zlib.crc32(chunk).to_bytes(4, "big"), data, flags=re.DOTALL)


# Numbers that mean nothing: for those of primaries that stand between others, OpenCV crashes.
MEANINGLESS: dict[str, Callable[[int], bytes]] = {
    "prores": lambda primaries: prores(primaries, 1, 1),
    "vp9": partial(in_matroska, "libvpx-vp9"),
    "ffv1": partial(in_matroska, "ffv1"),
    "av1": lambda primaries: told_within(
        clip(**_SMALL, codec="libsvtav1"), "av1_metadata", "mp4", primaries=primaries
    ),
    "mpeg2video": lambda primaries: told_within(
        clip(**_SMALL, codec="mpeg2video", container="mpegts"),
        "mpeg2_metadata",
        "mpegts",
        20,
        primaries=primaries,
    ),
    "mpeg4": lambda primaries: mpeg4_becoming(primaries, 1),
    "png": png,
}


@pytest.mark.parametrize("compat", ["", "0.20"])
@pytest.mark.parametrize("name", MEANINGLESS)
def test_primaries_that_there_are_not(name: str, compat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, as OpenCV asked for them ends it."""
    monkeypatch.setenv("MMMEDIA_COMPAT", compat)
    data = MEANINGLESS[name](13)

    def is_answered() -> bool:
        expected, _ = Pick.load_bytes(data, indices=WANTED, backend="pyav")
        ways = [{"decode": "sequential"}, {}]
        return all(np.array_equal(Pick.load_bytes(data, indices=WANTED, **way)[0], expected) for way in ways)

    assert holds_in_child(is_answered)


@pytest.mark.parametrize(
    "colours", [(13, 1, 1), (3, 1, 1), (0, 0, 0), (1, 19, 1), (1, 1, 15), (255, 255, 255)]
)
def test_numbers_that_mean_nothing_are_as_none(colours: tuple[int, int, int]) -> None:
    """And not memory as OpenCV found it."""
    expected = read_plainly(prores(2, 2, 2), WANTED)[0]
    for way in ({"decode": "sequential"}, {}, {"backend": "pyav"}):
        assert np.array_equal(Pick.load_bytes(prores(*colours), indices=WANTED, **way)[0], expected)


def test_wide_colours_of_png() -> None:
    data = clip(**_SMALL, codec="png", container="mov", pix_fmt="rgb48be", primaries=9, transfer=16)
    expected = read_plainly(data, WANTED)[0]
    frames, _ = Pick.load_bytes(data, indices=WANTED, backend="pyav", decode="sequential")
    assert np.array_equal(frames, expected)


def sited(codec: str, container: str, where: str, **fields: Any) -> bytes:
    """A clip of which the container or headers say where samples of chroma lie."""
    if codec == "libx264":
        number = ["left", "center", "topleft", "top"].index(where)
        fields["options"] = {"x264-params": f"keyint=8:min-keyint=8:chromaloc={number}"}
    shape = {"width": 96, "height": 64, "gop": 8, "frames": 24}
    return clip(**shape | {"codec": codec, "container": container, "siting": where, **fields})


ODD = {"width": 97, "height": 65}
PQ = {"primaries": 9, "transfer": 16, "colorspace": Colorspace(9), "color_range": ColorRange.MPEG}
SITED: list[tuple[str, str, dict[str, Any]]] = [
    ("libvpx-vp9", "webm", ODD),
    ("libvpx", "webm", ODD),
    ("libsvtav1", "matroska", {"pix_fmt": "yuv420p10le"}),
    ("ffv1", "matroska", {"pix_fmt": "yuv420p10le"}),
]
SITED_AND_WIDE: list[tuple[str, str, dict[str, Any]]] = [
    ("libvpx-vp9", "webm", PQ),
    ("libsvtav1", "mp4", {"pix_fmt": "yuv420p10le", **PQ}),
    ("libx264", "mp4", PQ),
]
_TURNS: list[dict[str, Any]] = [{"decode": "seek"}, {"backend": "pyav", "decode": "sequential"}]


@pytest.mark.parametrize(("codec", "container", "fields"), [*SITED, *SITED_AND_WIDE])
def test_where_chroma_lies(codec: str, container: str, fields: dict[str, Any]) -> None:
    """FFmpeg's program has Matroska say it of every VP9 and AV1; H.264 and AV1 say it themselves."""
    data = sited(codec, container, "topleft", **fields)
    expected = read_plainly(data, WANTED)[0]
    # Seeking in MP4 has nothing to lose here, and a table for wide colours takes seconds.
    for way in _TURNS[fields is PQ and container == "mp4" :]:
        frames, _ = Pick.load_bytes(data, indices=WANTED, **way)
        assert np.array_equal(frames, expected), way


@pytest.mark.parametrize(("codec", "container", "fields"), SITED)
def test_pictures_differ_by_where_chroma_lies(codec: str, container: str, fields: dict[str, Any]) -> None:
    """Or the test above would tell nothing."""
    left, other = (sited(codec, container, where, **fields) for where in ("center", "topleft"))
    assert not np.array_equal(read_plainly(left, WANTED)[0], read_plainly(other, WANTED)[0])
