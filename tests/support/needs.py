"""What some tests can't do without."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

_SHIM = Path(__file__).parents[1] / "integrations/vllm_real/environment/torchvision_cpu_shim.py"


def torch_for(sampler: str) -> None:
    """Skip a test of a sampler that computes with torch, where there is none."""
    if sampler == "qwen2_vl":
        pytest.importorskip("torch")


def torchvision() -> None:
    """Skip a test, or a file of tests, where there is no torchvision."""
    if not importlib.util.find_spec("torchvision"):
        pytest.skip("needs torchvision", allow_module_level=True)


@contextmanager
def ray_cluster(cpus: int) -> Iterator[Any]:
    """Ray, on a cluster of this machine; skips a test where there is no Ray."""
    for what in ("raylet_start", "gcs_server_port"):  # where the machine is busy
        os.environ.setdefault(f"RAY_{what}_wait_time_s", "120")
    ray = pytest.importorskip("ray", reason="needs ray: nox -s ray")
    ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield ray
    finally:
        ray.shutdown()


def let_torchvision_load() -> None:
    """Let a torchvision that was built for CUDA load beside a torch that was not; transformers imports it."""
    try:
        build = distribution("torchvision").locate_file("torchvision/version.py")
    except PackageNotFoundError:
        return
    if "+cu" in Path(str(build)).read_text(encoding="utf-8") and _SHIM.stem not in sys.modules:
        spec = importlib.util.spec_from_file_location(_SHIM.stem, _SHIM)
        sys.modules[_SHIM.stem] = shim = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(shim)
