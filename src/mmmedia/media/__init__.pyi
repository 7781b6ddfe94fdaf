from . import audio as audio, base as base, connector as connector, image as image, video as video
from .audio import AudioEmbeddingMediaIO as AudioEmbeddingMediaIO, AudioMediaIO as AudioMediaIO
from .base import (
    MediaDecodedBudget as MediaDecodedBudget,
    MediaIO as MediaIO,
    MediaWithBytes as MediaWithBytes,
)
from .connector import (
    MEDIA_CONNECTOR_REGISTRY as MEDIA_CONNECTOR_REGISTRY,
    MediaConnector as MediaConnector,
    merge_media_io_kwargs as merge_media_io_kwargs,
)
from .handles import Media as Media
from .image import ImageEmbeddingMediaIO as ImageEmbeddingMediaIO, ImageMediaIO as ImageMediaIO
from .video import VideoEmbeddingMediaIO as VideoEmbeddingMediaIO, VideoMediaIO as VideoMediaIO
from .warm import warm_up as warm_up
