"""`MultimodalPipeline`: a request with text and media to one stream of token embeddings."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmmedia.errors import InvalidArgumentError, InvalidMediaError, MediaError
from mmmedia.hashing import content_hash
from mmmedia.media.connector import MediaConnector
from mmmedia.pipeline.encode import Batcher, Encoded, EncoderPath, Job, Projector
from mmmedia.pipeline.encoder_cache import Abandoned, CacheKey, EncoderCache, Reservation
from mmmedia.pipeline.parts import ContentPart, parse_messages
from mmmedia.pipeline.place import TokenStream, check_embeddings, place
from mmmedia.pipeline.preprocess import ImagePreprocessor, VideoPreprocessor
from mmmedia.pipeline.pretrained import PretrainedPipeline, parts_of
from mmmedia.pipeline.resolve import ResolvedPart, resolve_parts, resolve_parts_async
from mmmedia.pipeline.sizes import check_positive

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# What of a clip's metadata decides about its frames' content and times.
_SAMPLING = ("frames_indices", "fps", "total_num_frames", "duration")

TextEmbedder = Callable[[str], "torch.Tensor"]


class MultimodalPipeline:
    """From chat messages to a `TokenStream`: fetch, decode, preprocess, encode, project, place.

    One pipeline serves any number of requests at the same time, from threads and from event loops. `run` and
    `run_async` take the same request to the same stream; neither needs a running loop, and `run` works
    inside of one.

    Args:
        connector: what fetches and decodes; by default a new `MediaConnector` for each request.
        text_embedder: text to floating point (tokens, hidden); called for every text part.
        paths: an `EncoderPath` for each modality: `image`, `video`, `audio`. Without one of their own,
            the frames of a clip take the path of images.
        encoder_cache: what encoders returned before; shared by all pipelines of one model. `None`: no cache.
        hidden_size: the hidden width; by default that of the first text, else of the first projector.
        max_concurrency: media of one request that are fetched at a time; by default
            `VLLM_MM_FETCH_CONCURRENCY`.

    Raises:
        InvalidArgumentError: (a `ValueError`) an unknown modality, or what is no path.

    >>> import torch
    >>> from PIL import Image
    >>> from mmmedia.pipeline import ImagePreprocessor
    >>> pipeline = MultimodalPipeline(
    ...     text_embedder=lambda text: torch.zeros(len(text.split()), 3),
    ...     paths={"image": EncoderPath(ImagePreprocessor((4, 4)), lambda batch: batch.flatten(2).mT)},
    ... )
    >>> url = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    >>> pipeline.run([{"role": "user", "content": [
    ...     {"type": "text", "text": "look at"}, {"type": "image_url", "image_url": {"url": url}},
    ... ]}])
    TokenStream(18 tokens x 3, torch.float32: text 0:2, image 2:18)
    """

    def __init__(
        self,
        *,
        text_embedder: TextEmbedder,
        paths: Mapping[str, EncoderPath],
        connector: MediaConnector | None = None,
        encoder_cache: EncoderCache[Encoded] | None = None,
        hidden_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> None:
        if not callable(text_embedder):
            raise InvalidArgumentError(f"text_embedder must be callable, not {type(text_embedder).__name__}.")
        for modality, path in paths.items():
            if modality not in ("image", "video", "audio"):
                raise InvalidArgumentError(f"Unknown modality {modality!r}: expected image, video or audio.")
            if not isinstance(path, EncoderPath):
                raise InvalidArgumentError(
                    f"The path of {modality} must be an EncoderPath, not {type(path).__name__}."
                )
        for name, value in (("hidden_size", hidden_size), ("max_concurrency", max_concurrency)):
            if value is not None:
                check_positive(**{name: value})
        self.connector = connector
        self.text_embedder = text_embedder
        self.paths = dict(paths)
        self.encoder_cache = encoder_cache
        self.hidden_size = hidden_size
        self.max_concurrency = max_concurrency
        self._has_warned = False
        # The frames of a clip are pictures, unless clips have a path of their own kind.
        frames = self.paths.get("video") or self.paths.get("image")
        if frames is not None and isinstance(frames.preprocess, ImagePreprocessor):
            self.paths["video"] = replace(frames, preprocess=VideoPreprocessor(frames.preprocess))

    @classmethod
    def from_pretrained(
        cls,
        model_or_parts: Any,
        *,
        connector: MediaConnector | None = None,
        max_concurrency: int | None = None,
    ) -> PretrainedPipeline:
        """Return a pipeline of a model and a processor of transformers, which are used as they are.

        Its `run` and `run_async` take the same messages, apply the chat template, and return a stream that
        has `input_ids`, `position_ids` and `attention_mask` as well: what the model's decoder would be given.

        Args:
            model_or_parts: the name or path of a checkpoint; or ``(model, processor)``; or a mapping of
                `model`, `processor` and perhaps a `tokenizer` whose chat template counts.
            connector: what fetches and decodes; by default a new `MediaConnector` for each request.
            max_concurrency: media of one request that are fetched at a time.

        Raises:
            InvalidArgumentError: (a `ValueError`) these are no model and no processor.
            MissingPackageError: (an `ImportError`) transformers is not installed.
        """
        parts = parts_of(model_or_parts)
        return PretrainedPipeline(**parts, connector=connector, max_concurrency=max_concurrency)

    def __repr__(self) -> str:
        return f"MultimodalPipeline(paths={sorted(self.paths)}, hidden_size={self.hidden_size})"

    def run(
        self, messages: Sequence[Mapping[str, Any]], *, connector: MediaConnector | None = None
    ) -> TokenStream:
        """Return the token stream of a request.

        Args:
            messages: see `parse_messages`.
            connector: what fetches for this request, instead of the pipeline's.

        Raises:
            PartError: what failed for one part: a malformed part (`ValueError`), a failed transfer (the error
                of the connector), media that are not what the part says, a modality without a path.
            InvalidArgumentError: (a `ValueError`) malformed messages, or an encoder, projector or text
                embedder that returned something else than promised. Other errors of theirs come through.
        """
        request = _Request(self, messages, connector or self.connector)
        request.look_up()
        request.media = resolve_parts(
            request.missing, request.connector, max_concurrency=self.max_concurrency
        )
        return request.stream()

    async def run_async(
        self, messages: Sequence[Mapping[str, Any]], *, connector: MediaConnector | None = None
    ) -> TokenStream:
        """Return the token stream of a request; see `run`. The event loop only waits.

        Cancelling it stops transfers; a batch that an encoder has begun is finished.
        """
        request = _Request(self, messages, connector or self.connector)
        await asyncio.to_thread(request.look_up)
        request.media = await resolve_parts_async(
            request.missing, request.connector, max_concurrency=self.max_concurrency
        )
        return await asyncio.to_thread(request.stream)

    def warn_of_roles(self, roles: set[str]) -> None:
        """Say once that text is embedded as it is, whoever it is from."""
        if not roles <= {"user"} and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "The roles of messages (%s) are dropped: MultimodalPipeline.from_pretrained applies a chat "
                "template.",
                ", ".join(sorted(roles)),
            )


class _Request:
    """One request on its way through the pipeline."""

    def __init__(
        self,
        pipeline: MultimodalPipeline,
        messages: Sequence[Mapping[str, Any]],
        connector: MediaConnector | None,
    ) -> None:
        self.pipeline = pipeline
        self.connector = connector
        self.parts = parse_messages(messages)
        pipeline.warn_of_roles({part.role for part in self.parts})
        for part in self.parts:
            if part.modality not in ("text", *pipeline.paths) and not part.is_embedding:
                known = ", ".join(sorted(pipeline.paths)) or "none"
                raise part.error(
                    InvalidArgumentError(
                        f"no path for {part.modality}; this pipeline has paths for: {known}."
                    )
                )
        if not self.parts:
            raise InvalidArgumentError("The messages have no content parts.")
        self.encoded: dict[int, Encoded] = {}
        self.names: dict[int, CacheKey] = {}
        self.media: list[ResolvedPart] = []

    @property
    def missing(self) -> list[ContentPart]:
        """The parts that the cache does not know by name, text among them."""
        return [part for index, part in enumerate(self.parts) if index not in self.encoded]

    def look_up(self) -> None:
        """Find in the cache what can be found there before it is fetched: by uuid, or by its data URL."""
        cache = self.pipeline.encoder_cache
        if cache is None:
            return
        for index, part in enumerate(self.parts):
            if part.modality == "text" or part.is_embedding:
                continue
            if part.uuid is not None:
                name = f"uuid {part.uuid}"
            elif isinstance(part.content, str) and part.content[:5].lower() == "data:":
                name = f"url {content_hash(part.content)}"
            else:
                continue
            self.names[index] = self._key(part, name)
            found = cache.get_by_alias(self.names[index])
            if found is not None:
                self.encoded[index] = found

    def stream(self) -> TokenStream:
        """Encode what is missing, project, and put all in its place."""
        resolved = dict(
            zip((i for i in range(len(self.parts)) if i not in self.encoded), self.media, strict=True)
        )
        texts = {index: self._embed(item) for index, item in resolved.items() if item.modality == "text"}
        self._encode(
            {i: item for i, item in resolved.items() if i not in texts and not item.part.is_embedding}
        )
        hidden = self._hidden_size(texts)
        pieces = []
        for index, part in enumerate(self.parts):
            if index in texts:
                piece = texts[index]
            else:
                try:
                    if index in self.encoded:
                        piece = self._project(part, self.encoded[index].tokens, hidden)
                    else:
                        piece = self._precomputed(part, resolved[index].media, hidden)
                except MediaError as error:
                    raise part.error(error) from error
            hidden = hidden or piece.shape[1]
            pieces.append((part.modality, piece))
        grids = {i: e.grid_thw for i, e in self.encoded.items() if e.grid_thw is not None}
        grids |= {i: grid for i, item in resolved.items() if (grid := _sent_grid(item)) is not None}
        return place(
            pieces,
            timestamps={i: e.timestamps for i, e in self.encoded.items() if e.timestamps is not None},
            grids=grids,
        )

    def _key(self, part: ContentPart, content: str) -> CacheKey:
        path = self.pipeline.paths[part.modality]
        # How media are decoded and sampled decides as much as preprocessing about what the encoder sees.
        decoding = getattr(self.connector, "media_io_kwargs", None) or {}
        return CacheKey(content, part.modality, f"{path.fingerprint} {decoding.get(part.modality) or {}!r}")

    def _embed(self, item: ResolvedPart) -> "torch.Tensor":
        import torch

        with torch.no_grad():
            embeddings = self.pipeline.text_embedder(item.media)
        check_embeddings("What the text embedder returns", embeddings)
        return embeddings

    def _encode(self, items: Mapping[int, ResolvedPart]) -> None:
        """Fill `encoded` for all parts, each content once, in batches."""
        reservations: dict[int, Reservation[Encoded]] = {}
        batcher = Batcher()
        try:
            for index, item in items.items():
                reservation = self._reserve(item)
                if reservation is not None:
                    reservations[index] = reservation
                if reservation is None or reservation.is_leader:
                    self._add(batcher, index, item, reservation)
            batcher.flush()
        finally:
            # What was reserved and not encoded, as another part failed, is left to those who wait for it.
            for reservation in reservations.values():
                if reservation.is_leader:
                    reservation.abandon()
        for index, reservation in reservations.items():
            if not reservation.is_leader:
                self.encoded[index] = self._wait(index, items[index], reservation)
            if index in self.names and (cache := self.pipeline.encoder_cache) is not None:
                cache.alias(self.names[index], reservation.key)

    def _reserve(self, item: ResolvedPart) -> Reservation[Encoded] | None:
        """Reserve a decoded medium by its content; `None` where nothing is cached."""
        cache = self.pipeline.encoder_cache
        if cache is None:
            return None
        media = item.media
        if item.modality == "video":
            frames, metadata = media
            media = [frames, {name: metadata.get(name) for name in _SAMPLING}]
        try:
            return cache.reserve(self._key(item.part, content_hash(media)))
        except InvalidArgumentError:
            # A loader of a third party may return what has no content hash; it is encoded every time.
            return None

    def _add(
        self, batcher: Batcher, index: int, item: ResolvedPart, reservation: Reservation[Encoded] | None
    ) -> None:
        """Preprocess one part and put it into the next batch."""

        def done(encoded: Encoded) -> None:
            self.encoded[index] = encoded
            if reservation is not None:
                reservation.fulfil(encoded)

        def failed(error: Exception) -> None:
            if reservation is not None:
                reservation.fail(error)

        path = self.pipeline.paths[item.modality]
        try:
            prepared = path.prepare(item.media)
        except Exception as error:
            failed(error)
            raise item.part.error(error) from error
        batcher.add(Job(item.part, path, done, failed), prepared)

    def _wait(self, index: int, item: ResolvedPart, reservation: Reservation[Encoded]) -> Encoded:
        """Return what another request encodes, or encode it if that one gave up."""
        while True:
            try:
                return reservation.future.result()
            except Abandoned:
                reservation = reservation.cache.reserve(reservation.key)
            except Exception as error:
                raise item.part.error(error) from error
            if reservation.is_leader:
                with reservation:
                    batcher = Batcher()
                    self._add(batcher, index, item, reservation)
                    batcher.flush()

    def _project(self, part: ContentPart, tokens: "torch.Tensor", hidden: int | None) -> "torch.Tensor":
        projector = self.pipeline.paths[part.modality].projector
        projected = projector(tokens) if isinstance(projector, Projector) else tokens
        if hidden is not None and projected.shape[1] != hidden:
            source = f"its projector {projector!r}" if projector else "its encoder, which has no projector,"
            raise InvalidArgumentError(
                f"{source} returned tokens of the width {projected.shape[1]}; the hidden width is {hidden}."
            )
        return projected

    def _precomputed(self, part: ContentPart, embeddings: object, hidden: int | None) -> "torch.Tensor":
        """Take precomputed embeddings in where their width fits: as they are, or before the projector."""
        import torch

        if isinstance(embeddings, dict):
            embeddings = embeddings[part.type]
        if isinstance(embeddings, torch.Tensor) and embeddings.ndim == 3:
            embeddings = embeddings.flatten(0, 1)
        check_embeddings("Precomputed embeddings", embeddings)
        assert isinstance(embeddings, torch.Tensor)
        if not torch.isfinite(embeddings).all():
            raise InvalidMediaError("The precomputed embeddings hold NaN or infinite values.")
        path = self.pipeline.paths.get(part.modality)
        projector = path.projector if path is not None else None
        width = embeddings.shape[1]
        if hidden in (None, width):
            return embeddings
        if isinstance(projector, Projector) and projector.in_features in (None, width):
            return self._project(part, embeddings, hidden)
        encoder_width = projector.in_features if isinstance(projector, Projector) else None
        raise InvalidArgumentError(
            f"precomputed embeddings of the width {width} fit nowhere; expected the hidden width {hidden}"
            + (f" or the encoder's, {encoder_width}." if encoder_width else ".")
        )

    def _hidden_size(self, texts: "Mapping[int, torch.Tensor]") -> int | None:
        """Return the hidden width as far as it is known before anything has been projected."""
        if self.pipeline.hidden_size is not None:
            return self.pipeline.hidden_size
        for embeddings in texts.values():
            return embeddings.shape[1]
        for path in self.pipeline.paths.values():
            if isinstance(path.projector, Projector) and path.projector.out_features is not None:
                return path.projector.out_features
        return None


def _sent_grid(item: ResolvedPart) -> tuple[int, int, int] | None:
    """Return the patches in time, height and width that were sent along with embeddings, if they were."""
    if not (item.part.is_embedding and isinstance(item.media, dict)):
        return None
    grid: Any = item.media.get(f"{item.modality}_grid_thw")
    if grid is None or grid.numel() != 3:
        return None
    time, height, width = (int(number) for number in grid.flatten().tolist())
    return time, height, width
