"""`MediaRequestDownloadBudget`: what all downloads of one request may bring together."""

import threading
from typing import Any

from mmmedia import envs
from mmmedia.exceptions import MediaRequestDownloadSizeExceededError


class Uncopied:
    """A budget: what used a copy of it would not count, so that it has none, here or in other processes."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"A {type(self).__name__} can't be copied or pickled, nor what has one: "
            "it is used up once. Give another process a budget of its own."
        )


class MediaRequestDownloadBudget(Uncopied):
    """The bytes that one request may download, charged from any thread; nothing is ever given back.

    Args:
        max_bytes: the ceiling, 0 or less for none; `None`: `VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB`.

    >>> budget = MediaRequestDownloadBudget(100)
    >>> budget.charge(60)
    >>> budget.used
    60
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self._limit = envs.VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB << 20 if max_bytes is None else max_bytes
        self._lock = threading.Lock()
        self.used = 0

    def charge(self, size: int) -> None:
        """Take so many bytes, or none.

        Raises:
            MediaRequestDownloadSizeExceededError: (a `ValueError`) there are not so many left.
        """
        with self._lock:
            if 0 < self._limit < self.used + size:
                raise MediaRequestDownloadSizeExceededError(
                    f"{size} more downloaded bytes are too many for one request, of which {self.used} "
                    f"of {self._limit} are used (VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB)."
                )
            self.used += size
