from .configs import CLIP_MEAN as CLIP_MEAN, CLIP_STD as CLIP_STD
from .encode import (
    Encoded as Encoded,
    Encoder as Encoder,
    EncoderPath as EncoderPath,
    Projector as Projector,
)
from .encoder_cache import (
    CacheKey as CacheKey,
    EncoderCache as EncoderCache,
    EncoderCacheStats as EncoderCacheStats,
)
from .logmel import LogMelExtractor as LogMelExtractor
from .parts import ContentPart as ContentPart, parse_messages as parse_messages
from .pipeline import MultimodalPipeline as MultimodalPipeline
from .place import Span as Span, TokenStream as TokenStream, place as place
from .prepared import Preprocessed as Preprocessed, Preprocessor as Preprocessor
from .preprocess import (
    ImagePreprocessor as ImagePreprocessor,
    PatchBatch as PatchBatch,
    VideoPreprocessor as VideoPreprocessor,
    frame_timestamps as frame_timestamps,
)
from .pretrained import PretrainedPipeline as PretrainedPipeline
from .resolve import (
    ResolvedPart as ResolvedPart,
    resolve_parts as resolve_parts,
    resolve_parts_async as resolve_parts_async,
)
from .sizes import ExactSize as ExactSize, PixelBudget as PixelBudget, ShortestEdge as ShortestEdge
