"""Waiting for what other threads are about to do; and not waiting, where a connection would."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from mmmedia.connections import on_loop


def wait_until(condition: Callable[[], object]) -> None:
    """Return as soon as a condition holds, which it must within half a minute."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.001)


class _Asyncio:
    """The module, with another `sleep`."""

    def __init__(self, sleep: Callable[..., Any]) -> None:
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def take_no_time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the waits between attempts take no time, in both halves; return the list that they go into."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:
            waits.append(seconds)

    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(on_loop, "asyncio", _Asyncio(sleep))
    return waits
