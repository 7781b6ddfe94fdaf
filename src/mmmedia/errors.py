"""Every exception of this library.

Each is a `MediaError`, and each is also of the built-in type that callers already catch::

    MediaError
    ├── InvalidMediaError      ValueError            bytes that are not what they should be
    ├── UnsupportedMediaError  NotImplementedError   a form of input or output this library does not have
    ├── InvalidArgumentError   ValueError            an argument the caller got wrong
    ├── InvalidSettingError    ValueError            an environment variable that can't be read
    ├── InvalidURLError        ValueError            a URL of no known kind or shape
    ├── RefusedURLError        ValueError            a URL the operator's policy does not admit
    ├── LimitExceededError     ValueError            more bytes, pixels or seconds than a limit admits
    ├── LocalFilesDisabledError RuntimeError         file URLs where no local path is allowed
    ├── LocalFileError         OSError, ValueError   a file URL that names no readable regular file
    │   └── LocalFileNotFoundError  FileNotFoundError    … because nothing is there
    └── UnknownExtensionError  AssertionError        a name nobody registered

Network failures are the exception: requests' and aiohttp's own errors reach the caller.
"""


class MediaError(Exception):
    """The root of all errors of this library."""


class InvalidMediaError(MediaError, ValueError):
    """Bytes that can't be decoded as what they were said to be."""


class UnsupportedMediaError(MediaError, NotImplementedError):
    """A form of input or output that this library does not have."""


class InvalidArgumentError(MediaError, ValueError):
    """An argument that the caller got wrong."""


class InvalidSettingError(MediaError, ValueError):
    """An environment variable whose value can't be read."""


class InvalidURLError(MediaError, ValueError):
    """A URL of no known kind or shape."""


class RefusedURLError(MediaError, ValueError):
    """A URL that the operator's policy does not admit."""


class LimitExceededError(MediaError, ValueError):
    """More bytes, pixels or seconds than a limit admits."""


class LocalFilesDisabledError(MediaError, RuntimeError):
    """A file URL where no local path is allowed."""


class LocalFileError(MediaError, OSError, ValueError):
    """A file URL that names no readable regular file."""


class LocalFileNotFoundError(LocalFileError, FileNotFoundError):
    """A file URL that names nothing."""


class UnknownExtensionError(MediaError, AssertionError):
    """A registry name that nobody registered."""
