"""`VideoReader`: frames of a video by their numbers, in any of decord's ways of asking for them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from mmmedia import containers, envs
from mmmedia.errors import InvalidMediaError, LimitExceededError
from mmmedia.integrations.decord import bridge
from mmmedia.integrations.decord.base import Context, DECORDError
from mmmedia.integrations.decord.playhead import Playhead
from mmmedia.video import read_frames, resize_video
from mmmedia.video.decoders.animation import animation
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import shown_frames
from mmmedia.video.decoders.upright import upright

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Contents:
    """What a file holds, told without decoding.

    Attributes:
        total: how many frames.
        fps: how many a second, on the average.
        size: height and width of each, upright.
        times: from when to when each is shown, in seconds from the first, float32 (total, 2).
        keys: the numbers of those at which decoding may begin.
        playhead: decodes one after the other; None where that can't be proven.
    """

    total: int
    fps: float
    size: tuple[int, int]
    times: npt.NDArray[np.floating[Any]]
    keys: list[int]
    playhead: Playhead | None


class VideoReader:
    """Reads frames of a video by their numbers.

    The n-th frame is the n-th that a player shows, also where decord counts otherwise or fails: in transport
    streams, and in files that were cut without encoding anew.

    Args:
        uri: the path of a file, or an open file.
        ctx: `cpu()`.
        width: of the frames, in pixels; -1: the video's.
        height: likewise.
        num_threads: not used: all readers of a process share their threads, `MMMEDIA_VIDEO_DECODE_WORKERS`.
        fault_tol: not used: a frame that can't be decoded is an error.

    Raises:
        DECORDError: (a `RuntimeError` and a `ValueError`) no file, or no video that can be decoded.
        LimitExceededError: (a `ValueError`) frames are larger than the settings admit.
    """

    def __init__(
        self,
        uri: Any,
        ctx: Context | None = None,
        width: int = -1,
        height: int = -1,
        num_threads: int = 0,  # noqa: ARG002 - decord's
        fault_tol: int = -1,  # noqa: ARG002 - decord's
    ) -> None:
        self._name = repr(os.fspath(uri)) if isinstance(uri, str | os.PathLike) else "a file object"
        self._ctx = ctx or Context()
        try:
            self._data = _read(uri)
            self._contents = _contents(self._data)
        except (OSError, InvalidMediaError) as error:
            raise DECORDError(f"Error reading {self._name}: {error}") from error
        if not self._contents.total:
            raise DECORDError(f"Error reading {self._name}: it has no frames.")
        own_height, own_width = self._contents.size
        self._size = height if height > 0 else own_height, width if width > 0 else own_width
        self._next = 0  # the number of the frame that `next` returns
        self._before = 0  # that of the one which was asked for last

    def __repr__(self) -> str:
        height, width = self._size
        return f"VideoReader({self._name}, {len(self)} frames, {width}x{height}, {self.get_avg_fps():g} fps)"

    def __len__(self) -> int:
        return self._contents.total

    def __getitem__(self, idx: "SupportsIndex | slice") -> Any:
        """Return one frame (height, width, 3), or those of a slice (n, height, width, 3)."""
        if isinstance(idx, slice):
            return self.get_batch(range(*idx.indices(len(self))))
        number = int(self._numbers([idx.__index__()])[0])
        self._next = number + 1
        return bridge.bridge_out(self._one(number)[0])

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self)):
            yield self[number]

    def get_batch(self, indices: Sequence[int] | npt.NDArray[Any]) -> Any:
        """Return frames, uint8 RGB (n, height, width, 3).

        Args:
            indices: their numbers, in any order, also several times; below zero they count from the end.

        Raises:
            IndexError: there is no such frame.
            DECORDError: (a `RuntimeError`) one can't be decoded.
            LimitExceededError: (a `ValueError`) they are larger than the settings admit.
        """
        wanted = self._numbers(indices).ravel().tolist()
        if not wanted:
            return bridge.bridge_out(np.empty((0, *self._size, 3), np.uint8))
        return bridge.bridge_out(self._several(wanted))

    def next(self) -> Any:
        """Return the frame behind the one returned or sought last.

        Raises:
            StopIteration: there is none.
        """
        if self._next >= len(self):
            raise StopIteration
        return self[self._next]

    def seek(self, pos: int) -> None:
        """Let `next` return this frame; decord's own goes to a key frame, before or behind it."""
        self._next = int(self._numbers([pos])[0])

    def seek_accurate(self, pos: int) -> None:
        """Let `next` return this frame."""
        self.seek(pos)

    def skip_frames(self, num: int = 1) -> None:
        """Let `next` pass over so many frames."""
        self._next += max(num, 0)

    def get_avg_fps(self) -> float:
        """Return frames a second, on the average."""
        return self._contents.fps

    def get_key_indices(self) -> list[int]:
        """Return the numbers of the frames at which decoding may begin."""
        return list(self._contents.keys)

    def get_frame_timestamp(self, idx: "int | slice | Sequence[int] | npt.NDArray[Any]") -> Any:
        """Return from when to when frames are shown, seconds from the first, float32 (n, 2); of one (2,)."""
        wanted = range(*idx.indices(len(self))) if isinstance(idx, slice) else idx
        return self._contents.times[self._numbers(wanted)]

    def _numbers(self, indices: Any) -> npt.NDArray[np.int64]:
        """Return numbers counted from the start, of the same shape."""
        numbers = np.array(indices, np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        outside = numbers[(numbers < 0) | (numbers >= len(self))]
        if outside.size:
            raise IndexError(f"Out of bound indices: {outside.tolist()[:8]} of {len(self)} frames.")
        return numbers

    def _several(self, wanted: list[int]) -> Frames:
        try:
            frames, _, _ = read_frames(self._data, wanted)
        except LimitExceededError:
            raise
        except InvalidMediaError as error:
            raise DECORDError(f"{self._name}: {error}") from error
        return self._resized(frames)

    def _resized(self, frames: Frames) -> Frames:
        return frames if frames.shape[1:3] == self._size else resize_video(frames, self._size)

    def _one(self, number: int) -> Frames:
        """Who goes ahead gets frames from a decoder that is kept; who goes back asks for them anew."""
        playhead, before = self._contents.playhead, self._before
        self._before = number
        if playhead is not None and number >= before:
            frame = playhead.read(number)
            if frame is not None:
                return self._resized(frame[None])
        return self._several([number])


def _read(uri: Any) -> bytes:
    return bytes(uri.read()) if hasattr(uri, "read") else Path(uri).read_bytes()


def _contents(data: bytes) -> _Contents:
    pictures = animation(data)
    if pictures is not None:
        begin = np.array(pictures.times)
        times = np.stack([begin, begin + pictures.durations], -1).astype(np.float32)
        _, fps, _ = pictures.metadata
        return _Contents(len(begin), fps, (pictures.height, pictures.width), times, [0], None)
    packets = index.build(containers.admit(data))
    shown = shown_frames(packets)
    fps = float(packets.average_rate or packets.rate)
    playhead = None
    if envs.MMMEDIA_COMPAT != "0.20":  # whose way of counting is another
        with suppress(CannotSeekError):
            playhead = Playhead(packets, shown)
    positions = shown.positions if playhead is None else playhead.positions
    keys = [0] if positions is None else np.flatnonzero(packets.key[positions]).tolist()
    begin, length = np.arange(shown.total) / fps, np.full(shown.total, 1 / fps)
    if shown.positions is not None and shown.pts is not None:
        tick = float(packets.time_base)
        begin, length = (shown.pts - shown.pts[0]) * tick, packets.duration[shown.positions] * tick
    times = np.stack([begin, begin + length], -1).astype(np.float32)
    size = upright(packets.matrix).size(packets.height, packets.width)
    return _Contents(shown.total, fps, size, times, keys, playhead)
