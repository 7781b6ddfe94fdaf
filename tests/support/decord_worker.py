"""What decord itself says of clips, in a process of its own: its FFmpeg does not go with another beside it.

``python decord_worker.py OUT.npz CLIP…`` writes the answer to each of `WAYS` and `FACTS`, by clip and name.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WAYS: dict[str, Callable[[Any], Any]] = {
    "a batch in order": lambda video: video.get_batch(range(0, 40, 3)),
    "a batch in any order": lambda video: video.get_batch([31, 2, 2, -1, 17]),
    "one after the other": lambda video: [video[number] for number in range(40)],
    "a slice": lambda video: video[5:30:4],
    "sought, then on": lambda video: list(_sought(video)),
}
FACTS: dict[str, Callable[[Any], Any]] = {
    "frames": len,
    "rate": lambda video: video.get_avg_fps(),
    "key frames": lambda video: video.get_key_indices(),
    "times": lambda video: video.get_frame_timestamp(range(len(video))),
    "times of one": lambda video: video.get_frame_timestamp(7),
}


def _sought(video: Any) -> Any:
    video.seek(0)
    yield video.next()
    video.seek_accurate(13)
    yield video.next()
    video.skip_frames(4)
    yield video.next()
    yield video[3]


def plain(answer: Any) -> np.ndarray:
    """An answer as an array of NumPy."""
    if isinstance(answer, list) and answer and hasattr(answer[0], "asnumpy"):
        return np.stack([each.asnumpy() for each in answer])
    return np.asarray(answer.asnumpy() if hasattr(answer, "asnumpy") else answer)


if __name__ == "__main__":
    decord = importlib.import_module("decord")
    answers = {
        f"{Path(path).stem} {name}": plain(ask(decord.VideoReader(path, decord.cpu(0))))
        for path in sys.argv[2:]
        for name, ask in {**WAYS, **FACTS}.items()
    }
    np.savez(sys.argv[1], **answers)
