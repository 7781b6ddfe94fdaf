"""Clips as people send them: what a player shows of each is known by how they are made."""

import io
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image

from mmmedia.video.decoders.bitstreams.bits import unescape
from support import corpus
from support.clips import clip, picture

SIZE = {"width": 128, "height": 96}
WAYS: list[dict[str, Any]] = [
    {"decode": "sequential"},
    {"decode": "auto"},
    {"decode": "seek"},
    {"backend": "pyav", "decode": "sequential"},
    {"backend": "pyav", "decode": "seek"},
]


@dataclass(frozen=True)
class Kind:
    """A clip, the numbers that its frames show in order, and seconds from the first to the end of the last.

    `seconds` is None where no clock can be trusted; `turn` undoes what a player does to the picture.
    """

    make: Callable[[], bytes]
    numbers: Sequence[int]
    seconds: float | None = None
    turn: Callable[[np.ndarray], np.ndarray] = lambda frame: frame


class Pipe(io.RawIOBase):
    """What a muxer can't go back in."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += bytes(data)
        return len(data)


def piped(to: str, **fields: Any) -> bytes:
    """Remux a clip to a pipe."""
    source = clip(**SIZE, **fields)
    pipe = Pipe()
    with av.open(io.BytesIO(source)) as read, av.open(pipe, "w", format=to) as out:
        stream = out.add_stream_from_template(read.streams.video[0], opaque=True)
        for packet in read.demux(read.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return pipe.written


def with_sound(
    container: str,
    seconds: float,
    *,
    later: float = 0.0,
    samples: int = 1024,
    codec: str = "aac",
    **fields: Any,
) -> bytes:
    """Put a sound beside a clip's pictures, which begin so many seconds later than it."""
    source = clip(**SIZE, **fields)
    buffer = io.BytesIO()
    with av.open(io.BytesIO(source)) as read, av.open(buffer, "w", format=container) as out:
        video = out.add_stream_from_template(read.streams.video[0], opaque=True)
        sound = out.add_stream(codec, rate=48000)
        packets = []
        for packet in read.demux(read.streams.video[0]):
            if packet.size:
                shift = round(later / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = video
                packets.append((float(packet.dts * packet.time_base), packet))
        layout, kind = ("mono", "fltp") if codec == "aac" else ("mono", "s16")
        for start in range(0, int(seconds * 48000), samples):
            quiet = np.zeros((1, samples), np.float32 if kind == "fltp" else np.int16)
            frame = av.AudioFrame.from_ndarray(quiet, format=kind, layout=layout)
            frame.sample_rate, frame.pts = 48000, start
            while packets and packets[0][0] <= start / 48000:
                out.mux(packets.pop(0)[1])
            out.mux(sound.encode(frame))
        for _, packet in packets:
            out.mux(packet)
        out.mux(sound.encode(None))
    return buffer.getvalue()


def with_cover(*, first: bool) -> bytes:
    """An MP4 with a picture as tag programs add it, behind or before the clip's own track."""
    buffer = io.BytesIO()
    jpeg = io.BytesIO()
    Image.new("RGB", (200, 200), (255, 0, 0)).save(jpeg, "JPEG")
    with av.open(io.BytesIO(clip(**SIZE))) as read, av.open(buffer, "w", format="mp4") as out:
        video = out.add_stream_from_template(read.streams.video[0], opaque=True)
        with av.open(io.BytesIO(jpeg.getvalue())) as still:
            cover = out.add_stream_from_template(still.streams.video[0], opaque=True)
            cover.disposition = av.stream.Disposition.attached_pic
            for packet in still.demux(video=0):
                if packet.size:
                    packet.stream = cover
                    out.mux(packet)
            for packet in read.demux(video=0):
                if packet.size:
                    packet.stream = video
                    out.mux(packet)
    data = buffer.getvalue()
    return _tags_first(data) if first else data


def _tags_first(data: bytes) -> bytes:
    def boxes(block: bytes, at: int) -> list[tuple[bytes, bytes]]:
        found = []
        while at < len(block):
            size = int.from_bytes(block[at : at + 4], "big")
            found.append((block[at + 4 : at + 8], block[at : at + size]))
            at += size
        return found

    made = b""
    for name, box in boxes(data, 0):
        if name == b"moov":
            inner = sorted(boxes(box, 8), key=lambda each: {b"mvhd": 0, b"udta": 1}.get(each[0], 2))
            body = b"".join(each for _, each in inner)
            box = (len(body) + 8).to_bytes(4, "big") + b"moov" + body
        made += box
    return made


def animated(image_format: str, delays: Sequence[int]) -> bytes:
    """An animated picture, each frame for so many milliseconds."""
    frames = [Image.fromarray(picture(number, 128, 96)) for number in range(len(delays))]
    file = io.BytesIO()
    more = {"lossless": True} if image_format == "WEBP" else {}
    frames[0].save(
        file, image_format, save_all=True, append_images=frames[1:], duration=list(delays), loop=0, **more
    )
    return file.getvalue()


def front_first(data: bytes) -> bytes:
    """An MP4 of one track with its index at the front."""
    start, stop = data.index(b"mdat") - 4, data.index(b"moov") - 4
    index = bytearray(data[stop:])
    at = index.index(b"stco") + 8
    (count,) = struct.unpack_from(">I", index, at)
    for entry in range(at + 4, at + 4 + 4 * count, 4):
        struct.pack_into(">I", index, entry, struct.unpack_from(">I", index, entry)[0] + len(index))
    return data[:start] + bytes(index) + data[start:stop]


def fields_later(codec: str, **options: Any) -> bytes:
    """A recording whose second half is interlaced, as advertisements in a broadcast are."""
    first = clip(**SIZE, frames=40, codec=codec, container="mpegts", gop=10)
    second = clip(**SIZE, frames=40, codec=codec, container="mpegts", gop=10, seed=1, **options)
    return first + second


UNEVEN = [*range(0, 4000, 500), *range(4000, 4400, 20), 9000]
SLIDES = [n * 12000 for n in range(5)]
MILLI = Fraction(1, 1000)
SIXTY = range(60)
INTERLACED = {
    "libx264": corpus.x264("tff=1:keyint=10"),
    "mpeg2video": {"options": {"flags": "+ildct+ilme", "top": "1"}},
}
# What only ends a sequence, and what only describes what follows: with their lengths, as in MP4 and Matroska.
ENDS = {"libx264": b"\0\0\0\1\x0a", "libx265": b"\0\0\0\2\x48\1"}


def with_packet(container: str, codec: str, payload: bytes | None, at: int) -> bytes:
    """A clip with one packet more, which shows nothing; None: the sets of the clip's configuration."""

    def change(packets: corpus.Packets) -> corpus.Packets:
        content = sets_of(source) if payload is None else payload
        before, added = packets[at - 1], av.Packet(content)
        added.time_base, half = before.time_base, before.duration // 2
        added.pts = max(packet.pts for packet in packets[:at]) + half
        added.dts = before.dts + half
        return [*packets[:at], added, *packets[at:]]

    source = clip(**SIZE, codec=codec, bframes=0)
    return corpus.remux([source], container, change)


def sets_of(data: bytes) -> bytes:
    """The sequence and the picture parameter set of an H.264 clip, with four bytes of length each."""
    with av.open(io.BytesIO(data)) as container:
        record = container.streams.video[0].codec_context.extradata or b""
    size = int.from_bytes(record[6:8], "big")
    sequence, picture = record[8 : 8 + size], record[8 + size + 3 :]
    picture = picture[: int.from_bytes(record[8 + size + 1 : 8 + size + 3], "big")]
    return b"".join(len(each).to_bytes(4, "big") + each for each in (sequence, picture))


def reordered_late() -> bytes:
    """An H.264 clip that does not say how far its pictures are reordered; in its first half none are."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE["width"], SIZE["height"], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:ref=4:keyint=250:scenecut=0"}
        for number in range(80):
            frame = av.VideoFrame.from_ndarray(picture(number, *SIZE.values()), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = number
            if number < 40:
                frame.pict_type = PictureType.P if number else PictureType.I
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return without_restrictions(buffer.getvalue())


def without_restrictions(data: bytes) -> bytes:
    """Take the restrictions of the bitstream (ITU-T H.264, E.1.1) off the end of a sequence parameter set."""
    with av.open(io.BytesIO(data)) as container:
        record = container.streams.video[0].codec_context.extradata or b""
    old = record[8 : 8 + int.from_bytes(record[6:8], "big")]
    bits = "".join(f"{byte:08b}" for byte in unescape(old))
    # Two flags and six numbers, of which x264 writes two zeros first, and then the stop bit.
    found = re.search("11" + "11" + 4 * "(?:1|01.|001..|0001...)" + "10*$", bits)
    assert found
    kept = bits[: found.start()] + "0" + "1"
    kept += "0" * (-len(kept) % 8)
    new = int(kept, 2).to_bytes(len(kept) // 8, "big")
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\0\0\3", new)
    return data.replace(old, escaped.ljust(len(old), b"\0"))


KINDS: dict[str, Kind] = {
    # B: the length is not known
    "live webm": Kind(lambda: clip(**SIZE, codec="libvpx", container="webm", container_options={"live": "1"}), SIXTY, 2.4),  # noqa: E501
    "live mkv": Kind(lambda: clip(**SIZE, container="matroska", container_options={"live": "1"}), SIXTY, 2.4),
    "webm to a pipe": Kind(lambda: piped("webm", codec="libvpx-vp9", container="webm"), SIXTY, 2.4),
    "flv to a pipe": Kind(lambda: piped("flv"), SIXTY, 2.4),
    "asf to a pipe": Kind(lambda: piped("asf", codec="wmv2", container="asf"), SIXTY, 2.4),
    "raw h264": Kind(lambda: clip(**SIZE, container="h264"), SIXTY),
    "raw hevc": Kind(lambda: clip(**SIZE, codec="libx265", container="hevc"), SIXTY),
    "program stream": Kind(lambda: clip(**SIZE, codec="mpeg2video", bframes=2, container="mpeg"), SIXTY, 2.4),
    "one frame of ts": Kind(lambda: clip(**SIZE, frames=1, container="mpegts"), range(1)),
    # C: the count is an estimate, or counts what is never shown
    **{f"longer sound, {c}": Kind(lambda c=c: with_sound(c, 5.0), SIXTY, 2.4) for c in ("matroska", "flv", "mpegts", "mp4")},  # noqa: E501
    **{f"earlier sound, {c}": Kind(lambda c=c: with_sound(c, 4.0, later=1.5), SIXTY, 2.4) for c in ("matroska", "flv", "mpegts", "mp4")},  # noqa: E501
    "screen recording": Kind(lambda: clip(**SIZE, frames=len(UNEVEN), codec="libvpx", container="webm", timestamps=UNEVEN, time_base=MILLI), range(len(UNEVEN)), 9.3),  # noqa: E501
    "variable rate, mp4": Kind(lambda: clip(**SIZE, frames=len(UNEVEN), bframes=0, timestamps=UNEVEN, time_base=MILLI), range(len(UNEVEN)), 9.3),  # noqa: E501
    "lossless trim": Kind(lambda: corpus.hide_lead_in(clip(**SIZE, bframes=0), 25 * 512), range(25, 60), 1.4),
    **{f"begins within a group, {c}": Kind(lambda c=c: corpus.remux([clip(**SIZE, bframes=0)], c, lambda p: p[13:]), range(20, 60), 1.6) for c in ("matroska", "mpegts")},  # noqa: E501
    "joined recordings": Kind(lambda: clip(**SIZE, container="mpegts") + clip(**SIZE, container="mpegts", seed=2), [*SIXTY, *SIXTY], 4.8),  # noqa: E501
    "h264 copied into avi": Kind(lambda: clip(**SIZE, container="avi", bframes=2), SIXTY),
    **{f"a packet ends it, {c} of {k}": Kind(lambda c=c, k=k: with_packet(c, k, ENDS[k], 60), SIXTY, 2.4) for c in ("mp4", "matroska") for k in ENDS},  # noqa: E501
    **{f"a packet of sets, {c}": Kind(lambda c=c: with_packet(c, "libx264", None, 40), SIXTY, 2.4) for c in ("mp4", "matroska")},  # noqa: E501
    "reordered late": Kind(reordered_late, range(80), 3.2),
    # D: interlaced after a progressive start
    **{f"fields later, {codec}": Kind(lambda codec=codec: fields_later(codec, **INTERLACED[codec]), [*range(40), *range(40)], 3.2) for codec in INTERLACED},  # noqa: E501
    # E: many packets of other streams between two pictures
    "slides with a voice": Kind(lambda: with_sound("matroska", 60.0, samples=128, codec="pcm_s16le", frames=5, gop=1, bframes=0, timestamps=SLIDES, time_base=MILLI), range(5), 60.0),  # noqa: E501
    # F: covers
    "cover behind": Kind(lambda: with_cover(first=False), SIXTY, 2.4),
    "cover in front": Kind(lambda: with_cover(first=True), SIXTY, 2.4),
    # G: orientation
    "turned right": Kind(lambda: corpus.rotate(clip(**SIZE), 90), SIXTY, 2.4, lambda f: np.rot90(f)),
    "turned over": Kind(lambda: corpus.rotate(clip(**SIZE), 180), SIXTY, 2.4, lambda f: np.rot90(f, 2)),
    "turned left": Kind(lambda: corpus.rotate(clip(**SIZE), 270), SIXTY, 2.4, lambda f: np.rot90(f, -1)),
    "mirrored": Kind(lambda: corpus.write_matrix(clip(**SIZE), -1, 0, 0, 1), SIXTY, 2.4, lambda f: f[:, ::-1]),  # noqa: E501
    "upside down": Kind(lambda: corpus.write_matrix(clip(**SIZE), 1, 0, 0, -1), SIXTY, 2.4, lambda f: f[::-1]),  # noqa: E501
    "mirrored and turned": Kind(lambda: corpus.write_matrix(clip(**SIZE), 0, 1, 1, 0), SIXTY, 2.4, lambda f: f.transpose(1, 0, 2)),  # noqa: E501
    "interlaced and turned": Kind(lambda: corpus.rotate(clip(**SIZE, **corpus.x264("tff=1")), 90), SIXTY, 2.4, lambda f: np.rot90(f)),  # noqa: E501
    # I: short
    **{f"one frame, {c}": Kind(lambda c=c, k=k: clip(**SIZE, frames=1, container=c, codec=k), range(1)) for c, k in (("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"), ("flv", "libx264"))},  # noqa: E501
    "a third of a second": Kind(lambda: clip(**SIZE, frames=8), range(8), 0.32),
    # J: animations
    "animated png": Kind(lambda: animated("PNG", [100, 50, 200] * 4), range(12), 1.4),
    "animated webp": Kind(lambda: animated("WEBP", [100, 50, 200] * 4), range(12), 1.4),
    "avif sequence": Kind(lambda: animated("AVIF", [100, 50, 200] * 4), range(12), 1.4),
    "gif": Kind(lambda: animated("GIF", [100, 50, 200] * 4), range(12), 1.4),
}  # fmt: skip
