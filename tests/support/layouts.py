"""Clips in every layout that is read in pieces, with enough in them that pieces are a part."""

import functools
import io
import struct
from pathlib import Path
from typing import Any

import av

from mmmedia.containers import boxes
from mmmedia.sources import BytesSource, Ranges
from support.clips import clip
from support.kinds import front_first

FRAMES, RATE, GOP = 240, 30, 30

LAYOUTS: dict[str, tuple[str, dict[str, str]]] = {
    "moov last": ("mp4", {}),
    "moov first": ("mp4", {}),
    "mov": ("mov", {}),
    "fragments, mfra": ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "fragments, from moof": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "fragments, sidx each": ("mp4", {"movflags": "dash+frag_keyframe+empty_moov"}),
    "fragments, one sidx": ("mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "matroska": ("matroska", {}),
    "webm": ("webm", {}),
    "webm, VP8": ("webm", {}),
}


class Near(BytesSource):
    """Costs nothing to look into."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.asked: list[tuple[int, int]] = []

    def read(self, ranges: Ranges) -> list[bytes]:
        self.asked += ranges
        return super().read(ranges)

    @property
    def fetched(self) -> int:
        return sum(stop - start for start, stop in self.asked)


class Far(Near):
    """Takes its time for each look."""

    gap, ahead = 1, 512


def long_clip(codec: str = "libx264", **fields: Any) -> bytes:
    """Return an MP4 with its index at the end, of 8 seconds and as many key frames."""
    options = {
        "libx264": {"preset": "ultrafast", "crf": "8"},
        "libvpx-vp9": {"b": "6M"},
        "libvpx": {"b": "3M"},
    }.get(codec, {})
    made = {"frames": FRAMES, "rate": RATE, "gop": GOP, "width": 160, "height": 120, "options": options}
    return clip(codec=codec, **{"container": "mp4", **made, **fields})


@functools.cache
def laid_out(layout: str, codec: str = "", **fields: Any) -> bytes:
    """Return a long clip in a layout."""
    container, options = LAYOUTS[layout]
    codec = codec or {"webm": "libvpx-vp9", "webm, VP8": "libvpx"}.get(layout, "libx264")
    data = b"" if container == "webm" else long_clip(codec, **fields)
    if layout == "moov first":
        return front_first(data)
    if layout == "moov last":
        return data
    if container == "webm":
        return long_clip(codec, container="webm", **fields)
    data = rewrapped(data, container, options)
    return with_segments(data) if layout == "fragments, one sidx" else data


def rewrapped(
    data: bytes, container: str, options: dict[str, str] | None = None, *, frames: str = ""
) -> bytes:
    """Return all streams in another container, not encoded anew; with a tag that tells how many frames."""
    buffer = io.BytesIO()
    with (
        av.open(io.BytesIO(data)) as whole,
        av.open(buffer, "w", format=container, options=dict(options or {})) as out,
    ):
        streams = {each.index: out.add_stream_from_template(each) for each in whole.streams}
        for stream in streams.values() if frames else ():
            stream.metadata["NUMBER_OF_FRAMES"] = frames
        for packet in whole.demux():
            if packet.size:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return buffer.getvalue()


def with_segments(data: bytes) -> bytes:
    """Return a fragmented MP4 with an index of its segments behind the `moov`, and none at the end."""
    found = list(boxes(data, 0, len(data)))
    starts = [begin - 8 for name, (begin, _) in found if name == b"moof"]
    end = next((begin - 8 for name, (begin, _) in found if name == b"mfra"), len(data))
    lengths = [stop - start for start, stop in zip(starts, [*starts[1:], end], strict=True)]
    entries = b"".join(struct.pack(">III", length, 1000, 0x90000000) for length in lengths)
    body = struct.pack(">IIIII", 0, 1, 1000, 0, 0) + struct.pack(">HH", 0, len(lengths)) + entries
    index = struct.pack(">I4s", len(body) + 8, b"sidx") + body
    return data[: starts[0]] + index + data[starts[0] : end]


def padded(data: bytes, mebibytes: int = 9) -> bytes:
    """Return an MP4 with so much more behind it that means nothing."""
    return data + struct.pack(">I4s", (mebibytes << 20) + 8, b"free") + bytes(mebibytes << 20)


def write_huge(path: Path, data: bytes, step: int) -> None:
    """Write an MP4 whose samples stand so many bytes apart, most of it holes on the disk.

    Args:
        path: of the file.
        data: an MP4 of one track, with its tables in one box.
        step: bytes from one sample to the next.
    """
    with av.open(io.BytesIO(data)) as container:
        entries = [(each.pos, each.size) for each in container.streams.video[0].index_entries]
    brand, movie = b"", b""
    for name, (begin, stop) in boxes(data, 0, len(data)):
        if name == b"ftyp":
            brand = data[begin - 8 : stop]
        if name == b"moov":
            movie = data[begin:stop]
    first = len(brand) + 16
    places = struct.pack(
        f">II{len(entries)}Q", 0, len(entries), *(first + n * step for n in range(len(entries)))
    )

    def changed(name: bytes, body: bytes) -> bytes:
        if name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            inner = boxes(body, 0, len(body))
            body = b"".join(changed(each, body[begin:stop]) for each, (begin, stop) in inner)
        elif name in (b"stco", b"co64"):
            name, body = b"co64", places
        elif name == b"stsc":
            body = struct.pack(">IIIII", 0, 1, 1, 1, 1)
        return struct.pack(">I4s", len(body) + 8, name) + body

    with path.open("wb") as file:
        file.write(brand + struct.pack(">I4sQ", 1, b"mdat", 16 + step * len(entries)))
        for number, (start, size) in enumerate(entries):
            file.seek(first + number * step)
            file.write(data[start : start + size])
        file.seek(first + step * len(entries))
        file.write(changed(b"moov", movie))
