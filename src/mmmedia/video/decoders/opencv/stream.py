"""Encoded bytes in memory, as OpenCV reads them."""

import io
from typing import Any

from mmmedia import containers
from mmmedia.video.decoders.opencv.lost_strings import LostString


def is_replaced() -> bool:
    """Whether somebody has put something else in the place of `cv2.VideoCapture`, as tests do."""
    import cv2

    capture: Any = cv2.VideoCapture
    return not isinstance(capture, type) or capture.__module__ != "cv2"


class Stream(io.BytesIO):
    """Encoded bytes for OpenCV, which cuts offsets to 32 bits and crashes where `seek` raises.

    OpenCV (4.14) also makes a new string of a method's name for every call and never lets go of it: reading
    7 MB loses 60 KB for ever. So each is let go of here, when the next call shows that it is not used again.
    """

    def __init__(self, data: containers.Buffer) -> None:
        super().__init__(data)
        # Whoever has put something in the place of OpenCV makes its strings itself.
        self._names = {} if is_replaced() else {"read": LostString(), "seek": LostString()}

    def __getattribute__(self, name: str) -> Any:
        if name == "read":
            method = "read"  # our own string: a class remembers those by which it was asked
        elif name == "seek":
            method = "seek"
        else:
            return super().__getattribute__(name)
        lost = super().__getattribute__("_names").get(method)
        if lost is not None:
            lost.replace_by(name)
        return super().__getattribute__(method)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset; one that does not exist is the end, as it is in a file."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0, io.SEEK_END)
