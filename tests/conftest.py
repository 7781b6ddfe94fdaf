"""What all tests share: an environment without settings, and a real server."""

import gc
import importlib.util
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import needs
from support.server import Server

needs.let_torchvision_load()

if importlib.util.find_spec("hypothesis") is not None:  # the session of vLLM has none
    from hypothesis import HealthCheck, settings

    # On a busy machine a single example takes as long as it likes.
    settings.register_profile("any clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any clock")

# Where torch can't be had, files of tests that import it at their head are left out, and so are examples of
# modules that use it. A test among others asks for it itself: `pytest.importorskip("torch")`.
_USES_TORCH = re.compile(r"^(import torch|from support\.towers)\b", re.MULTILINE)
_HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore = [
    str(path)
    for path in Path(__file__).parent.rglob("*.py")
    if not _HAS_TORCH and _USES_TORCH.search(path.read_text(encoding="utf-8"))
]
collect_ignore.append(str(Path(__file__).parent / "typed"))  # which type checkers read, and nobody runs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Examples run where their modules do."""
    for item in items:
        if (
            not _HAS_TORCH
            and isinstance(item, pytest.DoctestItem)
            and re.search(r"\bimport torch\b", item.path.read_text(encoding="utf-8"))
        ):
            item.add_marker(pytest.mark.skip(reason="needs torch"))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: no collection of garbage looks through it again."""
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are decoded in two processes of their own."""
    monkeypatch.setenv("MMMEDIA_DECODE_PROCESSES", "2")


@pytest.fixture(scope="module")
def workers_end() -> Iterator[None]:
    """Such processes do not outlive the tests of a file."""
    yield
    from mmmedia.work import isolated

    isolated.shutdown()
