"""A platform for a vLLM whose wheel was built for another device: its own CPU platform, named from outside.

Installed as an entry point of `vllm.platform_plugins`.
"""


def platform() -> str:
    """Return the class that vLLM is to use."""
    return "vllm.platforms.cpu.CpuPlatform"
