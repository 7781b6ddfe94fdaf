"""The clips of the video benchmark, encoded once into `benchmarks/.clips` and kept."""

import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FOLDER = Path(__file__).parent / ".clips"

# name: codec, width, height, seconds, rate, group of pictures, options
CLIPS = {
    "h264_720p_600s.mp4": (
        "libx264",
        1280,
        720,
        600,
        30,
        250,
        {"preset": "veryfast", "crf": "27", "bf": "3"},
    ),
    "h264_720p_1200s.mp4": (
        "libx264",
        1280,
        720,
        1200,
        30,
        250,
        {"preset": "veryfast", "crf": "27", "bf": "3"},
    ),
    "h264_720p_60s.mp4": (
        "libx264",
        1280,
        720,
        60,
        30,
        250,
        {"preset": "veryfast", "crf": "27", "bf": "3"},
    ),
    "h264_720p_60s_rich.mp4": (
        "libx264",
        1280,
        720,
        60,
        30,
        250,
        {"preset": "veryfast", "crf": "7", "bf": "3"},
    ),
    "h264_720p_60s_film.mp4": ("libx264", 1280, 720, 60, 30, 250, {}),  # x264's own defaults
    "h264_1080p_60s.mp4": (
        "libx264",
        1920,
        1080,
        60,
        30,
        250,
        {"preset": "veryfast", "crf": "26", "bf": "3"},
    ),
    "h264_480p_30s.mp4": ("libx264", 854, 480, 30, 30, 60, {"preset": "veryfast", "crf": "26", "bf": "3"}),
    "hevc_720p_60s.mp4": (
        "libx265",
        1280,
        720,
        60,
        30,
        120,
        {"preset": "ultrafast", "x265-params": "log-level=none"},
    ),
    "vp9_720p_60s.webm": ("libvpx-vp9", 1280, 720, 60, 30, 128, {"deadline": "realtime", "cpu-used": "8"}),
    "av1_720p_60s.mp4": ("libsvtav1", 1280, 720, 60, 30, 128, {"preset": "9", "crf": "40"}),
    "mpeg4_720p_60s.mp4": ("mpeg4", 1280, 720, 60, 30, 60, {"qscale": "6", "bf": "2"}),
    "vp8_720p_60s.webm": (
        "libvpx",
        1280,
        720,
        60,
        30,
        128,
        {"deadline": "realtime", "cpu-used": "8", "b": "3M"},
    ),
    # A key frame every two seconds, as live streams have them; the one above has libvpx's own distance.
    "vp8_720p_60s_live.webm": (
        "libvpx",
        1280,
        720,
        60,
        30,
        60,
        {"deadline": "realtime", "cpu-used": "8", "b": "3M"},
    ),
    "mjpeg_720p_60s.avi": ("mjpeg", 1280, 720, 60, 30, 1, {"qscale": "6"}),
    **{
        f"{name}_{height}p_2s.{suffix}": (codec, width, height, 2, 30, 60, options)
        for height, width in ((240, 426), (480, 854))
        for name, suffix, codec, options in (
            ("h264", "mp4", "libx264", {}),
            ("h264", "mkv", "libx264", {}),
            ("hevc", "mp4", "libx265", {"x265-params": "log-level=none"}),
            ("vp8", "webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}),
            ("vp9", "webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
            ("av1", "mp4", "libsvtav1", {"preset": "9", "crf": "40"}),
            ("mpeg4", "avi", "mpeg4", {"qscale": "6", "bf": "0"}),
        )
    },
    "prores_720p_60s.mov": ("prores_ks", 1280, 720, 60, 30, 1, {"profile": "0"}),
}

# name: of which clip it is a copy, and the container
COPIES = {
    "h264_720p_75s.ts": (("h264_720p_600s.mp4", 75), "mpegts"),
    "mpeg4_720p_60s.avi": (("mpeg4_720p_60s.mp4", 0), "avi"),
}
PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}
CONTAINERS = {".webm": "webm", ".mkv": "matroska", ".avi": "avi", ".mov": "mov", ".mp4": "mp4"}


def clip(name: str) -> bytes:
    """Return a clip's bytes, encoding it first if need be."""
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        if name in COPIES:
            (source, seconds), container = COPIES[name]
            part.write_bytes(_copy(prefix(source, seconds) if seconds else clip(source), container))
        elif name.startswith("turned_"):
            part.write_bytes(_turned(clip(name.removeprefix("turned_"))))
        else:
            _encode(part, CONTAINERS[path.suffix], *CLIPS[name])
        part.rename(path)
    return path.read_bytes()


def _copy(data: bytes, container: str) -> bytes:
    """The video in another container, not encoded anew."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as whole, av.open(buffer, "w", format=container) as out:
        stream = out.add_stream_from_template(whole.streams.video[0], opaque=True)
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return buffer.getvalue()


def _turned(data: bytes) -> bytes:
    """An MP4 as a phone held upright writes it: its first track's matrix turns the picture."""
    at = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    return data[:at] + struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30) + data[at + 36 :]


def prefix(name: str, seconds: int) -> bytes:
    """Return the first `seconds` of a clip and what follows up to the next key frame, not encoded anew."""
    path = FOLDER / f"{Path(name).stem}_first_{seconds}s.mp4"
    if not path.exists():
        part = path.with_suffix(".part")
        with av.open(io.BytesIO(clip(name))) as whole, av.open(str(part), "w", format="mp4") as out:
            source = whole.streams.video[0]
            stream = out.add_stream_from_template(source)
            for packet in whole.demux(source):
                if packet.is_keyframe and packet.pts is not None and packet.pts * packet.time_base >= seconds:
                    break
                packet.stream = stream
                out.mux(packet)
        part.rename(path)
    return path.read_bytes()


def _encode(
    path: Path,
    container: str,
    codec: str,
    width: int,
    height: int,
    seconds: int,
    rate: int,
    gop: int,
    options: dict,
) -> None:
    """A camera that pans over a textured scene, a disc that crosses it, a cut every 20 s.

    In a film shots are as long as in films, 5 s on average, and one is lighter or darker than another; x264
    sees no cut between scenes that are the same in all but where their blocks are.
    """
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, PIXELS.get(codec, "yuv420p")
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate)
        stream.options = options
        cuts = _cuts(seconds, rate, is_film="film" in path.name)
        scene, begun = np.empty(0), 0
        for number in range(seconds * rate):
            if number in cuts:
                scene, begun = _scene(width, height, number, *cuts[number]), number
            phase = number - begun
            dx = 2 * int(120 + 119 * np.sin(phase / 90))
            dy = 2 * int(60 + 59 * np.cos(phase / 70))
            frame = av.VideoFrame(width, height, "yuv420p")
            planes = [scene[0][dy : dy + height, dx : dx + width].copy()]
            planes += [c[dy // 2 : dy // 2 + height // 2, dx // 2 : dx // 2 + width // 2] for c in scene[1:]]
            top, left = (
                int(height * (0.4 + 0.3 * np.sin(phase / 31))),
                int(width * (0.4 + 0.3 * np.cos(phase / 43))),
            )
            planes[0][top : top + height // 8, left : left + height // 8] = 220
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                rows[: values.shape[0], : values.shape[1]] = values
            if codec in PIXELS:
                frame = frame.reformat(format=PIXELS[codec])
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    os.sched_setscheduler(0, *usual)  # SVT-AV1, opened by root, gives the thread real-time priority


def _cuts(seconds: int, rate: int, *, is_film: bool) -> dict[int, tuple[int, int]]:
    """Return the frames at which scenes begin, with the darkest and the lightest of their greys."""
    if not is_film:
        return dict.fromkeys(range(0, seconds * rate, 20 * rate), (30, 220))
    rng = np.random.default_rng(1)
    cuts, at = {}, 0
    while at < seconds * rate:
        low = int(rng.integers(16, 140))
        cuts[at] = low, low + int(rng.integers(40, 100))
        at += int(rate * np.clip(rng.lognormal(np.log(4), 0.67), 0.5, 30))
    return cuts


def _scene(width: int, height: int, seed: int, darkest: int, lightest: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    planes = []
    for scale, low, high in ((1, darkest, lightest), (2, 90, 166), (2, 90, 166)):
        w, h = (width + 512) // scale, (height + 256) // scale
        small = rng.integers(low, high, (h // 32 + 2, w // 32 + 2)).astype(np.float32)
        fine = rng.integers(-12, 13, (h // 4 + 1, w // 4 + 1)).repeat(4, 0).repeat(4, 1)[:h, :w]
        coarse = small.repeat(32, 0).repeat(32, 1)[:h, :w]
        planes.append(np.clip(coarse + fine, 0, 255).astype(np.uint8))
    return planes
