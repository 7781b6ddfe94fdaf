"""What the packets of a video stream are to each other, read off their headers without decoding.

For every codec of the fast path: from which packets decoding may start, which no other refers to, and that
each packet will give exactly one frame, in the order of the timestamps. A header that does not fit, such as
a damaged one, refuses the stream: a decoder might leave that frame out, and every later index would shift.
"""

from collections.abc import Callable

from mmmedia.video.decoders.bitstreams.av1 import read_av1
from mmmedia.video.decoders.bitstreams.bits import HeaderEndError
from mmmedia.video.decoders.bitstreams.h264 import read_h264
from mmmedia.video.decoders.bitstreams.hevc import read_hevc
from mmmedia.video.decoders.bitstreams.intra import INTRA, read_intra
from mmmedia.video.decoders.bitstreams.mpeg2 import read_mpeg2
from mmmedia.video.decoders.bitstreams.mpeg4 import read_mpeg4
from mmmedia.video.decoders.bitstreams.structure import DAMAGED, CannotSeekError, Structure
from mmmedia.video.decoders.bitstreams.vp8 import read_vp8
from mmmedia.video.decoders.bitstreams.vp9 import read_vp9
from mmmedia.video.decoders.packets.index import PacketIndex

_READERS: dict[str, Callable[[PacketIndex], Structure]] = {
    "h264": read_h264,
    "hevc": read_hevc,
    "vp9": read_vp9,
    "libdav1d": read_av1,
    "mpeg4": read_mpeg4,
    "vp8": read_vp8,
    "mpeg1video": read_mpeg2,
    "mpeg2video": read_mpeg2,
    "ffv1": read_intra,
    **dict.fromkeys(INTRA, read_intra),
}


def analyse(index: PacketIndex) -> Structure:
    """Return the structure of a stream.

    Raises:
        CannotSeekError: the codec is not one of the fast path's, or the headers do not fit.
    """
    reader = _READERS.get(index.codec)
    if reader is None:
        raise CannotSeekError("codec")
    try:
        return reader(index)
    except (HeaderEndError, IndexError):
        raise CannotSeekError(DAMAGED) from None
