"""One way into all decoders: encoded bytes and a choice of frames in, frames out."""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mmmedia import containers, envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSeekableError
from mmmedia.packages import packages_for
from mmmedia.video.decoders import clips, eligible, opencv, plan, pyav, sparse, stats
from mmmedia.video.decoders.animation import Animation, animation
from mmmedia.video.decoders.bitstreams.colours import are_converted, end_the_process
from mmmedia.video.decoders.bitstreams.fields import may_hold_fields
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.fit import Size, fitted_size, resized, size_for
from mmmedia.video.decoders.opencv.numbered import ClockError, Numbered, Places, Steps, Times, times
from mmmedia.video.decoders.packets import index
from mmmedia.video.decoders.part import WHOLE, Part
from mmmedia.video.decoders.plain import PlainVideo, plain_video, stays_plain
from mmmedia.video.decoders.shown import Shown, display_ranks, shown_frames
from mmmedia.video.decoders.upright import upright
from mmmedia.video.samplers import TimedSource, VideoSourceMetadata
from mmmedia.work.watch import watched

logger = logging.getLogger(__name__)

Frames = npt.NDArray[np.uint8]
BACKENDS = ("opencv", "pyav")
MODES = ("auto", "sequential", "seek")
_COLOURS = "OpenCV can't convert its colours"
# Codecs that may become interlaced in the midst of a stream.
_MIXED = frozenset(["h264", "hevc", "mpeg2video", "mpeg4", "prores", "vc1"])


@dataclass(frozen=True)
class Decoded:
    """Frames, uint8 RGB (n, height, width, 3), the source index of each, and what the source is."""

    frames: Frames
    indices: list[int]
    source: VideoSourceMetadata


class Reader(Protocol):
    """How a loader reads through a capture; the built-in one is `VideoLoader` itself."""

    def read_frames(
        self, cap: Any, frame_idx: list[int], total_frames_num: int, *, frame_recovery: bool = False
    ) -> tuple[Frames, list[int]]:
        """Return the frames that could be read, and their numbers."""


Choose = Callable[[VideoSourceMetadata], list[int]]


@dataclass(frozen=True)
class Way:
    """How a request is to be answered.

    Attributes:
        reader: reads sequentially through a capture.
        recovery: put the next readable frame in the place of one that fails.
        mode: "auto", "sequential" or "seek".
        built_in: whether frames may be got otherwise than through the reader, and through OpenCV itself.
        part: what of the video samplers are to see.
        size: of the frames, as of `fit.size_for`.
    """

    reader: Reader
    recovery: bool
    mode: str
    built_in: bool
    part: Part = WHOLE
    size: Size | None = None

    def read(self, capture: Any, wanted: list[int], total: int) -> "_Pass":
        """Read through a capture once."""
        if not self.built_in:
            frames, valid = self.reader.read_frames(capture, wanted, total, frame_recovery=self.recovery)
            return _Pass(frames, valid, [] if self.recovery else wanted)
        if self.recovery:
            frames, valid, recovered = opencv.read_frames_with_recovery(capture, wanted, total)
            return _Pass(frames, valid, [number for number in wanted if number not in recovered])
        frames, count, valid = opencv.read_frames(capture, set(wanted), len(wanted), max(wanted))
        return _Pass(frames[:count], valid, wanted)


class _Pass(NamedTuple):
    """What one pass through a capture gives: frames, their numbers, and those that nothing stands in for."""

    frames: Frames
    valid: list[int]
    wanted: list[int]
    came: bool = True  # whether any frame came, be it wanted or not

    def lost(self, total: int) -> list[int]:
        """Return those of the wanted frames, of so many that there are, that did not come."""
        return sorted(set(self.wanted).intersection(range(total)).difference(self.valid))

    def joined(self, other: "_Pass") -> "_Pass":
        """Return the frames of both; if they have some in common, those of the one that has more."""
        came = self.came or other.came
        is_apart = set(self.valid).isdisjoint(other.valid)
        if not is_apart or self.frames.shape[1:] != other.frames.shape[1:]:
            best = max(self, other, key=lambda each: len(each.valid))
            return best._replace(wanted=self.wanted, came=came)
        valid = np.array([*self.valid, *other.valid])
        order = np.argsort(valid)
        frames = np.concatenate([self.frames, other.frames])[order]
        return _Pass(frames, valid[order].tolist(), self.wanted, came)

    def answer(self, source: VideoSourceMetadata) -> Decoded:
        """Return the frames, and say what is left out."""
        opencv.log_missing(set(self.wanted), self.valid)
        return Decoded(self.frames, self.valid, source)


@packages_for("A video")
def read_video(
    data: bytes,
    choose: Choose,
    reader: Reader,
    *,
    recovery: bool = False,
    backend: str | None = None,
    decode: str | None = None,
    may_seek: bool = True,
    part: Part = WHOLE,
    size: Size | None = None,
) -> Decoded:
    """Decode the frames that `choose` picks from what the source is.

    Args:
        data: an encoded video file.
        choose: from source metadata, a `TimedSource`, to source indices; it may be asked twice.
        reader: reads sequentially through a capture.
        recovery: put the next readable frame in the place of one that fails.
        backend: "opencv" (None), or "pyav".
        decode: "auto", "sequential" or "seek"; None: the setting `VLLM_VIDEO_DECODE`.
        may_seek: False where the reader's own way of reading must be honoured.
        part: what of the video `choose` is told of, as if it were the whole.
        size: of the frames: (height, width), or the longer side, beyond which they are made smaller; None: as
            they are. No more than a few lie together before they have it.

    Raises:
        InvalidMediaError: (a `ValueError`) the bytes hold no video that can be decoded.
        InvalidArgumentError: (a `ValueError`) an unknown backend or mode, or one that excludes another.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.
    """
    if backend not in {None, *BACKENDS}:
        raise InvalidArgumentError(f"Unknown video backend {backend!r}; there are: {', '.join(BACKENDS)}.")
    mode = decode or envs.VLLM_VIDEO_DECODE
    if mode not in MODES:
        raise InvalidArgumentError(f"decode={mode!r}: expected one of {', '.join(MODES)}.")
    if backend == "pyav":
        if recovery:
            raise InvalidArgumentError('frame_recovery needs backend="opencv".')
        if (pictures := animation(data)) is not None:
            return _animated(pictures, choose, mode, part, size)
        return _read_pyav(data, choose, mode, part, size)
    built_in = may_seek and not opencv.is_replaced()
    if not built_in:
        if mode == "seek":
            raise InvalidArgumentError('decode="seek": this loader reads in a way of its own.')
        mode = "sequential"
    way = Way(reader, recovery, mode, built_in, part, size)
    if opencv.is_replaced() or envs.MMMEDIA_COMPAT == "0.20":
        claimed = _as_claimed(data, choose, way)
        return replace(claimed, frames=resized(claimed.frames, size))
    if (pictures := animation(data)) is not None:
        return _animated(pictures, choose, mode, part, size)
    admitted = containers.admit(data)
    is_looked_at = mode != "seek" and len(admitted.data) <= _QUICKLY_LOOKED_AT
    plain = plain_video(admitted) if is_looked_at else None
    capture = None if plain is None else _opened(admitted)
    if plain is not None and capture is not None:
        source = plain.metadata(opencv.claimed_metadata(capture))
        wanted = _wanted_of(plain, source, capture, choose, way)
        if wanted and stays_plain(admitted.data, plain):
            decoded = _plainly(plain, source, capture, wanted, way)
            if decoded is not None:
                return decoded
            capture = None
    return _Request(admitted, choose, way, capture).answer()


# Bytes in which it does not take long to find whether a file is plain, whatever they are.
_QUICKLY_LOOKED_AT = 1 << 23


def _opened(admitted: "containers.Admitted[bytes]") -> Any:
    try:
        return opencv.open_capture(admitted)
    except InvalidMediaError:
        return None


def _wanted_of(
    plain: PlainVideo, source: VideoSourceMetadata, capture: Any, choose: Choose, way: Way
) -> list[int] | None:
    """The frames that are wanted of a plain video, where its packets need not be looked at for them."""
    if opencv.frame_size(capture) != (plain.height, plain.width):
        return None
    wanted = _chosen(choose, source, way.part, plain.shown.times)
    present = sorted({number for number in wanted if 0 <= number < plain.total})
    if not present:
        return None
    if way.mode == "sequential" or not plan.may_pay(present, present[-1], plain.height * plain.width):
        return wanted
    return None if plain.outline.may_pay(present, sparse.workers_at_once()) else wanted


def _plainly(
    plain: PlainVideo, source: VideoSourceMetadata, capture: Any, wanted: list[int], way: Way
) -> Decoded | None:
    """The frames of a plain video, whose packets nobody need look at; None where some do not come."""
    fitted_size((plain.height, plain.width), way.size, len(set(wanted)))
    numbered = Numbered(capture, plain.total, plain.clock(), size=way.size)

    def read() -> _Pass:
        found = way.read(numbered, wanted, plain.total)
        numbered.prove()
        return found

    try:
        found = watched(opencv.kind(capture), read) if way.built_in else read()
    except ClockError:
        return None
    if set(found.valid) != {number for number in wanted if 0 <= number < plain.total}:
        return None
    stats.count("sequential", "by request" if way.mode == "sequential" else "does not pay")
    return found.answer(source)


class _Request:
    """One request for frames of a video, by its packets."""

    def __init__(
        self, admitted: "containers.Admitted[bytes]", choose: Choose, way: Way, capture: Any = None
    ) -> None:
        self._way = way
        self._admitted = admitted
        capture = capture or _opened(admitted)
        try:
            self._packets, self._template = index.build_open(self._admitted)
        except InvalidMediaError:
            if index.is_cut_before_its_index(self._admitted):
                raise
            raise InvalidMediaError(
                "Could not open video stream: there is none that a decoder recognises."
            ) from None
        self._shown = shown_frames(self._packets)
        self._upright = upright(self._packets.matrix)
        # OpenCV takes the first stream of pictures, be it a cover; and it can turn pictures, not mirror them.
        if self._packets.is_first:
            self._capture = self._open() if self._upright.mirrored else capture
        else:
            self._capture = None
        claim = None if self._capture is None else opencv.claimed_metadata(self._capture)
        self._source = self._shown.metadata(claim, self._packets.rate)
        self._warn_of_a_cut(claim)
        self._wanted = _chosen(choose, self._source, way.part, self._shown.times)
        own = self._upright.size(self._packets.height, self._packets.width)
        fitted_size(own, way.size, len(set(self._wanted)))

    def _open(self) -> Any:
        return opencv.open_capture(self._admitted, turned=not self._upright.mirrored)

    def _warn_of_a_cut(self, claim: VideoSourceMetadata | None) -> None:
        if claim == self._source:
            return
        missing = containers.missing_bytes(io.BytesIO(self._admitted.data))
        if missing:
            logger.warning(
                "A video is cut short: %d bytes are missing; it has %d frames.", missing, self._shown.total
            )

    def answer(self) -> Decoded:
        """Return the frames: by an excerpt where that is exact and pays, else by reading all up to them."""
        reason = "by request"
        if self._way.mode != "sequential":
            try:
                return self._sparsely()
            except CannotSeekError as refusal:
                reason = str(refusal)
                if self._way.mode == "seek":
                    raise NotSeekableError(f'decode="seek": not provably exact here: {reason}.') from None
        stats.count("sequential", reason)
        total = self._source.total_frames_num
        logger.debug("Decoding sequentially (%s): %d of %d frames.", reason, len(self._wanted), total)
        return self._sequentially()

    def _sparsely(self) -> Decoded:
        """The fast path; raises CannotSeekError where it does not pay or can't be proven."""
        return _by_excerpt(
            self._template,
            self._packets,
            self._shown,
            self._source,
            self._wanted,
            self._way.size,
            must_pay=self._way.mode != "seek",
        )

    def _sequentially(self) -> Decoded:
        """The reference: one pass by OpenCV, over the file or, where that won't do, over its stream alone."""
        if self._way.built_in and self._may_be_interlaced():
            answer = self._by_pyav("OpenCV can't convert its interlaced frames", only_if_interlaced=True)
            if answer is not None:
                return answer
        if not are_converted(self._packets):
            answer = self._by_pyav(_COLOURS)
            if answer is not None:
                return answer
        found = self._read_file()
        if found is None or found.lost(self._shown.total):
            found = self._read_stream(found)
        if found is not None and found.valid:
            return found.answer(self._source)
        answer = None if found is not None and found.came else self._by_pyav("OpenCV reads no frame of it")
        if answer is None:
            raise _nothing_read(len(self._packets))
        return answer

    def _may_be_interlaced(self) -> bool:
        if not may_hold_fields(self._packets):
            return False
        # Of other codecs than these it shows at the start, if at all.
        return self._packets.codec in _MIXED or pyav.starts_interlaced(self._admitted)

    def _read_file(self) -> _Pass | None:
        """Read the file by its frames' times, or by their number alone where these are not the packets'."""
        capture, self._capture = self._capture, None
        if capture is None or self._shown.begin:
            return None
        clock = times(self._packets, self._shown)
        try:
            return self._through(capture, clock, self._wanted)
        except ClockError:
            if isinstance(clock, Steps):  # frames are lost, and the stream alone tells which
                return None
            return self._through(self._open(), None, self._wanted)

    def _read_stream(self, before: _Pass | None) -> _Pass | None:
        """Read a clip of nothing but the stream's packets, which begins and ends where they do.

        Args:
            before: what reading the file gave: only what is lost there is looked for.
        """
        ranks = display_ranks(self._packets)
        positions = self._shown.positions
        if ranks is None or positions is None:
            return before
        begin = self._shown.begin
        clip = clips.whole(self._packets, ranks, begin)
        try:
            encoded = clips.write(self._packets, None, clip, self._template, begin=clip.begin)
            capture = opencv.open_capture(encoded, turned=not self._upright.mirrored)
        except (CannotSeekError, InvalidMediaError):
            return before
        clock = Places(clip.places[positions - begin].tolist(), clip.place)
        if before is None:
            return self._through(capture, clock, self._wanted)
        # What stands in for a lost frame depends on what else is wanted.
        wanted = self._wanted if self._way.recovery else before.lost(self._shown.total)
        return before.joined(self._through(capture, clock, wanted))

    def _through(self, capture: Any, clock: Times | Steps | Places | None, wanted: list[int]) -> _Pass:
        """One pass."""
        for _ in range(self._shown.made_up):
            capture.grab()
        turn = self._upright if self._upright.mirrored else None
        # Twice the packets that there are, so as to be sure.
        patience = 2 * (len(self._packets) + len(self._admitted.data) // 4096) + 16
        numbered = Numbered(capture, self._shown.total, clock, turn, patience, self._way.size)

        def read() -> _Pass:
            found = self._way.read(numbered, wanted, self._shown.total)
            numbered.prove()
            return found

        found = watched(opencv.kind(capture), read) if self._way.built_in else read()
        return found._replace(came=numbered.came)

    def _by_pyav(self, why: str, *, only_if_interlaced: bool = False) -> Decoded | None:
        """PyAV's answer for a stream that OpenCV can't deliver; None where there is none."""
        try:
            frames, valid, interlaced = pyav.read_frames(
                self._admitted, self._packets, self._shown, self._wanted, self._way.size
            )
        except InvalidMediaError as error:
            if only_if_interlaced:
                return None
            raise _nothing_read(len(self._packets)) from error
        if not valid or (only_if_interlaced and not interlaced):
            return None
        logger.warning("A video was decoded with PyAV: %s.", why)
        return _Pass(frames, valid, self._wanted).answer(self._source)


def _by_excerpt(
    template: Any,
    packets: index.PacketIndex,
    shown: Shown,
    source: VideoSourceMetadata,
    wanted: list[int],
    fitted: Size | None,
    *,
    must_pay: bool,
) -> Decoded:
    """Decode clips of what the wanted frames need; raises CannotSeekError as `sparse.execute` does."""
    turn = upright(packets.matrix)
    size = turn.size(packets.height, packets.width)
    present = sorted({number for number in wanted if 0 <= number < shown.total})
    if not present:
        raise CannotSeekError("no such frames")
    if must_pay and not plan.may_pay(present, present[-1], size[0] * size[1]):
        raise CannotSeekError("does not pay")
    packets, structure, positions = eligible.judge(packets, shown)
    sparse_plan = sparse.make_plan(packets, structure, positions[present])
    if must_pay and not sparse_plan.pays(last=present[-1]):
        raise CannotSeekError("does not pay")
    frames, decoded = sparse.execute(sparse_plan, template, size, turn, size_for(size, fitted))
    stats.count("seek", wanted=len(present), decoded=decoded)
    logger.debug("Decoded by excerpts: %d frames for %d of %d.", decoded, len(present), shown.total)
    return _Pass(frames, present, wanted).answer(source)


def _animated(pictures: Animation, choose: Choose, mode: str, part: Part, size: Size | None) -> Decoded:
    """The frames of an animated picture, each of which may need all before it."""
    if mode == "seek":
        raise NotSeekableError('decode="seek": not provably exact here: animation.')
    source = pictures.metadata
    wanted = _chosen(choose, source, part, pictures.times)
    stats.count("sequential", "animation")
    frames, valid = pictures.read_frames(wanted, size)
    if not valid:
        raise _nothing_read(source.total_frames_num)
    return _Pass(frames, valid, wanted).answer(source)


def _as_claimed(data: bytes, choose: Choose, way: Way) -> Decoded:
    """As release 0.20 of vLLM reads: what the header claims counts, and every grab is a frame."""
    capture = opencv.open_capture(data)
    source = opencv.source_metadata(capture, len(data))
    wanted = _chosen(choose, source, way.part, None)
    opencv.check_request(capture, len(wanted))
    stats.count("sequential", "headers count")
    if way.built_in and opencv.may_be_interlaced(capture, data) and pyav.starts_interlaced(data):
        return _claimed_by_pyav(data, wanted, source, "OpenCV can't convert its interlaced frames")
    is_looked_at = not opencv.is_replaced() and opencv.may_tell_any_colours(capture, data)
    if is_looked_at and end_the_process(index.build(data)):
        return _claimed_by_pyav(data, wanted, source, _COLOURS)
    read = partial(way.read, capture, wanted, source.total_frames_num)
    found = watched(opencv.kind(capture), read) if way.built_in else read()
    if found.valid:
        return Decoded(found.frames, found.valid, source)
    del capture, read
    if opencv.is_replaced():
        raise _nothing_read(source.total_frames_num)
    return _claimed_by_pyav(data, wanted, source, "OpenCV reads no frame of it")


def _claimed_by_pyav(data: bytes, wanted: list[int], source: VideoSourceMetadata, why: str) -> Decoded:
    try:
        packets = index.build(data)
        frames, valid, _ = pyav.read_frames(data, packets, shown_frames(packets), wanted)
    except InvalidMediaError as error:
        raise _nothing_read(source.total_frames_num) from error
    if not valid:
        raise _nothing_read(source.total_frames_num)
    logger.warning("A video was decoded with PyAV: %s.", why)
    return Decoded(frames, valid, source)


def _nothing_read(claimed: int) -> InvalidMediaError:
    return InvalidMediaError(f"No frame could be read from the video, which claims {claimed} frames.")


def _read_pyav(data: bytes, choose: Choose, mode: str, part: Part, size: Size | None) -> Decoded:
    admitted = containers.admit(data)
    packets, template = index.build_open(admitted)
    shown = shown_frames(packets)
    source = shown.metadata(pyav.claimed_metadata(packets, shown.total), packets.rate)
    wanted = _chosen(choose, source, part, shown.times)
    own = upright(packets.matrix).size(packets.height, packets.width)
    fitted_size(own, size, len(set(wanted)))
    reason = "by request"
    if mode != "sequential":
        try:
            return _by_excerpt(template, packets, shown, source, wanted, size, must_pay=mode != "seek")
        except CannotSeekError as refusal:
            reason = str(refusal)
            if mode == "seek":
                raise NotSeekableError(f'decode="seek": {reason}.') from None
    stats.count("sequential", reason)
    frames, valid, _ = pyav.read_frames(admitted, packets, shown, wanted, size)
    if not valid:
        raise InvalidMediaError("No frame could be decoded from the video.")
    return _Pass(frames, valid, wanted).answer(source)


def _chosen(
    choose: Choose, source: VideoSourceMetadata, part: Part, times: Sequence[float] | None
) -> list[int]:
    """What the sampler picks of a part, by the numbers of the whole."""
    if part == WHOLE:
        seen, wanted = source, choose(TimedSource.of(source, times))
    else:
        numbers = part.numbers(source, times)
        fps = source.original_fps
        seen = VideoSourceMetadata(len(numbers), fps, len(numbers) / fps if fps > 0 else 0.0)
        chosen = choose(TimedSource.of(seen, None))
        wanted = [numbers[number] for number in chosen if 0 <= number < len(numbers)]
    if not wanted:
        raise InvalidMediaError(
            f"Nothing to sample from a video of {seen.total_frames_num} frames at {seen.original_fps} a "
            f"second for {seen.duration} s."
        )
    return wanted
