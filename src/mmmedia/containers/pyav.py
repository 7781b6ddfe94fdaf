"""FFmpeg through PyAV, held: in-memory reading, demuxers of an allow-list, no protocol at all."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.containers.claims import Admitted, admit, recognisable
from mmmedia.containers.mp4_boxes import Buffer
from mmmedia.errors import InvalidMediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# FFmpeg's names of the demuxers of self-contained files. Playlists, scripts, session descriptions,
# image sequences and devices are not on the list and never will be.
FORMAT_WHITELIST = (
    "mov,matroska,avi,mpegts,mpeg,flv,live_flv,asf,asf_o,ogg,ivf,yuv4mpegpipe,gif,nut,mxf,rm,dv,wtv,"
    "gxf,av1,obu,h264,hevc,vvc,m4v,mpegvideo,vc1,cavsvideo,avs2,avs3,dirac,mjpeg,wav,w64,aiff,au,caf,"
    "flac,mp3,aac,ac3,eac3,dts,amr,ape,tta,wv,mpc,mpc8,dsf,voc,truehd,tak,iff"
)

# FFmpeg's names of the codecs of covers.
_STILL = frozenset(["mjpeg", "png", "bmp", "gif"])

# For a transport stream in which the first picture ends far behind the sound: FFmpeg looks on to the end.
PATIENCE = {"probesize": str(1 << 30), "analyzeduration": str(36_000_000_000)}

AV_OPTIONS = {"format_whitelist": FORMAT_WHITELIST, "protocol_whitelist": "none"}


def open_av(data: Buffer | Admitted[Any], *, options: Mapping[str, str] | None = None) -> "InputContainer":
    """Open encoded bytes with PyAV: in memory, allow-listed demuxers only, no protocols.

    The container is a context manager; close it.

    Args:
        data: an encoded file, admitted or to be judged here.
        options: more options for FFmpeg's demuxer.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes are refused by `admit`, or FFmpeg can't open them.
    """
    admitted = admit(data)
    container = _open(admitted, options or {})
    if admitted.name == "mpegts" and any(_has_no_size(each) for each in container.streams.video):
        container.close()
        container = _open(admitted, {**(options or {}), **PATIENCE})
    return container


def _open(admitted: Admitted[Any], options: Mapping[str, str]) -> "InputContainer":
    import av

    try:
        return av.open(
            io.BytesIO(recognisable(admitted)),
            "r",
            options={**options, **AV_OPTIONS},
            metadata_errors="replace",
            buffer_size=1 << 17,
        )
    except (av.FFmpegError, ValueError, OSError, UnicodeError) as error:
        raise InvalidMediaError(f"Could not open the container: {_reason(error)}") from error


def _has_no_size(stream: "VideoStream") -> bool:
    context: Any = stream.codec_context
    return context is not None and not context.width


def video_stream(container: "InputContainer") -> "VideoStream":
    """Return the first video stream of an open container; the cover of a song or a film is none.

    Raises:
        InvalidMediaError: (a `ValueError`) it has none, or one of a codec that FFmpeg does not know.
    """
    candidates = moving_pictures(container)
    if not candidates:
        cover = ", but for a cover picture" if container.streams.video else ""
        raise InvalidMediaError(f"No video stream found{cover}.")
    # In an AVIF sequence its first picture stands before it once more, as a picture.
    stream = next((each for each in candidates if not _stands_still(each)), candidates[0])
    context: object = stream.codec_context  # None without a decoder, other than its type says
    if context is None:
        raise InvalidMediaError("The video stream is of an unknown codec.")
    return stream


def moving_pictures(container: "InputContainer") -> "list[VideoStream]":
    """Return the video streams of an open container that are no cover."""
    return [stream for stream in container.streams.video if not _is_cover(container, stream)]


def _is_cover(container: "InputContainer", stream: "VideoStream") -> bool:
    if stream.disposition & stream.disposition.attached_pic:
        return True
    # FFmpeg writes the cover of a WMA as a stream like any other, whose single packet makes no rate.
    context: Any = stream.codec_context
    return (
        container.format.name == "asf"
        and len(container.streams.audio) > 0
        and stream.average_rate is None
        and context is not None
        and context.name in _STILL
    )


def _stands_still(stream: "VideoStream") -> bool:
    return stream.frames == 1 and stream.duration is None and stream.time_base == 1


def _reason(error: Exception) -> str:
    """Return the library's own words, without its reference to a file name that we never gave it."""
    return getattr(error, "strerror", None) or type(error).__name__
