"""Small real transformer encoders, randomly initialised from a seed, and a text embedder to go with them."""

from functools import lru_cache

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmmedia.pipeline import EncoderPath, ImagePreprocessor, LogMelExtractor, MultimodalPipeline

HIDDEN = 24
VISION_WIDTH = 16
AUDIO_WIDTH = 20
IMAGE_TOKENS = 1 + (32 // 8) ** 2
AUDIO_TOKENS = 50


class Towers:
    """Hugging Face modules and processors, and counters of what was encoded."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.vision = CLIPVisionModel(
                CLIPVisionConfig(
                    hidden_size=VISION_WIDTH, intermediate_size=32, num_hidden_layers=2,
                    num_attention_heads=2, image_size=32, patch_size=8,
                )
            ).eval()  # fmt: skip
            self.audio = WhisperEncoder(
                WhisperConfig(
                    d_model=AUDIO_WIDTH, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
                    num_mel_bins=80, max_source_positions=AUDIO_TOKENS,
                )
            ).eval()  # fmt: skip
            self.qwen = Qwen2VisionTransformerPretrainedModel(
                Qwen2VLVisionConfig(
                    depth=1, embed_dim=16, hidden_size=HIDDEN, num_heads=2, mlp_ratio=2, patch_size=4,
                    temporal_patch_size=2, spatial_merge_size=2,
                )
            ).eval()  # fmt: skip
            self.vision_projector = torch.nn.Linear(VISION_WIDTH, HIDDEN)
            self.audio_projector = torch.nn.Linear(AUDIO_WIDTH, HIDDEN)
            self.words = torch.nn.Embedding(256, HIDDEN)
        self.image_processor = CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
        self.feature_extractor = WhisperFeatureExtractor(chunk_length=1)
        self.batches: list[tuple[int, ...]] = []

    def embed_text(self, words: str) -> torch.Tensor:
        """One token a byte."""
        return self.words(torch.tensor(list(words.encode()), dtype=torch.long))

    def encode_vision(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(batch.shape))
        return self.vision(pixel_values=batch).last_hidden_state

    def encode_audio(self, batch: torch.Tensor) -> torch.Tensor:
        self.batches.append(tuple(batch.shape))
        return self.audio(batch).last_hidden_state

    def encode_patches(self, batch: torch.Tensor, grid_thw: torch.Tensor) -> list[torch.Tensor]:
        self.batches.append(tuple(batch.shape))
        merged = self.qwen(batch.flatten(0, 1), grid_thw=grid_thw).pooler_output
        return list(merged.split((grid_thw.prod(1) // 4).tolist()))

    def paths(self, **options: object) -> dict[str, EncoderPath]:
        image = ImagePreprocessor.from_config(self.image_processor.to_dict())
        sound = LogMelExtractor.from_config(self.feature_extractor.to_dict())
        return {
            "image": EncoderPath(image, self.encode_vision, self.vision_projector, **options),
            "audio": EncoderPath(sound, self.encode_audio, self.audio_projector, **options),
        }

    def pipeline(self, *, max_batch: int = 16, **options: object) -> MultimodalPipeline:
        return MultimodalPipeline(
            text_embedder=self.embed_text, paths=self.paths(max_batch=max_batch), **options
        )


@lru_cache(maxsize=1)
def towers() -> Towers:
    return Towers()
