"""The exceptions of `vllm.exceptions` by their names there, for code written for vLLM.

Each is a `MediaError`, with the status that an engine answers with::

    MediaError
    └── VLLMError
        ├── VLLMClientError                  400
        │   ├── VLLMValidationError          400   ValueError
        │   └── VLLMUnprocessableEntityError 422   ValueError
        └── VLLMServerError                  500

As in vLLM 0.20, and other than in 0.33, the two that name a parameter are each a `ValueError` as well: who
catches that goes on catching them.
"""

from mmmedia.errors import MediaError


class VLLMError(MediaError):
    """The root of vLLM's own exceptions."""


class VLLMClientError(VLLMError):
    """A request that can't be served as it is."""


class VLLMServerError(VLLMError):
    """A failure that the client can do nothing about."""

    http_status = 500


class _ParameterError(VLLMClientError, ValueError):
    def __init__(self, message: str = "", *, parameter: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.value = value


class VLLMValidationError(_ParameterError):
    """A parameter of a request with a value that it can't have.

    Attributes:
        parameter: its name, or None.
        value: what it was; not part of the text, as it may be a URL with credentials, or media.

    >>> error = VLLMValidationError("Too large", parameter="audio_filesize_mb", value=31.5)
    >>> str(error), error.parameter, error.http_status
    ('Too large', 'audio_filesize_mb', 400)
    """


class VLLMUnprocessableEntityError(_ParameterError):
    """Media that were named by a well-formed request and can't be had or read; attributes as above."""

    http_status = 422
