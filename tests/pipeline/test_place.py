"""Pieces stand in the stream in their order, and every token is traced to its part."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from mmmedia.errors import InvalidArgumentError
from mmmedia.pipeline import Span, place


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_every_token_is_traced_to_its_part(lengths):
    pieces = [("image", torch.full((length, 3), float(index))) for index, length in enumerate(lengths)]
    stream = place(pieces)
    assert len(stream) == sum(lengths)
    for token in range(len(stream)):
        span = stream.part_of(token)
        assert span == stream.part_of(token - len(stream))
        assert stream.embeddings[token].tolist() == [span.part_index] * 3
    for index, length in enumerate(lengths):
        assert len(stream.embeddings_of(index)) == length
    for missing in (len(stream), -len(stream) - 1):
        with pytest.raises(InvalidArgumentError, match=f"no token {missing} in a stream of {len(stream)}"):
            stream.part_of(missing)


def test_the_stream_says_what_it_holds_without_its_values():
    stream = place([("text", torch.zeros(2, 4)), ("audio", torch.ones(3, 4))], timestamps={1: (0.5,)})
    assert repr(stream) == "TokenStream(5 tokens x 4, torch.float32: text 0:2, audio 2:5)"
    assert stream.spans == (Span(0, "text", 0, 2), Span(1, "audio", 2, 5))
    assert (stream.timestamps, stream.grids) == ({1: (0.5,)}, {})
    with pytest.raises(InvalidArgumentError, match="no part 2 in a stream of 2"):
        stream.embeddings_of(2)


def test_the_type_is_that_of_the_first_text():
    pieces = [
        ("image", torch.zeros(1, 4)),
        ("text", torch.zeros(1, 4).half()),
        ("text", torch.zeros(1, 4).double()),
    ]
    assert place(pieces).embeddings.dtype == torch.float16
    assert place(pieces[:1]).embeddings.dtype == torch.float32


@pytest.mark.parametrize(
    ("pieces", "fragment"),
    [
        ([], "nothing to place"),
        ([("text", None)], r"part 0 \(text\) must be a tensor"),
        ([("text", torch.zeros(2))], r"part 0 \(text\) must be floating point of shape \(tokens, width\)"),
        (
            [("text", torch.zeros(2, 3)), ("image", torch.zeros(2, 4))],
            r"part 1 \(image\) have the width 4, those",
        ),
    ],
)
def test_what_does_not_fit_is_refused(pieces, fragment):
    with pytest.raises(InvalidArgumentError, match=fragment):
        place(pieces)
