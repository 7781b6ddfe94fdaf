from . import (
    audio as audio,
    batch as batch,
    cache as cache,
    connections as connections,
    containers as containers,
    envs as envs,
    errors as errors,
    exceptions as exceptions,
    gpu_ipc_memory as gpu_ipc_memory,
    hasher as hasher,
    hashing as hashing,
    image as image,
    loading as loading,
    media as media,
    options as options,
    pipeline as pipeline,
    registry as registry,
    tensors as tensors,
    urls as urls,
    utils as utils,
    video as video,
    video_decoders as video_decoders,
)
from ._version import __version__ as __version__
from .errors import MediaError as MediaError
from .hashing import content_hash as content_hash
from .loading import (
    Audio as Audio,
    Video as Video,
    aload_audio as aload_audio,
    aload_image as aload_image,
    aload_many as aload_many,
    aload_video as aload_video,
    load_audio as load_audio,
    load_image as load_image,
    load_many as load_many,
    load_video as load_video,
)
from .media import (
    MEDIA_CONNECTOR_REGISTRY as MEDIA_CONNECTOR_REGISTRY,
    AudioEmbeddingMediaIO as AudioEmbeddingMediaIO,
    AudioMediaIO as AudioMediaIO,
    ImageEmbeddingMediaIO as ImageEmbeddingMediaIO,
    ImageMediaIO as ImageMediaIO,
    MediaConnector as MediaConnector,
    MediaDecodedBudget as MediaDecodedBudget,
    MediaIO as MediaIO,
    MediaWithBytes as MediaWithBytes,
    VideoEmbeddingMediaIO as VideoEmbeddingMediaIO,
    VideoMediaIO as VideoMediaIO,
    merge_media_io_kwargs as merge_media_io_kwargs,
    warm_up as warm_up,
)
from .options import MediaIOKwargs as MediaIOKwargs, VideoMetadata as VideoMetadata
from .video import VIDEO_LOADER_REGISTRY as VIDEO_LOADER_REGISTRY
