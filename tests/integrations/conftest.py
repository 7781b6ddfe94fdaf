"""What needs a real vLLM is looked at where there is one; what makes its environment is no test."""

from importlib.util import find_spec

collect_ignore = ["vllm_real/environment"] if find_spec("vllm") else ["vllm_real"]
