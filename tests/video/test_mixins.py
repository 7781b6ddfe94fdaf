"""The steps of decoding by vLLM's names."""

import io

import av
import cv2
import numpy as np
import pytest

from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.video import OpenCVVideoBackendMixin, PyAVVideoBackendMixin, VideoLoader, VideoSourceMetadata
from support.captures import ScriptedCapture, numbers
from support.clips import clip, read_number


class Mine(VideoLoader, OpenCVVideoBackendMixin, PyAVVideoBackendMixin):
    """As loaders of vLLM 0.20 are written."""

    @classmethod
    def load_bytes(cls, data: bytes, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        raise NotImplementedError


class Other(OpenCVVideoBackendMixin, VideoLoader):
    """The other way around."""

    load_bytes = Mine.load_bytes


@pytest.mark.parametrize("loader", [Mine, Other])
def test_a_video_step_by_step(loader: type[Mine]) -> None:
    data = clip()
    capture = loader.open_video_capture(data)
    assert loader.get_cv2_video_api() == cv2.CAP_FFMPEG
    assert loader.get_video_metadata(capture) == VideoSourceMetadata(60, 25.0, 2.4)
    frames, valid = loader.read_frames(capture, [7, 3, 7], 60)
    assert [read_number(frame) for frame in frames] == valid == [3, 7]


def test_frames_are_counted() -> None:
    """Of bytes, by their packets, whatever the header claims; a capture says what the header does."""
    data = clip(container="matroska", frames=50)
    assert OpenCVVideoBackendMixin.demux_count_frames(data) == 50
    assert OpenCVVideoBackendMixin.get_video_metadata(data).total_frames_num == 50
    with pytest.raises(InvalidMediaError):
        OpenCVVideoBackendMixin.demux_count_frames(b"no video")


def test_reading_with_recovery_and_without() -> None:
    frames, valid = Mine.read_frames(ScriptedCapture(20, grab_fails={4}), [0, 4, 9], 20, frame_recovery=True)
    assert numbers(frames) == valid == [0, 5, 9]
    frames, valid = Mine._read_frames_no_recovery(ScriptedCapture(20, grab_fails={4}), {0, 4, 9}, 9)
    assert numbers(frames) == valid == [0, 9]
    frames, valid = Mine.read_frames(ScriptedCapture(20), [], 20)
    assert len(frames) == len(valid) == 0


def test_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(io.BytesIO(clip())) as container:
        assert PyAVVideoBackendMixin.get_metadata(container) == VideoSourceMetadata(60, 25.0, 2.4)
        frames, valid = PyAVVideoBackendMixin.decode_frames(container, [9, 2, 99], 25.0, 2.4)
        assert [read_number(frame) for frame in frames] == valid == [2, 9]
    with av.open(io.BytesIO(clip(container="matroska"))) as container:
        assert PyAVVideoBackendMixin.get_metadata(container) == VideoSourceMetadata(60, 25.0, 2.4)
        frames, valid = PyAVVideoBackendMixin.decode_frames(container, [], 25.0, 2.4)
        assert (frames.shape, frames.dtype, valid) == ((0, 0, 0, 3), np.uint8, [])
    monkeypatch.setenv("VLLM_MAX_IMAGE_PIXELS", "100")
    with av.open(io.BytesIO(clip())) as container, pytest.raises(LimitExceededError):
        PyAVVideoBackendMixin.decode_frames(container, [0], 25.0, 2.4)
