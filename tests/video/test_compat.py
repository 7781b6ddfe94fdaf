"""`MMMEDIA_COMPAT=0.20`: what vLLM 0.20 gives, byte for byte: the header's claims, and every grab a frame."""

from typing import Any

import cv2
import numpy as np
import pytest

from mmmedia import containers
from mmmedia.errors import MediaError
from mmmedia.video import (
    Molmo2VideoBackend,
    OpenCVDynamicVideoBackend,
    OpenCVVideoBackend,
    VideoSourceMetadata,
    VideoTargetMetadata,
)
from mmmedia.video.decoders.opencv.capture import open_capture
from support import corpus
from support.clips import clip
from support.corpus import COMMON_CONTAINERS, FURTHER_CONTAINERS, SHAPES
from support.kinds import KINDS, SIZE

REQUESTS: list[tuple[Any, dict[str, Any]]] = [
    (OpenCVVideoBackend, {"num_frames": 8}),
    (OpenCVVideoBackend, {"num_frames": -1}),
    (OpenCVVideoBackend, {"fps": 3}),
    (OpenCVDynamicVideoBackend, {"fps": 2}),
    (Molmo2VideoBackend, {"num_frames": 5, "frame_sample_mode": "uniform_last_frame"}),
]


def expected(data: bytes, loader: Any, options: dict[str, Any]) -> tuple[np.ndarray, dict[str, Any]] | None:
    """What plain OpenCV says and gives; None where that is no frame, or nothing to ask for."""
    capture = open_capture(containers.admit(data))
    total, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    duration = total / fps if fps > 0 else 0.0
    rate = options.get("fps", -1)
    target = VideoTargetMetadata(options.get("num_frames", -1), rate, options.get("max_duration", 300))
    chosen = {key: value for key, value in options.items() if key not in ("num_frames", "fps")}
    if loader is Molmo2VideoBackend:
        target = VideoTargetMetadata(options["num_frames"], 2, duration)
        chosen["max_fps"] = 2
    try:
        source = VideoSourceMetadata(total, fps, duration)
        wanted = loader.compute_frames_index_to_sample(source, target, **chosen)
    except (MediaError, ValueError):
        return None
    if not wanted or len(wanted) > 10_000:
        return None
    frames, valid = [], []
    for index in range(max(wanted) + 1):
        if capture.grab() and index in set(wanted):
            ok, picture = capture.retrieve()
            if ok:
                frames.append(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                valid.append(index)
    said = {"total_num_frames": total, "fps": fps, "duration": duration, "frames_indices": valid}
    return (np.stack(frames), said) if frames else None


def check(data: bytes) -> int:
    """Compare all requests; return how many gave frames."""
    compared = 0
    for loader, options in REQUESTS:
        found = expected(data, loader, options)
        if found is None:
            with pytest.raises((MediaError, ValueError)):
                loader.load_bytes(data, **options)
            continue
        frames, metadata = loader.load_bytes(data, **options)
        assert {key: metadata[key] for key in found[1]} == found[1], (loader, options)
        assert np.array_equal(frames, found[0]), (loader, options)
        compared += 1
    return compared


@pytest.fixture(autouse=True)
def compat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMMEDIA_COMPAT", "0.20")


STREAMS = [
    (codec, container, shape)
    for codec, kinds in {**COMMON_CONTAINERS, "libvpx": ["webm", "avi"], "mjpeg": ["avi"]}.items()
    for number, shape in enumerate(SHAPES[codec])
    for container in (kinds + FURTHER_CONTAINERS[codec] if number == 0 else kinds[:1])
    if container not in ("h264", "hevc", "m4v", "obu")  # of those nothing is claimed
]


@pytest.mark.parametrize(("codec", "container", "shape"), STREAMS, ids=str)
def test_every_stream(codec: str, container: str, shape: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"codec": codec, "container": container, "frames": 50, **SIZE, **shape}
    if codec == "mjpeg":
        fields["pix_fmt"] = "yuvj420p"
    assert check(clip(**fields)) >= 3


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(name: str) -> None:
    """Of what people send, too, however wrong that is."""
    if "interlaced" in name or "fields" in name:
        pytest.skip("OpenCV hands out memory as it found it")
    if name == "slides with a voice":
        pytest.skip("where OpenCV gives no frame PyAV answered in the first release, too")
    data = KINDS[name].make()
    if name in ("animated png", "animated webp"):
        with pytest.raises(MediaError, match="refused"):
            OpenCVVideoBackend.load_bytes(data)
        return
    check(data)


@pytest.mark.parametrize("kind", ["flip", "zeros", "cut", "swap"])
def test_what_is_damaged(kind: str) -> None:
    for seed in range(4):
        data = corpus.damage(clip(codec="libvpx-vp9", container="webm", frames=50, **SIZE), kind, seed)
        try:
            open_capture(data)
        except MediaError:
            with pytest.raises(MediaError):
                OpenCVVideoBackend.load_bytes(data, num_frames=8)
            continue
        check(data)
