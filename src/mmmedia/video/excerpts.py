"""Excerpts: a small clip that holds only what some frames of a video need, for any player and decoder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from mmmedia import containers
from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.packages import packages_for
from mmmedia.video.decoders import clips, eligible, sparse
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, ranks_by_time
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import Shown, shown_frames
from mmmedia.video.samplers import VideoSourceMetadata

Source = bytes | bytearray | memoryview | str | PathLike[str]


def bytes_of(source: Source) -> bytes:
    """Return an encoded file that is given, or lies at a path.

    Raises:
        OSError: the path can't be read.
    """
    return Path(source).read_bytes() if isinstance(source, str | PathLike) else bytes(source)


@dataclass(frozen=True)
class Excerpt:
    """A clip cut out of a video without encoding anew.

    Its frames stand 1/25 s apart, whatever their times were; colours, orientation and the shape of pixels are
    those of the video. Between the wanted frames it holds those that they refer to, and, in H.264, stand-ins
    that keep a decoder's store in order: look only at `positions`.

    Attributes:
        data: the clip, MP4 or Matroska.
        indices: the wanted frames, by their number in the video.
        positions: where each of them is among the frames of the clip, counted from 0 as they are shown.
        frames: how many frames the clip has.
        stand_ins: how many of these are stand-ins.
        left_out: how many frames of the video are not in the clip, or only as stand-ins.
        source: what the video is: its frames, frames a second, and seconds.
        reason: why all of the video had to be copied; None where it was not.
    """

    data: bytes = field(repr=False)
    indices: list[int]
    positions: list[int]
    frames: int
    stand_ins: int
    left_out: int
    source: VideoSourceMetadata
    reason: str | None = None


@packages_for("A video")
def excerpt(
    source: Source, indices: Sequence[int] | Callable[[VideoSourceMetadata], Sequence[int]]
) -> Excerpt:
    """Cut out of a video what some of its frames need.

    A decoder that reads the clip gives these frames as one that reads the video from its start. Where it
    can't be told which packets a frame needs, the clip holds all of them.

    Args:
        source: an encoded file, or the path of one.
        indices: numbers of frames, as in `frames_indices`; or what chooses them when told what the video is.

    Raises:
        InvalidMediaError: (a `ValueError`) there is no video that can be read.
        InvalidArgumentError: (a `ValueError`) no frames, or such as the video does not have.

    >>> from mmmedia.cli import scene
    >>> part = excerpt(scene.clip(), [3, 100])
    >>> part.indices, len(part.positions), part.left_out > 0
    ([3, 100], 2, True)
    """
    admitted = containers.admit(bytes_of(source))
    packets = index.build(admitted)
    shown = shown_frames(packets)
    rate = float(packets.average_rate or packets.rate)
    claim = VideoSourceMetadata(shown.total, rate, shown.total / rate if rate > 0 else 0.0)
    told = shown.metadata(claim, packets.rate)
    wanted = [int(number) for number in (indices(told) if callable(indices) else indices)]
    if not wanted:
        raise InvalidArgumentError("An excerpt needs at least one frame.")
    for number in wanted:
        if not 0 <= number < shown.total:
            raise InvalidArgumentError(f"The video has no frame {number}: it has {shown.total}.")
    try:
        return _of_parts(admitted, packets, shown, wanted, told)
    except CannotSeekError as refusal:
        return _of_all(admitted, packets, shown, wanted, told, str(refusal))


def _of_parts(
    admitted: "containers.Admitted[bytes]",
    packets: index.PacketIndex,
    shown: Shown,
    wanted: list[int],
    told: VideoSourceMetadata,
) -> Excerpt:
    packets, structure, positions = eligible.judge(packets, shown)
    order = sorted(set(wanted))
    plan = sparse.make_plan(packets, structure, positions[order], one_clip=True)
    clip = clips.arrange(packets, structure, plan.in_one())
    if clip.possible.any():
        raise CannotSeekError("no key frame at the start")
    data = clips.write(packets, structure, clip, clips.template_of(admitted, packets))
    place = {int(position): int(at) for position, at in zip(clip.positions, clip.places, strict=True)}
    visible = np.sort(clip.places[clip.certain])
    found = np.searchsorted(visible, [place[int(positions[number])] for number in wanted]).tolist()
    whole = int(np.isin(clip.positions, shown.packets).sum()) - len(clip.spared)
    return Excerpt(data, wanted, found, len(visible), len(clip.spared), shown.total - whole, told)


def _of_all(
    admitted: "containers.Admitted[bytes]",
    packets: index.PacketIndex,
    shown: Shown,
    wanted: list[int],
    told: VideoSourceMetadata,
    reason: str,
) -> Excerpt:
    ranks = ranks_by_time(packets)
    if ranks is None:
        if packets.discard.any() or (packets.pts != index.NO_PTS).any():
            raise InvalidMediaError(f"The video can't be cut: {reason}, and frames without times.")
        ranks = np.arange(len(packets))
    try:
        data = clips.write(packets, None, clips.whole(packets, ranks), clips.template_of(admitted, packets))
    except CannotSeekError as error:
        raise InvalidMediaError(
            f"The video can't be cut: {reason}, and no container takes it whole."
        ) from error
    if shown.positions is None:
        return Excerpt(data, wanted, list(wanted), shown.total, 0, 0, told, reason)
    # A clip has no edit list: what one hides is seen in it.
    seen = np.sort(ranks[np.union1d(shown.packets, np.flatnonzero(packets.discard))])
    found = np.searchsorted(seen, ranks[shown.positions[wanted]]).tolist()
    return Excerpt(data, wanted, found, len(seen), 0, 0, told, reason)
