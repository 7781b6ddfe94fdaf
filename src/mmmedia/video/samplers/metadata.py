"""What samplers are told: what a source is, and what is asked for."""

from typing import NamedTuple


class VideoSourceMetadata(NamedTuple):
    """What a container says of its video: frames, frames a second, seconds."""

    total_frames_num: int
    original_fps: float
    duration: float


class VideoTargetMetadata(NamedTuple):
    """What is asked for: a number of frames, frames a second, and seconds; -1 stands for not given."""

    num_frames: int
    fps: float
    max_duration: float
