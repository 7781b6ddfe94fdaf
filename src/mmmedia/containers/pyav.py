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
    import av

    admitted = admit(data)
    try:
        return av.open(
            io.BytesIO(recognisable(admitted)),
            "r",
            options={**(options or {}), **AV_OPTIONS},
            metadata_errors="replace",
            buffer_size=1 << 17,
        )
    except (av.FFmpegError, ValueError, OSError, UnicodeError) as error:
        raise InvalidMediaError(f"Could not open the container: {_reason(error)}") from error


def video_stream(container: "InputContainer") -> "VideoStream":
    """Return the first video stream of an open container; the cover of a song or a film is none.

    Raises:
        InvalidMediaError: (a `ValueError`) it has none, or one of a codec that FFmpeg does not know.
    """
    covers = [bool(each.disposition & each.disposition.attached_pic) for each in container.streams.video]
    if all(covers):
        cover = ", but for a cover picture" if covers else ""
        raise InvalidMediaError(f"No video stream found{cover}.")
    candidates = [each for each, cover in zip(container.streams.video, covers, strict=True) if not cover]
    # In an AVIF sequence its first picture stands before it once more, as a picture.
    stream = next((each for each in candidates if not _stands_still(each)), candidates[0])
    context: object = stream.codec_context  # None without a decoder, other than its type says
    if context is None:
        raise InvalidMediaError("The video stream is of an unknown codec.")
    return stream


def _stands_still(stream: "VideoStream") -> bool:
    return stream.frames == 1 and stream.duration is None and stream.time_base == 1


def _reason(error: Exception) -> str:
    """Return the library's own words, without its reference to a file name that we never gave it."""
    return getattr(error, "strerror", None) or type(error).__name__
