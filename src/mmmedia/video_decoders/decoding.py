"""`decode_video`: the sampler of a loader on a decoder by name."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.errors import RecoveryError
from mmmedia.video import codecs
from mmmedia.video.decoders.read import read_video
from mmmedia.video.loaders import VideoLoader, reads_as_built_in
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata

if TYPE_CHECKING:
    from mmmedia.video_decoders.base import DecodedFrames

    Decoded = tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]


def decode_video(
    backend: str,
    loader_cls: type[VideoLoader],
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    backend_kwargs: Mapping[str, Any],
    *,
    frame_recovery: bool = False,
) -> "Decoded":
    """Decode the frames of a video that a loader's sampler picks.

    It calls the function `decode_NAME` of the module `mmmedia.video_decoders.NAME`, which it imports.

    Args:
        backend: the decoder, one of `BACKEND_OPTIONS`.
        loader_cls: whose `_prepare_source` and `compute_frames_index_to_sample` say which frames, and which
            reads through OpenCV.
        data: an encoded video.
        target: what is asked for.
        sampling_kwargs: keywords of the sampler.
        backend_kwargs: options of the decoder.
        frame_recovery: put the next readable frame in the place of one that can't be read; "opencv" only.

    Returns:
        Frames, uint8 RGB (n, height, width, 3); what the video is, as the loader has it; the indices that
        were picked; and that of each frame.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown decoder, or an option of another one.
        RecoveryError: (a `ValueError` and an `AssertionError`) recovery by another decoder.
        MediaError: what the decoder raises.

    >>> from mmmedia.cli import scene
    >>> from mmmedia.video import VideoBackend
    >>> frames, source, wanted, valid = decode_video(
    ...     "opencv", VideoBackend, scene.clip(), VideoTargetMetadata(2, -1, 300), {}, {}
    ... )
    >>> len(frames), wanted == valid == [0, source.total_frames_num - 1]
    (2, True)
    """
    _, options = codecs.resolve_video_backend_kwargs(backend, backend_kwargs)
    if backend == "pyav":  # which 0.33 does not have
        return decode_with("pyav", loader_cls, data, target, sampling_kwargs, {}, recovery=frame_recovery)
    if backend == "opencv":
        options = {**options, "frame_recovery": frame_recovery}
    elif frame_recovery:
        raise RecoveryError(f'frame_recovery is not supported by {backend!r}; it needs backend="opencv".')
    find: Any = vars(sys.modules[__package__])["import_module"]  # which tests of engines replace
    decode: Callable[..., Decoded] = getattr(find(f".{backend}", __package__), f"decode_{backend}")
    return decode(loader_cls, data, target, sampling_kwargs, **options)


def decode_with(
    backend: str,
    loader_cls: type[VideoLoader],
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    recovery: bool = False,
) -> "Decoded":
    """Decode by a decoder of this library; as `decode_video`, with all its options."""
    wanted: list[int] = []

    def choose(source: VideoSourceMetadata) -> list[int]:
        prepared = loader_cls._prepare_source(source)
        chosen = loader_cls.compute_frames_index_to_sample(source=prepared, target=target, **sampling_kwargs)
        wanted[:] = [int(index) for index in chosen]
        return list(wanted)

    if backend in codecs.OTHER_DECODERS:
        decoded = codecs.read(backend, data, choose, options, recovery=recovery)
    else:
        decoded = read_video(
            data,
            choose,
            loader_cls,
            recovery=recovery,
            backend=backend,
            may_seek=reads_as_built_in(loader_cls),
        )
    return decoded.frames, loader_cls._prepare_source(decoded.source), wanted, decoded.indices
