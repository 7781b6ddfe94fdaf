"""Real clips, made by real encoders: every frame shows its own number."""

import contextlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

BLOCK = 8
BITS = 12


def picture(number: int, width: int, height: int, seed: int = 0) -> np.ndarray:
    """An RGB picture: drifting texture, a moving disc, grain, and the number as black and white blocks."""
    texture, yy, xx = _scenery(width, height, seed)
    image = np.roll(texture, (-int(number * 0.7) % height, -int(number * 1.3) % width), (0, 1)).copy()
    cx = width / 2 + width / 3 * np.cos(number / 11 + seed)
    cy = height / 2 + height / 4 * np.sin(number / 7)
    image[(xx - cx) ** 2 + (yy - cy) ** 2 < (height / 6) ** 2] = (250, 60 + number * 5 % 180, 40)
    grain = np.random.default_rng(number).integers(-4, 5, (height, width, 1), dtype=np.int16)
    image = np.clip(image.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    for bit in range(min(BITS, width // BLOCK)):
        image[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return image


@lru_cache(maxsize=8)
def _scenery(width: int, height: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    texture = rng.integers(30, 220, (height // 8 + 2, width // 8 + 2, 3)).astype(np.uint8)
    yy, xx = np.mgrid[0:height, 0:width]
    return texture.repeat(16, 0).repeat(16, 1)[:height, :width], yy, xx


def read_number(image: np.ndarray) -> int:
    """The number that a decoded, unrotated RGB frame shows."""
    value = 0
    for bit in range(min(BITS, image.shape[1] // BLOCK)):
        block = image[2 : BLOCK - 2, bit * BLOCK + 2 : (bit + 1) * BLOCK - 2]
        value |= int(block.mean() > 127) << bit
    return value


@dataclass(frozen=True)
class Clip:
    """What to encode; `clip(**fields)` encodes it and keeps the bytes."""

    codec: str = "libx264"
    container: str = "mp4"
    frames: int = 60
    width: int = 128
    height: int = 96
    rate: Fraction | int = 25
    gop: int = 20
    bframes: int | None = None
    pix_fmt: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    container_options: Mapping[str, str] = field(default_factory=dict)
    timestamps: Sequence[int] | None = None
    time_base: Fraction | None = None
    colorspace: Colorspace | None = None
    color_range: ColorRange | None = None
    primaries: int | None = None
    transfer: int | None = None
    siting: str | None = None
    aspect: Fraction | None = None
    audio: bool = False
    sound_seconds: float | None = None
    extra_video: tuple[int, int] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Leave the thread as it was: opened by root, SVT-AV1 gives it and all that it starts real-time priority.

    Whatever else runs on the machine would stand still while it computes.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def encode(spec: Clip) -> bytes:
    """Encode a clip in memory."""
    buffer = io.BytesIO()
    with (
        usual_priority(),
        av.open(buffer, "w", format=spec.container, options=dict(spec.container_options)) as out,
    ):
        out.metadata.update(spec.metadata)
        streams = [_video_stream(out, spec, spec.width, spec.height)]
        if spec.extra_video:
            streams.append(_video_stream(out, spec, *spec.extra_video))
        sound = (
            out.add_stream("libopus" if spec.container == "webm" else "aac", rate=48000)
            if spec.audio
            else None
        )
        for number in range(spec.frames):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(
                    picture(number, stream.width, stream.height, spec.seed), format="rgb24"
                ).reformat(
                    format=spec.pix_fmt, dst_colorspace=spec.colorspace, dst_color_range=spec.color_range
                )
                if spec.colorspace is not None:
                    frame.colorspace = spec.colorspace
                if spec.color_range is not None:
                    frame.color_range = spec.color_range
                if spec.primaries is not None:
                    frame.color_primaries, frame.color_trc = spec.primaries, spec.transfer
                frame.pts = spec.timestamps[number] if spec.timestamps is not None else number
                frame.time_base = stream.codec_context.time_base
                out.mux(stream.encode(frame))
        if sound is not None:
            for frame in _tone(spec.sound_seconds or spec.frames / float(spec.rate)):
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        for stream in streams:
            out.mux(stream.encode(None))
    return buffer.getvalue()


def _video_stream(out: av.container.OutputContainer, spec: Clip, width: int, height: int) -> av.VideoStream:
    stream = out.add_stream(spec.codec, rate=spec.rate)
    stream.width, stream.height, stream.pix_fmt = width, height, spec.pix_fmt
    context = stream.codec_context
    context.time_base = spec.time_base or 1 / Fraction(spec.rate)
    context.gop_size = spec.gop
    context.thread_count = 1
    if spec.bframes is not None:
        context.max_b_frames = spec.bframes
    if spec.colorspace is not None:
        context.colorspace = spec.colorspace
    if spec.color_range is not None:
        context.color_range = spec.color_range
    if spec.primaries is not None:
        context.color_primaries, context.color_trc = spec.primaries, spec.transfer
    if spec.aspect is not None:
        context.sample_aspect_ratio = spec.aspect
    sited = {} if spec.siting is None else {"chroma_sample_location": spec.siting}
    stream.options = {**_FAST.get(spec.codec, {}), **sited, **spec.options}
    return stream


_FAST = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}


def _tone(seconds: float) -> Iterator[av.AudioFrame]:
    rate, size = 48000, 960
    for start in range(0, int(seconds * rate), size):
        samples = np.sin(2 * np.pi * 440 * np.arange(start, start + size) / rate).astype(np.float32) * 0.3
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, start
        yield frame


_made: dict[str, bytes] = {}


def clip(**fields: object) -> bytes:
    """Encode `Clip(**fields)` once a process."""
    key = repr(sorted((name, str(value)) for name, value in fields.items()))
    if key not in _made:
        _made[key] = encode(Clip(**fields))
    return _made[key]


def two_streams(container: str, default: int) -> bytes:
    """A small stream and a larger one, of which one is marked as the one to show."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        streams = []
        for number, (width, height) in enumerate([(64, 48), (128, 96)]):
            stream = out.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append(stream)
        for number in range(12):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(
                    picture(number, stream.width, stream.height), format="rgb24"
                )
                frame.pts, frame.time_base = number, Fraction(1, 25)
                out.mux(stream.encode(frame))
        for stream in streams:
            out.mux(stream.encode(None))
    return file.getvalue()
