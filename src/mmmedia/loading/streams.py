"""Files with several streams of pictures: the best of them, or the one that is asked for."""

import contextlib
import io
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmedia import containers
from mmmedia.containers import boxes
from mmmedia.errors import InvalidArgumentError, InvalidMediaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.video.stream import VideoStream


def only_stream(data: bytes | Path, stream: int | None) -> bytes | Path:
    """Return a file whose first stream of pictures is the one wanted: the file itself, where it is that.

    Args:
        data: an encoded video, or the path of one, of which only the head is read where that will do.
        stream: the number of a stream of pictures, of 0 and up, covers not counted; None: the one that
            players choose, which FFmpeg calls the best.

    Raises:
        InvalidMediaError: (a `ValueError`) it can't be read, or not be taken out.
        InvalidArgumentError: (a `ValueError`) there is no such stream.
    """
    with _as_buffer(data) as buffer:
        if stream is None and not _may_hold_several(buffer):
            return data
    try:
        with opened(data) as container:
            wanted = _wanted(container, stream)
            if wanted is None or wanted.index == containers.video_stream(container).index:
                return data
            return _taken_out(container, wanted)
    except InvalidMediaError:
        if stream is None:
            return data  # also animated pictures; who reads it says what is wrong
        raise


@contextlib.contextmanager
def opened(data: bytes | Path) -> "Iterator[InputContainer]":
    """Give a file as FFmpeg opens it, held as in `containers.open_av`; a path is not read as a whole.

    Raises:
        InvalidMediaError: (a `ValueError`) it is no media file.
    """
    if not isinstance(data, Path):
        with containers.open_av(data) as container:
            yield container
        return
    import av

    with data.open("rb") as file:
        containers.identify(file.read(_HEAD))
        file.seek(0)
        try:
            container = av.open(file, "r", options=dict(containers.AV_OPTIONS), metadata_errors="replace")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise InvalidMediaError(f"Could not open the container: {error}.") from error
        with container:
            yield container


_HEAD = 1 << 16


def _wanted(container: "InputContainer", stream: int | None) -> "VideoStream | None":
    """Return the stream that is wanted; None where there is no choice."""
    streams = [each for each in container.streams.video if not _is_cover(each)]
    if stream is not None:
        return _numbered(streams, stream)
    if len(streams) < 2:
        return None
    best = container.streams.best("video")
    return next((each for each in streams if best is not None and each.index == best.index), streams[0])


@contextlib.contextmanager
def _as_buffer(data: bytes | Path) -> "Iterator[containers.Buffer]":
    """Give the bytes of a file, of which those at a path are read where they are looked at."""
    if not isinstance(data, Path):
        yield data
        return
    with data.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            yield view


def _numbered(streams: "list[VideoStream]", stream: Any) -> "VideoStream":
    if isinstance(stream, bool) or not isinstance(stream, int) or not 0 <= stream < len(streams):
        count = f"{len(streams)} streams" if len(streams) != 1 else "one stream"
        raise InvalidArgumentError(
            f"stream={stream!r:.32}: the file has {count} of pictures, numbered from 0."
        )
    return streams[stream]


def _is_cover(stream: "VideoStream") -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _may_hold_several(data: containers.Buffer) -> bool:
    """Say whether it is worth while to open a file to see: of most MP4s the boxes tell that it is not."""
    try:
        if containers.identify(data[:_HEAD]) != "mov":
            return True
    except InvalidMediaError:
        return False
    inside = [begin_end for name, begin_end in boxes(data, 0, len(data)) if name == b"moov"]
    tracks = 0
    for begin, end in inside:
        for name, (start, stop) in boxes(data, begin, min(end, len(data))):
            tracks += name == b"trak" and b"vide" in bytes(data[start : min(stop, start + 4096)])
    return tracks != 1


def _taken_out(container: "InputContainer", stream: "VideoStream") -> bytes:
    """Copy the packets of one stream into a file of their own, with their times."""
    import av

    names = container.format.name.split(",")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4" if "mov" in names else "matroska") as out:
            copy = out.add_stream_from_template(stream, opaque=True)
            for packet in container.demux(stream):
                if packet.dts is None and packet.pts is None:
                    continue
                packet.stream = copy
                out.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise InvalidMediaError(f"stream: it can't be taken out of the file: {error}.") from error
    return file.getvalue()
