"""What a processor of transformers does with a video by itself, without torchcodec: all is decoded first.

Needs torch and transformers.
"""

from pathlib import Path

import pytest
import torch
import transformers
from transformers.video_utils import VideoMetadata

from mmmedia.video import OpenCVVideoBackend


def decode_all(processor, video, sample_indices_fn=None):
    """Stands in for the method `fetch_videos` of processors."""
    if isinstance(video, list):
        return list(zip(*(decode_all(processor, each, sample_indices_fn) for each in video), strict=True))
    data = Path(video).read_bytes()
    frames, facts = OpenCVVideoBackend.load_bytes(data, num_frames=-1, decode="sequential")
    _, height, width, _ = frames.shape
    names = ("total_num_frames", "fps", "duration")
    metadata = VideoMetadata(**{name: facts[name] for name in names}, height=height, width=width)
    numbers = sample_indices_fn(metadata=metadata) if sample_indices_fn else range(len(frames))
    metadata.frames_indices = [int(number) for number in numbers]
    return torch.from_numpy(frames[metadata.frames_indices]).permute(0, 3, 1, 2).contiguous(), metadata


def use_for(processor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a video processor decode that way, where there is no torchcodec."""
    if not transformers.utils.is_torchcodec_available():
        monkeypatch.setattr(type(processor), "fetch_videos", decode_all)
