"""The way in: frames of bytes or of a source, of which no more is read than they need."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, InvalidMediaError, NotSparseError
from mmmedia.sources import Source, Window
from mmmedia.video.decoders import clips, opencv, pyav, sparse, stats
from mmmedia.video.decoders.bitstreams.structure import CannotSeekError
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.decoders.part import WHOLE, Part
from mmmedia.video.decoders.read import BACKENDS, Choose, Decoded, Reader, _chosen, read_video
from mmmedia.video.decoders.upright import upright
from mmmedia.video.piecewise.layout import CannotTellError
from mmmedia.video.piecewise.parts import Video, bytes_needed, open_video, read_parts
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
    fetch: str | None = None,
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
        fetch: of a source, "auto": pieces where that pays and is exact; "never": all; "always": pieces, or an
            error; None: the setting `MMMEDIA_SPARSE_FETCH`.

    Raises:
        NotSparseError: (a `ValueError`) `fetch` is "always", and pieces won't do.
        MediaError: as of `read_video`, and of `Source.read`.
    """
    how: dict[str, Any] = {
        "recovery": recovery, "backend": backend, "decode": decode, "may_seek": may_seek, "part": part
    }  # fmt: skip
    if not isinstance(data, Source):
        return read_video(data, choose, reader, **how)
    once = functools.lru_cache(choose)  # what chooses may keep what it chose
    mode = fetch_mode(fetch)
    window = Window(data)
    reason = refusal(mode, backend, decode, may_seek=may_seek)
    if is_small(data, mode):
        reason = "it is small"
    if reason is None:
        try:
            return _piecewise(open_video(window), once, backend, part, must_pay=mode != "always")
        except (CannotTellError, CannotSeekError) as error:
            reason = str(error)
    if mode == "always":
        raise NotSparseError.of(data.name, reason)
    logger.debug("All of %r is read: %s.", data.name, reason)
    return read_video(window.all(), once, reader, **how)


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


def _piecewise(video: Video, choose: Choose, backend: str | None, part: Part, *, must_pay: bool) -> Decoded:
    source = source_metadata(video, backend)
    wanted = _chosen(choose, source, part, video.shown.times)
    turn = upright(video.packets.matrix)
    size = turn.size(video.packets.height, video.packets.width)
    check_size(*size, len(set(wanted)))
    present = present_frames(video, wanted)
    if must_pay:
        check_pays(video, present)
    parts = read_parts(video, present)
    template = clips.template_of(video.admitted, parts.plan.index)
    frames, decoded = sparse.execute(parts.plan, template, size, turn)
    stats.count("seek", wanted=len(present), decoded=decoded)
    window = video.window
    logger.debug("Read %d of %d bytes of %r.", window.fetched, window.size, window.source.name)
    opencv.log_missing(wanted, present)
    return Decoded(frames, present, source)


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
