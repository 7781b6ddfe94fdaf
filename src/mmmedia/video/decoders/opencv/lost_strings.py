"""What OpenCV 4 loses by every call of a stream's method: the string of its name."""

import ctypes
import sys


class LostString:
    """A string that native code has made, passed to Python and perhaps forgotten to let go of."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._is_new_each_time = False

    def replace_by(self, text: str) -> None:
        """Let go of the last one, if this is another and nobody but us refers to it."""
        if self._held:
            self._is_new_each_time = self._held[0] is not text
            self._let_go()
        self._held = [text]

    def __del__(self) -> None:
        """Let go of the last one of all."""
        self._let_go()

    def _let_go(self) -> None:
        if _COUNTS_REFERENCES and self._is_new_each_time and _references(self._held) > _OWN_REFERENCES:
            ctypes.pythonapi.Py_DecRef(ctypes.py_object(self._held[0]))


def _references(held: list[str]) -> int:
    return sys.getrefcount(held[0])


_COUNTS_REFERENCES = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
_OWN_REFERENCES = _references(["".join(("re", "ad"))])
