"""Preprocessed parts to encoder outputs, in batches, and on to the hidden width."""

import secrets
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mmmedia.errors import InvalidArgumentError, InvalidMediaError
from mmmedia.pipeline.parts import ContentPart
from mmmedia.pipeline.place import check_embeddings
from mmmedia.pipeline.prepared import Preprocessed, Preprocessor
from mmmedia.pipeline.sizes import check_positive

if TYPE_CHECKING:
    import torch


@runtime_checkable
class Encoder(Protocol):
    """What turns a batch of preprocessed inputs into tokens; an engine brings it.

    It is called without gradients, perhaps from several threads at once.
    """

    def __call__(
        self, batch: "torch.Tensor", /, **grids: "torch.Tensor"
    ) -> "torch.Tensor | Sequence[torch.Tensor]":
        """Return the tokens of each item.

        Args:
            batch: inputs of one shape, stacked: (n, 3, height, width) pictures or frames, (n, mels, frames)
                sounds, (n, patches, values) pictures or clips cut into patches.
            grids: for patches `grid_thw`, int64 (n, 3), and else nothing.

        Returns:
            One (tokens, width) tensor for each item: (n, tokens, width), or a list of n tensors.
        """


class Projector:
    """The step from the width of an encoder to the hidden width of the language model, checked.

    Args:
        function: `torch.nn.Linear` or any callable from (tokens, width) to (tokens, hidden).
        in_features: the width it takes; by default that of the module, if it says.
        out_features: the width it returns, likewise.

    >>> import torch
    >>> Projector(torch.nn.Linear(4, 8))(torch.zeros(3, 4)).shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        function: "Callable[[torch.Tensor], torch.Tensor]",
        in_features: int | None = None,
        out_features: int | None = None,
    ) -> None:
        if not callable(function):
            raise InvalidArgumentError(f"A projector must be callable, not {type(function).__name__}.")
        self.function = function
        self.in_features = in_features or _width(function, "in_features")
        self.out_features = out_features or _width(function, "out_features")

    def __repr__(self) -> str:
        return f"Projector({self.in_features or '?'} -> {self.out_features or '?'})"

    def __call__(self, tokens: "torch.Tensor") -> "torch.Tensor":
        """Return the tokens in the hidden width.

        Raises:
            InvalidArgumentError: (a `ValueError`) tokens of another width than the projector takes, or a
                result that is not one vector of the promised width for each token.
        """
        import torch

        if self.in_features is not None and tokens.shape[1] != self.in_features:
            raise InvalidArgumentError(
                f"The tokens have the width {tokens.shape[1]}, the projector takes {self.in_features}."
            )
        with torch.no_grad():
            projected = self.function(tokens)
        check_embeddings("What a projector returns", projected)
        expected = (len(tokens), self.out_features or projected.shape[1])
        if tuple(projected.shape) != expected:
            raise InvalidArgumentError(
                f"The projector returned {tuple(projected.shape)} for {len(tokens)} tokens; "
                f"expected {expected}."
            )
        return projected


def _width(function: object, name: str) -> int | None:
    value = getattr(function, name, None)
    return value if isinstance(value, int) else None


@dataclass(frozen=True, eq=False)
class EncoderPath:
    """The way of one modality through a model.

    Attributes:
        preprocess: an `ImagePreprocessor`, `VideoPreprocessor`, `LogMelExtractor`, another `Preprocessor`, or
            a callable from the decoded medium to one input tensor or to a `Preprocessed`.
        encoder: see `Encoder`.
        projector: to the hidden width; `None` where the encoder returns it already.
        max_batch: items that the encoder takes at once.
        tokens: how many tokens the encoder returns for each item, to be checked; `None`: any number.
        fingerprint: a name for the preprocessing; that of a bare callable is each path's own and never used
            again.
    """

    preprocess: "Preprocessor | Callable[[Any], Preprocessed | torch.Tensor]"
    encoder: Encoder
    projector: "Projector | Callable[[torch.Tensor], torch.Tensor] | None" = None
    max_batch: int = 16
    tokens: int | None = None
    fingerprint: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_positive(max_batch=self.max_batch)
        if self.tokens is not None:
            check_positive(tokens=self.tokens)
        if not callable(self.encoder):
            raise InvalidArgumentError(f"An encoder must be callable, not {type(self.encoder).__name__}.")
        if not callable(self.preprocess) and not isinstance(self.preprocess, Preprocessor):
            raise InvalidArgumentError(f"Expected a preprocessor, not {type(self.preprocess).__name__}.")
        if self.projector is not None and not isinstance(self.projector, Projector):
            object.__setattr__(self, "projector", Projector(self.projector))
        own = getattr(self.preprocess, "fingerprint", None)
        name = own if isinstance(own, str) else f"callable {secrets.token_hex(8)}"
        object.__setattr__(self, "fingerprint", name)

    def prepare(self, media: object) -> Preprocessed:
        """Return the inputs that the encoder takes of one decoded medium.

        Raises:
            InvalidMediaError: (a `ValueError`) inputs that are NaN or infinite.
            InvalidArgumentError: (a `ValueError`) preprocessing that returned no tensors.
        """
        import torch

        if isinstance(self.preprocess, Preprocessor):
            prepared: Preprocessed | torch.Tensor = self.preprocess.prepare(media)
        else:
            prepared = self.preprocess(media)
        if isinstance(prepared, torch.Tensor):
            prepared = Preprocessed((prepared,))
        if not isinstance(prepared, Preprocessed) or not prepared.items:
            raise InvalidArgumentError(
                f"Preprocessing returned {type(prepared).__name__}; expected a tensor, or a "
                "Preprocessed with items."
            )
        for item in prepared.items:
            if not torch.isfinite(item).all():
                raise InvalidMediaError(f"NaN or infinite values in the input of shape {tuple(item.shape)}.")
        return prepared

    def encode(self, batch: "torch.Tensor", grid_thw: tuple[int, int, int] | None) -> "list[torch.Tensor]":
        """Return the tokens (tokens, width) of each item of a batch.

        Raises:
            InvalidArgumentError: (a `ValueError`) the encoder returned something else than promised.
        """
        import torch

        grids = (
            {} if grid_thw is None else {"grid_thw": torch.tensor([grid_thw] * len(batch), dtype=torch.int64)}
        )
        with torch.no_grad():
            outputs = self.encoder(batch, **grids)
        promised = f"for a batch of {len(batch)}; expected one (tokens, width) tensor for each item."
        if isinstance(outputs, torch.Tensor):
            if outputs.ndim != 3 or len(outputs) != len(batch):
                raise InvalidArgumentError(f"The encoder returned a tensor {tuple(outputs.shape)} {promised}")
        elif not isinstance(outputs, (list, tuple)):
            raise InvalidArgumentError(f"The encoder returned {type(outputs).__name__} {promised}")
        elif len(outputs) != len(batch):
            raise InvalidArgumentError(f"The encoder returned {len(outputs)} items {promised}")
        return list(outputs)

    def check_output(self, output: "torch.Tensor") -> "torch.Tensor":
        """Return a copy of the tokens of one item, checked.

        Raises:
            InvalidArgumentError: (a `ValueError`) not (tokens, width), another number of tokens or another
                width than promised, NaN or infinite values.
        """
        import torch

        check_embeddings("What an encoder returns for an item", output)
        width = self.projector.in_features if isinstance(self.projector, Projector) else None
        expected = (self.tokens or output.shape[0], width or output.shape[1])
        if tuple(output.shape) != expected:
            raise InvalidArgumentError(
                f"The encoder returned {tuple(output.shape)} (tokens, width) for an item; "
                f"expected {expected}."
            )
        if not torch.isfinite(output).all():
            raise InvalidArgumentError("The encoder returned NaN or infinite values.")
        # A copy of its own: a slice would keep the whole batch alive, and what a cache holds must not change.
        return output.detach().clone()


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the encoder made of one part.

    Attributes:
        tokens: (tokens, width), those of all its items one after the other.
        grid_thw: as in `Preprocessed`.
        timestamps: as in `Preprocessed`.
    """

    tokens: "torch.Tensor"
    grid_thw: tuple[int, int, int] | None = None
    timestamps: tuple[float, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the tokens."""
        return self.tokens.nbytes


@dataclass(eq=False)
class Job:
    """One part on its way through the encoder.

    Attributes:
        part: the part.
        path: its way.
        done: called with the result as soon as all its items have been encoded.
        failed: called with the error if a batch fails that holds no other part; of a batch that was shared it
            is not known whose fault it was.
    """

    part: ContentPart
    path: EncoderPath
    done: Callable[[Encoded], None]
    failed: Callable[[Exception], None]
    prepared: Preprocessed | None = None
    outputs: "dict[int, torch.Tensor]" = field(default_factory=dict)

    def receive(self, index: int, output: "torch.Tensor") -> None:
        """Take the tokens of one item."""
        import torch

        assert self.prepared is not None
        self.outputs[index] = output
        if len(self.outputs) < len(self.prepared.items):
            return
        parts = [self.outputs[index] for index in range(len(self.outputs))]
        try:
            tokens = parts[0] if len(parts) == 1 else torch.cat(parts)
        except RuntimeError:
            widths = sorted({part.shape[1] for part in parts})
            raise InvalidArgumentError(
                f"The encoder returned different widths for one part: {widths}."
            ) from None
        encoded = Encoded(tokens, self.prepared.grid_thw, self.prepared.timestamps)
        self.prepared = None  # pixels are not held longer than needed
        self.outputs.clear()
        self.done(encoded)


class Batcher:
    """Collects the items of many parts by shape and encodes each batch as soon as it is full.

    Items of one encoder and one shape share batches, whichever part and modality they come from.
    """

    def __init__(self) -> None:
        self._batches: dict[Hashable, list[tuple[Job, int]]] = {}

    def add(self, job: Job, prepared: Preprocessed) -> None:
        """Take a part; full batches are encoded at once."""
        job.prepared = prepared
        for index, item in enumerate(prepared.items):
            kind = (
                id(job.path.encoder),
                job.path.max_batch,
                tuple(item.shape),
                item.dtype,
                prepared.grid_thw,
            )
            batch = self._batches.setdefault(kind, [])
            batch.append((job, index))
            if len(batch) == job.path.max_batch:
                _encode_batch(self._batches.pop(kind))

    def flush(self) -> None:
        """Encode what is left."""
        while self._batches:
            _encode_batch(self._batches.pop(next(iter(self._batches))))


def _encode_batch(batch: list[tuple[Job, int]]) -> None:
    import torch

    jobs = {id(job): job for job, _ in batch}.values()
    path = batch[0][0].path
    prepared = [job.prepared for job, _ in batch]
    inputs = torch.stack(
        [item.items[index] for item, (_, index) in zip(prepared, batch, strict=True) if item]
    )
    try:
        outputs = path.encode(inputs, prepared[0].grid_thw if prepared[0] else None)
        for (job, index), output in zip(batch, outputs, strict=True):
            job.receive(index, job.path.check_output(output))
    except Exception as error:
        if len(jobs) > 1:
            raise
        (job,) = jobs
        job.failed(error)
        raise job.part.error(error) from error
