"""vLLM's exceptions by their names."""

import pickle

import pytest

from mmmedia.connections import http_status
from mmmedia.errors import MediaError
from mmmedia.exceptions import (
    VLLMClientError,
    VLLMError,
    VLLMServerError,
    VLLMUnprocessableEntityError,
    VLLMValidationError,
)


def test_tree() -> None:
    """Client's and server's errors are told apart, and all are errors of this library."""
    assert VLLMError.__mro__[1] is MediaError
    assert issubclass(VLLMClientError, VLLMError)
    assert issubclass(VLLMServerError, VLLMError)
    assert not issubclass(VLLMServerError, VLLMClientError)
    for kind in (VLLMValidationError, VLLMUnprocessableEntityError):
        assert issubclass(kind, VLLMClientError)
        assert issubclass(kind, ValueError)
    # An engine asks for the first before it asks for the second.
    assert not issubclass(VLLMUnprocessableEntityError, VLLMValidationError)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (VLLMClientError, 400),
        (VLLMValidationError, 400),
        (VLLMUnprocessableEntityError, 422),
        (VLLMServerError, 500),
    ],
)
def test_status(kind: type[VLLMError], status: int) -> None:
    """What an engine answers its client with."""
    assert http_status(kind("no")) == status


@pytest.mark.parametrize("kind", [VLLMValidationError, VLLMUnprocessableEntityError])
def test_parameter_and_value(kind: type[VLLMValidationError]) -> None:
    """They are attributes, survive pickling, and stand in the text, URLs without what is secret."""
    error = kind("Not there", parameter="image_url", value="https://user:secret@example.org/")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (each.text, each.parameter, each.value) == ("Not there", "image_url", error.value)
        assert str(each) == "Not there (parameter=image_url, value=https://example.org/)"
    assert kind("Not there").parameter is None
    assert kind("Not there").value is None
    assert str(kind("Not there")) == "Not there"
    assert len(str(kind("Too long", value=b"x" * 100_000))) < 100
