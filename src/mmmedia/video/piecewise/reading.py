"""The way in: frames of bytes or of a source, of which no more is read than they need."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSparseError
from mmmedia.sources import Source, Window
from mmmedia.video.decoders import clips, opencv, pyav, sparse, stats
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.fit import Size, fitted_size
from mmmedia.video.decoders.part import WHOLE, Part
from mmmedia.video.decoders.read import BACKENDS, Choose, Decoded, Reader, _chosen, read_video
from mmmedia.video.decoders.upright import Upright, upright
from mmmedia.video.piecewise.layout import CannotTellError
from mmmedia.video.piecewise.parts import Parts, Video, bytes_needed, open_video, read_parts, stretches
from mmmedia.video.samplers import VideoSourceMetadata

logger = logging.getLogger(__name__)

SMALLEST = 8 << 20
"""Bytes of a source below which all of it is read at once."""
LARGEST_PART = 0.6
"""What part of a source may be needed for pieces of it to be read."""
FETCH = ("auto", "never", "always")


def read_source(
    data: bytes | Source,
    choose: Choose,
    reader: Reader,
    *,
    recovery: bool = False,
    backend: str | None = None,
    decode: str | None = None,
    may_seek: bool = True,
    part: Part = WHOLE,
    size: Size | None = None,
    fetch: str | None = None,
    whole: Callable[[bytes], bytes] | None = None,
) -> Decoded:
    """Decode the frames that `choose` picks; see `read_video`.

    Args:
        data: an encoded video file, or where one is read from in pieces.
        choose: from source metadata to source indices.
        reader: reads sequentially through a capture.
        recovery: put the next readable frame in the place of one that fails.
        backend: "opencv" (None), or "pyav".
        decode: "auto", "sequential" or "seek"; None: the setting `VLLM_VIDEO_DECODE`.
        may_seek: False where the reader's own way of reading must be honoured.
        part: what of the video `choose` is told of, as if it were the whole.
        size: of the frames, as in `read_video`.
        fetch: of a source, "auto": pieces where that pays and is exact; "never": all; "always": pieces, or an
            error; None: the setting `MMMEDIA_SPARSE_FETCH`.
        whole: what is decoded where all of the file is, made of that.

    Raises:
        NotSparseError: (a `ValueError`) `fetch` is "always", and pieces won't do.
        MediaError: as of `read_video`, and of `Source.read`.
    """
    how: dict[str, Any] = {
        "recovery": recovery, "backend": backend, "decode": decode, "may_seek": may_seek, "part": part,
        "size": size,
    }  # fmt: skip
    if not isinstance(data, Source):
        return read_video(data if whole is None else whole(data), choose, reader, **how)
    once = functools.lru_cache(choose)  # what chooses may keep what it chose
    mode = fetch_mode(fetch)
    window = Window(data)
    reason = refusal(mode, backend, decode, may_seek=may_seek)
    if is_small(data, mode):
        reason = "it is small"
    if reason is None:
        try:
            return decode_pieces(open_video(window), once, backend, part, size, must_pay=mode != "always")
        except (CannotTellError, CannotSeekError) as error:
            reason = str(error)
    if mode == "always":
        raise NotSparseError.of(data.name, reason)
    logger.debug("All of %r is read: %s.", data.name, reason)
    read = window.all()
    return read_video(read if whole is None else whole(read), once, reader, **how)


def fetch_mode(fetch: str | None) -> str:
    """Return whether pieces are read: "auto", "never" or "always".

    Raises:
        InvalidArgumentError: (a `ValueError`) another word.
    """
    mode = fetch or envs.MMMEDIA_SPARSE_FETCH
    if mode not in FETCH:
        raise InvalidArgumentError(f"fetch={mode!r}: expected one of {', '.join(FETCH)}.")
    return mode


def refusal(
    mode: str, backend: str | None = None, decode: str | None = None, *, may_seek: bool = True
) -> str | None:
    """Return why all of any source is to be read, whatever is in it; None where it need not be."""
    if mode == "never":
        return "by request"
    if opencv.is_replaced() or not may_seek or backend not in {None, *BACKENDS}:
        return "a decoder of its own"
    if (decode or envs.VLLM_VIDEO_DECODE) == "sequential" or envs.MMMEDIA_COMPAT == "0.20":
        return "frames are read one after the other"
    return None


def is_small(source: Source, mode: str) -> bool:
    """Return whether a source is so small that all of it is read."""
    return mode == "auto" and source.size < SMALLEST


def source_metadata(video: Video, backend: str | None = None) -> VideoSourceMetadata:
    """Return what a video is, as of the whole file."""
    packets, shown = video.packets, video.shown
    if backend == "pyav":
        return shown.metadata(pyav.claimed_metadata(packets, shown.total), packets.rate)
    claim = None
    if packets.is_first:
        try:
            claim = opencv.claimed_metadata(opencv.open_capture(video.admitted))
        except InvalidMediaError:
            claim = None
    return shown.metadata(claim, packets.rate)


def decode_pieces(
    video: Video,
    choose: Choose,
    backend: str | None = None,
    part: Part = WHOLE,
    size: Size | None = None,
    *,
    must_pay: bool = False,
) -> Decoded:
    """Decode the frames that `choose` picks of a video of which the index has been read.

    Args:
        video: that.
        choose: as of `read_source`.
        backend: likewise.
        part: likewise.
        size: likewise.
        must_pay: do not where the frames need most of the file.

    Raises:
        CannotTellError: the whole is needed.
        CannotSeekError: it may not be decoded by parts.
        MediaError: as of `read_source`.
    """
    source = source_metadata(video, backend)
    wanted = _chosen(choose, source, part, video.shown.times)
    turn = upright(video.packets.matrix)
    own = turn.size(video.packets.height, video.packets.width)
    fitted = fitted_size(own, size, len(set(wanted)))
    present = present_frames(video, wanted)
    if must_pay:
        check_pays(video, present)
    groups = [present]
    try:
        parts = [read_parts(video, present)]
    except CannotSeekError:
        # Open groups can't be told side by side; one by one they can.
        groups = stretches(video, present)
        if len(groups) < 2:
            raise
        parts = [read_parts(video, each) for each in groups]
    frames, decoded = _frames(video, parts, own, turn, fitted)
    if len(groups) > 1:
        frames = frames[np.argsort(np.concatenate(groups))]
    stats.count("seek", wanted=len(present), decoded=decoded)
    window = video.window
    logger.debug("Read %d of %d bytes of %r.", window.fetched, window.size, window.source.name)
    opencv.log_missing(wanted, present)
    return Decoded(frames, present, source)


def _frames(
    video: Video, parts: Sequence[Parts], size: tuple[int, int], turn: Upright, fitted: tuple[int, int]
) -> tuple[sparse.Frames, int]:
    """Decode all parts, and return their frames one behind the other, with how many were decoded."""
    template = clips.template_of(video.admitted, video.packets)
    done = [sparse.execute(each.plan, template, size, turn, fitted) for each in parts]
    frames = done[0][0] if len(done) == 1 else np.concatenate([each for each, _ in done])
    return frames, sum(decoded for _, decoded in done)


def present_frames(video: Video, wanted: Sequence[int]) -> list[int]:
    """Return those of some frames that a video has, each once, ascending."""
    present = sorted({number for number in wanted if 0 <= number < video.shown.total})
    if not present:
        raise CannotSeekError("no such frames")
    return present


def check_pays(video: Video, present: Sequence[int]) -> None:
    """Raise `CannotTellError` where frames need most of the file."""
    if bytes_needed(video, present) > LARGEST_PART * video.window.size:
        raise CannotTellError("most of it is needed")
