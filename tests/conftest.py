"""What all tests share: an environment without settings, and a real server."""

import logging
import os
from collections.abc import Iterator

import pytest

from support.server import Server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, proxy or certificate bundle of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith(("VLLM_", "MMMEDIA_")) or name.lower().endswith("_proxy") or "CA_BUNDLE" in name:
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def clean_logging() -> Iterator[None]:
    """What the command line sets for its own process does not outlive a test."""
    logger = logging.getLogger("mmmedia")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on loopback; it counts what arrives."""
    with Server() as server:
        yield server
