"""Operations on arrays of frames."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mmmedia.video import rescale_video_size, resize_video, sample_frames_from_video


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


class TestResize:
    @pytest.mark.parametrize("size", [(8, 12), (3, 5), (16, 24), (20, 7), (1, 1)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16])
    def test_each_frame_is_opencvs(self, size: tuple[int, int], dtype: type) -> None:
        """Every frame is what OpenCV's bilinear resizing makes of it; the size is (height, width)."""
        frames = noise(3, 16, 24, 3, dtype=dtype)
        resized = resize_video(frames, size)
        assert resized.shape == (3, *size, 3)
        assert resized.dtype == dtype
        for before, after in zip(frames, resized, strict=True):
            assert (after == cv2.resize(before, (size[1], size[0]))).all()

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    def test_channels_stay(self, channels: int) -> None:
        """An axis of one channel is kept as well."""
        assert resize_video(noise(2, 8, 8, channels), (4, 6)).shape == (2, 4, 6, channels)

    def test_result_is_new(self) -> None:
        """Even for the same size the frames that came are not touched nor handed back."""
        frames = noise(2, 8, 8, 3)
        resized = resize_video(frames, (8, 8))
        assert (resized == frames).all()
        resized[:] = 0
        assert frames.any()

    def test_no_frames(self) -> None:
        """An empty video stays empty, in the new size."""
        assert resize_video(noise(0, 8, 8, 3), (4, 6)).shape == (0, 4, 6, 3)

    @pytest.mark.parametrize("size", [(0, 4), (4, 0), (-1, 4)])
    def test_impossible_size(self, size: tuple[int, int]) -> None:
        """A size without pixels is a ValueError that gives it."""
        with pytest.raises(ValueError, match=f"{size[0]} x {size[1]}"):
            resize_video(noise(1, 8, 8, 3), size)


class TestRescale:
    @pytest.mark.parametrize(
        ("factor", "size"), [(0.5, (5, 8)), (2, (20, 34)), (1.0, (10, 17)), (0.99, (9, 16)), (0.1, (1, 1))]
    )
    def test_sizes_are_truncated(self, factor: float, size: tuple[int, int]) -> None:
        """Height and width times the factor, truncated; the pixels are those of `resize_video`."""
        frames = noise(2, 10, 17, 3)
        scaled = rescale_video_size(frames, factor)
        assert scaled.shape == (2, *size, 3)
        assert (scaled == resize_video(frames, size)).all()

    @pytest.mark.parametrize("factor", [0, 0.01, -1])
    def test_nothing_left(self, factor: float) -> None:
        """A factor that leaves no pixels is a ValueError."""
        with pytest.raises(ValueError, match="can't be resized"):
            rescale_video_size(noise(1, 10, 17, 3), factor)


class TestSample:
    def test_all(self) -> None:
        """-1 is every frame."""
        frames = noise(7, 4, 4, 3)
        assert (sample_frames_from_video(frames, -1) == frames).all()

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 50), st.integers(1, 60))
    def test_evenly_from_first_to_last(self, total: int, count: int) -> None:
        """As many as asked for, the first and the last among them, truncated between."""
        frames = np.arange(total).reshape(total, 1, 1, 1)
        got = sample_frames_from_video(frames, count).ravel().tolist()
        assert got == np.linspace(0, total - 1, count, dtype=int).tolist()
        assert len(got) == count
        assert got[0] == 0
        assert count == 1 or got[-1] == total - 1

    def test_none(self) -> None:
        """None asked for, none returned."""
        assert sample_frames_from_video(noise(5, 4, 4, 3), 0).shape == (0, 4, 4, 3)

    def test_bad_count(self) -> None:
        """Another negative number is a ValueError."""
        with pytest.raises(ValueError, match="num_frames=-2"):
            sample_frames_from_video(noise(5, 4, 4, 3), -2)

    @pytest.mark.parametrize("count", [1, 3])
    def test_from_no_frames(self, count: int) -> None:
        """There is nothing to sample from an empty video: a ValueError, not an IndexError."""
        with pytest.raises(ValueError, match="none to sample"):
            sample_frames_from_video(noise(0, 4, 4, 3), count)
