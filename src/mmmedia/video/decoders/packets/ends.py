"""Whether the last packet is all there, in files that don't say how large a packet is.

What a file is cut in the midst of, such as a download, is half a picture: a decoder makes the rest of it up.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    from mmmedia.video.decoders.packets.index import PacketIndex

# By FFmpeg's names: streams of start codes, alone or in pieces.
_OPEN_ENDED = frozenset(["mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo", "mjpeg"])

_END_OF_IMAGE = b"\xff\xd9"
_MORE = 64

# Transport packets (ISO/IEC 13818-1, 2.4.3), with a time in front of each, or a check behind it.
_SYNC, _PACKET, _PACKET_SIZES = 0x47, 188, (188, 192, 204)
_IN_STEP = 8
_MOST_PACKETS = 10_000


def is_whole(index: "PacketIndex", data: bytes, stream_id: int) -> bool:
    """Return whether nothing of the last packet is missing.

    Args:
        index: the packets.
        data: the encoded file.
        stream_id: the container's number of the stream.
    """
    if index.container not in _OPEN_ENDED or not len(index):
        return True
    if index.container == "mpegts" and _is_stuffed(data, stream_id):
        return True
    last = len(index) - 1
    if index.codec == "mjpeg":
        return index.payload(last).rstrip(b"\0").endswith(_END_OF_IMAGE)
    # Two pictures to refer to are enough, and what they show is of no account; but HEVC takes none twice.
    front = np.flatnonzero(index.key[:last])[-2:].tolist()
    if len(front) == 1 and index.codec != "hevc":
        front *= 2
    judge = _has_an_end if index.codec == "hevc" else _is_clean
    return judge(index, [*front, last]) or judge(index, range(start_for_last(index), last + 1))


def start_for_last(index: "PacketIndex") -> int:
    """Return where to begin decoding for the last picture: a B-frame may need what is before the last key."""
    keys = np.flatnonzero(index.key)
    return int(keys[-2]) if len(keys) > 1 else 0


def _is_clean(index: "PacketIndex", positions: "list[int] | range") -> bool:
    """Whether the last of these packets gives a picture that its decoder finds nothing wrong with."""
    frame = _last_picture(index, positions)
    return frame is not None and not frame.is_corrupt


def _has_an_end(index: "PacketIndex", positions: "list[int] | range") -> bool:
    """Whether it makes no difference to the last of these packets what comes behind it.

    Of HEVC that misses its end the decoder says nothing, and reads on.
    """
    pictures = [_last_picture(index, positions, behind) for behind in (b"", b"\x55" * _MORE, b"\xaa" * _MORE)]
    if any(picture is None for picture in pictures):
        return False
    first, *others = (picture.to_ndarray() for picture in pictures if picture is not None)
    return all(np.array_equal(first, other) for other in others)


def _last_picture(
    index: "PacketIndex", positions: "list[int] | range", behind: bytes = b""
) -> "VideoFrame | None":
    """Decode some packets, with more bytes behind the last, and return its picture, if it gives one."""
    import av

    decoder = index.decoder()
    last = positions[-1]
    found = None
    for position in [*positions, None]:
        packet = None
        if position is not None:
            packet = index.packet(position, index.payload(position) + behind if position == last else None)
            packet.pts = packet.dts = position
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError:
            if position == last:
                return None
            continue
        found = next((frame for frame in frames if frame.pts == last), found)
    return found


def _is_stuffed(data: bytes, pid: int) -> bool:
    """Whether the last transport packet of a stream is filled up, as only the last of a picture's is."""
    for size in _PACKET_SIZES:
        for at in range(len(data) - _PACKET, max(len(data) - _PACKET - size, 0), -1):
            if data[at] == _SYNC and all(byte == _SYNC for byte in data[at : at - _IN_STEP * size : -size]):
                return _ends_stuffed(data, at, size, pid)
    return False


def _ends_stuffed(data: bytes, at: int, size: int, pid: int) -> bool:
    for start in range(at, max(at - _MOST_PACKETS * size, -1), -size):
        if data[start] != _SYNC:
            return False
        if (data[start + 1] & 0x1F) << 8 | data[start + 2] != pid or not data[start + 3] & 0x10:
            continue
        if not data[start + 3] & 0x20:
            return False
        length, flags = data[start + 4], data[start + 5]
        clocks = 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1) + (flags >> 2 & 1)
        return length == 0 or (not flags & 3 and length > 1 + clocks)
    return False
