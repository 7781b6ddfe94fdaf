"""Files that ended a worker: one that ended two is not decoded a third time within the hour."""

import hashlib
import threading
import time
from collections import OrderedDict
from typing import Final

_SECONDS: Final = 3600.0
_DEATHS: Final = 2
_REMEMBERED: Final = 4096


class Offenders:
    """Which files ended workers, by their contents.

    >>> offenders = Offenders()
    >>> offenders.blame(b"abc")
    >>> offenders.blame(b"abc")
    >>> offenders.is_barred(b"abc"), offenders.is_barred(b"abd")
    (True, False)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._deaths: OrderedDict[tuple[int, bytes], tuple[int, float]] = OrderedDict()
        self._lengths: set[int] = set()

    def blame(self, data: bytes) -> None:
        """Note that a worker died of a file."""
        key, now = (len(data), _digest(data)), time.monotonic()
        with self._lock:
            deaths, last = self._deaths.pop(key, (0, now))
            self._deaths[key] = (deaths + 1 if now - last < _SECONDS else 1), now
            while len(self._deaths) > _REMEMBERED:
                self._deaths.popitem(last=False)
            self._lengths = {length for length, _ in self._deaths}

    def is_barred(self, data: bytes) -> bool:
        """Say whether a file is not to be decoded for now."""
        if len(data) not in self._lengths:  # and so hardly any file is hashed
            return False
        deaths, last = self._deaths.get((len(data), _digest(data)), (0, 0.0))
        return deaths >= _DEATHS and time.monotonic() - last < _SECONDS


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()
