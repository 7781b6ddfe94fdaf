"""What some tests can't do without."""

import pytest


def torch_for(sampler: str) -> None:
    """Skip a test of a sampler that computes with torch, where there is none."""
    if sampler == "qwen2_vl":
        pytest.importorskip("torch")
