"""How much the decoders say on stderr."""

import os

QUIET, PANIC, FATAL, ERROR, WARNING, INFO, VERBOSE, DEBUG, TRACE = -8, 0, 8, 16, 24, 32, 40, 48, 56


def set_level(level: int = ERROR) -> None:
    """Set FFmpeg's level of logging, of which decord has the same numbers, for OpenCV.

    OpenCV reads it when it opens its first video: later it changes nothing.
    """
    os.environ["OPENCV_FFMPEG_LOGLEVEL"] = str(int(level))
