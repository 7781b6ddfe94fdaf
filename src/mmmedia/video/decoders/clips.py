"""Small clips cut out of a video: the packets that wanted frames need, in a container of their own."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmedia import containers
from mmmedia.video.decoders.bitstreams.hevc import as_splice
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError, Structure
from mmmedia.video.decoders.packets.index import PacketIndex
from mmmedia.video.decoders.plan import Span

# Frames stand so far apart: whole milliseconds, as Matroska has no less.
STEP = Fraction(1, 25)
STEP_MS = 40

# What MP4 stores as any player expects it; all else goes into Matroska.
_IN_MP4 = frozenset(["h264", "hevc", "vp9", "libdav1d", "av1"])
# Of these streams themselves say where samples of chroma lie.
_SITED = frozenset(["h264", "hevc"])
# Codecs that PyAV writes into NUT alone, which tells no colours, as AVI does not.
NO_COLOURS = frozenset(["huffyuv", "ffvhuff", "utvideo", "v210"])
_UNSPECIFIED = 2


@dataclass(frozen=True)
class Clip:
    """Which packets a clip holds, and what comes out of it.

    Attributes:
        positions: their decode positions in the video, in decode order.
        spared: of these, those for which a stand-in will do.
        starts: those at which a new stretch begins.
        places: the place of each in the clip's display order.
        certain: whether its frame must come when the clip is decoded.
        possible: whether it may come, and its look is of no account.
    """

    positions: npt.NDArray[np.intp]
    spared: frozenset[int]
    starts: frozenset[int]
    places: npt.NDArray[np.int64]
    certain: npt.NDArray[np.bool_]
    possible: npt.NDArray[np.bool_]

    @property
    def begin(self) -> int:
        """When to show the frame of place 0, so that `place` can tell what a decoder counts from."""
        return len(self.places) if self.places[0] else 0

    def place(self, milliseconds: float) -> int:
        """Return the place of a frame by OpenCV's time of it, in a clip that begins at `begin`.

        OpenCV counts from the first packet's frame, or, where FFmpeg does not find out when a stream of few
        packets begins, from zero.
        """
        came = round(milliseconds / STEP_MS)
        return came - self.begin if came >= self.begin else came + int(self.places[0])

    @property
    def decoded(self) -> int:
        """How many pictures are really decoded."""
        return len(self.positions) - len(self.spared)


def arrange(index: PacketIndex, structure: Structure, spans: Sequence[Span]) -> Clip:
    """Choose what a clip must hold so that the wanted frames of spans come out of it exactly."""
    positions: list[int] = []
    spared: set[int] = set()
    optional: set[int] = set()
    access = np.flatnonzero(structure.access_points)
    for span in sorted(spans, key=lambda each: each.start):
        inside = slice(span.start, span.stop)
        kept = ~structure.disposable[inside]
        if structure.undecodable is not None:
            following = access[np.searchsorted(access, span.start, side="right") :]
            stop = int(following[0]) if len(following) else len(index)
            kept[: stop - span.start] &= ~structure.undecodable[inside][: stop - span.start]
        own = sorted({*(np.flatnonzero(kept) + span.start).tolist(), *span.wanted})
        if structure.references is not None:
            spared |= structure.references.replaceable(span.start, span.stop, span.wanted)
        if index.codec == "h264":
            # Shown before the first, and decoded without what they refer to.
            optional |= {each for each in own if structure.ranks[each] < structure.ranks[span.start]}
        positions += own
    chosen = np.array(positions, np.intp)
    visible = np.ones(len(chosen), np.bool_) if structure.hidden is None else ~structure.hidden[chosen]
    leading = np.isin(chosen, list(optional))
    return Clip(
        chosen,
        frozenset(spared.intersection(positions)),
        frozenset(span.start for span in spans),
        np.argsort(np.argsort(structure.ranks[chosen])),
        visible & ~leading,
        visible & leading,
    )


def whole(index: PacketIndex, ranks: npt.NDArray[np.int64], begin: int = 0) -> Clip:
    """Return a clip that holds every packet from the decode position `begin` on."""
    positions = np.arange(begin, len(index))
    none = np.zeros(len(positions), np.bool_)
    return Clip(positions, frozenset(), frozenset(), np.argsort(np.argsort(ranks[begin:])), none, ~none)


def write(
    index: PacketIndex, structure: Structure | None, clip: Clip, template: Any, *, begin: int = 0
) -> bytes:
    """Return a clip as a file: its packets as they are, one step of time apart.

    Args:
        index: the video's packets, as `structure` was read from them.
        structure: what they are to each other; None where all of them are in the clip.
        clip: which of them.
        template: the video's stream in its container, as FFmpeg opened it; from it come colours, orientation
            and the shape of pixels.
        begin: when the frame of place 0 is shown, in steps.

    Raises:
        CannotSeekError: FFmpeg won't write it, or it would be decoded to another pixel format.
    """
    import av

    buffer = io.BytesIO()
    container = _format(index)
    late = int((np.arange(len(clip.places)) - clip.places).max(initial=0))
    references = structure.references if structure is not None else None
    length_size = (index.extradata[21] & 3) + 1 if index.codec == "hevc" and len(index.extradata) > 22 else 0
    try:
        without_random_names = {"fflags": "+bitexact"}
        with av.open(buffer, "w", format=container, options=without_random_names) as out:
            stream = out.add_stream_from_template(template, opaque=True)
            stream.time_base = STEP
            if index.codec == "prores" or container == "nut":
                stream.codec_context.codec_tag = index.codec_tag  # it says the pixel format
            extradata = (structure.extradata if structure is not None else None) or index.extradata
            if extradata:
                stream.codec_context.extradata = extradata
            for number, position in enumerate(clip.positions.tolist()):
                payload = None
                if references is not None and position in clip.spared:
                    payload = references.stand_in(position)
                elif length_size and position in clip.starts:
                    payload = as_splice(index.payload(position), length_size)
                packet = index.packet(position, payload)
                packet.stream, packet.time_base = stream, STEP
                packet.dts, packet.pts = begin + number - late, begin + int(clip.places[number])
                packet.duration = 1
                out.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise CannotSeekError("can't be cut") from error
    encoded = buffer.getvalue()
    if not _keeps_pixels(encoded, index):
        raise CannotSeekError("can't be cut")
    return encoded


def _keeps_pixels(encoded: bytes, index: PacketIndex) -> bool:
    """Whether a clip is decoded to the video's pixel format: of some codecs the container says it."""
    if index.codec in _IN_MP4:
        return True
    with containers.open_av(containers.Admitted(encoded, "clip")) as container:
        return container.streams.video[0].codec_context.pix_fmt == (index.pix_fmt or None)


def _format(index: PacketIndex) -> str:
    """MP4, unless it would lose something.

    It tells matrix, primaries and transfer, or none of them; and not where samples of chroma lie.
    """
    told = {number != _UNSPECIFIED for number in index.colour[1:]}
    if index.codec in NO_COLOURS:
        return "nut"
    loses = len(told) > 1 or (index.siting is not None and index.codec not in _SITED)
    return "mp4" if index.codec in _IN_MP4 and not loses else "matroska"


def template_of(data: "bytes | containers.Admitted[Any]", index: PacketIndex) -> Any:
    """Return the video's stream, in a container that stays open as long as somebody holds it."""
    container = containers.open_av(data)
    return container.streams[index.stream]
