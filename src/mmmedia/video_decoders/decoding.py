"""`decode_video`: the sampler of a loader on a decoder by name."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmmedia.video import codecs
from mmmedia.video.decoders.read import read_video
from mmmedia.video.loaders import VideoLoader, reads_as_built_in
from mmmedia.video.samplers import VideoSourceMetadata, VideoTargetMetadata

if TYPE_CHECKING:
    from mmmedia.video_decoders.base import DecodedFrames


def decode_video(
    backend: str,
    loader_cls: type[VideoLoader],
    data: bytes,
    target: VideoTargetMetadata,
    sampling_kwargs: Mapping[str, Any],
    backend_kwargs: Mapping[str, Any],
    *,
    frame_recovery: bool = False,
) -> "tuple[DecodedFrames, VideoSourceMetadata, list[int], list[int]]":
    """Decode the frames of a video that a loader's sampler picks.

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
    wanted: list[int] = []

    def choose(source: VideoSourceMetadata) -> list[int]:
        prepared = loader_cls._prepare_source(source)
        chosen = loader_cls.compute_frames_index_to_sample(source=prepared, target=target, **sampling_kwargs)
        wanted[:] = [int(index) for index in chosen]
        return list(wanted)

    if backend in codecs.OTHER_DECODERS:
        decoded = codecs.read(backend, data, choose, options, recovery=frame_recovery)
    else:
        decoded = read_video(
            data,
            choose,
            loader_cls,
            recovery=frame_recovery,
            backend=backend,
            may_seek=reads_as_built_in(loader_cls),
        )
    return decoded.frames, loader_cls._prepare_source(decoded.source), wanted, decoded.indices
