"""`PretrainedPipeline`: a model and a processor of transformers as they are, with media fetched here.

The processor writes the text, by its chat template, and prepares media, with the backend that the installed
transformers has; the model computes the embeddings, and the position of each token. All is as in a call of
the model itself, up to the place where its decoder would begin.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from mmmedia import envs
from mmmedia.errors import InvalidArgumentError, UnsupportedMediaError
from mmmedia.loading.choosing import Choice
from mmmedia.loading.media_ios import VideoIO
from mmmedia.loading.results import Video
from mmmedia.packages import packages_for
from mmmedia.pipeline.parts import ContentPart, parse_messages
from mmmedia.pipeline.place import Span, TokenStream
from mmmedia.pipeline.processors import metadata_of, rule_of, sampler_of
from mmmedia.pipeline.resolve import ResolvedPart, resolve_parts, resolve_parts_async
from mmmedia.video.samplers import VideoSourceMetadata

if TYPE_CHECKING:
    import torch

    from mmmedia.media.connector import MediaConnector

logger = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, Any]]

# What a decoder is told that is not of this request, or says the same twice.
_NOT_OF_REQUESTS = frozenset(
    {"input_ids", "attention_mask", "past_key_values", "use_cache", "cache_position", "return_dict"}
)


class PretrainedPipeline:
    """From chat messages to what the decoder of a model takes; see `MultimodalPipeline.from_pretrained`.

    Any number of threads may use one at the same time.

    Args:
        model: a model of transformers that takes media.
        processor: its processor.
        tokenizer: one whose chat template counts instead of the processor's.
        connector: what fetches and decodes; by default a new `MediaConnector` for each request.
        max_concurrency: media of one request that are fetched at a time; by default
            `VLLM_MM_FETCH_CONCURRENCY`.

    Raises:
        InvalidArgumentError: (a `ValueError`) these are no model and no processor.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        tokenizer: Any = None,
        connector: "MediaConnector | None" = None,
        max_concurrency: int | None = None,
    ) -> None:
        if not callable(getattr(model, "get_decoder", None)):
            raise InvalidArgumentError(f"{type(model).__name__} is no model of transformers.")
        if not callable(processor) or getattr(processor, "tokenizer", None) is None:
            raise InvalidArgumentError(
                f"{type(processor).__name__} is no processor of transformers: it has no tokenizer."
            )
        self.model = model
        self.processor = processor
        self.tokenizer = tokenizer or processor.tokenizer
        self.connector = connector
        self.max_concurrency = max_concurrency
        writers = [each for each in (tokenizer, processor, processor.tokenizer) if each is not None]
        self._writer = next((each for each in writers if getattr(each, "chat_template", None)), None)
        self._has_warned = False

    def __repr__(self) -> str:
        return f"PretrainedPipeline({type(self.model).__name__}, {type(self.processor).__name__})"

    def run(
        self,
        messages: Messages,
        *,
        connector: "MediaConnector | None" = None,
        add_generation_prompt: bool = True,
        **template: Any,
    ) -> TokenStream:
        """Return the token stream of a request.

        Args:
            messages: see `parse_messages`; roles and text are the chat template's to write.
            connector: what fetches for this request, instead of the pipeline's.
            add_generation_prompt: whether the text ends where the model is to go on.
            **template: other variables of the chat template, such as `tools`.

        Raises:
            PartError: what failed for one part.
            InvalidArgumentError: (a `ValueError`) malformed messages.
        """
        parts = self._media_of(messages)
        resolved = resolve_parts(parts, self._fetcher(connector), max_concurrency=self.max_concurrency)
        return self._stream(messages, resolved, {"add_generation_prompt": add_generation_prompt, **template})

    async def run_async(
        self,
        messages: Messages,
        *,
        connector: "MediaConnector | None" = None,
        add_generation_prompt: bool = True,
        **template: Any,
    ) -> TokenStream:
        """Return the token stream of a request; see `run`. The event loop only waits."""
        parts = self._media_of(messages)
        resolved = await resolve_parts_async(
            parts, self._fetcher(connector), max_concurrency=self.max_concurrency
        )
        options = {"add_generation_prompt": add_generation_prompt, **template}
        return await asyncio.to_thread(self._stream, messages, resolved, options)

    def _media_of(self, messages: Messages) -> list[ContentPart]:
        parts = [part for part in parse_messages(messages) if part.modality != "text"]
        for part in parts:
            if part.is_embedding:
                raise part.error(UnsupportedMediaError("this pipeline computes embeddings by itself."))
        return parts

    def _fetcher(self, connector: "MediaConnector | None") -> "MediaConnector":
        from mmmedia.media.connector import MediaConnector

        connector = connector or self.connector or MediaConnector()
        if getattr(self.processor, "video_processor", None) is None:
            return connector
        return cast("MediaConnector", _Sampling(connector, self.processor))

    def _stream(
        self, messages: Messages, media: list[ResolvedPart], template: Mapping[str, Any]
    ) -> TokenStream:
        inputs = self._inputs(self._text(messages, template), media)
        reached = self._up_to_decoder(inputs)
        embeddings, ids = reached.pop("inputs_embeds")[0], inputs["input_ids"][0]
        numbers: dict[str, list[int]] = {}
        timestamps = {}
        parts = (number for number, part in enumerate(parse_messages(messages)) if part.modality != "text")
        for number, each in zip(parts, media, strict=True):
            numbers.setdefault(each.modality, []).append(number)
            if isinstance(each.media, Video) and each.media.timestamps:
                timestamps[number] = tuple(each.media.timestamps)
        return TokenStream(
            embeddings,
            tuple(_spans(ids.tolist(), self._placeholders(), numbers)),
            timestamps,
            _grids(inputs, numbers),
            input_ids=ids,
            position_ids=_positions(reached.pop("position_ids", None), embeddings),
            attention_mask=inputs["attention_mask"][0],
            extras=reached,
        )

    # What the processor does.

    def _text(self, messages: Messages, template: Mapping[str, Any]) -> str:
        """Return the text of a request, with a placeholder for each medium."""
        if self._writer is not None:
            written: str = self._writer.apply_chat_template(
                [_for_template(message) for message in messages],
                tokenize=False,
                **template,
            )
            return written
        self._warn_of_roles({str(message["role"]) for message in messages})
        return "".join(
            part.content
            if part.modality == "text"
            else str(getattr(self.processor, f"{part.modality}_token"))
            for part in parse_messages(messages)
        )

    def _warn_of_roles(self, roles: set[str]) -> None:
        if roles <= {"user"} or self._has_warned:
            return
        self._has_warned = True
        logger.warning(
            "The roles of messages (%s) are dropped: neither processor nor tokenizer has a chat template.",
            ", ".join(sorted(roles)),
        )

    def _inputs(self, text: str, media: list[ResolvedPart]) -> dict[str, Any]:
        """Return what the model takes, as tensors."""
        by_kind: dict[str, list[Any]] = {"image": [], "video": [], "audio": []}
        for each in media:
            by_kind[each.modality].append(each.media)
        options: dict[str, Any] = {}
        if by_kind["image"]:
            options["images"] = [getattr(picture, "media", picture) for picture in by_kind["image"]]
        if by_kind["video"]:
            options["videos"] = [video.frames for video in by_kind["video"]]
            options["video_metadata"] = [_metadata(video) for video in by_kind["video"]]
            options["do_sample_frames"] = False
        if by_kind["audio"]:
            rate = self._sampling_rate()
            options["audio"] = [_resampled(sound, rate) for sound in by_kind["audio"]]
            options["sampling_rate"] = rate
        # A template may have written what a tokenizer puts first.
        first = self.processor.tokenizer.bos_token
        if first is not None and text.startswith(first):
            options["add_special_tokens"] = False
        inputs = self.processor(text=[text], return_tensors="pt", **options)
        device = getattr(self.model, "device", None)
        return dict(inputs.to(device) if device is not None else inputs)

    def _sampling_rate(self) -> float:
        extractor = getattr(self.processor, "feature_extractor", None)
        rate = getattr(extractor, "sampling_rate", None)
        if rate is None:
            raise InvalidArgumentError(f"{type(self.processor).__name__} takes no sounds.")
        return float(rate)

    # What the model does.

    def _up_to_decoder(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model up to its decoder, and return what that is called with."""
        import torch

        decoder = self.model.get_decoder()
        here = threading.get_ident()

        def stop(_module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
            if threading.get_ident() == here:  # others may be using the same model
                raise _Reached({**dict(zip(("input_ids",), args, strict=False)), **given})

        hook = decoder.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with torch.no_grad():
                self.model(**inputs, use_cache=False)
        except _Reached as reached:
            return {
                name: value
                for name, value in reached.given.items()
                if value is not None and name not in _NOT_OF_REQUESTS
            }
        finally:
            hook.remove()
        raise InvalidArgumentError(f"{type(self.model).__name__} did not call its decoder.")

    def _placeholders(self) -> dict[int, str]:
        """The modality of each token that stands for media."""
        found = {}
        for modality in ("image", "video", "audio"):
            for name in (f"{modality}_token_id", f"{modality}_token_index"):
                number = getattr(self.model.config, name, None)
                if isinstance(number, int):
                    found[number] = modality
        return found


class _Reached(Exception):  # noqa: N818 - no error
    """The decoder is about to begin, with these arguments."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = given


class _Sampling:
    """A connector whose videos are sampled as a processor does it."""

    def __init__(self, connector: "MediaConnector", processor: Any) -> None:
        self._connector = connector
        self._video_io = VideoIO(Choice(sampler=rule_of(sampler_of(processor, {}))))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connector, name)

    def fetch_video(self, url: str) -> Video:
        timeout = envs.VLLM_VIDEO_FETCH_TIMEOUT
        return self._connector.load_from_url(url, self._video_io, fetch_timeout=timeout)

    async def fetch_video_async(self, url: str) -> Video:
        timeout = envs.VLLM_VIDEO_FETCH_TIMEOUT
        return await self._connector.load_from_url_async(url, self._video_io, fetch_timeout=timeout)


def parts_of(model_or_parts: Any) -> dict[str, Any]:
    """Return `model`, `processor` and perhaps `tokenizer` of what a caller names.

    Args:
        model_or_parts: the name or path of a checkpoint, which transformers loads; a mapping of these; or a
            model and its processor.

    Raises:
        InvalidArgumentError: (a `ValueError`) none of these.
        MissingPackageError: (an `ImportError`) transformers is not installed.
    """
    if isinstance(model_or_parts, Mapping):
        parts = dict(model_or_parts)
        if {"model", "processor"} <= set(parts) <= {"model", "processor", "tokenizer"}:
            return parts
    elif isinstance(model_or_parts, tuple | list) and len(model_or_parts) in (2, 3):
        return dict(zip(("model", "processor", "tokenizer"), model_or_parts, strict=False))
    elif isinstance(model_or_parts, str) or hasattr(model_or_parts, "__fspath__"):
        with packages_for("MultimodalPipeline.from_pretrained"):
            transformers: Any = import_module("transformers")
        model = transformers.AutoModelForImageTextToText.from_pretrained(model_or_parts)
        processor = transformers.AutoProcessor.from_pretrained(model_or_parts)
        return {"model": model.eval(), "processor": processor}
    raise InvalidArgumentError("Expected the name of a checkpoint, or a model and its processor.")


def _for_template(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as chat templates know them: media without their content."""
    if not isinstance(message.get("content"), list | tuple):
        return dict(message)
    parts = parse_messages([{**message, "role": message.get("role", "")}])
    content = [
        {"type": "text", "text": part.content} if part.modality == "text" else {"type": part.modality}
        for part in parts
    ]
    return {**message, "content": content}


def _metadata(video: Video) -> Any:
    metadata = video.metadata
    source = VideoSourceMetadata(metadata["total_num_frames"], metadata["fps"], metadata["duration"])
    return metadata_of(source, video.frames, metadata["frames_indices"])


def _resampled(sound: Any, rate: float) -> Any:
    from mmmedia.audio import resample_audio_librosa

    waveform, own = sound
    return waveform if own == rate else resample_audio_librosa(waveform, orig_sr=own, target_sr=rate)


def _positions(position_ids: "torch.Tensor | None", embeddings: "torch.Tensor") -> "torch.Tensor":
    """Return the positions of one request's tokens, (tokens,), or (axes, tokens) of several axes."""
    import torch

    if position_ids is None:
        return torch.arange(len(embeddings), device=embeddings.device)
    return position_ids[:, 0] if position_ids.ndim == 3 else position_ids[0]


def _spans(ids: list[int], placeholders: Mapping[int, str], numbers: Mapping[str, list[int]]) -> list[Span]:
    """Cut the tokens where text and media meet.

    Args:
        ids: the tokens.
        placeholders: the modality of those that stand for media.
        numbers: by modality, the numbers of the parts that are media.
    """
    runs: dict[str, list[tuple[int, int]]] = {}
    for modality, group in itertools.groupby(range(len(ids)), lambda at: placeholders.get(ids[at], "text")):
        places = list(group)
        runs.setdefault(modality, []).append((places[0], places[-1] + 1))
    spans = []
    for modality, found in runs.items():
        parts = numbers.get(modality, [])
        pieces = _pieces(found, len(parts))
        if len(pieces) != len(parts):  # text; or a clip whose frames stand one by one
            parts = [parts[0] if len(parts) == 1 else -1] * len(pieces)
        spans += [Span(part, modality, *piece) for part, piece in zip(parts, pieces, strict=True)]
    return sorted(spans, key=lambda span: span.start)


def _pieces(runs: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return runs of tokens, cut where media of equal length stand side by side."""
    total = sum(stop - start for start, stop in runs)
    length = total // count if count else 0
    if len(runs) >= count or total % count or any((stop - start) % length for start, stop in runs):
        return runs
    return [(at, at + length) for start, stop in runs for at in range(start, stop, length)]


def _grids(inputs: Mapping[str, Any], numbers: Mapping[str, list[int]]) -> dict[int, tuple[int, int, int]]:
    """Return the patches in time, height and width of each part that was cut into patches."""
    found: dict[int, tuple[int, int, int]] = {}
    for modality, parts in numbers.items():
        grids = inputs.get(f"{modality}_grid_thw")
        if grids is not None:
            found.update(zip(parts, ((t, h, w) for t, h, w in grids.tolist()), strict=True))
    return found
