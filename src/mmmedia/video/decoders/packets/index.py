"""The packet index: what a container says of its video stream, read without decoding."""

import logging
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.packets import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

NO_PTS = np.iinfo(np.int64).min
NOT_FOUND = -1

# How far behind the position that the demuxer names a payload may begin, and how much of it is compared.
_BLOCK_HEADER = 64
_ENDS = 32


@dataclass(frozen=True)
class PacketIndex:
    """The packets of one video stream, in decode order, and what the container says of the stream.

    `pts` and `dts` are in units of `time_base`, `NO_PTS` where missing; `offset` is where in the encoded
    bytes a packet's payload stands, `NOT_FOUND` where it is not stored as it is; `key`, `discard` and
    `corrupt` are the demuxer's flags.
    """

    data: bytes
    container: str
    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: Fraction
    rate: Fraction
    declared_frames: int
    attached_picture: bool
    extradata: bytes
    codec_tag: str
    colour: tuple[int, int, int, int]
    side_data: bool
    pts: npt.NDArray[np.int64]
    dts: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]
    key: npt.NDArray[np.bool_]
    discard: npt.NDArray[np.bool_]
    corrupt: npt.NDArray[np.bool_]

    @cached_property
    def display_order(self) -> npt.NDArray[np.intp]:
        """The decode positions in display order: the n-th frame has the n-th pts."""
        return np.argsort(self.pts, kind="stable")

    def __len__(self) -> int:
        return len(self.pts)

    def packet(self, position: int, payload: bytes | None = None) -> "Packet[Stream]":
        """Return a packet to decode, or one with another payload in its place."""
        import av

        start, size = int(self.offset[position]), int(self.size[position])
        # Filled after it is made: a packet made of bytes lacks the zeros that decoders read past the end.
        payload = self.data[start : start + size] if payload is None else payload
        packet = av.Packet(len(payload))
        packet.update(payload)
        packet.pts = int(self.pts[position])
        packet.time_base = self.time_base
        packet.is_keyframe = bool(self.key[position])
        return packet

    def decoder(self, extradata: bytes | None = None) -> "VideoCodecContext":
        """Return a new single-threaded decoder, told what the container says of the stream.

        Args:
            extradata: the codec's configuration, if other than the container's.
        """
        import av

        context = av.CodecContext.create(self.codec, "r")
        assert isinstance(context, av.VideoCodecContext)
        context.extradata = extradata or self.extradata
        context.codec_tag = self.codec_tag
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = self.colour
        context.thread_count = 1
        if self.codec == "hevc":
            # Damage must be an error: this decoder does not mark the frames that it conceals.
            context.options = {"err_detect": "explode"}
        return context


def build(data: bytes | containers.Admitted[bytes]) -> PacketIndex:
    """Index the first video stream of encoded bytes: by the tables of the file, or by demuxing.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes are refused, can't be demuxed, or hold no video.
    """
    admitted = containers.admit(data)
    data = admitted.data
    with containers.open_av(admitted, options=_options(admitted)) as container:
        stream = containers.video_stream(container)
        context = stream.codec_context
        found = _by_tables(data, container, stream)
        packets = _by_demuxing(data, container, stream) if found is None else found
        return PacketIndex(
            data=data,
            container=container.format.name,
            codec=context.codec.name,
            width=context.width,
            height=context.height,
            pix_fmt=context.pix_fmt or "",
            time_base=stream.time_base or Fraction(1),
            rate=_rate(stream),
            declared_frames=stream.frames,
            attached_picture=bool(stream.disposition & stream.disposition.attached_pic),
            extradata=bytes(context.extradata or b""),
            codec_tag=context.codec_tag,
            colour=(context.color_range, context.colorspace, context.color_primaries, context.color_trc),
            **packets,
        )


def _by_tables(data: bytes, container: "InputContainer", stream: "VideoStream") -> dict[str, Any] | None:
    """What the tables of an MP4 say; none of its samples is read for it."""
    is_mp4 = "mov" in container.format.name.split(",")
    found = tables.samples(data, container, stream) if is_mp4 else None
    if found is None:
        return None
    no = np.zeros(len(found.pts), np.bool_)
    return {**found._asdict(), "discard": no, "corrupt": no, "side_data": False}


def _by_demuxing(data: bytes, container: "InputContainer", stream: "VideoStream") -> dict[str, Any]:
    rows = []
    side_data = False
    for packet in demux(container.demux(stream)):
        shown = NO_PTS if packet.pts is None else packet.pts
        decoded = NO_PTS if packet.dts is None else packet.dts
        flags = packet.is_keyframe, packet.is_discard, packet.is_corrupt
        rows.append((shown, decoded, _locate(data, packet), packet.size, *flags))
        side_data = side_data or packet.has_sidedata("new_extradata")
    pts, dts, offset, size, key, discard, corrupt = zip(*rows, strict=True) if rows else [()] * 7
    return {
        "side_data": side_data,
        "pts": np.array(pts, np.int64),
        "dts": np.array(dts, np.int64),
        "offset": np.array(offset, np.int64),
        "size": np.array(size, np.int64),
        "key": np.array(key, np.bool_),
        "discard": np.array(discard, np.bool_),
        "corrupt": np.array(corrupt, np.bool_),
    }


def _options(admitted: containers.Admitted[bytes]) -> dict[str, str]:
    """MP4 says all of a packet in its tables, so that FFmpeg need not look into each as well."""
    return {"fflags": "noparse"} if admitted.name == "mov" else {}


def _locate(data: bytes, packet: "Packet[Stream]") -> int:
    """Where the payload stands in the encoded bytes, so that no second copy need be kept."""
    position = packet.pos
    if position is None or position < 0:
        return NOT_FOUND
    payload = memoryview(packet)
    head, tail = bytes(payload[:_ENDS]), bytes(payload[-_ENDS:])
    # In Matroska a block's header stands before it.
    start = data.find(head, position, position + _BLOCK_HEADER + len(head))
    stop = start + len(payload)
    return (
        start if start >= 0 and data.startswith(tail, stop - len(tail)) and stop <= len(data) else NOT_FOUND
    )


def _rate(stream: "VideoStream") -> Fraction:
    """Frames a second; where the container is silent, one tick of its clock."""
    return stream.guessed_rate or stream.average_rate or 1 / (stream.time_base or Fraction(1))


def demux(packets: "Iterator[Packet[Any]]", *, flush: bool = False) -> "Iterator[Packet[Any]]":
    """Packets with a payload; a demuxer that fails midway ends the stream, as it does for OpenCV.

    Args:
        packets: what the container gives.
        flush: hand on the empty packet at the end as well, which makes a decoder give what it still holds.
    """
    import av

    try:
        for packet in packets:
            if packet.size or flush:
                yield packet
    except av.FFmpegError as error:
        logger.debug("The demuxer stopped early: %s", error)
    except IndexError:  # PyAV knows only the streams that the header announces
        raise InvalidMediaError("The video has a stream that begins midway.") from None
