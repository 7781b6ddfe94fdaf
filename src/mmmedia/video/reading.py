"""`read_frames`: the primitive under whatever takes frames out of videos."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.sources import Source
from mmmedia.video.decoders.fit import Size
from mmmedia.video.decoders.limits import check_size
from mmmedia.video.excerpts import Choice, Readable, named_frames, opened
from mmmedia.video.loaders import VideoLoader
from mmmedia.video.piecewise.reading import read_source
from mmmedia.video.samplers import VideoSourceMetadata

Frames = tuple[npt.NDArray[np.uint8], list[int], VideoSourceMetadata]
_FEW = 8


def read_frames(
    source: Readable,
    frames: Choice,
    *,
    decode: Literal["auto", "sequential", "seek"] | None = None,
    missing: Literal["raise", "drop"] = "raise",
    size: Size | None = None,
    fetch: Literal["auto", "never", "always"] | None = None,
) -> Frames:
    """Return frames of a video by their numbers.

    The n-th frame is the n-th that a player shows; see `VideoSourceMetadata`.

    Args:
        source: an encoded file, the path of one, or a source that is read in pieces, as a path is.
        frames: numbers of frames, in any order, also several times; or what chooses them when told what the
            video is, a `TimedSource` with the times of its frames.
        decode: as in the loaders: "auto", "sequential" or "seek"; None: the setting `VLLM_VIDEO_DECODE`.
        missing: what becomes of frames that can't be decoded: "raise" says how many, "drop" leaves them out.
        size: of the frames: (height, width), or the longer side, beyond which they are made smaller. Each is
            so before the next is decoded.
        fetch: "auto": of a path or a source, only the pieces that the frames need are read where that pays
            and is exact; "never": all is read; "always": pieces, or an error; None: the setting
            `MMMEDIA_SPARSE_FETCH`.

    Returns:
        The frames, uint8 RGB (n, height, width, 3); the number of each; and what the video is.

    Raises:
        InvalidMediaError: (a `ValueError`) no video that can be decoded, or not all frames of it.
        InvalidArgumentError: (a `ValueError`) no frames, such as the video does not have, or another word.
        LimitExceededError: (a `ValueError`) the frames are larger than the settings admit.

    >>> from mmmedia.cli import scene
    >>> array, indices, video = read_frames(scene.clip(), lambda video: [video.total_frames_num - 1, 0, 0])
    >>> array.shape, indices == [video.total_frames_num - 1, 0, 0]
    ((3, 288, 512, 3), True)
    """
    with opened(source) as data:
        return frames_of(data, frames, decode=decode, missing=missing, size=size, fetch=fetch)


def frames_of(
    data: bytes | Source,
    frames: Choice,
    *,
    decode: Literal["auto", "sequential", "seek"] | None = None,
    missing: Literal["raise", "drop"] = "raise",
    size: Size | None = None,
    fetch: Literal["auto", "never", "always"] | None = None,
    whole: Callable[[bytes], bytes] | None = None,
) -> Frames:
    """Return frames of a video by their numbers; see `read_frames`.

    Args:
        data: an encoded file, or a source.
        frames: as of `read_frames`.
        decode: likewise.
        missing: likewise.
        size: likewise.
        fetch: likewise.
        whole: what is decoded where all of the file is, made of that.
    """
    if missing not in ("raise", "drop"):
        raise InvalidArgumentError(f"missing={missing!r}: expected 'raise' or 'drop'.")
    wanted: list[int] = []

    def choose(video: VideoSourceMetadata) -> list[int]:
        wanted[:] = named_frames(frames, video)
        return sorted(set(wanted))

    decoded = read_source(data, choose, VideoLoader, decode=decode, size=size, fetch=fetch, whole=whole)
    rows = {number: row for row, number in enumerate(decoded.indices)}
    lost = sorted({number for number in wanted if number not in rows})
    if lost and missing == "raise":
        shown = ", ".join(map(str, lost[:_FEW])) + (", …" if len(lost) > _FEW else "")
        raise InvalidMediaError(
            f"{len(lost)} of {len(set(wanted))} frames can't be decoded: {shown}. "
            "read_frames(…, missing='drop') leaves them out."
        )
    found = [number for number in wanted if number in rows]
    if found == decoded.indices:
        return decoded.frames, found, decoded.source
    check_size(decoded.frames.shape[1], decoded.frames.shape[2], len(found))
    return decoded.frames[[rows[number] for number in found]], found, decoded.source
