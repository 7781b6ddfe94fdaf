"""Files with several streams of pictures: the best of them, or the one that is asked for."""

import io
from typing import TYPE_CHECKING, Any

from mmmedia import containers
from mmmedia.containers import boxes
from mmmedia.errors import InvalidArgumentError, InvalidMediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def only_stream(data: bytes, stream: int | None) -> bytes:
    """Return a file whose first stream of pictures is the one wanted: the file itself, where it is that.

    Args:
        data: an encoded video.
        stream: the number of a stream of pictures, of 0 and up, covers not counted; None: the one that
            players choose, which FFmpeg calls the best.

    Raises:
        InvalidMediaError: (a `ValueError`) it can't be read, or not be taken out.
        InvalidArgumentError: (a `ValueError`) there is no such stream.
    """
    if stream is None and not _may_hold_several(data):
        return data
    try:
        with containers.open_av(data) as container:
            wanted = _wanted(container, stream)
            if wanted is None or wanted.index == containers.video_stream(container).index:
                return data
            return _taken_out(container, wanted)
    except InvalidMediaError:
        if stream is None:
            return data  # also animated pictures; who reads it says what is wrong
        raise


def _wanted(container: "InputContainer", stream: int | None) -> "VideoStream | None":
    """Return the stream that is wanted; None where there is no choice."""
    streams = [each for each in container.streams.video if not _is_cover(each)]
    if stream is not None:
        return _numbered(streams, stream)
    if len(streams) < 2:
        return None
    best = container.streams.best("video")
    return next((each for each in streams if best is not None and each.index == best.index), streams[0])


def _numbered(streams: "list[VideoStream]", stream: Any) -> "VideoStream":
    if isinstance(stream, bool) or not isinstance(stream, int) or not 0 <= stream < len(streams):
        count = f"{len(streams)} streams" if len(streams) != 1 else "one stream"
        raise InvalidArgumentError(
            f"stream={stream!r:.32}: the file has {count} of pictures, numbered from 0."
        )
    return streams[stream]


def _is_cover(stream: "VideoStream") -> bool:
    return bool(stream.disposition & stream.disposition.attached_pic)


def _may_hold_several(data: bytes) -> bool:
    """Say whether it is worth while to open a file to see: of most MP4s the boxes tell that it is not."""
    try:
        if containers.identify(data[: 1 << 16]) != "mov":
            return True
    except InvalidMediaError:
        return False
    inside = [begin_end for name, begin_end in boxes(data, 0, len(data)) if name == b"moov"]
    tracks = 0
    for begin, end in inside:
        for name, (start, stop) in boxes(data, begin, min(end, len(data))):
            tracks += name == b"trak" and b"vide" in data[start : min(stop, start + 4096)]
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
