"""Every exception of this library.

Each is a `MediaError`, and each is also of the built-in type that callers already catch::

    MediaError
    ├── InvalidMediaError      ValueError            bytes that are not what they should be
    ├── UnsupportedMediaError  NotImplementedError   a form of input or output this library does not have
    ├── NotSeekableError       ValueError            a video that decode="seek" can't prove exact
    ├── NotSparseError         ValueError            a video that fetch="always" can't read in pieces
    ├── SourceChangedError     OSError               what is read in pieces has become another thing
    ├── InvalidArgumentError   ValueError            an argument the caller got wrong
    │   ├── RecoveryError      … and AssertionError  frame_recovery with a decoder that has none
    │   └── PoolSizeError      … and RuntimeError    another number of decoders than the process has
    ├── InvalidSettingError    ValueError            an environment variable that can't be read
    ├── InvalidURLError        ValueError            a URL of no known kind or shape
    ├── RefusedURLError        ValueError            a URL the operator's policy does not admit
    ├── LimitExceededError     ValueError            more bytes, pixels or seconds than a limit admits
    ├── MissingRateError       RuntimeError, ValueError  a resampler without a rate to resample to
    ├── LocalFilesDisabledError RuntimeError         file URLs where no local path is allowed
    ├── LocalFileError         OSError, ValueError   a file URL that names no readable regular file
    │   └── LocalFileNotFoundError  FileNotFoundError    … because nothing is there
    ├── RemoteFileError        OSError               an object of a bucket that can't be read
    │   ├── RemoteFileNotFoundError  FileNotFoundError  … because nothing is there
    │   └── RemoteFileDeniedError    PermissionError    … because the store does not admit it
    ├── MissingPackageError    ImportError           a package that only this needs
    ├── PartError              what the failure was  one content part of a request that failed
    └── UnknownExtensionError  AssertionError        a name nobody registered

Network failures are the exception: requests' and aiohttp's own errors reach the caller.
"""


class MediaError(Exception):
    """The root of all errors of this library.

    Attributes:
        http_status: what an engine may answer its client with: 400 for a request that can't be served as it
            is, 422 for media that can't be read or are too large, 500 for a mistake of the operator.
            `mmmedia.connections.http_status` tells it for the errors of requests and aiohttp as well.
    """

    http_status: int = 400


class InvalidMediaError(MediaError, ValueError):
    """Bytes that can't be decoded as what they were said to be."""

    http_status = 422


class UnsupportedMediaError(MediaError, NotImplementedError):
    """A form of input or output that this library does not have."""

    http_status = 422


class NotSeekableError(MediaError, ValueError):
    """A video that was to be decoded by seeking only, and for which that can't be proven exact."""

    http_status = 422


class NotSparseError(MediaError, ValueError):
    """A video that was to be read in pieces only, and of which that can't be."""

    http_status = 422

    @classmethod
    def of(cls, name: str, reason: str) -> "NotSparseError":
        """Return the error of a source by its name for messages."""
        return cls(f"{name!r} can't be read in pieces: {reason} (MMMEDIA_SPARSE_FETCH=always).")


class SourceChangedError(MediaError, OSError):
    """What is read in pieces has become another thing midway.

    Attributes:
        whole: all of what it has become, where that came; None: it did not.
    """

    http_status = 503
    whole: bytes | None = None

    @classmethod
    def of(cls, name: str, whole: bytes | None = None) -> "SourceChangedError":
        """Return the error of a source by its name for messages."""
        error = cls(f"{name!r} was changed while it was read in pieces.")
        error.whole = whole
        return error


class InvalidArgumentError(MediaError, ValueError):
    """An argument that the caller got wrong."""


class RecoveryError(InvalidArgumentError, AssertionError):
    """`frame_recovery` with a decoder that gives all frames or none."""


class PoolSizeError(InvalidArgumentError, RuntimeError):
    """Another number of hardware decoders than the process has already."""


class InvalidSettingError(MediaError, ValueError):
    """An environment variable whose value can't be read."""

    http_status = 500


class InvalidURLError(MediaError, ValueError):
    """A URL of no known kind or shape."""


class RefusedURLError(MediaError, ValueError):
    """A URL that the operator's policy does not admit.

    Attributes:
        reason: the rule that does not: "url", "domain", "address", "port", "redirect", "path" or "bucket".
    """

    reason = "url"

    def __init__(self, *args: object, reason: str = "url") -> None:
        super().__init__(*args)
        self.reason = reason


class LimitExceededError(MediaError, ValueError):
    """More bytes, pixels or seconds than a limit admits."""

    http_status = 422


class MissingRateError(MediaError, RuntimeError, ValueError):
    """A resampler that was given no rate to resample to."""


class LocalFilesDisabledError(MediaError, RuntimeError):
    """A file URL where no local path is allowed."""


class LocalFileError(MediaError, OSError, ValueError):
    """A file URL that names no readable regular file."""


class LocalFileNotFoundError(LocalFileError, FileNotFoundError):
    """A file URL that names nothing."""


class RemoteFileError(MediaError, OSError):
    """An object of a bucket that can't be read, perhaps only now."""

    http_status = 503


class RemoteFileNotFoundError(RemoteFileError, FileNotFoundError):
    """A URL that names no object of its bucket."""

    http_status = 422


class RemoteFileDeniedError(RemoteFileError, PermissionError):
    """An object that the store does not give to this process."""

    http_status = 422


class MissingPackageError(MediaError, ImportError):
    """An optional package that what was asked for needs."""

    http_status = 500


class UnknownExtensionError(MediaError, AssertionError):
    """A registry name that nobody registered."""


class PartError(MediaError):
    """One content part of a request that failed, with its place in the request.

    What is raised is also of the type of the failure itself (`ValueError`, `requests.Timeout`, …) and has
    its attributes, so that callers catch what they would without the pipeline. The failure is `__cause__`.

    Attributes:
        message_index: index of the message.
        part_index: index of the part in that message.

    >>> try:
    ...     raise PartError.around(TimeoutError("too slow"), 0, 2, "image_url")
    ... except TimeoutError as error:
    ...     print(error, isinstance(error, PartError))
    Message 0, part 2 (image_url): too slow True
    """

    message_index: int
    part_index: int

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)  # not that of the failure, which may ask for more

    @classmethod
    def around(cls, error: Exception, message_index: int, part_index: int, part_type: str) -> "PartError":
        """Return the error to raise for `error` in that part."""
        text = (
            f"Message {message_index}, part {part_index} ({part_type}): {str(error) or type(error).__name__}"
        )
        kind = _part_error_kind(type(error))
        try:
            part_error = kind(text)
        except TypeError:  # a type that can't be made from a text
            part_error = cls(text)
        part_error.__dict__.update(error.__dict__)
        part_error.message_index, part_error.part_index = message_index, part_index
        part_error.__cause__ = error
        return part_error

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[object, ...]:
        return _restore_part_error, (self.__cause__, self.message_index, self.part_index, self.args[0])


def _part_error_kind(failure: type[Exception]) -> type[PartError]:
    """Return the type of `PartError` that is also a `failure`."""
    try:
        return type("PartError", (PartError, failure), {"__module__": __name__, "__doc__": PartError.__doc__})
    except TypeError:  # a type that nothing can inherit from together with ours
        return PartError


def _restore_part_error(error: Exception, message_index: int, part_index: int, text: str) -> PartError:
    restored = PartError.around(error, message_index, part_index, "")
    restored.args = (text,)
    return restored
