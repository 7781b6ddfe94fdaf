"""Whether a file is a video or a sound, by its tables."""

import struct
from typing import Literal

from mmmedia.containers.signatures import by_magic
from mmmedia.errors import MediaError
from mmmedia.sources import Window
from mmmedia.video.piecewise import boxes, fragments, matroska, mp4
from mmmedia.video.piecewise.layout import CannotTellError


def kind_by_tables(window: Window) -> Literal["video", "audio"] | None:
    """Return what a file is, where its tables leave no doubt; `None` where all of it has to tell.

    Raises:
        MediaError: as of `Source.read`.
    """
    try:
        name = by_magic(window.head(0, 4096))
        if name == "mov":
            return _of_tracks(mp4.top(window).movie)
        if name == "matroska":
            matroska.opened(window)  # one track of pictures, or an error
            return "video"
    except CannotTellError:
        return None
    except MediaError:
        raise
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError):
        return None  # damaged
    return None


def _of_tracks(movie: bytes) -> Literal["video", "audio"] | None:
    tracks = [body for name, body in boxes.children(movie) if name == b"trak"]
    handlers = [(boxes.find(body, b"mdia", b"hdlr") or b"")[8:12] for body in tracks]
    chapters = {number for body in tracks for number in _chapters(body)}
    pictures = [body for body, each in zip(tracks, handlers, strict=True) if each == b"vide"]
    if not pictures:
        return "audio" if b"soun" in handlers else None
    # Pictures of chapters are no video.
    return "video" if len(pictures) == 1 and fragments.number(pictures[0]) not in chapters else None


def _chapters(track: bytes) -> tuple[int, ...]:
    """The numbers of the tracks that hold another's chapters."""
    found = boxes.find(track, b"tref", b"chap") or b""
    return struct.unpack(f">{len(found) // 4}I", found[: len(found) // 4 * 4])
