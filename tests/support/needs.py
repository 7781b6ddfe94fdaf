"""What some tests can't do without."""

import importlib.util
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

_SHIM = Path(__file__).parents[1] / "integrations/vllm_real/environment/torchvision_cpu_shim.py"


def torch_for(sampler: str) -> None:
    """Skip a test of a sampler that computes with torch, where there is none."""
    if sampler == "qwen2_vl":
        pytest.importorskip("torch")


def torchvision() -> None:
    """Skip a file where there is no torchvision, or let one built for CUDA load beside another torch."""
    try:
        build = version("torchvision")
    except PackageNotFoundError:
        pytest.skip("needs torchvision", allow_module_level=True)
    torch = pytest.importorskip("torch")
    if "+cu" in build and torch.version.cuda is None and _SHIM.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(_SHIM.stem, _SHIM)
        sys.modules[_SHIM.stem] = shim = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shim)
