"""Where samples of chroma lie between those of luma: libswscale spreads them by it, and OpenCV goes by that.

H.264, HEVC and AV1 may say so in their headers; of other streams the container does, if that is Matroska.
"""

import io
from typing import TYPE_CHECKING

from mmmedia.containers import ebml
from mmmedia.video.decoders.colours import is_mapped

if TYPE_CHECKING:
    from av.video.stream import VideoStream

# FFmpeg's names, by Matroska's numbers across and down (RFC 9559, 5.1.4.1.28.24).
_NAMES = {(1, 1): "topleft", (2, 1): "top", (1, 2): "left", (2, 2): "center"}
_TOLD = ebml.SITED_ACROSS.to_bytes(2, "big")


def siting(data: bytes, container: str, stream: "VideoStream") -> str | None:
    """Return where a stream's samples of chroma lie, by FFmpeg's name; None where nothing hangs on it.

    Something does where Matroska says so, which no other container can, and where frames are mapped.

    Args:
        data: the encoded file.
        container: the name of its format.
        stream: the stream, as FFmpeg opened it.
    """
    context = stream.codec_context
    is_told = container == "matroska" and ebml.may_be_told(data, _TOLD)
    return _written(stream) if is_told or is_mapped(context.color_primaries, context.color_trc) else None


def _written(stream: "VideoStream") -> str | None:
    """PyAV tells nothing of it but in the header of a Matroska file that it writes."""
    import av

    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="matroska") as out:
            out.add_stream_from_template(stream, opaque=True)
            out.start_encoding()
    except (av.FFmpegError, ValueError):  # a codec that Matroska does not take
        return None
    content = buffer.getvalue()
    for kind in (ebml.SEGMENT, ebml.TRACKS, ebml.TRACK, ebml.PICTURES, ebml.COLOUR):
        content = dict(ebml.children(content)).get(kind, b"")
    told = dict(ebml.children(content))
    across, down = (ebml.number(told.get(kind, b"")) for kind in (ebml.SITED_ACROSS, ebml.SITED_DOWN))
    return _NAMES.get((across, down))
