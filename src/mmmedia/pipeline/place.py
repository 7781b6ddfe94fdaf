"""Embeddings of parts, in order, to one stream."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mmmedia.errors import InvalidArgumentError

if TYPE_CHECKING:
    import torch


class Span(NamedTuple):
    """Where the tokens of one part stand in the stream.

    Attributes:
        part_index: index of the part in the request, counted over all messages; -1 for what a chat template
            wrote between media, its own words and the messages' text.
        modality: `text`, `image`, `video` or `audio`.
        start: index of its first token.
        stop: index after its last token.
    """

    part_index: int
    modality: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False, repr=False)
class TokenStream:
    """What a transformer takes: the embeddings of a whole request, and whose each of them is.

    Attributes:
        embeddings: (tokens, hidden).
        spans: one for each part, in order, touching each other and covering all tokens.
        timestamps: by part index, the seconds of the frames of a clip whose rate is known.
        grids: by part index, the patches in time, height and width of what was cut into patches.
        input_ids: int64 (tokens,), of a `PretrainedPipeline`; else None.
        position_ids: int64 (tokens,), or (axes, tokens) of models that count in time, height and width as
            well; likewise.
        attention_mask: int64 (tokens,); likewise.
        extras: what else the model's decoder takes, by its name; else empty.
    """

    embeddings: "torch.Tensor"
    spans: tuple[Span, ...]
    timestamps: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    grids: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    input_ids: "torch.Tensor | None" = None
    position_ids: "torch.Tensor | None" = None
    attention_mask: "torch.Tensor | None" = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def decoder_inputs(self) -> dict[str, Any]:
        """Return keywords for the decoder of a model of transformers: a batch of one request.

        >>> import torch
        >>> stream = place([("text", torch.zeros(3, 8))])
        >>> {name: tuple(value.shape) for name, value in stream.decoder_inputs().items()}
        {'inputs_embeds': (1, 3, 8)}
        """
        inputs = {"inputs_embeds": self.embeddings[None], **self.extras}
        if self.attention_mask is not None:
            inputs["attention_mask"] = self.attention_mask[None]
        if self.position_ids is not None:
            inputs["position_ids"] = self.position_ids[..., None, :]
        return inputs

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        parts = ", ".join(f"{span.modality} {span.start}:{span.stop}" for span in self.spans)
        tokens, hidden = self.embeddings.shape
        return f"TokenStream({tokens} tokens x {hidden}, {self.embeddings.dtype}: {parts})"

    def part_of(self, token: int) -> Span:
        """Return the span that a token stands in; negative indices count from the end.

        Raises:
            InvalidArgumentError: (a `ValueError`) there is no such token.
        """
        index = token + len(self) if token < 0 else token
        for span in self.spans:
            if span.start <= index < span.stop:
                return span
        raise InvalidArgumentError(f"There is no token {token} in a stream of {len(self)}.")

    def embeddings_of(self, part_index: int) -> "torch.Tensor":
        """Return the embeddings of one part, (its tokens, hidden), as a view.

        Raises:
            InvalidArgumentError: (a `ValueError`) there is no such part.
        """
        for span in self.spans:
            if span.part_index == part_index:
                return self.embeddings[span.start : span.stop]
        raise InvalidArgumentError(f"There is no part {part_index} in a stream of {len(self.spans)}.")


def place(
    pieces: "Iterable[tuple[str, torch.Tensor]]",
    *,
    timestamps: Mapping[int, tuple[float, ...]] | None = None,
    grids: Mapping[int, tuple[int, int, int]] | None = None,
) -> TokenStream:
    """Put the embeddings of all parts one after the other.

    Args:
        pieces: modality and embeddings (tokens, hidden) of each part, in the order of the parts.
        timestamps: handed on to the stream.
        grids: handed on to the stream.

    Returns:
        The stream, in the type and on the device of the first text; without text, of the first piece.

    Raises:
        InvalidArgumentError: (a `ValueError`) no pieces, or pieces that are not floating point tensors
            (tokens, hidden) of one width.

    >>> import torch
    >>> text, image = torch.zeros(3, 8), torch.ones(4, 8)
    >>> stream = place([("text", text), ("image", image), ("text", text[:2])])
    >>> stream
    TokenStream(9 tokens x 8, torch.float32: text 0:3, image 3:7, text 7:9)
    >>> stream.part_of(5)
    Span(part_index=1, modality='image', start=3, stop=7)
    """
    import torch

    placed = list(pieces)
    if not placed:
        raise InvalidArgumentError("There is nothing to place: the request has no parts.")
    for index, (modality, embeddings) in enumerate(placed):
        check_embeddings(f"The embeddings of part {index} ({modality})", embeddings)
        expected = placed[0][1].shape[1]
        if embeddings.shape[1] != expected:
            raise InvalidArgumentError(
                f"The embeddings of part {index} ({modality}) have the width {embeddings.shape[1]}, those "
                f"before them {expected}."
            )
    like = next((embeddings for modality, embeddings in placed if modality == "text"), placed[0][1])
    stream = torch.cat([embeddings.to(like.device, like.dtype) for _, embeddings in placed])
    return TokenStream(stream, tuple(_spans(placed)), timestamps or {}, grids or {})


def check_embeddings(name: str, embeddings: object) -> None:
    """Refuse what is no floating point tensor (tokens, width), calling it `name`."""
    import torch

    if not isinstance(embeddings, torch.Tensor):
        raise InvalidArgumentError(
            f"{name} must be a tensor (tokens, width), not {type(embeddings).__name__}."
        )
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise InvalidArgumentError(
            f"{name} must be floating point of shape (tokens, width), not {embeddings.dtype} of shape "
            f"{tuple(embeddings.shape)}."
        )


def _spans(pieces: "Iterable[tuple[str, torch.Tensor]]") -> Iterator[Span]:
    start = 0
    for index, (modality, embeddings) in enumerate(pieces):
        yield Span(index, modality, start, start + len(embeddings))
        start += len(embeddings)
