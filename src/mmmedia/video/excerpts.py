"""Excerpts: a small clip that holds only what some frames of a video need, for any player and decoder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSparseError
from mmmedia.packages import packages_for
from mmmedia.sources import FileSource, Source, Window
from mmmedia.video.decoders import clips, eligible, sparse
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.shown import Shown, display_ranks, shown_frames
from mmmedia.video.piecewise.layout import CannotTellError
from mmmedia.video.piecewise.parts import Video, open_video, read_parts
from mmmedia.video.piecewise.reading import check_pays, fetch_mode, is_small, refusal
from mmmedia.video.samplers import VideoSourceMetadata

Readable = bytes | bytearray | memoryview | str | PathLike[str] | Source
Choice = Sequence[int] | Callable[[VideoSourceMetadata], Sequence[int]]


@contextmanager
def opened(readable: Readable) -> Iterator[bytes | Source]:
    """Give an encoded file, or the source of what lies at a path, open inside the block.

    Raises:
        OSError: the path can't be read.
    """
    if isinstance(readable, Source):
        yield readable
    elif not isinstance(readable, str | PathLike):
        yield bytes(readable)
    elif Path(readable).is_file():
        with FileSource(readable) as source:
            yield source
    else:  # a pipe, or none
        yield Path(readable).read_bytes()


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
    source: Readable,
    indices: Choice,
    *,
    fetch: Literal["auto", "never", "always"] | None = None,
) -> Excerpt:
    """Cut out of a video what some of its frames need.

    A decoder that reads the clip gives these frames as one that reads the video from its start. Where it
    can't be told which packets a frame needs, the clip holds all of them.

    Args:
        source: an encoded file, the path of one, or a source that is read in pieces, as a path is.
        indices: numbers of frames, as in `frames_indices`; or what chooses them when told what the video is.
        fetch: as in `read_frames`.

    Raises:
        InvalidMediaError: (a `ValueError`) there is no video that can be read.
        InvalidArgumentError: (a `ValueError`) no frames, or such as the video does not have.

    >>> from mmmedia.cli import scene
    >>> part = excerpt(scene.clip(), [3, 100])
    >>> part.indices, len(part.positions), part.left_out > 0
    ([3, 100], 2, True)
    """
    with opened(source) as data:
        if not isinstance(data, Source):
            return _of_bytes(data, indices)
        window = Window(data)
        mode = fetch_mode(fetch)
        reason = "it is small" if is_small(data, mode) else refusal(mode)
        if reason is None:
            try:
                return _of_pieces(open_video(window), indices, must_pay=mode != "always")
            except (CannotTellError, CannotSeekError) as error:
                reason = str(error)
        if mode == "always":
            raise NotSparseError.of(data.name, reason)
        return _of_bytes(window.all(), indices)


def _of_bytes(data: bytes, indices: Choice) -> Excerpt:
    packets, template = index.build_open(data)
    shown = shown_frames(packets)
    told = _told(packets, shown)
    wanted = named_frames(indices, told)
    try:
        return _of_parts(template, packets, shown, wanted, told)
    except CannotSeekError as refusal:
        return _of_all(template, packets, shown, wanted, told, str(refusal))


def _told(packets: index.PacketIndex, shown: Shown) -> VideoSourceMetadata:
    """What a video is, by its packets alone."""
    rate = float(packets.average_rate or packets.rate)
    claim = VideoSourceMetadata(shown.total, rate, shown.total / rate if rate > 0 else 0.0)
    return shown.metadata(claim, packets.rate)


def named_frames(frames: Choice, video: VideoSourceMetadata) -> list[int]:
    """Return the frames of a video that are named, or that are chosen when told what it is.

    Raises:
        InvalidMediaError: (a `ValueError`) the video has no frames.
        InvalidArgumentError: (a `ValueError`) none are named, or such as it does not have.
    """
    total = video.total_frames_num
    if total <= 0:
        raise InvalidMediaError("The video has no frames.")
    wanted = [int(number) for number in (frames(video) if callable(frames) else frames)]
    if not wanted:
        raise InvalidArgumentError("Expected at least one frame.")
    for number in wanted:
        if not 0 <= number < total:
            raise InvalidArgumentError(f"The video has no frame {number}: it has {total}.")
    return wanted


def _of_parts(
    template: Any,
    packets: index.PacketIndex,
    shown: Shown,
    wanted: list[int],
    told: VideoSourceMetadata,
) -> Excerpt:
    packets, structure, positions = eligible.judge(packets, shown)
    order = sorted(set(wanted))
    plan = sparse.make_plan(packets, structure, positions[order], one_clip=True)
    places = dict(zip(order, positions[order].tolist(), strict=True))
    return _cut(template, plan, shown, [places[number] for number in wanted], wanted, told)


def _of_pieces(
    video: Video,
    indices: Choice,
    *,
    must_pay: bool,
) -> Excerpt:
    told = _told(video.packets, video.shown)
    wanted = named_frames(indices, told)
    present = sorted(set(wanted))
    if must_pay:
        check_pays(video, present)
    parts = read_parts(video, present, one_clip=True)
    places = dict(zip(present, parts.positions[parts.rows].tolist(), strict=True))
    template = clips.template_of(video.admitted, video.packets)
    return _cut(template, parts.plan, parts.shown, [places[number] for number in wanted], wanted, told)


def _cut(
    template: Any,
    plan: sparse.SparsePlan,
    shown: Shown,
    positions: list[int],
    wanted: list[int],
    told: VideoSourceMetadata,
) -> Excerpt:
    """Write the clip of a plan, in which frames have these decode positions."""
    packets, structure = plan.index, plan.structure
    clip = clips.arrange(packets, structure, plan.in_one())
    if clip.possible.any():
        raise CannotSeekError("no key frame at the start")
    data = clips.write(packets, structure, clip, template)
    place = {int(position): int(at) for position, at in zip(clip.positions, clip.places, strict=True)}
    visible = np.sort(clip.places[clip.certain])
    found = np.searchsorted(visible, [place[position] for position in positions]).tolist()
    whole = int(np.isin(clip.positions, shown.packets).sum()) - len(clip.spared)
    left_out = told.total_frames_num - whole
    return Excerpt(data, wanted, found, len(visible), len(clip.spared), left_out, told)


def _of_all(
    template: Any,
    packets: index.PacketIndex,
    shown: Shown,
    wanted: list[int],
    told: VideoSourceMetadata,
    reason: str,
) -> Excerpt:
    ranks = display_ranks(packets)
    if ranks is None:
        if packets.discard.any() or (packets.pts != index.NO_PTS).any():
            raise InvalidMediaError(f"The video can't be cut: {reason}, and frames without times.")
        ranks = np.arange(len(packets))
    try:
        clip = clips.whole(packets, ranks, shown.begin)
        data = clips.write(packets, None, clip, template)
    except CannotSeekError as error:
        raise InvalidMediaError(
            f"The video can't be cut: {reason}, and no container takes it whole."
        ) from error
    if shown.positions is None:
        return Excerpt(data, wanted, list(wanted), shown.total, 0, 0, told, reason)
    # A clip has no edit list: what one hides is seen in it.
    seen = np.sort(ranks[np.union1d(shown.packets, np.flatnonzero(packets.discard))])
    found = (np.searchsorted(seen, ranks[shown.positions[wanted]]) + shown.made_up).tolist()
    return Excerpt(data, wanted, found, len(seen) + shown.made_up, 0, 0, told, reason)
