"""The guide's table of codecs and containers, counted: which go by excerpt, and which sequentially."""

import re
from pathlib import Path
from typing import Any

import pytest

from mmmedia.video import OpenCVVideoBackend, decode_stats
from mmmedia.video.decoders import plan
from support.clips import clip
from support.corpus import SHAPES, x264

GUIDE = Path(__file__).parents[2] / "docs" / "video-decoding.md"
CODECS: dict[str, dict[str, Any]] = {
    "H.264": {"codec": "libx264"},
    "HEVC": {"codec": "libx265", **SHAPES["libx265"][0]},
    "VP8": {"codec": "libvpx"},
    "VP9": {"codec": "libvpx-vp9"},
    "AV1": {"codec": "libsvtav1"},
    "MPEG-4 part 2": {"codec": "mpeg4", "bframes": 2},
    "MPEG-2, progressive": {"codec": "mpeg2video", "bframes": 2},
    "Motion JPEG": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "ProRes": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "FFV1": {"codec": "ffv1"},
    "HuffYUV": {"codec": "huffyuv", "pix_fmt": "yuv422p"},
    "Windows Media": {"codec": "wmv2"},
    "GIF": {"codec": "gif", "pix_fmt": "rgb8"},
    "H.264, interlaced": {"codec": "libx264", **x264("tff=1")},
}
CONTAINERS = {
    "MP4": "mp4", "MOV": "mov", "Matroska": "matroska", "WebM": "webm", "TS": "mpegts", "PS": "mpeg",
    "FLV": "flv", "AVI": "avi", "IVF": "ivf", "ASF": "asf", "GIF": "gif",
}  # fmt: skip
RAW = {"H.264": "h264", "HEVC": "hevc"}


def rows() -> list[tuple[str, str, str]]:
    if not GUIDE.exists():
        return []
    table = GUIDE.read_text(encoding="utf-8").partition("| codec | in | way |")[2].partition("\n\n")[0]
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| (excerpt|sequential) \|$", table, re.MULTILINE)
    return [(codec, container, way) for codec, many, way in found for container in many.split(", ")]


@pytest.mark.parametrize(("codec", "container", "way"), rows())
def test_what_goes_which_way(codec: str, container: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of it, long enough to pay, takes the way that the table says."""
    monkeypatch.setattr(plan, "_SHORT", 0)
    name = RAW[codec] if container == "raw" else CONTAINERS[container]
    try:
        data = clip(frames=96, width=96, height=64, gop=12, container=name, **CODECS[codec])
    except ValueError as error:
        pytest.skip(f"this PyAV does not encode it: {error}")
    before = decode_stats().paths
    OpenCVVideoBackend.load_bytes(data, num_frames=4)
    after = decode_stats().paths
    taken = [path for path, count in after.items() if count > before.get(path, 0)]
    assert taken == ["seek" if way == "excerpt" else "sequential"]


@pytest.mark.skipif(not GUIDE.exists(), reason="needs the source tree")
def test_every_codec_is_in_the_table() -> None:
    """The table that the tests are made of is there, and knows the codecs that are tried here."""
    assert {codec for codec, _, _ in rows()} == CODECS.keys()
    assert len(rows()) > 35
