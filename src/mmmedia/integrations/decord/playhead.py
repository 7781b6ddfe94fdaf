"""A decoder that stays where it is between two frames."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmmedia.video.decoders import eligible
from mmmedia.video.decoders.bitstreams.structure import ORDER, CannotSeekError
from mmmedia.video.decoders.colours import is_mapped
from mmmedia.video.decoders.convert import Converter
from mmmedia.video.decoders.limits import Deadline, check_size
from mmmedia.video.decoders.packets.index import PacketIndex, frame_matrix
from mmmedia.video.decoders.shown import Shown
from mmmedia.video.decoders.upright import Upright, upright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.video.frame import VideoFrame

Picture = npt.NDArray[np.uint8]


class Playhead:
    """Gives frames of a stream one at a time; one further on costs only the way to it.

    Decoding begins where the stream's headers prove that it may, else at the start. Frames come as
    `mmmedia.video.read_frames` has them, or not at all: then that must be asked.

    Args:
        packets: the stream's packets.
        shown: which of them a player shows.

    Attributes:
        positions: the packet of each frame, by its position in decode order.

    Raises:
        CannotSeekError: it can't be told which packet a frame comes from.
    """

    def __init__(self, packets: PacketIndex, shown: Shown) -> None:
        positions: npt.NDArray[Any] | None
        try:
            packets, structure, positions = eligible.judge(packets, shown)
            self._starts = np.flatnonzero(structure.access_points)
            self._ranks = structure.ranks
        except CannotSeekError as refusal:
            positions = shown.positions
            if positions is None or packets.side_data or str(refusal) == ORDER:
                raise
            self._starts = np.zeros(1, np.intp)
            self._ranks = np.zeros(len(packets), np.int64)
        self._packets = packets
        self.positions = positions
        self._numbers = {position: number for number, position in enumerate(positions.tolist())}
        self._convert = Converter(packets)
        self._turn: Upright | None = None
        self._coming: Iterator[tuple[int, VideoFrame]] = iter(())
        self._fed = -1  # the last packet that the decoder has got
        self._at = -1  # the number of the newest frame
        self._frame: VideoFrame | None = None
        self._lost = False

    def read(self, number: int) -> Picture | None:
        """Return a frame, uint8 RGB (height, width, 3), upright; None where it did not come as expected.

        Once one did not, none is returned any more: how much of what follows is wrong can't be told.

        Raises:
            LimitExceededError: (a `ValueError`) it is too large, or took too long.
        """
        if self._lost:
            return None
        picture = self._read(number)
        self._lost = picture is None
        return picture

    def _read(self, number: int) -> Picture | None:
        start = self._start_of(number)
        if not 0 <= self._at <= number or start > self._fed:
            self._coming, self._at = self._decoded(start), -1
        deadline = Deadline()
        while self._at < number:
            deadline.check()
            came = next(self._coming, None)
            if came is None:
                return None
            position, self._frame = came
            following = self._numbers.get(position, self._at)  # of those that are not shown: no other
            if following < self._at:
                return None
            self._at = following
        return self._picture(self._frame) if self._at == number and self._frame is not None else None

    def _start_of(self, number: int) -> int:
        """Return the last packet at which decoding may begin for a frame."""
        position = self.positions[number]
        before = self._starts[self._starts <= position]
        before = before[self._ranks[before] <= self._ranks[position]]
        return int(before[-1]) if len(before) else 0

    def _decoded(self, start: int) -> "Iterator[tuple[int, VideoFrame]]":
        """Frames in the order of presentation, each with the position of its packet."""
        import av

        decoder = self._packets.decoder()
        for position in range(start, len(self._packets) + 1):
            self._fed = position
            packet = None
            if position < len(self._packets):
                packet = self._packets.packet(position)
                packet.pts = packet.dts = position  # which its frame brings along
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                if self._at >= 0:
                    return
                continue  # what stands before the first frame may refer to what is not there
            for frame in frames:
                if frame.pts is not None:
                    yield frame.pts, frame

    def _picture(self, frame: "VideoFrame") -> Picture | None:
        if frame.is_corrupt or is_mapped(int(frame.color_primaries), int(frame.color_trc)):
            return None
        if self._turn is None:
            self._turn = upright(self._packets.matrix or frame_matrix(frame))
        size = self._turn.size(frame.height, frame.width)
        check_size(*size, 1)
        picture = np.empty((*size, 3), np.uint8)
        self._convert(frame, picture, self._turn)
        return picture
