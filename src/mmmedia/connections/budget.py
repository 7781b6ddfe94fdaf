"""`MediaRequestDownloadBudget`: what all downloads of one request may bring together."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from mmmedia import envs
from mmmedia.exceptions import MediaRequestDownloadSizeExceededError


class RequestBudget(Protocol):
    """What a request may still download; as `MediaRequestDownloadBudget`."""

    def charge(self, num_bytes: int, /) -> object:
        """Take so many bytes; raise if the request has used up its share."""


class Uncopied:
    """A budget: what used a copy of it would not count, so that it has none, here or in other processes."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"A {type(self).__name__} can't be copied or pickled, nor what has one: "
            "it is used up once. Give another process a budget of its own."
        )


class Toll:
    """Has all who share a download pay for each piece of it as it comes, each from its own budget.

    Who can't pay is told, and pays no more; when nobody is left who can, the download is given up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._payers: list[tuple[RequestBudget, Callable[[Exception], object]]] = []

    def join(self, budget: RequestBudget, refuse: Callable[[Exception], object]) -> None:
        """Pay for what has come, and from now on for what comes; once, however often it is said.

        Args:
            budget: is charged; what it raises now is raised.
            refuse: is told of what it raises later, in the thread that downloads.
        """
        with self._lock:
            if (budget, refuse) not in self._payers:
                if self._received:
                    budget.charge(self._received)
                self._payers.append((budget, refuse))

    def charge(self, size: int) -> None:
        """Have everyone pay for so many bytes; raise what the last who could pay can't."""
        refused: list[tuple[Callable[[Exception], object], Exception]] = []
        with self._lock:
            self._received += size
            for payer in list(self._payers):
                try:
                    payer[0].charge(size)
                except Exception as error:  # noqa: BLE001  # its budget's own
                    self._payers.remove(payer)
                    refused.append((payer[1], error))
            is_over = not self._payers
        for refuse, reason in refused:
            refuse(reason)
        if refused and is_over:
            raise refused[-1][1]


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
                    f"of {self._limit} are used, including retried attempts "
                    "(VLLM_MAX_MEDIA_REQUEST_DOWNLOAD_SIZE_MB)."
                )
            self.used += size
