"""One way into these decoders, as `mmmedia.video.decoders.read` is one into the others."""

from collections.abc import Mapping
from typing import Any, Final

from mmmedia.errors import RecoveryError
from mmmedia.video.codecs import deepstream, pynvvideocodec, torchcodec
from mmmedia.video.decoders.read import Choose, Decoded

OTHER_DECODERS: Final = frozenset({"torchcodec", "pynvvideocodec", "deepstream"})
"""Values of `backend` that lead here."""


def read(
    backend: str, data: bytes, choose: Choose, options: Mapping[str, Any], *, recovery: bool = False
) -> Decoded:
    """Decode the frames that `choose` picks.

    Args:
        backend: one of `OTHER_DECODERS`.
        data: an encoded video.
        choose: from what the video is to the indices of frames.
        options: all of that decoder, as `resolve_video_backend_kwargs` returns them.
        recovery: refused, as only OpenCV goes on behind a frame that fails.

    Raises:
        RecoveryError: (a `ValueError` and an `AssertionError`) recovery is asked for.
        MissingPackageError: (an `ImportError`) the decoder's package is not installed.
        MediaError: what the decoder raises.
    """
    if recovery:
        raise RecoveryError(f'frame_recovery is not supported by {backend!r}; it needs backend="opencv".')
    if backend == "torchcodec":
        frames, indices, source = torchcodec.read(data, choose, options)
        return Decoded(frames, indices, source)  # type: ignore[arg-type]  # a tensor, as in vLLM
    if backend == "pynvvideocodec":
        return Decoded(*pynvvideocodec.read(data, choose, options))
    return Decoded(*deepstream.read(data, choose, options))
