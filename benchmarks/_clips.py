"""The clips of the video benchmark, encoded once into `benchmarks/.clips` and kept."""

import io
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
    "h264_480p_2s.mp4": ("libx264", 854, 480, 2, 15, 60, {"preset": "veryfast", "crf": "26", "bf": "3"}),
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
}


def clip(name: str) -> bytes:
    """Return a clip's bytes, encoding it first if need be."""
    path = FOLDER / name
    if not path.exists():
        FOLDER.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        _encode(part, *CLIPS[name])
        part.rename(path)
    return path.read_bytes()


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
    path: Path, codec: str, width: int, height: int, seconds: int, rate: int, gop: int, options: dict
) -> None:
    """A camera that pans over a textured scene, a disc that crosses it, a cut every 20 s."""
    container = "webm" if codec.startswith("libvpx") else "mp4"
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate)
        stream.options = options
        scene = np.empty(0)
        for number in range(seconds * rate):
            if number % (20 * rate) == 0:
                scene = _scene(width, height, number)
            phase = number % (20 * rate)
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
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _scene(width: int, height: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    planes = []
    for scale, low, high in ((1, 30, 220), (2, 90, 166), (2, 90, 166)):
        w, h = (width + 512) // scale, (height + 256) // scale
        small = rng.integers(low, high, (h // 32 + 2, w // 32 + 2)).astype(np.float32)
        fine = rng.integers(-12, 13, (h // 4 + 1, w // 4 + 1)).repeat(4, 0).repeat(4, 1)[:h, :w]
        coarse = small.repeat(32, 0).repeat(32, 1)[:h, :w]
        planes.append(np.clip(coarse + fine, 0, 255).astype(np.uint8))
    return planes
