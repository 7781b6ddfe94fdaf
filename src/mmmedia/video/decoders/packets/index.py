"""The packet index: what a container says of its video stream, read without decoding."""

import logging
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.containers import ebml
from mmmedia.errors import InvalidMediaError
from mmmedia.video.decoders.packets import tables
from mmmedia.video.decoders.packets.ends import is_whole
from mmmedia.video.decoders.packets.siting import siting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_PTS = np.iinfo(np.int64).min
NOT_FOUND = -1
SITING = "chroma_sample_location"
"""FFmpeg's option of a codec that says where samples of chroma lie."""

# How far behind the position that the demuxer names a payload may begin, and how much of it is compared.
_BLOCK_HEADER = 64
_ENDS = 32

# Containers that store a packet in one piece; of others all payloads are copied.
_IN_ONE_PIECE = frozenset(["mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "flv"])


@dataclass(frozen=True)
class PacketIndex:
    """The packets of one video stream, in decode order, and what the container says of the stream.

    Attributes:
        data: what `offset` points into: the encoded file, or the payloads of all packets one behind the other
            where the file does not store each in one piece.
        container: FFmpeg's name of the container's format.
        codec: FFmpeg's name of the decoder.
        width: of a coded picture in pixels, before it is turned upright.
        height: likewise.
        pix_fmt: FFmpeg's name of the pixel format.
        time_base: seconds of one tick of the stream's clock.
        rate: frames a second, as FFmpeg guesses it.
        average_rate: frames a second, as the container has it on the average; None where it is silent.
        declared_frames: how many the container claims; 0 where it does not.
        stream: the stream's number in the container.
        is_first: whether no other video stream comes before it, as a cover may.
        start_time: the clock where the stream begins, in ticks; None where that is not known.
        extradata: the codec's configuration.
        codec_tag: the four characters that name the codec in this container.
        colour: FFmpeg's numbers of range, matrix, primaries and transfer.
        siting: its name of where samples of chroma lie; None where nothing hangs on it.
        aspect: width over height of one pixel; None where the container does not say.
        matrix: how pictures are to be turned and mirrored, as MP4 writes it (a, b, c, d); None: as they are.
        side_data: whether the configuration changes midway.
        pts: when each packet's frame is shown, in ticks; `NO_PTS` where missing.
        dts: when it is decoded, likewise.
        duration: how long it is shown, in ticks; 0 where not known.
        offset: where in `data` the payload stands.
        size: how long it is, in bytes.
        key: the demuxer's flag that decoding may begin here.
        discard: its flag that the frame is not shown.
        corrupt: its flag that the packet is damaged.
    """

    data: bytes
    container: str
    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: Fraction
    rate: Fraction
    average_rate: Fraction | None
    declared_frames: int
    stream: int
    is_first: bool
    start_time: int | None
    extradata: bytes
    codec_tag: str
    colour: tuple[int, int, int, int]
    siting: str | None
    aspect: Fraction | None
    matrix: tuple[float, float, float, float] | None
    side_data: bool
    pts: Ints
    dts: Ints
    duration: Ints
    offset: Ints
    size: Ints
    key: Bools
    discard: Bools
    corrupt: Bools

    @property
    def display_order(self) -> npt.NDArray[np.intp]:
        """The decode positions in display order: the n-th frame has the n-th pts."""
        return np.argsort(self.pts, kind="stable")

    def __len__(self) -> int:
        return len(self.pts)

    def payload(self, position: int) -> bytes:
        """Return the bytes of a packet."""
        start = int(self.offset[position])
        return self.data[start : start + int(self.size[position])]

    def packet(self, position: int, payload: bytes | None = None) -> "Packet[Stream]":
        """Return a packet to decode, or one with another payload in its place."""
        import av

        # Filled after it is made: a packet made of bytes lacks the zeros that decoders read past the end.
        payload = self.payload(position) if payload is None else payload
        packet = av.Packet(len(payload))
        packet.update(payload)
        pts = int(self.pts[position])
        packet.pts = None if pts == NO_PTS else pts
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
        context.width, context.height = self.width, self.height
        if self.siting:
            context.options = {SITING: self.siting}
        context.thread_count = 1
        return context

    def upto(self, count: int) -> "PacketIndex":
        """Return the index of the first `count` packets."""
        return replace(self, **{name: getattr(self, name)[:count] for name in _COLUMNS})


_COLUMNS = ("pts", "dts", "duration", "offset", "size", "key", "discard", "corrupt")


def build(data: "containers.Buffer | containers.Admitted[Any]") -> PacketIndex:
    """Index a video's stream, as `build_open` does."""
    return build_open(data)[0]


def build_open(data: "containers.Buffer | containers.Admitted[Any]") -> "tuple[PacketIndex, VideoStream]":
    """Index a video's stream: by the tables of the file, or by demuxing it once.

    It is the first video stream that is no attached picture.

    Args:
        data: an encoded file.

    Returns:
        The index, and the stream in its container, which stays open as long as somebody holds it.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes are refused, can't be demuxed, or hold no video.
    """
    admitted = containers.admit(data)
    container = open_held(admitted, options=_options(admitted))
    stream = containers.video_stream(container)
    context = stream.codec_context
    whole = bytes(admitted.data)
    columns = _by_tables(whole, container, stream) or _by_demuxing(whole, container, stream)
    index = PacketIndex(
        container=container.format.name,
        codec=context.codec.name,
        width=context.width,
        height=context.height,
        pix_fmt=context.pix_fmt or "",
        time_base=stream.time_base or Fraction(1),
        rate=_rate(stream),
        average_rate=stream.average_rate or None,
        declared_frames=stream.frames,
        stream=stream.index,
        is_first=stream is container.streams.video[0],
        start_time=stream.start_time,
        extradata=bytes(context.extradata or b""),
        codec_tag=context.codec_tag,
        colour=(context.color_range, context.colorspace, context.color_primaries, context.color_trc),
        siting=siting(whole, admitted.name, stream),
        aspect=stream.sample_aspect_ratio or None,
        matrix=_matrix(whole, admitted.name, stream),
        **columns,
    )
    if index.data is whole and (index.offset == NOT_FOUND).any():
        with containers.open_av(admitted, options=_options(admitted)) as again:
            columns = _by_demuxing(whole, again, containers.video_stream(again), gather=True)
        index = replace(index, **columns)
    if not is_whole(index, whole, stream.id):
        index.corrupt[-1] = True
    return index, stream


def open_held(
    admitted: "containers.Admitted[Any]", *, options: dict[str, str] | None = None
) -> "InputContainer":
    """Open a file as `containers.open_av` does; of an MP4 cut before its index say so."""
    cut = InvalidMediaError(
        "Could not open video stream: the file is cut short before its index (the box 'moov')."
    )
    try:
        container = containers.open_av(admitted, options=options)
    except InvalidMediaError:
        if is_cut_before_its_index(admitted):
            raise cut from None
        raise
    if not container.streams.video and is_cut_before_its_index(admitted):
        container.close()
        raise cut
    return container


def is_cut_before_its_index(admitted: "containers.Admitted[Any]") -> bool:
    """Return whether a file is an MP4 that ends before what says where its samples are, or within it."""
    data = admitted.data
    return admitted.name == "mov" and not any(
        name in (b"moov", b"moof") and stop <= len(data)
        for name, (_, stop) in containers.boxes(data, 0, len(data))
    )


def _by_tables(data: bytes, container: "InputContainer", stream: "VideoStream") -> dict[str, Any] | None:
    """What the tables of an MP4 say; none of its samples is read for it."""
    is_mp4 = "mov" in container.format.name.split(",")
    found = tables.samples(data, container, stream) if is_mp4 else None
    if found is None:
        return None
    return {
        "data": data,
        **found._asdict(),
        "corrupt": np.zeros(len(found.pts), np.bool_),
        "side_data": False,
    }


def _by_demuxing(
    data: bytes, container: "InputContainer", stream: "VideoStream", *, gather: bool | None = None
) -> dict[str, Any]:
    rows = []
    side_data = False
    gather = container.format.name not in _IN_ONE_PIECE if gather is None else gather
    payloads: list[bytes] = []
    stored = 0
    for packet in demux(container.demux(stream)):
        shown = NO_PTS if packet.pts is None else packet.pts
        decoded = NO_PTS if packet.dts is None else packet.dts
        flags = packet.is_keyframe, packet.is_discard, packet.is_corrupt
        if gather:
            payloads.append(bytes(packet))
            offset, stored = stored, stored + packet.size
        else:
            offset = _locate(data, packet)
        rows.append((shown, decoded, packet.duration or 0, offset, packet.size, *flags))
        side_data = side_data or packet.has_sidedata("new_extradata")
    columns = zip(*rows, strict=True) if rows else ([()] * len(_COLUMNS))
    kinds = [np.int64] * 5 + [np.bool_] * 3
    arrays: dict[str, npt.NDArray[Any]] = {
        name: np.array(column, kind) for name, column, kind in zip(_COLUMNS, columns, kinds, strict=True)
    }
    if container.format.name == "matroska,webm":
        _set_below_zero(arrays["pts"])
    return {"data": b"".join(payloads) if gather else data, "side_data": side_data, **arrays}


_FRONT = 64


def _set_below_zero(pts: npt.NDArray[Any]) -> None:
    """Give packets at the front a time where they have none: Matroska's, if below zero, is not told.

    So it is with what stands behind the key frame at which a file was cut, and was shown before it.
    """
    missing = np.flatnonzero(pts == NO_PTS)
    if len(missing) and missing[0] > 0 and missing[-1] < _FRONT and len(missing) < len(pts):
        pts[missing] = pts[pts != NO_PTS].min() - 1 - np.arange(len(missing))[::-1]


def _options(admitted: "containers.Admitted[Any]") -> dict[str, str]:
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


# Matroska's identifiers of a projection's yaw and roll, in degrees.
_POSES = (b"\x76\x73\x84", b"\x76\x75\x84", b"\x76\x73\x88", b"\x76\x75\x88")


def _matrix(data: bytes, container: str, stream: "VideoStream") -> tuple[float, float, float, float] | None:
    if container == "mov":
        return tables.matrix(data, stream.id)
    if container == "matroska" and ebml.may_be_told(data, *_POSES):
        return _matrix_of_a_frame(data)
    return None


def _matrix_of_a_frame(data: bytes) -> tuple[float, float, float, float] | None:
    """FFmpeg hands the matrix on with every frame, and PyAV with nothing else."""
    import av

    try:
        with containers.open_av(data) as container:
            for frame in container.decode(containers.video_stream(container)):
                return frame_matrix(frame)
    except av.FFmpegError:
        pass
    return None


def frame_matrix(frame: Any) -> tuple[float, float, float, float] | None:
    """Return the display matrix that a decoded frame carries: (a, b, c, d), or None."""
    for each in frame.side_data:
        if each.type.name == "DISPLAYMATRIX":
            entries = np.frombuffer(bytes(each), np.int32, 9)
            a, b, c, d = (float(entries[at]) / (1 << 16) for at in (0, 1, 3, 4))
            return a, b, c, d
    return None


def demux(packets: "Iterator[Packet[Any]]") -> "Iterator[Packet[Any]]":
    """Packets with a payload; a demuxer that fails midway ends the stream, as it does for OpenCV."""
    import av

    try:
        for packet in packets:
            if packet.size:
                yield packet
    except av.FFmpegError as error:
        logger.debug("The demuxer stopped early: %s", error)
    except IndexError:  # PyAV knows only the streams that the header announces
        raise InvalidMediaError("The video has a stream that begins midway.") from None


# A clock that jumps ahead by more, and by so many times the usual step, has been set anew.
_JUMP_SECONDS = 60
_JUMP_STEPS = 100


# What stores no times of frames: those in packets are FFmpeg's guesses.
_UNTIMED = frozenset(["avi", "h264", "hevc", "m4v", "mpegvideo"])


def is_timed(index: PacketIndex) -> bool:
    """Return whether every packet says when its frame is shown."""
    return index.container not in _UNTIMED and not (index.pts == NO_PTS).any()


def tells_no_times(index: PacketIndex) -> bool:
    """Return whether no packet says when its frame is shown."""
    return index.container in _UNTIMED or bool((index.pts == NO_PTS).all())


def segments(index: PacketIndex) -> Ints:
    """Number the stretches between which the clock is set anew, as where recordings are joined."""
    known = np.flatnonzero(index.dts != NO_PTS)
    clock, back = index.dts, 0
    if 2 * len(known) < len(index):  # presentation times go back a little between B-frames
        known, clock, back = np.flatnonzero(index.pts != NO_PTS), index.pts, _JUMP_STEPS
    numbers = np.zeros(len(index), np.int64)
    if len(known) > 1:
        steps = np.diff(clock[known])
        usual = max(int(np.median(steps)), 1)
        ahead = max(int(_JUMP_SECONDS / index.time_base), _JUMP_STEPS * usual)
        behind = steps < -back * usual
        if index.container == "matroska,webm":  # decoding times are FFmpeg's guesses, wild behind a join
            returns = np.diff(index.pts[known])
            behind &= (returns < -_JUMP_STEPS * usual) | (returns < 0) & index.key[known[1:]]
        numbers[known[1:]] = behind | (steps > ahead)
        numbers = np.cumsum(numbers)
    return numbers
