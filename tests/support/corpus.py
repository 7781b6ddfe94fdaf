"""Videos of every kind there is, from a seed: recipes of a clip and of what is done to its bytes afterwards.

`draw(seed)` gives the recipe of a seed, `Recipe.make()` its bytes; the same seed gives the same recipe.
"""

import io
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
from av.video.reformatter import ColorRange, Colorspace

from support.clips import Clip, encode

Options = dict[str, Any]
Packets = list[av.Packet]


def x264(params: str) -> Options:
    return {"options": {"x264-params": params}}


def x265(params: str) -> Options:
    return {"options": {"x265-params": f"log-level=none:{params}"}}


# GOP shapes by codec: what is asked of the encoder. The first of each is its default.
SHAPES: dict[str, list[Options]] = {
    "libx264": [
        {},
        {"gop": 1},
        {"gop": 6},
        {"gop": 250},
        {"bframes": 0},
        {"options": {"profile": "baseline"}},
        {"options": {"preset": "slower"}},
        x264("keyint=infinite:scenecut=0"),
        x264("open-gop=1:keyint=17:min-keyint=17:scenecut=0:bframes=3:b-adapt=0"),
        x264("b-pyramid=normal:bframes=6:b-adapt=0:keyint=40"),
        x264("b-pyramid=strict:bframes=8:b-adapt=0:keyint=30:ref=5"),
        x264("slices=4:keyint=25"),
        x264("weightp=2:weightb=1:bframes=3:ref=4:keyint=22"),
        x264("cabac=0:8x8dct=0:keyint=15:direct=temporal"),
        x264("open-gop=1:b-pyramid=normal:bframes=5:b-adapt=0:keyint=24:min-keyint=24:aud=1"),
        x264("force-cfr=1:nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500:pic-struct=1"),
    ],
    "libx265": [
        x265("keyint=20"),
        x265("keyint=1"),
        x265("keyint=250"),
        x265("bframes=0:keyint=15"),
        x265("no-open-gop=1:keyint=24:min-keyint=24:scenecut=0"),
        x265("open-gop=1:keyint=16:min-keyint=16:scenecut=0:bframes=4:b-adapt=0"),
        x265("b-pyramid=1:bframes=8:b-adapt=0:keyint=32:rc-lookahead=20"),
        x265("open-gop=1:b-pyramid=1:bframes=6:b-adapt=0:keyint=21:min-keyint=21:aud=1:rc-lookahead=20"),
        x265("slices=2:ctu=16:keyint=18"),
        x265("temporal-layers=1:bframes=3:b-adapt=0:keyint=24"),
        x265("repeat-headers=1:keyint=13"),
    ],
    "libvpx-vp9": [
        {},
        {"gop": 1},
        {"gop": 250},
        {"options": {"deadline": "good", "cpu-used": "6", "auto-alt-ref": "1", "lag-in-frames": "16"}},
        {"options": {"deadline": "realtime", "cpu-used": "8", "error-resilient": "1"}},
    ],
    "libsvtav1": [{}, {"gop": 1}, {"gop": 64}, {"gop": 250}],
    "mpeg4": [{}, {"gop": 1}, {"bframes": 2}, {"gop": 250, "bframes": 2}, {"gop": 40, "bframes": 1}],
    "libvpx": [{}, {"gop": 100}, {"options": {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1"}}],
    "mjpeg": [{}],
    "mpeg2video": [{}, {"bframes": 2}, {"gop": 12, "bframes": 2}],
    "ffv1": [{}, {"gop": 1}],
}  # fmt: skip

# The common kinds: what must be answered by seeking, whatever the shape.
COMMON_CONTAINERS: dict[str, list[str]] = {
    "libx264": ["mp4", "mov", "matroska", "mpegts", "flv"],
    "libx265": ["mp4", "mov", "matroska", "mpegts"],
    "libvpx-vp9": ["mp4", "matroska", "webm"],
    "libvpx": ["webm", "matroska"],
    "libsvtav1": ["mp4", "matroska", "webm"],
    "mpeg4": ["mp4", "mov", "matroska", "avi"],
}
FURTHER_CONTAINERS: dict[str, list[str]] = {
    "libx264": ["mpegts", "avi", "flv", "h264"],
    "libx265": ["mpegts", "hevc"],
    "libvpx-vp9": ["ivf"],
    "libsvtav1": ["ivf", "obu"],
    "mpeg4": ["avi", "m4v", "mpegts"],
    "libvpx": ["webm", "matroska", "avi"],
    "mjpeg": ["mov", "matroska", "avi"],
    "mpeg2video": ["mp4", "matroska", "mpegts", "mpeg"],
    "ffv1": ["matroska", "avi"],
}
FURTHER_FORMATS: dict[str, list[str]] = {
    "libx264": ["yuv422p", "yuv444p", "gray", "yuvj420p", "yuv420p10le", "yuv422p10le", "yuv444p10le"],
    "libx265": ["yuv422p", "yuv444p", "gray", "gbrp", "yuv420p10le", "yuv422p10le", "yuv444p10le"],
    "libvpx-vp9": ["yuv422p", "yuv444p", "gbrp", "yuv420p10le"],
    "libsvtav1": ["yuv420p10le"],
    "mjpeg": ["yuvj420p", "yuvj422p", "yuvj444p"],
    "mpeg2video": ["yuv422p"],
    "ffv1": ["yuv444p", "yuv422p10le", "gray", "bgr0", "rgb24"],
}
SIZES = [(96, 64), (128, 96), (160, 90), (112, 80)]
ODD_SIZES = [(97, 65), (127, 95), (130, 98), (98, 67)]
COLOURS: list[Options] = [
    {},
    {"colorspace": Colorspace.ITU709, "color_range": ColorRange.MPEG},
    {"colorspace": Colorspace.ITU601, "color_range": ColorRange.MPEG},
]
FRAGMENTED = {"container_options": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}}


# ----------------------------------------------------------------- what is done to the bytes of a clip
def rotate(data: bytes, degrees: int) -> bytes:
    """Write a rotation into the display matrix of an MP4's first track."""
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return write_matrix(data, a, b, -b, a)


def write_matrix(data: bytes, a: float, b: float, c: float, d: float) -> bytes:
    """Write the upper left of a display matrix into an MP4's first track."""
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (round(each * (1 << 16)) for each in (a, b, c, d))
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return data[:at] + matrix + data[at + 36 :]


def hide_lead_in(data: bytes, ticks: int) -> bytes:
    """Let the edit list of an MP4's first track begin so many ticks later."""
    at = data.index(b"elst") + 4 + 12
    begin = struct.unpack_from(">i", data, at)[0]
    return data[:at] + struct.pack(">i", begin + ticks) + data[at + 4 :]


def remux(parts: list[bytes], container: str, change: Callable[[Packets], Packets] = lambda p: p) -> bytes:
    """Copy the video packets of one or more clips, one behind the other, into a new container.

    The container says of the stream what the first clip's does. Raw streams get timestamps as they come.
    """
    packets: Packets = []
    sources = [av.open(io.BytesIO(part)) for part in parts]
    shift = 0
    for source in sources:
        own = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        tick = own[0].duration or 1
        for number, packet in enumerate(own):
            packet.pts = shift + (number * tick if packet.pts is None else packet.pts)
            packet.dts = shift + ((number - 2) * tick if packet.dts is None else packet.dts)
        packets += own
        shift = max(packet.pts for packet in own) + tick
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={"avoid_negative_ts": "disabled"}) as out:
        stream = out.add_stream_from_template(sources[0].streams.video[0], opaque=True)
        for packet in change(packets):
            packet.stream = stream
            out.mux(packet)
    for source in sources:
        source.close()
    return buffer.getvalue()


def without(numbers: set[int]) -> Callable[[Packets], Packets]:
    """Leave packets out, by their position."""
    return lambda packets: [packet for n, packet in enumerate(packets) if n not in numbers]


def doubled(numbers: set[int]) -> Callable[[Packets], Packets]:
    """Give packets the timestamp of the one before."""

    def change(packets: Packets) -> Packets:
        for number in sorted(numbers):
            packets[number].pts, packets[number].dts = packets[number - 1].pts, packets[number - 1].dts
        return packets

    return change


def damage(data: bytes, kind: str, seed: int) -> bytes:
    """Break bytes: "flip" bits, write a "burst" of noise or "zeros", "swap" places, or "cut" the end off."""
    rng = random.Random(seed)
    broken = bytearray(data)
    length = rng.choice([1, 1, 2, 5, 20, 60])
    # Half of the time what stands at the front, the headers of many containers, stays whole.
    first = rng.choice([0.0, 0.05])
    at = int(rng.uniform(first, 0.999) * len(broken))
    if kind == "flip":
        for _ in range(length):
            broken[int(rng.uniform(first, 0.999) * len(broken))] ^= 1 << rng.randrange(8)
    elif kind == "burst":
        stop = min(len(broken), at + length)
        broken[at:stop] = rng.randbytes(stop - at)
    elif kind == "zeros":
        stop = min(len(broken), at + 10 * length)
        broken[at:stop] = bytes(stop - at)
    elif kind == "swap":
        other = int(rng.uniform(first, 0.999) * len(broken))
        low, high = min(at, other), max(at, other)
        length = min(length, high - low, len(broken) - high)
        broken[low : low + length], broken[high : high + length] = (
            broken[high : high + length],
            broken[low : low + length],
        )
    else:
        del broken[at:]
    return bytes(broken)


DAMAGES = ["flip", "flip", "flip", "burst", "zeros", "swap", "cut"]
STEPS: dict[str, Callable[..., bytes]] = {
    "rotate": rotate,
    "hide_lead_in": hide_lead_in,
    "copy": lambda data, container: remux([data], container),
    "drop": lambda data, container, *numbers: remux([data], container, without(set(numbers))),
    "double": lambda data, container, *numbers: remux([data], container, doubled(set(numbers))),
    "damage": damage,
    "mirror": lambda data, *matrix: write_matrix(data, *matrix),
    "join": lambda data: data + data,
    "behead": lambda data, container, count: remux([data], container, lambda packets: packets[count:]),
}


# ------------------------------------------------------------------------------------------ recipes
@dataclass(frozen=True)
class Recipe:
    """A clip, the steps that follow, and what is known of the result."""

    clip: Options
    steps: tuple[tuple[Any, ...], ...] = ()
    common: bool = False
    intact: bool = True
    seed: int = field(default=0, compare=False)

    def make(self) -> bytes:
        data = encode(Clip(**self.clip))
        for name, *arguments in self.steps:
            data = STEPS[name](data, *arguments)
        return data

    def __str__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.clip.items() if name != "timestamps")
        return f"seed {self.seed}: {options}; {self.steps}"


# Where samples of chroma may lie, as FFmpeg names it.
SITINGS = ["left", "center", "topleft", "top"]


def draw(seed: int, *, damaged: bool = False) -> Recipe:
    """Return the recipe of a seed; with `damaged`, of a common kind whose bytes are broken."""
    recipe = _drawn(seed, damaged=damaged)
    rng = random.Random(f"siting {seed}")
    if rng.random() > 0.2:
        return recipe
    sited = {"siting": rng.choice(SITINGS)}
    if recipe.clip["codec"] in {"libvpx", "libvpx-vp9"}:  # of even sizes OpenCV passes over it
        sited["width"] = recipe.clip["width"] | 1
    return replace(recipe, clip=recipe.clip | sited)


def _drawn(seed: int, *, damaged: bool) -> Recipe:
    rng = random.Random(f"recipe {seed}")
    if damaged:
        fields = _common(rng)
        steps: tuple[tuple[Any, ...], ...] = (("damage", rng.choice(DAMAGES), rng.randrange(1 << 30)),)
        return Recipe(fields, steps, intact=False, seed=seed)
    if rng.random() < 0.4:
        return Recipe(_common(rng), common=True, seed=seed)
    return _uncommon(rng, seed)


def _common(rng: random.Random) -> Options:
    codec = rng.choice(list(COMMON_CONTAINERS))
    container = rng.choice(COMMON_CONTAINERS[codec])
    fields: Options = {
        "codec": codec,
        "container": container,
        "frames": rng.randint(30, 90),
        "rate": rng.choice([24, 25, 30, Fraction(30000, 1001), 60, 10]),
        "seed": rng.randrange(4),
        **_size(rng.choice(SIZES)),
        **rng.choice(SHAPES[codec]),
        **rng.choice(COLOURS),
    }
    if container == "flv":
        fields["codec"] = "libx264"
    if rng.random() < 0.25 and container != "avi":
        fields |= _variable(rng, fields["frames"])
    elif rng.random() < 0.2 and container in {"mp4", "mov"}:
        fields |= FRAGMENTED
    if rng.random() < 0.2 and container in {"mp4", "mov", "matroska", "webm"}:
        fields["audio"] = True
        if rng.random() < 0.5:  # longer than the pictures
            fields["sound_seconds"] = fields["frames"] / float(fields["rate"]) + rng.choice([0.5, 3, 10])
    if rng.random() < 0.1 and codec not in {"libvpx", "mpeg4"} and "pix_fmt" not in fields:
        fields |= _tagged(rng)
    if rng.random() < 0.1:
        fields["aspect"] = rng.choice([Fraction(2), Fraction(4, 3), Fraction(16, 11)])
    return fields


# Primaries, transfers and matrices by FFmpeg's numbers; the wide ones take OpenCV seconds each.
USUAL_COLOURS = [
    (1, 1, 1),
    (5, 6, 5),
    (6, 6, 5),
    (7, 7, 7),
    (1, 13, 1),
    (4, 4, 5),
    (2, 14, 9),
    (2, 15, 9),
    (2, 17, 1),
]
WIDE_COLOURS = [
    (22, 1, 1),
    (9, 14, 9),
    (9, 16, 9),
    (9, 18, 9),
    (12, 13, 1),
    (11, 17, 1),
    (8, 1, 5),
    (10, 17, 1),
    (2, 16, 9),
]


def _tagged(rng: random.Random, *, wide: bool = False) -> Options:
    primaries, transfer, matrix = rng.choice(WIDE_COLOURS if wide else USUAL_COLOURS)
    return {
        "primaries": primaries,
        "transfer": transfer,
        "colorspace": Colorspace(matrix),
        "color_range": rng.choice([ColorRange.MPEG, ColorRange.JPEG]),
    }


def _uncommon(rng: random.Random, seed: int) -> Recipe:
    """A common kind with one or two things about it that are not."""
    fields = _common(rng)
    steps: list[tuple[Any, ...]] = []
    for twist in rng.sample(list(_TWISTS), rng.choice([1, 1, 2])):
        _TWISTS[twist](rng, fields, steps)
    if "intra-refresh" in str(fields.get("options")) and fields.get("pix_fmt") == "gray":
        fields["pix_fmt"] = "yuv420p"  # of grey pictures x264 dies in refreshing
    # What lacks packets is damaged.
    return Recipe(fields, tuple(steps), intact=not any(step[0] == "drop" for step in steps), seed=seed)


def _size(size: tuple[int, int]) -> Options:
    return {"width": size[0], "height": size[1]}


def _variable(rng: random.Random, frames: int) -> Options:
    """Timestamps at irregular distances."""
    return {
        "timestamps": sorted(rng.sample(range(4 * frames), frames)),
        "time_base": Fraction(1, 100),
    }


def _mp4(fields: Options) -> None:
    if fields["container"] not in {"mp4", "mov"}:
        fields["container"] = "mp4"
    fields.pop("container_options", None)


def _odd(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields |= _size(rng.choice(ODD_SIZES))


def _other_codec(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    codec = rng.choice(["libvpx", "mjpeg", "mpeg2video", "ffv1"])
    fields.pop("options", None)
    fields.pop("container_options", None)
    fields |= {"codec": codec, "container": rng.choice(FURTHER_CONTAINERS[codec]), "gop": 20}
    fields |= rng.choice(SHAPES[codec])
    fields["pix_fmt"] = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    fields |= {"audio": False, "timestamps": None, "time_base": None}
    fields["rate"] = 25  # MPEG-2 knows few rates
    if codec == "mjpeg":
        fields |= {"colorspace": None, "color_range": None}


def _other_container(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields["container"] = rng.choice(FURTHER_CONTAINERS[fields["codec"]])
    fields.pop("container_options", None)
    fields |= {"audio": False, "timestamps": None, "time_base": None}
    steps.clear()


def _other_format(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields["pix_fmt"] = rng.choice(FURTHER_FORMATS.get(fields["codec"], ["yuv420p"]))
    fields["options"] = {
        name: value for name, value in fields.get("options", {}).items() if name != "profile"
    }
    if fields["pix_fmt"] in {"gray", "gbrp", "bgr0", "rgb24"}:
        fields |= {"colorspace": None, "color_range": None}


def _full_range(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields |= {
        "colorspace": rng.choice([Colorspace.ITU709, Colorspace.ITU601, Colorspace.SMPTE240M]),
        "color_range": ColorRange.JPEG,
    }


def _rotated(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    _mp4(fields)
    steps.append(("rotate", rng.choice([90, 180, 270])))


def _hidden(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    _mp4(fields)
    steps.append(("hide_lead_in", rng.choice([512, 1000, 3000, 9000, 20000])))


def _late(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    """A start that is not at zero: an empty edit in an MP4, as it is in the others."""
    first = rng.choice([1, 7, 100, 1000, -1, -6])
    fields |= {"timestamps": [first + n for n in range(fields["frames"])], "time_base": None}
    fields["container_options"] = {"avoid_negative_ts": "disabled"}


def _interlaced(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    kind = rng.choice(["tff=1", "bff=1", "fake-interlaced=1"])
    fields |= {"codec": "libx264", "pix_fmt": "yuv420p", **x264(f"{kind}:keyint=20")}
    if fields["container"] in {"webm", "ivf", "obu", "hevc", "m4v"}:
        fields["container"] = "matroska"


def _refreshed(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields |= {"codec": "libx264", **x264("intra-refresh=1:keyint=15:bframes=0")}
    if fields["container"] in {"webm", "ivf", "obu", "hevc", "m4v"}:
        fields["container"] = "mp4"


def _second_video(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    fields["extra_video"] = rng.choice([(64, 64), (128, 96), (192, 112)])


def _dropped(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    numbers = rng.sample(range(1, fields["frames"]), rng.choice([1, 2, 5]))
    steps.append(("drop", rng.choice(["matroska", "mov"]), *numbers))


def _doubled(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    numbers = rng.sample(range(1, fields["frames"]), rng.choice([1, 2, 5]))
    steps.append(("double", "matroska", *numbers))


def _copied(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    steps.append(("copy", rng.choice(["matroska", "mov", "mp4", "mpegts", "avi"])))


def _wide(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    if fields["codec"] in {"libx264", "libx265", "libvpx-vp9", "libsvtav1"} and rng.random() < 0.3:
        fields |= _tagged(rng, wide=True)


def _mirrored(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    _mp4(fields)
    steps.append(("mirror", *rng.choice([(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])))


def _live(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    """Of unknown length."""
    if fields["container"] not in {"matroska", "webm"}:
        fields["container"] = "matroska"
    fields["container_options"] = {"live": "1"}


def _joined(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    """Two recordings, one behind the other, with the same clock."""
    codec = fields["codec"] if fields["codec"] in {"libx264", "libx265", "mpeg4"} else "libx264"
    if codec != fields["codec"]:
        fields.pop("options", None)
    fields |= {"codec": codec, "container": "mpegts", "audio": False, "container_options": {}}
    fields |= {"timestamps": None, "time_base": None, "aspect": None}
    steps.clear()
    steps.append(("join",))


def _sparse(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    """A picture every some seconds."""
    if fields["container"] in {"mp4", "mov", "matroska", "webm"}:
        times = [n * 900 + rng.randrange(100) for n in range(fields["frames"])]
        fields |= {"timestamps": times, "time_base": Fraction(1, 100)}


def _beheaded(rng: random.Random, fields: Options, steps: list[tuple[Any, ...]]) -> None:
    """Begins within a group."""
    if fields["container"] not in {"mpegts", "matroska"}:
        fields["container"] = "matroska"
        fields.pop("container_options", None)
    steps.clear()
    steps.append(("behead", fields["container"], rng.randrange(1, fields["frames"] // 2)))


_TWISTS: dict[str, Callable[[random.Random, Options, list[tuple[Any, ...]]], None]] = {
    "odd": _odd,
    "other codec": _other_codec,
    "other container": _other_container,
    "other format": _other_format,
    "full range": _full_range,
    "rotated": _rotated,
    "hidden": _hidden,
    "late": _late,
    "interlaced": _interlaced,
    "refreshed": _refreshed,
    "second video": _second_video,
    "dropped": _dropped,
    "doubled": _doubled,
    "copied": _copied,
    "wide": _wide,
    "mirrored": _mirrored,
    "live": _live,
    "joined": _joined,
    "sparse": _sparse,
    "beheaded": _beheaded,
}


def requests(seed: int, frames: int) -> Iterator[tuple[str, Options]]:
    """Sampling requests without end: a loader's name, or "pick" with the indices to read, and options."""
    rng = random.Random(f"requests {seed}")
    while True:
        some = sorted({rng.randrange(frames), *rng.sample(range(frames + 2), rng.choice([1, 3, 8, 30]))})
        yield rng.choice(
            [
                ("pick", {"indices": some}),
                ("pick", {"indices": [rng.randrange(frames)]}),
                ("opencv", {"num_frames": rng.choice([1, 2, 5, 16, -1])}),
                ("opencv", {"fps": rng.choice([1, 2, 5])}),
                ("opencv", {"num_frames": 7, "frame_recovery": True}),
                ("opencv_dynamic", {"fps": rng.choice([1, 2, 3.5])}),
                ("opencv_dynamic", {"fps": 4, "max_duration": 1}),
                ("molmo2", {"frame_sample_mode": "uniform_last_frame", "num_frames": rng.choice([3, 9])}),
                ("molmo2", {"frame_sample_mode": "fps", "num_frames": 8}),
            ]
        )  # fmt: skip
