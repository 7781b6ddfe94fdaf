"""The exceptions of `vllm.exceptions` by their names there, for code written for vLLM.

Each is a `MediaError`, with the status that an engine answers with::

    MediaError
    └── VLLMError
        ├── VLLMClientError                  400
        │   ├── VLLMValidationError          400   ValueError
        │   └── VLLMUnprocessableEntityError 422   ValueError
        └── VLLMServerError                  500

and those of `vllm.connections`, of sizes, which are each a `LimitExceededError`, and so a `ValueError`.

As in vLLM 0.20, and other than in 0.33, the two that name a parameter are each a `ValueError` as well: who
catches that goes on catching them.
"""

from typing import Any, Self

from mmmedia.errors import LimitExceededError, MediaError
from mmmedia.urls import redact_url

_MIB = 1 << 20


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

    @property
    def text(self) -> str:
        """What was said, without parameter and value."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        about = {"parameter": self.parameter, "value": _shown(self.value)}
        told = ", ".join(f"{name}={each}" for name, each in about.items() if each is not None)
        return f"{self.text} ({told})" if told else self.text

    @classmethod
    def around(cls, error: Exception, message: str, *, parameter: str, value: object) -> Self:
        """Return an error of this class that is also of the type of another, with that one's attributes.

        So who catches the errors of requests or aiohttp goes on catching them.
        """
        kind: Any = _mixed(cls, type(error))
        # By order of the bases it would be `ValueError`'s, which can't make what is an `OSError` too.
        made = (OSError if issubclass(kind, OSError) else Exception).__new__(kind, message)
        Exception.__init__(made, message)
        vars(made).update(vars(error))
        made.parameter, made.value = parameter, value
        made.__cause__ = error
        return made  # type: ignore[no-any-return]


def _shown(value: object) -> str | None:
    """Return what may be shown of a value."""
    if value is None:
        return None
    text = value if isinstance(value, str) else f"{value!r:.64}"
    is_url = "://" in text or text[:5].lower() == "data:"
    return redact_url(text) if is_url else text[:64]


def _mixed(kind: type[_ParameterError], other: type[Exception]) -> type:
    names = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "http_status": kind.http_status,
        "__str__": _ParameterError.__str__,
        "__reduce__": lambda self: (_restored, (kind, self.text, self.parameter, self.value)),
    }
    try:
        return type(kind.__name__, (kind, other), names)
    except TypeError:  # a type that nothing can inherit from together with ours
        return type(kind.__name__, (kind,), names)


def _restored(
    kind: type[_ParameterError], message: str, parameter: str | None, value: object
) -> _ParameterError:
    return kind(message, parameter=parameter, value=value)


class VLLMValidationError(_ParameterError):
    """A parameter of a request with a value that it can't have.

    Attributes:
        parameter: its name, or None.
        value: what it was; of a URL the text has neither credentials nor query, and of anything no more than
            64 characters.

    >>> error = VLLMValidationError("Too large", parameter="audio_filesize_mb", value=31.5)
    >>> str(error), error.text, error.http_status
    ('Too large (parameter=audio_filesize_mb, value=31.5)', 'Too large', 400)
    """


class VLLMUnprocessableEntityError(_ParameterError):
    """Media that were named by a well-formed request and can't be had or read; attributes as above."""

    http_status = 422


class HTTPResponseSizeExceededError(VLLMValidationError, LimitExceededError):
    """An encoded file larger than its kind may be: of sound, than `VLLM_MAX_AUDIO_CLIP_FILESIZE_MB`.

    Its `parameter` is "audio_filesize_mb", and its `value` what had come, in MiB.

    Args:
        max_bytes: the limit.
        received_bytes: how many bytes there are, or at least.
        source: what has them, in words.
    """

    http_status = 400

    def __init__(self, max_bytes: float, received_bytes: int, source: str = "the file") -> None:
        super().__init__(
            f"Maximum file size exceeded: {source} has more than {max_bytes:.0f} bytes, the maximum size "
            "of its kind; for sounds VLLM_MAX_AUDIO_CLIP_FILESIZE_MB sets it.",
            parameter="audio_filesize_mb",
            value=received_bytes / _MIB,
        )
        self._made_of = max_bytes, received_bytes, source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._made_of


class MediaDownloadSizeExceededError(LimitExceededError):
    """A download larger than `VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB`.

    Args:
        max_bytes: the limit.
        received_bytes: how many bytes had come, or were announced; `None`: not known.
        source: what was downloaded, in words.

    >>> str(MediaDownloadSizeExceededError(1 << 20, 2 << 20, "'http://example.org/a.png'"))
    "'http://example.org/a.png' has more than 1048576 bytes, the limit of VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB=1."
    """

    def __init__(
        self, max_bytes: float, received_bytes: int | None = None, source: str = "The download"
    ) -> None:
        super().__init__(max_bytes, received_bytes, source)
        self.max_bytes = max_bytes
        self.received_bytes = received_bytes

    def __str__(self) -> str:
        return (
            f"{self.args[2]} has more than {self.max_bytes:.0f} bytes, the limit of "
            f"VLLM_MAX_MEDIA_DOWNLOAD_SIZE_MB={self.max_bytes / _MIB:.6g}."
        )


class MediaRequestDownloadSizeExceededError(LimitExceededError):
    """All downloads of one request are larger than `VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB`."""
