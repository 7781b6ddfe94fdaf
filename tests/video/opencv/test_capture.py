"""Captures: who opens them decides how many threads decode."""

import cv2
import pytest

from mmmedia.video.decoders import opencv
from support.clips import clip


@pytest.mark.parametrize("workers", [1, 3])
def test_for_throughput_a_capture_has_as_many_threads_as_there_are_workers(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for each processor is OpenCV's own way, which is for who has the machine alone."""
    data = clip(frames=4)
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_WORKERS", str(workers))
    alone = opencv.open_capture(data).get(cv2.CAP_PROP_N_THREADS)
    assert alone == cv2.getNumberOfCPUs()
    monkeypatch.setenv("MMMEDIA_VIDEO_DECODE_FOR", "throughput")
    assert opencv.open_capture(data).get(cv2.CAP_PROP_N_THREADS) == workers
    assert opencv.open_capture(data, threads=2).get(cv2.CAP_PROP_N_THREADS) == 2
