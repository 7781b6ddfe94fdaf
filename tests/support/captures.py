"""Stand-ins for `cv2.VideoCapture`, and the plain way to read through the real one."""

import io
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np


class ScriptedCapture:
    """A capture with no more than the loaders need; the frames listed fail to be grabbed or retrieved.

    Frame i is BGR of (i, i + 1, i + 2), so that what was read shows in the pixels, and the channels' order.
    """

    def __init__(
        self,
        total: int,
        *,
        fps: float = 10.0,
        grab_fails: Collection[int] = (),
        retrieve_fails: Collection[int] = (),
        size: tuple[int, int] = (4, 6),
        opened: bool = True,
        frames: int | None = None,
    ) -> None:
        self.properties = {
            cv2.CAP_PROP_FRAME_COUNT: float(total),
            cv2.CAP_PROP_FPS: fps,
            cv2.CAP_PROP_FRAME_HEIGHT: float(size[0]),
            cv2.CAP_PROP_FRAME_WIDTH: float(size[1]),
        }
        self.size, self.opened = size, opened
        self.frames = total if frames is None else frames
        self.grab_fails, self.retrieve_fails = set(grab_fails), set(retrieve_fails)
        self.grabs = 0
        self.retrieved: list[int] = []

    def isOpened(self) -> bool:
        return self.opened

    def get(self, prop: int) -> float:
        return self.properties.get(prop, 0.0)

    def grab(self) -> bool:
        index = self.grabs
        self.grabs += 1
        return index < self.frames and index not in self.grab_fails

    def retrieve(self) -> tuple[bool, Any]:
        index = self.grabs - 1
        if index in self.retrieve_fails:
            return False, None
        self.retrieved.append(index)
        return True, np.full((*self.size, 3), (index % 250, index % 250 + 1, index % 250 + 2), np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    """Which frames of a `ScriptedCapture` these are, having checked that they are RGB through and through."""
    for frame in frames:
        assert (frame == frame[0, 0]).all()
        assert (np.diff(frame[0, 0].astype(int)) == -1).all()
    return [int(frame[0, 0, 2]) for frame in frames]


def read_plainly(data: bytes, wanted: Collection[int]) -> tuple[np.ndarray, dict[str, Any]]:
    """Grab frame after frame with OpenCV, keep those wanted, BGR to RGB; and what OpenCV says of the file.

    The capture is dropped, not released: `release` crashes on a capture that reads from memory.
    """
    capture = cv2.VideoCapture(io.BytesIO(data), cv2.CAP_FFMPEG, [])
    total, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    frames = []
    for index in range(max(wanted) + 1):
        if capture.grab() and index in wanted:
            ok, image = capture.retrieve()
            if ok:
                frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    said = {"total_num_frames": total, "fps": fps, "duration": total / fps if fps > 0 else 0.0}
    return np.stack(frames), said
